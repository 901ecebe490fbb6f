# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about what a site asks of its cloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..plugin_utils import cloud_request
from ..plugin_utils.catalog import Catalog, CatalogError
from ..plugin_utils.site_catalog import PLAIN, with_catalog


def _storage(site: Mapping[str, Any], *, catalog: Catalog = PLAIN) -> dict[str, Any]:
    try:
        return cloud_request.storage_options(catalog, site)
    except CatalogError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"cloud_storage_options": with_catalog(_storage)}
