# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""A domain of DigitalOcean, by its REST API. Records there have no tags, so that TXT records mark ours; each value is a record of its own."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

from ..cloud import CloudError
from ..cloud.digitalocean import DigitalOceanApi
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

ZONE = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")


class DigitalOceanDns:
    """One domain of an account."""

    def __init__(self, zone: str, site: str, token: str, endpoint: str = "") -> None:
        if not ZONE.fullmatch(zone):
            raise CloudError(f"circleci_cloud_dns_zone is {zone!r}; DigitalOcean needs the domain, for instance example.com")
        self.domain, self.site = zone, site
        self.rest = DigitalOceanApi(token, endpoint)
        self.records = f"/v2/domains/{urllib.parse.quote(zone)}/records"
        self.there: dict[tuple[str, str], RecordSet] = {}

    def read(self) -> tuple[str, list[RecordSet]]:
        parts: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for raw in self.rest.all(self.records, "domain_records"):
            name = self.domain if raw["name"] == "@" else f"{raw['name']}.{self.domain}"
            parts.setdefault((plain_name(name), raw["type"]), []).append(raw)
        sets = [self._found(name, kind, raws) for (name, kind), raws in parts.items()]
        self.there = {item.key: item for item in sets}
        return self.domain, with_marks(sets)

    def _found(self, name: str, kind: str, raws: list[dict[str, Any]]) -> RecordSet:
        # A name may stand for the domain itself.
        values = [self.domain if kind == "CNAME" and raw["data"] == "@" else str(raw["data"]) for raw in raws]
        ttls = [int(raw.get("ttl") or TTL) for raw in raws]
        ttl = next((number for number in ttls if number != TTL), TTL)
        return RecordSet(name, kind, tuple(sorted(plain_value(kind, value) for value in values)), ttl, raw=raws)

    def apply(self, changes: Sequence[Change]) -> Iterator[str]:
        for change in changes:
            mark = mark_name(change.name, change.type), "TXT"
            if change.new is not None and not change.marked:
                # First, so that a run that is killed after it leaves no record whose owner nobody knows.
                self._add(*mark, mark_text(self.site))
            kept = set(change.new.values) if change.new is not None else set()
            there: dict[str, dict[str, Any]] = {}
            for raw in change.old.raw if change.old is not None and change.old.raw else []:
                value = plain_value(change.type, self.domain if change.type == "CNAME" and raw["data"] == "@" else str(raw["data"]))
                if value in kept and value not in there and int(raw.get("ttl") or TTL) == TTL:
                    there[value] = raw
                elif change.type == "CNAME":
                    # A name has one CNAME at a time.
                    self._delete(raw)
            for value in sorted(kept - set(there)):
                self._add(change.name, change.type, f"{value}." if change.type == "CNAME" else value)
            # New values answer before old ones go.
            for raw in change.old.raw if change.old is not None and change.old.raw and change.type != "CNAME" else []:
                if raw not in there.values():
                    self._delete(raw)
            if change.new is None:
                for raw in self.there[mark].raw:
                    self._delete(raw)
            yield str(change.new or change.old)

    def _add(self, name: str, kind: str, data: str) -> None:
        relative = "@" if name == self.domain else name.removesuffix(f".{self.domain}")
        # Fields that others kinds of records have are null, and asked for.
        none = dict.fromkeys(("priority", "port", "weight", "flags", "tag"))
        self.rest.call("POST", self.records, {"type": kind, "name": relative, "data": data, "ttl": TTL, **none})

    def _delete(self, raw: dict[str, Any]) -> None:
        self.rest.call("DELETE", f"{self.records}/{raw['id']}")
