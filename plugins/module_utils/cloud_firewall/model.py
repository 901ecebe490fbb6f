# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""What a cloud's firewall should hold, and what has to change for it."""

from __future__ import annotations

import csv
import io
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ..cloud import CloudError

CONSTRUCTS = {"aws": "security group", "gcp": "VPC firewall, target tag", "azure": "network security group", "digitalocean": "firewall and tag"}
LIMITS = {"aws": 60, "azure": 1000, "digitalocean": 50}
"""Rules of one security group for each address family (quota of AWS, which an account can raise), of one network security group, of one firewall.
VPC firewalls of Google have no limit for each tag, only a quota of the project, which its API tells."""
AZURE_PREFIXES = 4000
"""Networks of all rules of one network security group of Azure."""
GCP_NAME = 63
"""Characters of a tag and of the name of a VPC firewall rule."""
COLUMNS = ("construct", "name", "direction", "action", "protocol", "ports", "network", "rules")
EVERYBODY = "*"
# Azure lets everything in from the virtual network unless a rule denies it; the other clouds let nothing in that no rule names.
# A denied load balancer would take every machine for dead.
AZURE_LAST = (
    {"protocol": "any", "low": 0, "high": 65535, "network": "AzureLoadBalancer", "reason": "probes of Azure's load balancers"},
    {"protocol": "any", "low": 0, "high": 65535, "network": EVERYBODY, "action": "deny", "reason": "the rest, which Azure lets in from the virtual network"},
)
# The state of a rule of the port model that nobody has to carry. The others are for a packet filter of a host, a node or a network.
IDLE = ("documented", "nobody", "left", "switched off")


class RuleKey(NamedTuple):
    """What makes two rules of one group the same rule. Protocol C(any) has the ports 0 to 65535."""

    protocol: str
    low: int
    high: int
    network: str
    action: str = "allow"

    def __str__(self) -> str:
        ports = str(self.low) if self.low == self.high else f"{self.low}-{self.high}"
        what = f"{self.protocol} {ports}" if self.protocol != "any" else "any protocol"
        return f"{'deny ' if self.action == 'deny' else ''}{what} from {'everybody' if self.network == EVERYBODY else self.network}"

    @property
    def family(self) -> str:
        """C(v4), C(v6), or empty for what is no network: everybody, and names that the cloud has for networks."""
        try:
            return f"v{ipaddress.ip_network(self.network).version}"
        except ValueError:
            return ""


@dataclass
class Found:
    """A group that is there. C(owned) is false for one of the same name that somebody else made."""

    id: str
    owned: bool
    rules: dict[RuleKey, str] = field(default_factory=dict)
    foreign: frozenset[RuleKey] = frozenset()
    edited: dict[RuleKey, str] = field(default_factory=dict)
    """Those of C(rules) that somebody else gave another effect, and which one, for instance C(disabled)."""


@dataclass(frozen=True)
class Change:
    """What has to happen to one group."""

    name: str
    id: str
    wanted: Mapping[RuleKey, str]
    add: tuple[RuleKey, ...]
    remove: tuple[RuleKey, ...]
    repair: tuple[RuleKey, ...] = ()

    @property
    def empty(self) -> bool:
        return bool(self.id) and not self.add and not self.remove and not self.repair


class Provider(Protocol):
    """One cloud. Both calls raise CloudError."""

    def read(self, names: Iterable[str]) -> dict[str, Found]:
        """The groups of this site, and those of others that bear one of *names*."""

    def apply(self, change: Change) -> None:
        """Make one group as the change says."""


def _ports(text: str) -> tuple[int, int]:
    low, _dash, high = text.partition("-")
    return int(low), int(high or low)


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise CloudError(f"peer {text!r} is no network: {error}; write it with its first address, for instance 10.1.0.0/24") from error


def plain(network: str) -> str:
    """A network as C(_network) writes it, whatever form a cloud gives it back in; names of a cloud for networks stay."""
    try:
        return str(ipaddress.ip_network(network, strict=False))
    except ValueError:
        return network


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
        if provider == "digitalocean" and rule["group"] in ("load_balancer", "object_storage_gateway"):
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
        if provider == "azure":
            result[name] += [dict(item) for item in AZURE_LAST]
    problems = [problem for name, items in result.items() for problem in _too_much(provider, name, [key_of(item) for item in items])] if limited else []
    if problems:
        raise CloudError(*problems)
    return result


def key_of(item: Mapping[str, Any]) -> RuleKey:
    """The rule that an item of C(constructs) stands for."""
    return RuleKey(item["protocol"], item["low"], item["high"], item["network"], item.get("action", "allow"))


def together(keys: Iterable[RuleKey]) -> dict[tuple[str, str, int, int, str], list[str]]:
    """Networks that one rule can hold: those of the same action, protocol, ports and address family."""
    parts: dict[tuple[str, str, int, int, str], list[str]] = {}
    for key in sorted(keys):
        parts.setdefault((key.action, key.protocol, key.low, key.high, key.family), []).append(key.network)
    return parts


def _too_much(provider: str, name: str, keys: list[RuleKey]) -> Iterator[str]:
    """What the cloud would refuse, in sentences."""
    if provider == "gcp":
        # The longest name that a rule of this group could get.
        longest = len(f"{name}-tcp-64535-65535-v4")
        if longest > GCP_NAME:
            yield f"{name} makes names of {longest} characters, gcp takes {GCP_NAME}; give circleci_site a shorter name"
    for kind, count, limit in _counts(provider, keys):
        if count > limit:
            yield f"{name} needs {count} {kind}, {provider} holds {limit}; name larger networks in circleci_ports"


def _counts(provider: str, keys: list[RuleKey]) -> list[tuple[str, int, int]]:
    limit = LIMITS.get(provider, len(keys))
    if provider == "digitalocean":
        # One rule holds all networks of its ports; any protocol is three rules, and three let everything out.
        return [("rules", 3 + sum(3 if protocol == "any" else 1 for protocol, _low, _high in {key[:3] for key in keys}), limit)]
    if provider == "azure":
        return [("rules", len(together(keys)), limit), ("networks in its rules", len(keys), AZURE_PREFIXES)]
    sixes = [key.family == "v6" for key in keys]
    return [("IPv4 rules", sixes.count(False), limit), ("IPv6 rules", sixes.count(True), limit)]


def table(provider: str, groups: Mapping[str, Iterable[Mapping[str, Any]]], form: str) -> str:
    """The groups as C(markdown) or C(csv), for those who set rules by hand."""
    rows = [
        (CONSTRUCTS[provider], name, "ingress", item.get("action", "allow"), item["protocol"],
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
        keys = {key_of(item): str(item["reason"]) for item in wanted.get(name, ())}
        group = found.get(name) or Found(id="", owned=True)
        change = Change(
            name=name,
            id=group.id,
            wanted=keys,
            # What somebody else opened already need not be opened twice, and is not ours to close.
            add=tuple(sorted(key for key in keys if key not in group.rules and key not in group.foreign)),
            remove=tuple(sorted(key for key in group.rules if key not in keys)),
            repair=tuple(sorted(key for key in group.edited if key in keys)),
        )
        if not change.empty:
            result.append(change)
    return result


def shown(found: Mapping[str, Found], todo: Iterable[Change]) -> tuple[str, str]:
    """Our rules before and after, as text for a diff. What somebody else did to one of them stands behind it."""
    before = {name: set(group.rules) for name, group in found.items() if group.owned}
    after = {name: set(keys) for name, keys in before.items()}
    edited = {name: group.edited for name, group in found.items()}
    for change in todo:
        after[change.name] = (after.get(change.name, set()) - set(change.remove)) | set(change.add)
    return _text(before, edited), _text(after, {})


def _text(groups: Mapping[str, Iterable[RuleKey]], edited: Mapping[str, Mapping[RuleKey, str]]) -> str:
    lines = []
    for name, keys in sorted(groups.items()):
        notes = edited.get(name, {})
        lines += [name, *(f"  {key} ({notes[key]})" if key in notes else f"  {key}" for key in sorted(keys))]
    return "".join(f"{line}\n" for line in lines)
