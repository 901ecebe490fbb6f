# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Firewalls of DigitalOcean, by its REST API: community.digitalocean is no longer kept.

A firewall has no mark of its own. Ours is the one that is bound to the tag of the same name; machines get the tag, and with it the rules.
Rules in it have no description, so that all networks that may come in are ours. Machines, load balancers and tags in their place are of others.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any

from .model import Change, CloudError, Found, RuleKey

API = "https://api.digitalocean.com"
EVERYBODY = ["0.0.0.0/0", "::/0"]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token goes nowhere else."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


class DigitalOcean:
    """Firewalls of one account."""

    def __init__(self, site: str, token: str, endpoint: str = "") -> None:
        self.token = token or os.environ.get("DIGITALOCEAN_TOKEN", "")
        if not self.token:
            raise CloudError("DigitalOcean: no token; set circleci_cloud_token, or DIGITALOCEAN_TOKEN in the environment of the run")
        self.prefix = f"circleci-{site}-"
        self.endpoint = (endpoint or API).rstrip("/")
        if not self.endpoint.startswith(("https://", "http://127.0.0.1:")):
            raise CloudError(f"circleci_cloud_endpoint is {self.endpoint!r}; a URL that begins with https:// is needed, since the token goes there")
        self.there: dict[str, dict[str, Any]] = {}
        self.opener = urllib.request.build_opener(_NoRedirect)

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.endpoint + path, data, headers, method=method)  # noqa: S310 - the scheme was checked
        try:
            with self.opener.open(request, timeout=60) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            try:
                said = str(json.loads(error.read())["message"])
            except (ValueError, KeyError, TypeError):
                said = str(error.reason)
            raise CloudError(f"DigitalOcean refused {method} {path}: {said} (HTTP {error.code})") from error
        except OSError as error:
            raise CloudError(f"DigitalOcean cannot be reached at {self.endpoint}: {getattr(error, 'reason', error)}") from error
        try:
            found = json.loads(text) if text else {}
        except ValueError as error:
            raise CloudError(f"{self.endpoint} does not answer like DigitalOcean's API: {method} {path} gave no JSON") from error
        if not isinstance(found, dict):
            raise CloudError(f"{self.endpoint} does not answer like DigitalOcean's API: {method} {path} gave no object")
        return found

    def _firewalls(self) -> Iterator[dict[str, Any]]:
        page = 1
        while True:
            found = self._call("GET", f"/v2/firewalls?page={page}&per_page=100")
            yield from found.get("firewalls", [])
            if not found.get("links", {}).get("pages", {}).get("next"):
                return
            page += 1

    def read(self, names: Iterable[str]) -> dict[str, Found]:
        wanted = set(names)
        result = {}
        for item in self._firewalls():
            owned = item["name"].startswith(self.prefix) and item["name"] in (item.get("tags") or [])
            if owned or item["name"] in wanted:
                self.there[item["id"]] = item
                rules = dict.fromkeys(_keys(item.get("inbound_rules") or []), "")
                result[item["name"]] = Found(id=item["id"], owned=owned, rules=rules)
        return result

    def apply(self, change: Change) -> None:
        # A change replaces the firewall as a whole, and with it what others bound to it; that is handed back.
        there = self.there.get(change.id, {})
        body = {
            "name": change.name,
            "inbound_rules": [*_inbound(change.wanted), *_of_others(there.get("inbound_rules") or [])],
            "outbound_rules": there.get("outbound_rules") or [
                {"protocol": "tcp", "ports": "all", "destinations": {"addresses": EVERYBODY}},
                {"protocol": "udp", "ports": "all", "destinations": {"addresses": EVERYBODY}},
                {"protocol": "icmp", "destinations": {"addresses": EVERYBODY}},
            ],
            "tags": there.get("tags") or [change.name],
            **({"droplet_ids": there["droplet_ids"]} if there.get("droplet_ids") else {}),
        }  # fmt: skip
        if change.id:
            self._call("PUT", f"/v2/firewalls/{urllib.parse.quote(change.id)}", body)
            return
        # Making a tag that is there already changes nothing.
        self._call("POST", "/v2/tags", {"name": change.name})
        self._call("POST", "/v2/firewalls", body)


def _keys(rules: Iterable[dict[str, Any]]) -> Iterator[RuleKey]:
    """Rules as they are told apart. Any protocol is tcp, udp and icmp there, and comes back as one where all three stand for a network."""
    plain: set[RuleKey] = set()
    for rule in rules:
        # The API takes "all" and gives back "0" for it.
        text = str(rule.get("ports") or "0")
        low, _dash, high = ("0", "-", "65535") if text in ("0", "all") else text.partition("-")
        plain |= {RuleKey(rule["protocol"], int(low), int(high or low), network) for network in (rule.get("sources") or {}).get("addresses") or []}
    for network in sorted({key.network for key in plain if key.protocol == "icmp"}):
        three = {RuleKey(protocol, 0, 65535, network) for protocol in ("tcp", "udp", "icmp")}
        if three <= plain:
            plain = plain - three | {RuleKey("any", 0, 65535, network)}
    yield from sorted(plain)


def _inbound(wanted: Iterable[RuleKey]) -> list[dict[str, Any]]:
    """One rule for each protocol and range, with all its networks."""
    parts: dict[tuple[str, str], list[str]] = {}
    for key in sorted(wanted):
        for protocol in ("tcp", "udp", "icmp") if key.protocol == "any" else (key.protocol,):
            single = str(key.low) if key.low == key.high else f"{key.low}-{key.high}"
            ports = "" if protocol == "icmp" else "all" if (key.low, key.high) == (0, 65535) else single
            parts.setdefault((protocol, ports), []).append(key.network)
    return [
        {"protocol": protocol, **({"ports": ports} if ports else {}), "sources": {"addresses": sorted(networks)}}
        for (protocol, ports), networks in parts.items()
    ]


def _of_others(rules: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sources that are machines, load balancers or tags."""
    kept = [{**rule, "sources": {kind: items for kind, items in (rule.get("sources") or {}).items() if kind != "addresses" and items}} for rule in rules]
    return [rule for rule in kept if rule["sources"]]
