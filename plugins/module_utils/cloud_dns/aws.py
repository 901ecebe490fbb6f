# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""A hosted zone of Route 53, by boto3. Records there have no tags, so that TXT records mark ours. All changes are made at once, or none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..cloud import CloudError, part_region
from ..cloud.aws import AwsSession
from .model import (
    TTL,
    Change,
    RecordSet,
    mark_name,
    mark_text,
    plain_name,
    plain_value,
    with_marks,
)

ZONE = re.compile(r"[A-Z0-9]{1,32}")


def _text(value: str) -> str:
    """Route 53 writes what is no letter of a name as its octal number."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), value)


def _found(raw: dict[str, Any]) -> RecordSet:
    kind = raw["Type"]
    values = tuple(sorted(plain_value(kind, item["Value"].strip('"') if kind == "TXT" else item["Value"]) for item in raw.get("ResourceRecords", [])))
    special = ""
    if "AliasTarget" in raw:
        special = f"alias of {plain_name(raw['AliasTarget']['DNSName'])}"
    elif "SetIdentifier" in raw:
        special = f"by the routing policy {raw['SetIdentifier']}"
    return RecordSet(plain_name(_text(raw["Name"])), kind, values, int(raw.get("TTL", TTL)), special=special, raw=raw)


class Route53:
    """One hosted zone, public or private."""

    def __init__(self, zone: str, site: str, region: str, endpoint: str = "") -> None:
        if not ZONE.fullmatch(zone):
            raise CloudError(f"circleci_cloud_dns_zone is {zone!r}; Route 53 needs the id of the hosted zone, for instance Z0123456789ABCDEFGHIJ")
        self.zone, self.site = zone, site
        self.session = AwsSession(part_region("dns", region))
        self.client: Any = self.session.client("route53", endpoint)
        self.there: dict[tuple[str, str], RecordSet] = {}

    def read(self) -> tuple[str, list[RecordSet]]:
        with self.session.told():
            domain = plain_name(self.client.get_hosted_zone(Id=self.zone)["HostedZone"]["Name"])
            pages = self.client.get_paginator("list_resource_record_sets").paginate(HostedZoneId=self.zone)
            sets = [_found(item) for page in pages for item in page["ResourceRecordSets"]]
        self.there = {item.key: item for item in sets}
        return domain, with_marks(sets)

    def apply(self, changes: Sequence[Change]) -> Iterator[str]:
        batch: list[dict[str, Any]] = []
        for change in changes:
            mark = mark_name(change.name, change.type), "TXT"
            # What is there is named exactly, so that what somebody changed meanwhile is not taken away.
            batch += [{"Action": "DELETE", "ResourceRecordSet": change.old.raw}] if change.old is not None and change.old.raw else []
            if change.new is None:
                batch.append({"Action": "DELETE", "ResourceRecordSet": self.there[mark].raw})
            else:
                batch.append({"Action": "CREATE", "ResourceRecordSet": _wish(change.new.name, change.new.type, change.new.values)})
                if not change.marked:
                    batch.append({"Action": "CREATE", "ResourceRecordSet": _wish(*mark, (f'"{mark_text(self.site)}"',))})
        with self.session.told():
            change_id = self.client.change_resource_record_sets(HostedZoneId=self.zone, ChangeBatch={"Changes": batch})["ChangeInfo"]["Id"]
            self.client.get_waiter("resource_record_sets_changed").wait(Id=change_id, WaiterConfig={"Delay": 5, "MaxAttempts": 60})
        yield from (str(change.new or change.old) for change in changes)


def _wish(name: str, kind: str, values: Sequence[str]) -> dict[str, Any]:
    return {"Name": f"{name}.", "Type": kind, "TTL": TTL, "ResourceRecords": [{"Value": value} for value in values]}
