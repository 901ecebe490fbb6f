# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Every address that is talked to, known without talking."""

from __future__ import annotations

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
DNS = {"aws": "https://route53.amazonaws.com", "gcp": "https://dns.googleapis.com"}
"""API of the names of a cloud, where it is one of its own."""


def _aws(service: str, region: str) -> str:
    return f"https://{service}.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def dns_region(region: str) -> str:
    """The region that requests to Route 53 are signed for: it has one for each partition of AWS, wherever the zone is used."""
    return {"cn": "cn-northwest-1", "us-gov": "us-gov-west-1"}.get(region.rpartition("-")[0].rpartition("-")[0], "us-east-1")


def dns_api(provider: str, region: str, endpoint: str = "", own: str = "") -> str:
    """Where names are set: *own*, if the site has another address for it, else that of the cloud."""
    if own or provider not in DNS:
        return (own or endpoint or APIS[provider]).rstrip("/")
    if provider == "aws" and dns_region(region) != "us-east-1":
        return "https://route53.amazonaws.com.cn" if region.startswith("cn-") else "https://route53.us-gov.amazonaws.com"
    return DNS[provider]


def endpoints(provider: str, region: str, endpoint: str = "", token: bool = False, parts: Optional[Mapping[str, str]] = None) -> list[str]:
    """Every address that the verb talks to. With a *token* nothing has to be asked for one.

    *parts* are what the site asks for beside the firewall, each with the URL that it has for it: C(object_storage), C(dns).
    """
    asked = parts or {}
    api = (endpoint or (_aws("ec2", region) if provider == "aws" else APIS[provider])).rstrip("/")
    found = [api]
    # Containers of Azure are made by the same API as all else there; every other store has an address of its own.
    if asked.get("object_storage") and provider != "azure":
        found.append(asked["object_storage"].rstrip("/"))
    if "dns" in asked:
        found.append(dns_api(provider, region, endpoint, asked["dns"]))
    if provider == "aws":
        # Roles that a profile or a token of the cluster names are taken there.
        found += [_aws("sts", name) for name in ((region, dns_region(region)) if "dns" in asked else (region,)) if name and not endpoint]
        found.append(METADATA)
    elif provider == "gcp" and not token:
        found += GOOGLE_TOKENS
    elif provider == "azure" and not token:
        found += [AZURE_LOGINS.get(api, AZURE_LOGINS[APIS["azure"]]), METADATA]
    return list(dict.fromkeys(found))
