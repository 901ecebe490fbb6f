# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that all modules share that talk to the object store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .client import S3Client
from .signature import Credentials

STORE_SPEC: dict[str, Any] = {
    "endpoint": {"type": "str", "required": True},
    "access_key": {"type": "str", "required": True, "no_log": False},
    "secret_key": {"type": "str", "required": True, "no_log": True},
    "region": {"type": "str", "default": "us-east-1"},
    "store_ca_certificate": {"type": "str", "default": ""},
    "backend": {"type": "bool", "default": False},
}


def credentials_from(options: Mapping[str, Any]) -> Credentials:
    """The key pair that a module's options name."""
    return Credentials(options["access_key"], options["secret_key"], options["region"])


def client_from(options: Mapping[str, Any]) -> S3Client:
    """The client that a module's options describe."""
    return S3Client(options["endpoint"], credentials_from(options), ca_data=options["store_ca_certificate"], backend=options["backend"])
