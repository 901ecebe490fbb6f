# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""A zone of Azure DNS or of Azure Private DNS, by Azure Resource Manager. Record sets there have metadata, which mark ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..cloud import TAG, CloudError
from ..cloud.azure import Arm
from .model import TTL, Change, RecordSet, plain_name, plain_value

ZONE = re.compile(
    r"/subscriptions/[0-9a-fA-F-]{36}/resourceGroups/[\w.()-]+/providers/Microsoft\.Network/(?P<kind>dnsZones|privateDnsZones)/(?P<domain>[A-Za-z0-9._-]+)",
    re.IGNORECASE,
)
FORM = "/subscriptions/<id>/resourceGroups/<name>/providers/Microsoft.Network/dnsZones/<domain>, or privateDnsZones in its place"
# Both are the same but for the case of letters, and have API versions of their own.
VERSIONS = {"dnsZones": "2018-05-01", "privateDnsZones": "2020-06-01"}
ALL = {"dnsZones": "all", "privateDnsZones": "ALL"}
FIELDS = {
    "dnsZones": {"ttl": "TTL", "A": "ARecords", "AAAA": "AAAARecords", "CNAME": "CNAMERecord"},
    "privateDnsZones": {"ttl": "ttl", "A": "aRecords", "AAAA": "aaaaRecords", "CNAME": "cnameRecord"},
}
ADDRESS = {"A": "ipv4Address", "AAAA": "ipv6Address"}


class AzureDns:
    """One zone."""

    def __init__(self, zone: str, site: str, region: str, token: str, endpoint: str = "") -> None:
        match = ZONE.fullmatch(zone)
        if not match:
            raise CloudError(f"circleci_cloud_dns_zone is {zone!r}; Azure needs the id of the zone as {FORM}")
        # Azure's own pages write the word in both ways.
        kind = next(name for name in VERSIONS if name.lower() == match["kind"].lower())
        self.zone, self.site = zone.replace(f"/{match['kind']}/", f"/{kind}/"), site
        self.domain = plain_name(match["domain"])
        self.version, self.all, self.fields = VERSIONS[kind], ALL[kind], FIELDS[kind]
        self.arm = Arm(region, token, endpoint)

    def read(self) -> tuple[str, list[RecordSet]]:
        if self.arm.get(self.zone, self.version) is None:
            raise CloudError(f"circleci_cloud_dns_zone: {self.zone} is not there; make the zone, or name another one")
        return self.domain, [self._found(item) for item in self.arm.all(f"{self.zone}/{self.all}", self.version)]

    def _found(self, raw: dict[str, Any]) -> RecordSet:
        kind, properties = str(raw["type"]).rpartition("/")[2], raw.get("properties") or {}
        name = self.domain if raw["name"] == "@" else f"{raw['name']}.{self.domain}"
        values: list[str] = []
        if kind in ADDRESS:
            values = [str(item.get(ADDRESS[kind])) for item in properties.get(self.fields[kind]) or []]
        elif kind == "CNAME":
            values = [str((properties.get(self.fields[kind]) or {}).get("cname") or "")]
        target = (properties.get("targetResource") or {}).get("id")
        special = f"alias of {target}" if target else "of a machine that registers itself" if properties.get("isAutoRegistered") else ""
        shown = tuple(sorted(plain_value(kind, value) for value in values if value)) or (("other data",) if kind not in self.fields else ())
        site = str((properties.get("metadata") or {}).get(TAG) or "")
        return RecordSet(plain_name(name), kind, shown, int(properties.get(self.fields["ttl"]) or TTL), site, special, raw)

    def apply(self, changes: Sequence[Change]) -> Iterator[str]:
        for change in changes:
            relative = "@" if change.name == self.domain else change.name.removesuffix(f".{self.domain}")
            path = f"{self.zone}/{change.type}/{relative}"
            # Only what was looked at is changed, and nothing that came in between.
            etag = str(change.old.raw.get("etag") or "") if change.old is not None and change.old.raw else ""
            headers = {"If-Match": etag} if etag else {} if change.old else {"If-None-Match": "*"}
            if change.new is None:
                self.arm.change("DELETE", path, self.version, headers=headers)
            else:
                metadata = {**(((change.old.raw or {}).get("properties") or {}).get("metadata") or {} if change.old else {}), TAG: self.site}
                body = {"properties": {"metadata": metadata, self.fields["ttl"]: TTL, self.fields[change.type]: self._values(change.new)}}
                self.arm.change("PUT", path, self.version, body, headers)
            yield str(change.new or change.old)

    @staticmethod
    def _values(wish: RecordSet) -> Any:
        return {"cname": wish.values[0]} if wish.type == "CNAME" else [{ADDRESS[wish.type]: value} for value in wish.values]
