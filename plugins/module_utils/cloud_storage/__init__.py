# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""The object storage of a site as its cloud has it.

Buckets go by the engine of the role object_storage, here with the credentials of the cloud and with what only the cloud can do for them. Containers of
Azure have no interface of S3 and go by Azure Resource Manager.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import buckets, containers
from .buckets import Buckets, of_aws, of_digitalocean, of_google
from .containers import Containers

__all__ = ["Buckets", "Containers", "of_aws", "of_digitalocean", "of_google", "requested"]


def requested(provider: str, options: Mapping[str, Any], tag: str) -> Iterator[tuple[str, str]]:
    """Each thing that is asked for and what it has to be, without a look at the cloud."""
    return containers.requested(options, tag) if provider == "azure" else buckets.requested(provider, options, tag)
