# SPDX-License-Identifier: GPL-3.0-or-later
"""A STAND-IN for private endpoints, and private zones with their links, of Azure Resource Manager, after the vendor's OpenAPI documents."""

from __future__ import annotations

import re
from typing import Any

from .standin import Answer, Refused, Schema

VERSIONS = {"endpoint": "2023-09-01", "zoneGroup": "2023-09-01", "privateZone": "2020-06-01", "zoneLink": "2020-06-01"}
ZONE = "privatelink.blob.core.windows.net"


class Private:
    """Of one resource group. Beside the schema, from the vendor's pages: the account and the zone have to be there, and the endpoint takes its time."""

    def __init__(self, schema: Schema, group: str, accounts: dict[str, Any]) -> None:
        self.schema, self.accounts = schema, accounts
        self.root = f"{group}/providers/Microsoft.Network"
        self.group, self.zone = group, f"{group}/providers/Microsoft.Network/privateDnsZones/{ZONE}"
        self.things: dict[str, dict[str, Any]] = {}
        self.status = "Approved"
        """State of a new connection; an account of others waits for its owner."""

    def add(self, kind: str, path: str, **more: Any) -> dict[str, Any]:
        """Something that somebody made."""
        self.things[path] = {"id": path, "name": path.rpartition("/")[2], "type": f"Microsoft.Network/{kind}", "etag": 'W/"1"', **more}
        self.things[path].setdefault("properties", {})["provisioningState"] = "Succeeded"
        return self.things[path]

    def serve(self, method: str, path: str, version: str, body: Any) -> Answer | None:
        """None for what is not of this service."""
        endpoint = rf"{re.escape(self.root)}/privateEndpoints/[\w.-]+"
        zone = re.escape(self.zone)
        for kind, pattern in (("endpoint", endpoint), ("zoneGroup", f"{endpoint}/privateDnsZoneGroups/\\w+"), ("privateZone", zone),
                              ("zoneLink", f"{zone}/virtualNetworkLinks(?:/[\\w.-]+)?")):  # fmt: skip
            if re.fullmatch(pattern, path):
                if version != VERSIONS[kind]:
                    raise Refused(400, "InvalidApiVersionParameter", f"The api-version '{version}' is invalid.")
                return self._one(kind, method, path, body)
        return None

    def _one(self, kind: str, method: str, path: str, body: Any) -> Answer:
        parent = path.rpartition("/")[0].rpartition("/")[0]
        if kind == "zoneLink" and path.endswith("/virtualNetworkLinks") and method == "GET":
            links = [item for name, item in self.things.items() if name.startswith(f"{path}/")]
            return 200, self.schema.answer("zoneLinkList", {"value": links}), {}
        if method == "GET":
            if path not in self.things:
                raise Refused(404, "ResourceNotFound", f"The Resource '{path}' was not found.")
            return 200, self.schema.answer(kind, self.things[path]), {}
        if method != "PUT":
            raise Refused(405, "MethodNotAllowed", "no such method")
        if wrong := self.schema.wrong(kind, body, sent=True):
            raise Refused(400, "InvalidRequestFormat", "; ".join(wrong))
        if kind in ("zoneGroup", "zoneLink") and parent not in self.things:
            raise Refused(404, "ParentResourceNotFound", f"The parent resource {parent} was not found.")
        if kind == "endpoint":
            for connection in body["properties"]["privateLinkServiceConnections"]:
                target = connection["properties"]["privateLinkServiceId"]
                if target.rpartition("/")[2] not in self.accounts:
                    raise Refused(400, "InvalidResourceReference", f"Resource {target} referenced by resource {path} was not found.")
                connection["properties"]["privateLinkServiceConnectionState"] = {"status": self.status, "description": "", "actionsRequired": "None"}
        if kind == "zoneGroup" and any(item["properties"]["privateDnsZoneId"] not in self.things for item in body["properties"]["privateDnsZoneConfigs"]):
            raise Refused(400, "InvalidPrivateDnsZoneIds", "The private zone was not found.")
        made = self.add({"endpoint": "privateEndpoints", "zoneGroup": "privateEndpoints/privateDnsZoneGroups", "privateZone": "privateDnsZones",
                         "zoneLink": "privateDnsZones/virtualNetworkLinks"}[kind], path, **body)  # fmt: skip
        # The first answer is that it is at work; the resource itself then tells that it is done.
        pending = {**made, "properties": {**made["properties"], "provisioningState": "Updating"}} if kind in ("endpoint", "zoneGroup") else made
        return 201, self.schema.answer(kind, pending), {"Retry-After": "0"}
