# SPDX-License-Identifier: GPL-3.0-or-later
"""A STAND-IN for firewalls, tags, records and the registry of clusters of DigitalOcean's API v2, after the vendor's OpenAPI document."""

from __future__ import annotations

import ipaddress
import re
import uuid
from email.message import Message
from typing import Any

from .standin import Answer, Refused, StandIn

LIMITS = {"ratelimit-limit": "5000", "ratelimit-remaining": "4816", "ratelimit-reset": "1444931833"}
IDS = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 409: "conflict", 422: "unprocessable_entity", 429: "too_many_requests"}


class DigitalOcean(StandIn):
    """Firewalls of one account. Beside the schema: tags must exist, at most 50 rules, a change is at first waiting."""

    bad_request = 422

    def __init__(self) -> None:
        super().__init__("digitalocean")
        self.firewalls: list[dict[str, Any]] = []
        self.tags: set[str] = set()
        self.domain = "example.com"
        self.records: list[dict[str, Any]] = []
        self.page = 1
        self.clusters: dict[str, bool] = {}
        """Whether the registry is integrated with each."""
        self.registry = True
        """Whether the account has one."""

    def named(self, name: str) -> dict[str, Any]:
        (found,) = [item for item in self.firewalls if item["name"] == name]
        return found

    def refusal(self, refused: Refused) -> Any:
        if refused.code == "root_causes":
            return self.schema.answer("errorWithRootCauses", {"error": refused.message, "messages": None, "root_causes": [f"rpc error: {refused.message}"]})
        return self.schema.answer("error", {"id": IDS.get(refused.status, "server_error"), "message": refused.message, "request_id": str(uuid.uuid4())})

    def serve(self, method: str, path: str, query: dict[str, str], body: Any, headers: Message[str, str]) -> Answer:
        if (method, path) == ("GET", "/v2/firewalls"):
            return 200, self._list(query), LIMITS
        if (method, path) == ("POST", "/v2/tags"):
            if wrong := self.schema.wrong("tag", body, sent=True):
                raise Refused(400, "root_causes", f"Error validating resource tag: {wrong}")
            self.tags.add(body["name"])
            return 201, self.schema.answer("newTag", {"tag": {"name": body["name"], "resources": {"count": 0}}}), LIMITS
        if (method, path) == ("POST", "/v2/firewalls"):
            if any(item["name"] == (body or {}).get("name") for item in self.firewalls):
                raise Refused(409, "conflict", "duplicate name")
            item = {"id": str(uuid.uuid4()), "created_at": "2026-05-23T21:24:00Z", **self._firewall(body)}
            self.firewalls.append(item)
            return 202, self.schema.answer("oneFirewall", {"firewall": item}), LIMITS
        if path.startswith("/v2/kubernetes/"):
            return self._kubernetes(method, path.removeprefix("/v2/kubernetes/"), body)
        domain = re.fullmatch(r"/v2/domains/([a-z0-9.-]+)/records(?:/(\d+))?", path)
        if domain:
            return self._domain(method, domain[1], domain[2], query, body)
        match = re.fullmatch(r"/v2/firewalls/([0-9a-f-]{36})", path)
        for item in self.firewalls if match else []:
            if match and item["id"] == match[1] and method in ("GET", "PUT"):
                if method == "PUT":
                    # What is not named goes back to its default.
                    item.update(self._firewall(body))
                answer = self.schema.answer("oneFirewall", {"firewall": item})
                if method == "GET" and item["status"] == "waiting":
                    item.update(status="failed" if self.fail_operation else "succeeded", pending_changes=[])
                return 200, answer, LIMITS
        raise Refused(404, "not_found", "The resource you requested could not be found.")

    def _list(self, query: dict[str, str]) -> Any:
        if set(query) - {"page", "per_page"} or not 1 <= int(query.get("per_page", "20")) <= 200:
            raise Refused(400, "bad_request", f"unknown parameters {query}")
        number = int(query.get("page", "1"))
        part = self.firewalls[(number - 1) * self.page : number * self.page]
        more = number * self.page < len(self.firewalls)
        links = {"pages": {"next": f"{self.url}/v2/firewalls?page={number + 1}"}} if more else {}
        return self.schema.answer("firewallList", {"firewalls": part, "links": links, "meta": {"total": len(self.firewalls)}})

    def record(self, kind: str, name: str, data: str, ttl: int = 300) -> dict[str, Any]:
        """A record that somebody made."""
        none = dict.fromkeys(("priority", "port", "weight", "flags", "tag"))
        self.records.append({"id": 28448429 + len(self.records), "type": kind, "name": name, "data": data, "ttl": ttl, **none})
        return self.records[-1]

    def _kubernetes(self, method: str, path: str, body: Any) -> Answer:
        kind, _slash, name = path.partition("/")
        if (method, kind) == ("GET", "clusters") and name in self.clusters:
            cluster = {"id": name, "name": "example", "region": "nyc1", "version": "1.33.1-do.0", "node_pools": [], "registry_enabled": self.clusters[name]}
            return 200, self.schema.answer("oneCluster", {"kubernetes_cluster": cluster}), LIMITS
        wanted = self.sent("clusterRegistries", body)["cluster_uuids"] if (method, path) == ("POST", "registry") else []
        if not wanted or not self.registry or set(wanted) - set(self.clusters):
            raise Refused(404, "not_found", "The resource you requested could not be found.")
        self.clusters.update(dict.fromkeys(wanted, True))
        return 204, None, LIMITS

    def _domain(self, method: str, domain: str, number: str | None, query: dict[str, str], body: Any) -> Answer:
        if domain != self.domain:
            raise Refused(404, "not_found", "The resource you were accessing could not be found.")
        if (method, number) == ("GET", None):
            if set(query) - {"page", "per_page", "name", "type"} or not 1 <= int(query.get("per_page", "20")) <= 200:
                raise Refused(400, "bad_request", f"unknown parameters {query}")
            page = int(query.get("page", "1"))
            part = self.records[(page - 1) * 2 : page * 2]
            links = {"pages": {"next": f"{self.url}/v2/domains/{domain}/records?page={page + 1}"}} if page * 2 < len(self.records) else {}
            return 200, self.schema.answer("recordList", {"domain_records": part, "links": links, "meta": {"total": len(self.records)}}), LIMITS
        if (method, number) == ("POST", None):
            return 201, self.schema.answer("oneRecord", {"domain_record": self._record(self.sent("record", body))}), LIMITS
        there = [item for item in self.records if str(item["id"]) == number]
        if method != "DELETE" or not there:
            raise Refused(404, "not_found", "The resource you were accessing could not be found.")
        self.records.remove(there[0])
        return 204, None, LIMITS

    def _record(self, body: dict[str, Any]) -> dict[str, Any]:
        kind, name, data = body["type"], body["name"], body["data"]
        wanted = {"name", "data"} | ({"flags", "tag"} if kind == "TXT" else set())
        if wanted - set(body) or name.endswith(self.domain):
            raise Refused(422, "unprocessable_entity", f"{sorted(wanted)} are needed, and a name without the domain")
        try:
            right = kind not in ("A", "AAAA") or ipaddress.ip_address(data).version == (4 if kind == "A" else 6)
        except ValueError:
            right = False
        if not right or (kind == "CNAME" and not data.endswith(".") and data != "@"):
            raise Refused(422, "unprocessable_entity", "Data needs to end with a dot (.)" if kind == "CNAME" else "IP address did not match IPv4 or IPv6 format")
        others = [item for item in self.records if item["name"] == name]
        if any((item["type"], item["data"]) == (kind, data) for item in others):
            raise Refused(422, "unprocessable_entity", "Record already exists")
        if (kind == "CNAME" and others) or any(item["type"] == "CNAME" for item in others):
            raise Refused(422, "unprocessable_entity", "CNAME records cannot share a name with other records.")
        # A name comes back without the dot that it was given with.
        return self.record(kind, name, data.rstrip(".") if kind == "CNAME" else data, int(body.get("ttl") or 1800))

    def _firewall(self, body: Any) -> dict[str, Any]:
        self.sent("firewall", body)
        rules = {kind: body.get(kind) or [] for kind in ("inbound_rules", "outbound_rules")}
        if not 1 <= sum(map(len, rules.values())) <= 50:
            raise Refused(422, "unprocessable_entity", "from 1 to 50 rules are allowed")
        for rule in (*rules["inbound_rules"], *rules["outbound_rules"]):
            ends = rule.get("sources") or rule.get("destinations") or {}
            if not any(ends.values()) or (rule["protocol"] == "icmp" and rule["ports"] != "0"):
                raise Refused(422, "unprocessable_entity", f"rule {rule} is invalid")
            for address in ends.get("addresses", []):
                try:
                    ipaddress.ip_network(address)
                except ValueError as error:
                    raise Refused(422, "unprocessable_entity", f"address {address} is invalid") from error
        if set(body.get("tags") or []) - self.tags:
            raise Refused(422, "unprocessable_entity", "tag does not exist")
        # Empty lists may come back as null.
        droplets, tags = body.get("droplet_ids") or None, body.get("tags") or None
        waiting = [{"droplet_id": number, "removing": False, "status": "waiting"} for number in droplets or []]
        return {"name": body["name"], "status": "waiting", "pending_changes": waiting, **rules, "tags": tags, "droplet_ids": droplets}
