# SPDX-License-Identifier: GPL-3.0-or-later
"""A STAND-IN for zones of Azure DNS and Azure Private DNS of Azure Resource Manager, after the vendor's OpenAPI documents."""

from __future__ import annotations

import ipaddress
import re
import uuid
from email.message import Message
from typing import Any

from .standin import Answer, Refused, Schema

VERSIONS = {"dnsZones": "2018-05-01", "privateDnsZones": "2020-06-01"}
DATA = {
    "dnsZones": {"A": "ARecords", "AAAA": "AAAARecords", "CNAME": "CNAMERecord", "TXT": "TXTRecords", "MX": "MXRecords"},
    "privateDnsZones": {"A": "aRecords", "AAAA": "aaaaRecords", "CNAME": "cnameRecord", "TXT": "txtRecords", "MX": "mxRecords"},
}


class Dns:
    """The zones C(example.com) of one resource group, a public and a private one.

    Beside the schema, from the vendor's pages: a CNAME is alone and not at the top, If-Match and If-None-Match are held, and only data of its type is taken.
    """

    def __init__(self, schema: Schema, group: str, domain: str = "example.com") -> None:
        self.schema, self.domain = schema, domain
        self.root = f"{group}/providers/Microsoft.Network"
        self.sets: dict[str, dict[tuple[str, str], dict[str, Any]]] = {"dnsZones": {}, "privateDnsZones": {}}
        self.page = 2

    def zone(self, kind: str) -> str:
        return f"{self.root}/{kind}/{self.domain}"

    def add(self, kind: str, type_: str, name: str, **properties: Any) -> dict[str, Any]:
        """A record set that somebody made."""
        fqdn = f"{'' if name == '@' else name + '.'}{self.domain}."
        filled = {"fqdn": fqdn, **({"provisioningState": "Succeeded", "targetResource": {}} if kind == "dnsZones" else {"isAutoRegistered": False}), **properties}
        self.sets[kind][name, type_] = {
            "id": f"{self.zone(kind)}/{type_}/{name}", "name": name, "type": f"Microsoft.Network/{kind}/{type_}", "etag": str(uuid.uuid4()), "properties": filled,
        }  # fmt: skip
        return self.sets[kind][name, type_]

    def serve(self, method: str, path: str, query: dict[str, str], version: str, body: Any, headers: Message[str, str], url: str) -> Answer | None:
        """None for what is not of this service."""
        match = re.fullmatch(re.escape(self.root) + r"/(dnsZones|privateDnsZones)/([^/]+)(?:/([A-Za-z]+)(?:/([^/]+))?)?", path)
        if not match:
            return None
        kind, domain, type_, name = match.groups()
        if version != VERSIONS[kind]:
            raise Refused(400, "InvalidApiVersionParameter", f"The api-version '{version}' is invalid for {kind}.")
        if domain != self.domain:
            raise Refused(404, "ResourceNotFound", f"The Resource 'Microsoft.Network/{kind}/{domain}' was not found.")
        if type_ is None and method == "GET":
            properties = {"numberOfRecordSets": len(self.sets[kind]), **({"zoneType": "Public"} if kind == "dnsZones" else {"provisioningState": "Succeeded"})}
            return 200, {"id": self.zone(kind), "name": domain, "type": f"Microsoft.Network/{kind}", "location": "global", "properties": properties}, {}
        if name is None and method == "GET" and type_ == {"dnsZones": "all", "privateDnsZones": "ALL"}[kind]:
            return 200, self._list(kind, query, url), {}
        if name is None or type_ not in DATA[kind]:
            raise Refused(404, "NotFound", f"{method} {path} is not there")
        return self._one(kind, method, type_, name, body, headers)

    def _list(self, kind: str, query: dict[str, str], url: str) -> Any:
        begin, sets = int(query.get("$skipToken", "0")), list(self.sets[kind].values())
        answer: dict[str, Any] = {"value": sets[begin : begin + self.page]}
        if begin + self.page < len(sets):
            answer["nextLink"] = f"{url}{self.zone(kind)}/ALL?api-version={VERSIONS[kind]}&$skipToken={begin + self.page}" if kind != "dnsZones" else (
                f"{url}{self.zone(kind)}/all?api-version={VERSIONS[kind]}&$skipToken={begin + self.page}")  # fmt: skip
        return self.schema.answer(f"{kind}List", answer)

    def _one(self, kind: str, method: str, type_: str, name: str, body: Any, headers: Message[str, str]) -> Answer:
        there = self.sets[kind].get((name, type_))
        if headers.get("If-None-Match") == "*" and there:
            raise Refused(412, "PreconditionFailed", f"The Record set {name} exists already and hence cannot be created again.")
        if headers.get("If-Match") not in (None, "*", (there or {}).get("etag")):
            raise Refused(412, "PreconditionFailed", f"The Record set {name} has been modified (etag mismatch).")
        if method == "DELETE":
            return (200 if self.sets[kind].pop((name, type_), None) else 204), None, {}
        if method == "GET" and there:
            return 200, self.schema.answer(f"{kind}Set", there), {}
        if method != "PUT":
            raise Refused(404, "NotFound", f"The resource record '{name}' does not exist in resource group.")
        if wrong := self.schema.wrong(f"{kind}Set", body, sent=True):
            raise Refused(400, "BadRequest", "; ".join(wrong))
        properties, field = body["properties"], DATA[kind][type_]
        if {item for item in DATA[kind].values() if item in properties} != {field} or not ({"TTL", "ttl"} & set(properties)):
            raise Refused(400, "BadRequest", f"The record set needs a TTL, and {field} alone.")
        for item in properties[field] if type_ in ("A", "AAAA") else []:
            version, key = (4, "ipv4Address") if type_ == "A" else (6, "ipv6Address")
            try:
                right = list(item) == [key] and ipaddress.ip_address(item[key]).version == version
            except ValueError:
                right = False
            if not right:
                raise Refused(400, "BadRequest", f"The value {item} is not a valid address of {type_}.")
        others = [key for key in self.sets[kind] if key[0] == name and key[1] != type_]
        if (type_ == "CNAME" and (others or name == "@")) or any(key[1] == "CNAME" for key in others):
            raise Refused(400, "BadRequest", f"The record could not be created because a CNAME record with the same name already exists, or is the top: {name}")
        return (200 if there else 201), self.schema.answer(f"{kind}Set", self.add(kind, type_, name, **properties)), {}
