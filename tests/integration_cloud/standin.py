# SPDX-License-Identifier: GPL-3.0-or-later
"""A STAND-IN for firewalls and tags of DigitalOcean's API v2, after https://docs.digitalocean.com/reference/api/.

It refuses what the documentation does not name: other paths and fields, a wrong token, rules without ports, names that are taken, tags that are not
there. It answers as the API does: "all" ports come back as "0", lists come in pages. No packet is filtered.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "dop_v1_canary_of_the_token"


class Refused(Exception):
    """Code, id and message of an answer."""


class StandIn:
    """What the account holds, and what was asked."""

    def __init__(self) -> None:
        self.firewalls: list[dict[str, Any]] = []
        self.tags: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.url = ""
        self.page = 1
        self.refuse_writes = False

    @property
    def writes(self) -> int:
        return sum(method != "GET" for method, _path in self.calls)

    def named(self, name: str) -> dict[str, Any]:
        (found,) = [item for item in self.firewalls if item["name"] == name]
        return found

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        plain, _mark, query = path.partition("?")
        if self.refuse_writes and method != "GET":
            raise Refused(403, "forbidden", "You are not authorized to perform this operation")
        if (method, plain) == ("GET", "/v2/firewalls"):
            given = dict(re.findall(r"([a-z_]+)=([0-9]+)", query))
            if set(given) - {"page", "per_page"}:
                raise Refused(400, "bad_request", f"unknown parameters {query}")
            number = int(given.get("page", "1"))
            part = self.firewalls[(number - 1) * self.page : number * self.page]
            more = number * self.page < len(self.firewalls)
            links = {"pages": {"next": f"{self.url}/v2/firewalls?page={number + 1}"}} if more else {}
            return 200, {"firewalls": part, "links": links, "meta": {"total": len(self.firewalls)}}
        if (method, plain) == ("POST", "/v2/tags"):
            _only(body, {"name"}, set())
            self.tags.add(body["name"])
            return 201, {"tag": {"name": body["name"], "resources": {"count": 0}}}
        if (method, plain) == ("POST", "/v2/firewalls"):
            if any(item["name"] == body.get("name") for item in self.firewalls):
                raise Refused(409, "conflict", "duplicate name")
            item = {"id": str(uuid.uuid4()), "status": "succeeded", **self._firewall(body)}
            self.firewalls.append(item)
            return 202, {"firewall": item}
        match = re.fullmatch(r"/v2/firewalls/([0-9a-f-]{36})", plain)
        if method == "PUT" and match:
            for item in self.firewalls:
                if item["id"] == match[1]:
                    # What is not named goes back to its default.
                    item.update(self._firewall(body))
                    return 200, {"firewall": item}
        raise Refused(404, "not_found", f"{method} {plain} is not there")

    def _firewall(self, body: Any) -> dict[str, Any]:
        _only(body, {"name"}, {"inbound_rules", "outbound_rules", "tags", "droplet_ids"})
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9.-]+", body["name"]):
            raise Refused(422, "unprocessable_entity", "name is invalid")
        rules = {kind: body.get(kind) or [] for kind in ("inbound_rules", "outbound_rules")}
        count = len(rules["inbound_rules"]) + len(rules["outbound_rules"])
        if not 1 <= count <= 50:
            raise Refused(422, "unprocessable_entity", f"{count} rules; from 1 to 50 are allowed")
        if set(body.get("tags") or []) - self.tags:
            raise Refused(422, "unprocessable_entity", "tag does not exist")
        return {
            "name": body["name"],
            "inbound_rules": [_rule(rule, "sources") for rule in rules["inbound_rules"]],
            "outbound_rules": [_rule(rule, "destinations") for rule in rules["outbound_rules"]],
            "tags": list(body.get("tags") or []),
            "droplet_ids": list(body.get("droplet_ids") or []),
        }


def _only(body: Any, required: set[str], optional: set[str]) -> None:
    if not isinstance(body, dict) or required - set(body) or set(body) - required - optional:
        raise Refused(422, "unprocessable_entity", f"fields {body!r:.200}; needed {sorted(required)}, allowed {sorted(optional)}")


def _rule(rule: Any, side: str) -> dict[str, Any]:
    ports_needed = isinstance(rule, dict) and rule.get("protocol") in ("tcp", "udp")
    _only(rule, {"protocol", side} | ({"ports"} if ports_needed else set()), {"ports"})
    if rule["protocol"] not in ("tcp", "udp", "icmp"):
        raise Refused(422, "unprocessable_entity", f"protocol {rule['protocol']} is invalid")
    ports = str(rule.get("ports", "0"))
    if not re.fullmatch(r"all|0|[1-9]\d{0,4}(-[1-9]\d{0,4})?", ports):
        raise Refused(422, "unprocessable_entity", f"ports {ports} are invalid")
    _only(rule[side], set(), {"addresses", "droplet_ids", "load_balancer_uids", "kubernetes_ids", "tags"})
    if not any(rule[side].values()):
        raise Refused(422, "unprocessable_entity", f"{side} are empty")
    for address in rule[side].get("addresses", []):
        try:
            ipaddress.ip_network(address)
        except ValueError as error:
            raise Refused(422, "unprocessable_entity", f"address {address} is invalid") from error
    return {"protocol": rule["protocol"], "ports": "0" if ports == "all" else ports, side: rule[side]}


@contextlib.contextmanager
def digitalocean() -> Iterator[StandIn]:
    """The stand-in on loopback."""
    account = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            account.calls.append((self.command, self.path))
            try:
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    raise Refused(401, "unauthorized", "Unable to authenticate you")
                if text and self.headers.get("Content-Type") != "application/json":
                    raise Refused(415, "unsupported_media_type", "JSON is needed")
                code, answer = account.answer(self.command, self.path, json.loads(text) if text else None)
            except Refused as refused:
                code, answer = refused.args[0], {"id": refused.args[1], "message": refused.args[2]}
            data = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _serve

        def log_message(self, *_arguments: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    account.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield account
    finally:
        server.shutdown()
        server.server_close()
