# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Every address that is talked to, known without talking."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Optional

APIS = {"gcp": "https://compute.googleapis.com", "azure": "https://management.azure.com", "digitalocean": "https://api.digitalocean.com"}
AZURE_LOGINS = {
    "https://management.azure.com": "https://login.microsoftonline.com",
    "https://management.usgovcloudapi.net": "https://login.microsoftonline.us",
    "https://management.chinacloudapi.cn": "https://login.partner.microsoftonline.cn",
}
"""API of each cloud of Azure, and where its tokens come from."""
METADATA = "http://169.254.169.254"
"""Where machines of a cloud find their own identity."""
GOOGLE_TOKENS = ("https://oauth2.googleapis.com", "http://metadata.google.internal", METADATA)
OWN = {
    "dns": {
        "aws": {"": "https://route53.amazonaws.com", "cn": "https://route53.amazonaws.com.cn", "us-gov": "https://route53.us-gov.amazonaws.com"},
        "gcp": {"": "https://dns.googleapis.com"},
    },
    "registry": {
        "aws": {"": "https://iam.amazonaws.com", "cn": "https://iam.cn-north-1.amazonaws.com.cn", "us-gov": "https://iam.us-gov.amazonaws.com"},
        "gcp": {"": "https://artifactregistry.googleapis.com"},
    },
}
"""APIs of what a cloud has an API of its own for: names, and the right to pull from its registry. AWS has one in each of its partitions."""
REGIONS = {"dns": {"cn": "cn-northwest-1", "us-gov": "us-gov-west-1"}, "registry": {"cn": "cn-north-1", "us-gov": "us-gov-west-1"}}
"""Where such an API of AWS is, beside the public partition."""


_ECR = re.compile(r"https://api\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")


def aws_api(service: str, region: str) -> str:
    """The public address of a service of AWS in a region."""
    return f"https://{service}.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def _partition(region: str) -> str:
    """Of AWS; empty for the public one."""
    return next((name for name in ("cn", "us-gov") if region.startswith(f"{name}-")), "")


def part_region(part: str, region: str) -> str:
    """The region that requests about a part of C(OWN) are signed for: AWS has one of it for each partition."""
    return REGIONS[part].get(_partition(region), "us-east-1")


def part_api(part: str, provider: str, region: str, endpoint: str = "", own: str = "") -> str:
    """Where a part of C(OWN) is set: *own*, if the site has another address for it, else that of the cloud."""
    if own or provider not in OWN[part]:
        return (own or endpoint or APIS[provider]).rstrip("/")
    return OWN[part][provider][_partition(region) if provider == "aws" else ""]


def endpoints(provider: str, region: str, endpoint: str = "", token: bool = False, parts: Optional[Mapping[str, str]] = None) -> list[str]:
    """Every address that the verb talks to. With a *token* nothing has to be asked for one.

    *parts* are what the site asks for beside the firewall, each with the URL that it has for it: C(object_storage), C(dns), C(registry),
    C(registry_template).
    """
    asked = parts or {}
    api = (endpoint or (aws_api("ec2", region) if provider == "aws" else APIS[provider])).rstrip("/")
    found = [api]
    # Containers of Azure are made by the same API as all else there; every other store has an address of its own.
    if asked.get("object_storage") and provider != "azure":
        found.append(asked["object_storage"].rstrip("/"))
    if asked.get("registry_template"):
        found.append(asked["registry_template"])
    found += [part_api(part, provider, region, endpoint, asked[part]) for part in OWN if part in asked]
    if provider == "aws":
        # Roles that a profile or a token of the cluster names are taken there.
        regions = (region, *(part_region(part, region) for part in OWN if part in asked), *_ECR.findall(asked.get("registry_template") or ""))
        found += [aws_api("sts", name) for name in regions if name and not endpoint]
        found.append(METADATA)
    elif provider == "gcp" and not token:
        found += GOOGLE_TOKENS
    elif provider == "azure" and not token:
        found += [AZURE_LOGINS.get(api, AZURE_LOGINS[APIS["azure"]]), METADATA]
    return list(dict.fromkeys(found))
