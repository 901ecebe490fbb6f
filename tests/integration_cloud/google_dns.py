# SPDX-License-Identifier: GPL-3.0-or-later
"""A STAND-IN for managed zones of Cloud DNS, after the discovery document of dns v1."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from .standin import Answer, Refused, Schema

SCOPE = "https://www.googleapis.com/auth/ndev.clouddns.readwrite"
PREFIX = "/dns/v1/"


class Dns:
    """One managed zone.

    Beside the schema, from the vendor's pages: what is to go is named exactly, what is there is not added, a CNAME is alone, and all of a change is made or
    nothing. A change is done when it is asked for the second time.
    """

    def __init__(self, schema: Schema, project: str, zone: str = "example-zone", domain: str = "example.com.") -> None:
        self.schema, self.domain = schema, domain
        self.root = f"{PREFIX}projects/{project}/managedZones/{zone}"
        self.name = zone
        self.sets: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []
        self.page = 2
        self.add(domain, "NS", ["ns-cloud-a1.googledomains.com."], 21600)
        self.add(domain, "SOA", ["ns-cloud-a1.googledomains.com. cloud-dns-hostmaster.google.com. 1 21600 3600 259200 300"], 21600)

    def add(self, name: str, kind: str, values: list[str], ttl: int = 300, **more: Any) -> dict[str, Any]:
        """A record that somebody made."""
        self.sets.append({"kind": "dns#resourceRecordSet", "name": name, "type": kind, "ttl": ttl, "rrdatas": values, "signatureRrdatas": [], **more})
        return self.sets[-1]

    def serve(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        if (method, path, query) == ("GET", self.root, {}):
            zone = {"kind": "dns#managedZone", "name": self.name, "dnsName": self.domain, "id": "1", "description": "", "visibility": "public",
                    "nameServers": ["ns-cloud-a1.googledomains.com."], "creationTime": "2026-05-23T21:24:00.000Z"}  # fmt: skip
            return 200, self.schema.answer("managedZone", zone), {}
        if (method, path) == ("GET", f"{self.root}/rrsets") and not set(query) - {"pageToken"}:
            begin = int(query.get("pageToken", "0"))
            answer: dict[str, Any] = {"kind": "dns#resourceRecordSetsListResponse", "rrsets": self.sets[begin : begin + self.page]}
            if begin + self.page < len(self.sets):
                answer["nextPageToken"] = str(begin + self.page)
            return 200, self.schema.answer("recordSetList", answer), {}
        if (method, path, query) == ("POST", f"{self.root}/changes", {}):
            return self._change(body)
        match = re.fullmatch(re.escape(self.root) + r"/changes/(\d+)", path)
        if match and method == "GET" and int(match[1]) < len(self.changes):
            change = self.changes[int(match[1])]
            answer = self.schema.answer("change", change)
            change["status"] = "done"
            return 200, answer, {"Retry-After": "0"}
        raise Refused(404, "notFound", "The 'parameters.managedZone' resource named 'unknown' does not exist.")

    def _change(self, body: Any) -> Answer:
        if wrong := self.schema.wrong("change", body, sent=True):
            raise Refused(400, "invalid", "; ".join(wrong))
        after = [{name: item[name] for name in ("name", "type", "ttl", "rrdatas")} for item in self.sets]
        for item in body.get("deletions", []):
            if item not in after:
                raise Refused(412, "conditionNotMet", f"Precondition not met for 'entity.change.deletions[{item['name']}][{item['type']}]'")
            after.remove(item)
        for item in body.get("additions", []):
            if any((item["name"], item["type"]) == (other["name"], other["type"]) for other in after):
                raise Refused(409, "alreadyExists", f"The resource 'entity.change.additions[{item['name']}][{item['type']}]' already exists")
            self._check(item)
            after.append(item)
        for item in after:
            if item["type"] == "CNAME" and [other for other in after if other["name"] == item["name"]] != [item]:
                raise Refused(400, "cnameResourceRecordSetConflict", f"{item['name']} of type CNAME conflicts with another record set")
        old = {(item["name"], item["type"]): item for item in self.sets}
        self.sets = [{"kind": "dns#resourceRecordSet", "signatureRrdatas": [], **{k: v for k, v in old.get((i["name"], i["type"]), {}).items() if k == "routingPolicy"}, **i} for i in after]
        change = {"kind": "dns#change", "id": str(len(self.changes)), "status": "pending", "startTime": "2026-05-23T21:24:00.000Z", **body}
        self.changes.append(change)
        return 200, self.schema.answer("change", change), {"Retry-After": "0"}

    def _check(self, item: dict[str, Any]) -> None:
        if not (item["name"] == self.domain or item["name"].endswith(f".{self.domain}")) or not item["name"].endswith("."):
            raise Refused(400, "invalid", f"Invalid value for 'entity.change.additions.name': '{item['name']}'")
        for value in item["rrdatas"]:
            if item["type"] in ("A", "AAAA"):
                try:
                    right = ipaddress.ip_address(value).version == (4 if item["type"] == "A" else 6)
                except ValueError:
                    right = False
            else:
                right = value.endswith(".") if item["type"] == "CNAME" else value.startswith('"') and value.endswith('"')
            if not right:
                raise Refused(400, "invalid", f"Invalid value for 'entity.change.additions.rrdata': '{value}'")
