# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""The private endpoint of a storage account of Azure, and the zone in which the network finds it, by Azure Resource Manager."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from ..cloud import TAG, CloudError
from ..cloud.azure import GROUP, GROUP_FORM, Arm

SUBNET = re.compile(
    r"(?P<network>/subscriptions/[0-9a-fA-F-]{36}/resourceGroups/[\w.()-]+/providers/Microsoft\.Network/virtualNetworks/[\w.-]+)/subnets/[\w.-]+", re.IGNORECASE
)
FORM = "the id of one subnet, /subscriptions/<id>/resourceGroups/<name>/providers/Microsoft.Network/virtualNetworks/<network>/subnets/<name>"
ZONE = re.compile(
    r"/subscriptions/[0-9a-fA-F-]{36}/resourceGroups/[\w.()-]+/providers/Microsoft\.Network/privateDnsZones/"
    r"privatelink\.blob\.core\.(?:windows\.net|usgovcloudapi\.net|chinacloudapi\.cn)",
    re.IGNORECASE,
)
ZONE_FORM = "/subscriptions/<id>/resourceGroups/<name>/providers/Microsoft.Network/privateDnsZones/privatelink.blob.core.windows.net"
NETWORK_VERSION, DNS_VERSION = "2023-09-01", "2020-06-01"


def _same(one: str, other: str) -> bool:
    """Ids of Azure are told apart without regard to case."""
    return one.lower() == other.lower()


class PrivateEndpoint:
    """The endpoint is ours and has our tag. The zone may be somebody else's, who then keeps it; only a link to our network is added."""

    def __init__(self, site: str, region: str, network: str, account: str, subnets: Sequence[str], zone: str, token: str, endpoint: str = "") -> None:
        problems = []
        match = SUBNET.fullmatch(subnets[0]) if len(subnets) == 1 else None
        if match is None:
            problems.append(f"circleci_cloud_storage_private_access: found {', '.join(map(repr, subnets))}; Azure needs {FORM}")
        if not GROUP.fullmatch(network):
            problems.append(f"circleci_cloud_network is {network!r}; Azure needs the resource group of the endpoint as {GROUP_FORM}")
        if not region:
            problems.append("circleci_cloud_region is empty; Azure needs the location of the network, for instance westeurope")
        if zone and not ZONE.fullmatch(zone):
            problems.append(f"circleci_cloud_storage_private_zone: found {zone!r}; allowed is {ZONE_FORM}")
        if problems or match is None:
            raise CloudError(*problems)
        self.arm = Arm(region, token, endpoint)
        self.site, self.region, self.subnet, self.network, self.zone = site, region, subnets[0], match["network"], zone
        self.account = f"{network}/providers/Microsoft.Storage/storageAccounts/{account}"
        self.name = f"circleci-{site}-blob"
        self.id = f"{network}/providers/Microsoft.Network/privateEndpoints/{self.name}"
        self.group = f"{self.id}/privateDnsZoneGroups/circleci"
        self.link = f"{zone}/virtualNetworkLinks/circleci-{site}"
        self.notes: list[str] = []
        self.there: dict[str, bool] = {}

    def read(self) -> tuple[list[str], list[str]]:
        found = self.arm.get(self.id, NETWORK_VERSION)
        problems = [*self._problems(found)]
        if problems:
            raise CloudError(*problems)
        wanted = {"endpoint": f"private endpoint {self.name} of {self.account.rpartition('/')[2]} in {self.subnet}"}
        self.there = {"endpoint": found is not None}
        if self.zone:
            domain = self.zone.rpartition("/")[2]
            zone = self.arm.get(self.zone, DNS_VERSION)
            links = list(self.arm.all(f"{self.zone}/virtualNetworkLinks", DNS_VERSION)) if zone else []
            group = self.arm.get(self.group, NETWORK_VERSION) if found else None
            configs = ((group or {}).get("properties") or {}).get("privateDnsZoneConfigs") or []
            wanted.update(
                zone=f"private zone {domain}",
                link=f"private zone {domain} answers in {self.network}",
                group=f"private endpoint {self.name} has its names in {domain}",
            )
            self.there.update(
                zone=zone is not None,
                link=any(_same(str(((item.get("properties") or {}).get("virtualNetwork") or {}).get("id")), self.network) for item in links),
                group=any(_same(str((item.get("properties") or {}).get("privateDnsZoneId")), self.zone) for item in configs),
            )
        return [line for name, line in wanted.items() if self.there[name]], list(wanted.values())

    def _problems(self, found: Optional[dict[str, Any]]) -> Iterator[str]:
        if found is None:
            return
        properties = found.get("properties") or {}
        if (found.get("tags") or {}).get(TAG) != self.site:
            yield f"private endpoint {self.name} is there and was not made by this collection for this site (it lacks the mark); rename or remove it"
            return
        connections = properties.get("privateLinkServiceConnections") or []
        targets = [str((item.get("properties") or {}).get("privateLinkServiceId")) for item in connections]
        subnet = str((properties.get("subnet") or {}).get("id"))
        if not _same(subnet, self.subnet) or not any(_same(target, self.account) for target in targets):
            yield (f"private endpoint {self.name} leads from {subnet} to {', '.join(targets) or 'nothing'}; Azure cannot move it: remove it, and the next run "
                   "makes it anew")  # fmt: skip
        for item in connections:
            state = (item.get("properties") or {}).get("privateLinkServiceConnectionState") or {}
            if state.get("status") not in (None, "Approved"):
                self.notes.append(f"private endpoint {self.name} is {state['status']}: whoever owns {self.account.rpartition('/')[2]} has to approve it")

    def apply(self) -> Iterator[str]:
        tags = {TAG: self.site}
        if not self.there["endpoint"]:
            connection = {"name": self.name, "properties": {"privateLinkServiceId": self.account, "groupIds": ["blob"]}}
            properties = {"subnet": {"id": self.subnet}, "privateLinkServiceConnections": [connection]}
            self.arm.change("PUT", self.id, NETWORK_VERSION, {"location": self.region, "tags": tags, "properties": properties})
            yield f"private endpoint {self.name}"
        if not self.zone:
            return
        if not self.there["zone"]:
            self.arm.change("PUT", self.zone, DNS_VERSION, {"location": "global", "tags": tags, "properties": {}})
            yield "private zone"
        if not self.there["link"]:
            network: dict[str, Any] = {"virtualNetwork": {"id": self.network}, "registrationEnabled": False}
            self.arm.change("PUT", self.link, DNS_VERSION, {"location": "global", "tags": tags, "properties": network})
            yield "link of the private zone"
        if not self.there["group"]:
            config = {"name": "blob", "properties": {"privateDnsZoneId": self.zone}}
            self.arm.change("PUT", self.group, NETWORK_VERSION, {"properties": {"privateDnsZoneConfigs": [config]}})
            yield "names of the private endpoint"
