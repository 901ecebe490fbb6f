# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Network security groups of Azure, by the REST API of Azure Resource Manager; azure-identity finds the credentials.

Not azure.azcollection: it wants some sixty libraries, and azure_rm_securitygroup either keeps every rule that nobody wants or takes away those of others.

A group is ours by its tag, a rule in it by its name and its description. Only single rules are written, so that those of others and their priorities
are never sent. Ours keep the priorities that they have; a new one takes the first that is free.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..cloud import MARK, TAG, CloudError
from ..cloud.azure import GROUP, GROUP_FORM, Arm
from .model import (
    AZURE_LAST,
    EVERYBODY,
    Change,
    Found,
    RuleKey,
    key_of,
    plain,
    together,
)

API_VERSION = "2023-09-01"
PROTOCOLS = {"tcp": "Tcp", "udp": "Udp", "icmp": "Icmp", "any": "*"}
PROBES, REST_OF_ALL = (key_of(item) for item in AZURE_LAST)
# Allowed are 100 to 4096. What is below the first stays free for rules of others that must come before ours.
FIRST, LAST = 1000, 4094
FIXED = {PROBES: ("circleci-load-balancer-probes", 4095), REST_OF_ALL: ("circleci-deny-the-rest", 4096)}
CLOSING = dict(FIXED.values())
"""Rules that stay in a group that no host needs any more: without them Azure would open it to the virtual network. Their names and priorities."""
NAME = re.compile(r"circleci-(?:(?:tcp|udp|icmp|any)(?:-[0-9]+){0,2}-v[46]|load-balancer-probes|deny-the-rest)", re.IGNORECASE)


class Azure:
    """Network security groups of one resource group."""

    def __init__(self, site: str, region: str, network: str, token: str, endpoint: str = "") -> None:
        problems = []
        if not GROUP.fullmatch(network):
            problems.append(f"circleci_cloud_network is {network!r}; Azure needs the resource group as {GROUP_FORM}")
        if not region:
            problems.append("circleci_cloud_region is empty; Azure needs the location of the machines, for instance westeurope")
        if problems:
            raise CloudError(*problems)
        self.site, self.region, self.prefix = site, region, f"{MARK} {site}: "
        self.arm = Arm(region, token, endpoint)
        self.groups = f"{network}/providers/Microsoft.Network/networkSecurityGroups"
        self.there: dict[str, dict[str, Any]] = {}

    def read(self, names: Iterable[str]) -> dict[str, Found]:
        wanted = set(names)
        result: dict[str, Found] = {}
        problems: list[str] = []
        for item in self.arm.all(self.groups, API_VERSION):
            # Azure tells names apart without regard to case.
            name = str(item["name"]).lower()
            owned = (item.get("tags") or {}).get(TAG) == self.site
            if not owned and name not in wanted:
                continue
            self.there[name] = item
            found = result[name] = Found(id=str(item["id"]), owned=owned)
            if not owned:
                continue
            for rule in _rules(item):
                if self._ours(rule) and (name in wanted or str(rule["name"]).lower() not in CLOSING):
                    note = _edited(rule)
                    for key in _keys(rule["properties"]):
                        found.rules[key] = ""
                        if note:
                            found.edited[key] = note
                elif name in wanted:
                    problems += _in_the_way(name, rule)
        if problems:
            raise CloudError(*problems)
        return result

    def apply(self, change: Change) -> None:
        there = {str(rule["name"]).lower(): rule for rule in _rules(self.there.get(change.name, {})) if self._ours(rule)}
        wanted = {rule["name"]: rule for rule in self._bodies(change, there)}
        group = f"{self.groups}/{change.name}"
        if not change.id:
            body = {"location": self.region, "tags": {TAG: self.site}, "properties": {"securityRules": list(wanted.values())}}
            self.arm.change("PUT", group, API_VERSION, body)
            return
        # Opened before closed, and the rest denied at the end: nobody is cut off while a rule is replaced.
        for name, rule in wanted.items():
            old = there.get(name)
            if old is None or _edited(old) or set(_keys(old["properties"])) != set(_keys(rule["properties"])):
                self.arm.change("PUT", f"{group}/securityRules/{name}", API_VERSION, rule)
        for name in sorted(set(there) - set(wanted) - set(CLOSING)):
            self.arm.change("DELETE", f"{group}/securityRules/{name}", API_VERSION)

    def _ours(self, rule: Mapping[str, Any]) -> bool:
        properties = rule["properties"]
        marked = str(properties.get("description") or "").startswith(self.prefix)
        return marked and bool(NAME.fullmatch(rule["name"])) and properties["direction"] == "Inbound"

    def _bodies(self, change: Change, ours: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Rules as Azure has them; the ones with fixed priorities come last."""
        rules = _rules(self.there.get(change.name, {}))
        taken = {int(rule["properties"]["priority"]) for rule in rules if rule["properties"]["direction"] == "Inbound"}
        free = (number for number in range(FIRST, LAST + 1) if number not in taken)
        result = []
        for (action, protocol, low, high, family), networks in together(change.wanted).items():
            keys = [RuleKey(protocol, low, high, network, action) for network in networks]
            ports = str(low) if low == high else f"{low}-{high}"
            whole = (low, high) == (0, 65535)
            name, priority = FIXED.get(keys[0]) or ("-".join(filter(None, ("circleci", protocol, "" if whole else ports, family))), 0)
            if not priority:
                old = ours.get(name)
                # One is always free, since a group holds fewer rules than there are numbers.
                priority = int(old["properties"]["priority"]) if old else next(free)
            properties: dict[str, Any] = {
                "description": (self.prefix + ", ".join(sorted({change.wanted[key] for key in keys})))[:140],
                "protocol": PROTOCOLS[protocol],
                "sourcePortRange": "*",
                "destinationPortRange": "*" if whole else ports,
                "destinationAddressPrefix": "*",
                "access": "Deny" if action == "deny" else "Allow",
                "priority": priority,
                "direction": "Inbound",
            }
            properties.update({"sourceAddressPrefixes": sorted(networks)} if family else {"sourceAddressPrefix": networks[0]})
            result.append({"name": name, "properties": properties})
        return sorted(result, key=lambda rule: (rule["name"] in CLOSING, rule["properties"]["priority"]))


def _rules(group: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list((group.get("properties") or {}).get("securityRules") or [])


def _in_the_way(group: str, rule: Mapping[str, Any]) -> Iterable[str]:
    properties, name = rule["properties"], str(rule["name"])
    if NAME.fullmatch(name):
        yield f"rule {name} of {group} has a name of ours and was not made by this collection for this site (it lacks the mark); rename or remove it"
    if properties["direction"] == "Inbound" and properties["priority"] > LAST:
        yield (f"rule {name} of {group} has the priority {properties['priority']}; {LAST + 1} and {LAST + 2} are needed for the rules that close the rest, "
               "which come last; give it another one")  # fmt: skip


def _keys(properties: Mapping[str, Any]) -> Iterable[RuleKey]:
    words = {value: name for name, value in PROTOCOLS.items()}
    protocol = words.get(properties["protocol"].capitalize(), properties["protocol"].lower())
    action = "deny" if properties["access"] == "Deny" else "allow"
    networks = properties.get("sourceAddressPrefixes") or [properties.get("sourceAddressPrefix") or EVERYBODY]
    for text in properties.get("destinationPortRanges") or [properties.get("destinationPortRange") or "*"]:
        low, _dash, high = ("0", "-", "65535") if text == "*" else text.partition("-")
        for network in networks:
            yield RuleKey(protocol, int(low), int(high or low), plain(network), action)


def _edited(rule: Mapping[str, Any]) -> str:
    """What makes a rule of ours mean something else than its protocol, ports and networks say."""
    properties = rule["properties"]
    notes = []
    fixed = CLOSING.get(str(rule["name"]).lower())
    if fixed and properties["priority"] != fixed:
        notes.append(f"priority {properties['priority']}")
    for kind, several in (("sourcePortRange", "sourcePortRanges"), ("destinationAddressPrefix", "destinationAddressPrefixes")):
        value = properties.get(several) or [properties.get(kind) or "*"]
        if value != ["*"]:
            notes.append(f"{kind} {', '.join(value)}")
    notes += [f"{kind} set" for kind in ("sourceApplicationSecurityGroups", "destinationApplicationSecurityGroups") if properties.get(kind)]
    return "; ".join(notes)
