# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""What a cloud's firewall should hold, and what has to change for it."""

from __future__ import annotations

import csv
import io
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

MARK = "onprem.circleci_server"
PROVIDERS = {"eks": "aws", "gke": "gcp", "azure": "azure", "digitalocean": "digitalocean"}
"""Platform of the site: its cloud."""
SET = ("aws", "digitalocean")
"""Clouds whose firewall the verb cloud_prepare sets. The table for a network team is there for all."""
CONSTRUCTS = {"aws": "security group", "gcp": "VPC firewall, target tag", "azure": "network security group", "digitalocean": "firewall and tag"}
LIMITS = {"aws": 60, "azure": 1000, "digitalocean": 50}
"""Rules of one security group for each address family (quota of AWS, which an account can raise), of one network security group, of one firewall.
VPC firewalls of Google have no limit for each tag."""
COLUMNS = ("construct", "name", "direction", "protocol", "ports", "network", "rules")
# The state of a rule of the port model that nobody has to carry. The others are for a packet filter of a host, a node or a network.
IDLE = ("documented", "nobody", "left", "switched off")


class CloudError(Exception):
    """Everything that stands in the way, in sentences for people."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class RuleKey(NamedTuple):
    """What makes two rules of one group the same rule. Protocol C(any) has the ports 0 to 65535."""

    protocol: str
    low: int
    high: int
    network: str

    def __str__(self) -> str:
        ports = str(self.low) if self.low == self.high else f"{self.low}-{self.high}"
        return f"{self.protocol} {ports} from {self.network}" if self.protocol != "any" else f"any protocol from {self.network}"


@dataclass
class Found:
    """A group that is there. C(owned) is false for one of the same name that somebody else made."""

    id: str
    owned: bool
    rules: dict[RuleKey, str] = field(default_factory=dict)
    foreign: frozenset[RuleKey] = frozenset()


@dataclass(frozen=True)
class Change:
    """What has to happen to one group."""

    name: str
    id: str
    wanted: Mapping[RuleKey, str]
    add: tuple[RuleKey, ...]
    remove: tuple[RuleKey, ...]

    @property
    def empty(self) -> bool:
        return bool(self.id) and not self.add and not self.remove


class Provider(Protocol):
    """One cloud. Both calls raise CloudError."""

    def read(self, names: Iterable[str]) -> dict[str, Found]:
        """The groups of this site, and those of others that bear one of *names*."""

    def apply(self, change: Change) -> None:
        """Make one group as the change says."""


def endpoints(provider: str, region: str, endpoint: str = "") -> list[str]:
    """Every address that the verb talks to, known without talking."""
    if endpoint:
        return [endpoint]
    if provider == "aws":
        return [f"https://ec2.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"]
    return ["https://api.digitalocean.com"]


def _ports(text: str) -> tuple[int, int]:
    low, _dash, high = text.partition("-")
    return int(low), int(high or low)


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise CloudError(f"peer {text!r} is no network: {error}; write it with its first address, for instance 10.1.0.0/24") from error


def _joined(ranges: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Ranges that touch or overlap as one, so that a quota holds more; the ids of the rules are kept."""
    result: list[tuple[int, int, str]] = []
    for low, high, name in sorted(ranges):
        if result and low <= result[-1][1] + 1:
            before = result[-1]
            names = before[2] if name in before[2].split(" ") else f"{before[2]} {name}"
            result[-1] = (before[0], max(high, before[1]), names)
        else:
            result.append((low, high, name))
    return result


def constructs(provider: str, site: str, rules: Iterable[Mapping[str, Any]], limited: bool = True) -> dict[str, list[dict[str, Any]]]:
    """Groups by their names, each with its rules, from the rules of the port model.

    Hosts of one kind share a group. Outgoing traffic is let out, as on the hosts.
    """
    if provider not in CONSTRUCTS:
        raise CloudError(f"cloud {provider!r} is unknown; known are {', '.join(sorted(CONSTRUCTS))}")
    found: dict[str, dict[tuple[str, str], set[tuple[int, int, str]]]] = {}
    for rule in rules:
        if rule["direction"] != "ingress" or rule["action"] != "accept" or str(rule["state"]).startswith(IDLE):
            continue
        # A load balancer of DigitalOcean carries no firewall for machines; circleci_load_balancer_sources guards it.
        if provider == "digitalocean" and rule["group"] == "load_balancer":
            continue
        for peer in rule["peers"]:
            network = _network(peer)
            for ports in rule["ports"]:
                low, high = (0, 65535) if ports == "any" or rule["protocol"] == "any" else _ports(ports)
                name = f"circleci-{site}-{str(rule['group']).replace('_', '-')}"
                found.setdefault(name, {}).setdefault((rule["protocol"], network), set()).add((low, high, rule["id"]))
    result: dict[str, list[dict[str, Any]]] = {}
    for name, parts in sorted(found.items()):
        result[name] = [
            {"protocol": protocol, "low": low, "high": high, "network": network, "reason": reason}
            for (protocol, network), ranges in sorted(parts.items())
            for low, high, reason in _joined(ranges)
        ]
    problems = []
    for name, items in result.items():
        for version, count in _counts(provider, items):
            if limited and count > LIMITS.get(provider, count):
                problems.append(f"{name} needs {count} {version}rules, {provider} holds {LIMITS[provider]}; name larger networks in circleci_ports")
    if problems:
        raise CloudError(*problems)
    return result


def _counts(provider: str, items: Iterable[Mapping[str, Any]]) -> list[tuple[str, int]]:
    if provider == "digitalocean":
        # One rule holds all networks of its ports; any protocol is three rules, and three let everything out.
        return [("", 3 + sum(3 if protocol == "any" else 1 for protocol, _low, _high in {(i["protocol"], i["low"], i["high"]) for i in items}))]
    if provider == "azure":
        return [("", len(list(items)))]
    sixes = [":" in str(item["network"]) for item in items]
    return [("IPv4 ", sixes.count(False)), ("IPv6 ", sixes.count(True))]


def table(provider: str, groups: Mapping[str, Iterable[Mapping[str, Any]]], form: str) -> str:
    """The groups as C(markdown) or C(csv), for those who set rules by hand."""
    rows = [
        (CONSTRUCTS[provider], name, "ingress", item["protocol"],
         str(item["low"]) if item["low"] == item["high"] else f"{item['low']}-{item['high']}", item["network"], item["reason"])
        for name, items in groups.items()
        for item in items
    ]  # fmt: skip
    if form == "csv":
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([COLUMNS, *rows])
        return buffer.getvalue()
    if form == "markdown":
        return "".join("| " + " | ".join(row) + " |\n" for row in (COLUMNS, ("---",) * len(COLUMNS), *rows))
    raise CloudError(f"form {form!r} is unknown; known are groups, markdown and csv")


def changes(wanted: Mapping[str, Iterable[Mapping[str, Any]]], found: Mapping[str, Found]) -> list[Change]:
    """One change for each group that differs. Groups of ours that nothing wants keep their names and lose our rules."""
    foreign = sorted(name for name in wanted if name in found and not found[name].owned)
    if foreign:
        raise CloudError(*(
            f"{name} is there and was not made by this collection for this site (it lacks the mark); rename or remove it, or give the site another name"
            for name in foreign))  # fmt: skip
    result = []
    for name in sorted({*wanted, *(name for name, group in found.items() if group.owned)}):
        keys = {RuleKey(item["protocol"], item["low"], item["high"], item["network"]): str(item["reason"]) for item in wanted.get(name, ())}
        group = found.get(name) or Found(id="", owned=True)
        change = Change(
            name=name,
            id=group.id,
            wanted=keys,
            # What somebody else opened already need not be opened twice, and is not ours to close.
            add=tuple(sorted(key for key in keys if key not in group.rules and key not in group.foreign)),
            remove=tuple(sorted(key for key in group.rules if key not in keys)),
        )
        if not change.empty:
            result.append(change)
    return result


def shown(found: Mapping[str, Found], todo: Iterable[Change]) -> tuple[str, str]:
    """Our rules before and after, as text for a diff."""
    before = {name: set(group.rules) for name, group in found.items() if group.owned}
    after = {name: set(keys) for name, keys in before.items()}
    for change in todo:
        after[change.name] = (after.get(change.name, set()) - set(change.remove)) | set(change.add)
    return _text(before), _text(after)


def _text(groups: Mapping[str, Iterable[RuleKey]]) -> str:
    return "".join(f"{name}\n" + "".join(f"  {key}\n" for key in sorted(keys)) for name, keys in sorted(groups.items()))
