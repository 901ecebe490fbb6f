# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""A managed zone of Cloud DNS, by its REST API. Records there have no labels, so that TXT records mark ours. All changes are made at once, or none."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

from ..cloud import CloudError, endpoints
from ..cloud.google import google_api, google_token
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

SCOPE = "https://www.googleapis.com/auth/ndev.clouddns.readwrite"
ZONE = re.compile(r"projects/[a-z0-9.:-]+/managedZones/[a-z0-9-]+")


def _found(raw: dict[str, Any]) -> RecordSet:
    kind = raw["type"]
    values = tuple(sorted(plain_value(kind, value.strip('"') if kind == "TXT" else value) for value in raw.get("rrdatas") or []))
    special = "by a routing policy" if raw.get("routingPolicy") else ""
    return RecordSet(plain_name(raw["name"]), kind, values, int(raw.get("ttl", TTL)), special=special, raw=raw)


class CloudDns:
    """One managed zone, public or private."""

    def __init__(self, zone: str, site: str, token: str, endpoint: str) -> None:
        if not ZONE.fullmatch(zone):
            raise CloudError(f"circleci_cloud_dns_zone is {zone!r}; Google needs the zone as projects/<project>/managedZones/<name>")
        self.site = site
        self.path = f"/dns/v1/{zone}"
        self.rest = google_api(endpoint, google_token(token, SCOPE, endpoints("gcp", "", endpoint)))
        self.there: dict[tuple[str, str], RecordSet] = {}

    def read(self) -> tuple[str, list[RecordSet]]:
        domain = plain_name(str(self.rest.call("GET", self.path).data.get("dnsName", "")))
        sets = [_found(item) for item in self._all()]
        self.there = {item.key: item for item in sets}
        return domain, with_marks(sets)

    def _all(self) -> Iterator[dict[str, Any]]:
        query: dict[str, str] = {}
        while True:
            data = self.rest.call("GET", f"{self.path}/rrsets{'?' if query else ''}{urllib.parse.urlencode(query)}").data
            yield from data.get("rrsets") or []
            if not data.get("nextPageToken"):
                return
            query["pageToken"] = str(data["nextPageToken"])

    def apply(self, changes: Sequence[Change]) -> Iterator[str]:
        additions: list[dict[str, Any]] = []
        deletions: list[dict[str, Any]] = []
        for change in changes:
            mark = mark_name(change.name, change.type), "TXT"
            deletions += [_bare(change.old.raw)] if change.old is not None and change.old.raw else []
            if change.new is None:
                deletions.append(_bare(self.there[mark].raw))
            else:
                additions.append(_wish(change.new.name, change.new.type, change.new.values))
                additions += [] if change.marked else [_wish(*mark, (f'"{mark_text(self.site)}"',))]
        answer = self.rest.call("POST", f"{self.path}/changes", {"additions": additions, "deletions": deletions})
        if answer.data.get("status") != "done":
            for now in self.rest.poll(f"{self.path}/changes/{answer.data.get('id')}", answer.headers):
                if now.data.get("status") == "done":
                    break
        yield from (str(change.new or change.old) for change in changes)


def _wish(name: str, kind: str, values: Sequence[str]) -> dict[str, Any]:
    dot = "." if kind == "CNAME" else ""
    return {"name": f"{name}.", "type": kind, "ttl": TTL, "rrdatas": [f"{value}{dot}" for value in values]}


def _bare(raw: dict[str, Any]) -> dict[str, Any]:
    """What has to be named of a record that is to go, exactly as it is there."""
    return {name: raw[name] for name in ("name", "type", "ttl", "rrdatas") if name in raw}
