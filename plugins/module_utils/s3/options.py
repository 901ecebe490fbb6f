# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that all modules share that talk to the object store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .client import S3Client, S3Error
from .google import GoogleClient, ServiceAccount
from .signature import Credentials

STORE_SPEC: dict[str, Any] = {
    "endpoint": {"type": "str", "required": True},
    "access_key": {"type": "str", "default": "", "no_log": False},
    "secret_key": {"type": "str", "default": "", "no_log": True},
    "region": {"type": "str", "default": "us-east-1"},
    "store_ca_certificate": {"type": "str", "default": ""},
    "backend": {"type": "bool", "default": False},
    "speaks": {"type": "str", "choices": ["s3", "google"], "default": "s3"},
    "service_account": {"type": "str", "default": "", "no_log": True},
}


def credentials_from(options: Mapping[str, Any]) -> Credentials:
    """The key pair that a module's options name."""
    return Credentials(options["access_key"], options["secret_key"], options["region"])


def client_from(options: Mapping[str, Any]) -> S3Client:
    """The client that a module's options describe."""
    if options["speaks"] == "google":
        account = ServiceAccount.parse(options["service_account"]) if options["service_account"] else None
        region = options["region"]
        # The default is a region of S3 and means that none was chosen.
        location = "" if region == "us-east-1" else region
        return GoogleClient(options["endpoint"], account, ca_data=options["store_ca_certificate"], location=location)
    if not options["access_key"] or not options["secret_key"]:
        raise S3Error("access_key and secret_key are empty; set circleci_object_storage_access_key and circleci_object_storage_secret_key")
    return S3Client(options["endpoint"], credentials_from(options), ca_data=options["store_ca_certificate"], backend=options["backend"])
