# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Firewalls of DigitalOcean, by its REST API.

A firewall has no mark but the tags that it is bound to. Ours has two: one of its own name, which machines get and with it the rules, and one of the
site, which no machine gets and which tells that the firewall is ours.
Rules in it have no description, so that all networks that may come in are ours. Machines, load balancers and tags in their place are of others.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Any

from ..cloud import TAG, CloudError
from ..cloud.digitalocean import DigitalOceanApi
from .model import Change, Found, RuleKey, plain, together

EVERYBODY = ["0.0.0.0/0", "::/0"]
ALL_PORTS = "0"
"""What the API calls all ports. It needs a value for every protocol, also for icmp, which has none."""


class DigitalOcean:
    """Firewalls of one account."""

    def __init__(self, site: str, token: str, endpoint: str = "") -> None:
        self.mark = f"{TAG}:{site}"
        self.rest = DigitalOceanApi(token, endpoint)
        self.there: dict[str, dict[str, Any]] = {}

    def read(self, names: Iterable[str]) -> dict[str, Found]:
        wanted = set(names)
        result = {}
        for item in self.rest.all("/v2/firewalls", "firewalls"):
            tags = item.get("tags") or []
            owned = self.mark in tags
            if owned or item["name"] in wanted:
                self.there[item["id"]] = item
                rules = dict.fromkeys(_keys(item.get("inbound_rules") or []), "")
                loose = owned and item["name"] not in tags
                edited = dict.fromkeys(rules, f"for no machine, since the tag {item['name']} was taken away") if loose else {}
                result[item["name"]] = Found(id=item["id"], owned=owned, rules=rules, edited=edited)
        return result

    def apply(self, change: Change) -> None:
        # A change replaces the firewall as a whole, and with it what others bound to it; that is handed back.
        there = self.there.get(change.id, {})
        body = {
            "name": change.name,
            "inbound_rules": [*_inbound(change.wanted), *_of_others(there.get("inbound_rules") or [])],
            "outbound_rules": there.get("outbound_rules") or [
                {"protocol": protocol, "ports": ALL_PORTS, "destinations": {"addresses": EVERYBODY}} for protocol in ("tcp", "udp", "icmp")
            ],
            "tags": sorted({*(there.get("tags") or []), change.name, self.mark}),
            **({"droplet_ids": there["droplet_ids"]} if there.get("droplet_ids") else {}),
        }  # fmt: skip
        # Making a tag that is there already changes nothing.
        for tag in set(body["tags"]) - set(there.get("tags") or []):
            self.rest.call("POST", "/v2/tags", {"name": tag})
        if change.id:
            self._finish(self.rest.call("PUT", f"/v2/firewalls/{urllib.parse.quote(change.id)}", body).data)
            return
        self._finish(self.rest.call("POST", "/v2/firewalls", body).data)

    def _finish(self, answer: dict[str, Any]) -> None:
        """Wait until the machines have the rules."""
        firewall = answer.get("firewall") or {}
        if firewall.get("status") == "waiting":
            for again in self.rest.poll(f"/v2/firewalls/{urllib.parse.quote(str(firewall['id']))}", {}):
                firewall = again.data.get("firewall") or {}
                if firewall.get("status") != "waiting":
                    break
        if firewall.get("status") == "failed":
            late = ", ".join(str(item.get("droplet_id")) for item in firewall.get("pending_changes") or [])
            raise CloudError(f"DigitalOcean could not bring the rules of {firewall.get('name')} to every machine (droplets {late or 'not named'})")


def _keys(rules: Iterable[dict[str, Any]]) -> Iterator[RuleKey]:
    """Rules as they are told apart. Any protocol is tcp, udp and icmp there, and comes back as one where all three stand for a network."""
    keys: set[RuleKey] = set()
    for rule in rules:
        text = str(rule.get("ports") or ALL_PORTS)
        low, _dash, high = ("0", "-", "65535") if text in (ALL_PORTS, "all") else text.partition("-")
        networks = (rule.get("sources") or {}).get("addresses") or []
        keys |= {RuleKey(rule["protocol"], int(low), int(high or low), plain(network)) for network in networks}
    for network in sorted({key.network for key in keys if key.protocol == "icmp"}):
        three = {RuleKey(protocol, 0, 65535, network) for protocol in ("tcp", "udp", "icmp")}
        if three <= keys:
            keys = keys - three | {RuleKey("any", 0, 65535, network)}
    yield from sorted(keys)


def _inbound(wanted: Iterable[RuleKey]) -> list[dict[str, Any]]:
    """One rule for each protocol and range, with all its networks."""
    parts: dict[tuple[str, str], list[str]] = {}
    for (_action, word, low, high, _family), networks in together(wanted).items():
        single = str(low) if low == high else f"{low}-{high}"
        for protocol in ("tcp", "udp", "icmp") if word == "any" else (word,):
            ports = ALL_PORTS if protocol == "icmp" or (low, high) == (0, 65535) else single
            parts.setdefault((protocol, ports), []).extend(networks)
    return [{"protocol": protocol, "ports": ports, "sources": {"addresses": sorted(set(networks))}} for (protocol, ports), networks in parts.items()]


def _of_others(rules: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sources that are machines, load balancers or tags."""
    kept = [{**rule, "sources": {kind: items for kind, items in (rule.get("sources") or {}).items() if kind != "addresses" and items}} for rule in rules]
    return [rule for rule in kept if rule["sources"]]
