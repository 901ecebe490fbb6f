# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Rules as the backends need them, and what a packet would meet in our own scope."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional, Union

from .errors import FirewallError

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
MODES = ("open", "guard", "enforce")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Accept:
    """Ports of one protocol that the sources may reach."""

    id: str
    protocol: str
    ports: tuple[tuple[int, int], ...]
    sources: tuple[str, ...]
    reason: str = ""

    def family(self, version: int) -> tuple[str, ...]:
        """Sources of one address family; a network of all addresses is in it as /0."""
        return tuple(item for item in self.sources if ipaddress.ip_network(item).version == version)

    def anywhere(self, version: int) -> bool:
        """Whether everybody of the address family may connect."""
        return any(ipaddress.ip_network(item).prefixlen == 0 for item in self.family(version))

    def lines(self) -> list[str]:
        """One readable line per address family, the same in a diff as in the result."""
        result = []
        for version in (4, 6):
            sources = self.family(version)
            if sources:
                where = "anywhere" if self.anywhere(version) else ", ".join(_short(item) for item in sources)
                result.append(f"accept IPv{version} {self.protocol} {port_text(self.ports)} from {where} ({self.id})")
        return result


@dataclass(frozen=True)
class Block:
    """Networks that containers may not reach, apart from the exceptions (name resolution)."""

    networks: tuple[str, ...]
    dns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All that our own scope holds on one host."""

    mode: str
    accepts: tuple[Accept, ...]
    block: Optional[Block] = None
    interfaces: tuple[str, ...] = ("docker*", "br-*", "ci-privileged")

    def as_data(self) -> dict[str, Any]:
        """The plan as it comes back from JSON, and as C(plan_of) reads it."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data

    def guarded(self, protocol: str) -> tuple[tuple[int, int], ...]:
        """Ports that rules manage, merged: guard mode drops what no rule accepts on them."""
        spans = sorted(span for item in self.accepts if item.protocol == protocol for span in item.ports)
        merged: list[tuple[int, int]] = []
        for low, high in spans:
            if merged and low <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))
        return tuple(merged)

    def lines(self) -> list[str]:
        """The plan for people."""
        result = [line for item in self.accepts for line in item.lines()]
        if self.block is not None:
            for network in self.block.networks:
                known = f" except name resolution by {', '.join(self.block.dns)}" if self.block.dns else ""
                result.append(f"drop from containers to {network}{known}")
        if self.mode == "guard":
            for protocol in ("tcp", "udp"):
                ports = self.guarded(protocol)
                if ports:
                    result.append(f"drop {protocol} {port_text(ports)} from everybody else")
        elif self.mode == "enforce":
            result.append("drop everything else that comes in")
        return result

    def verdict(self, source: str, protocol: str, port: int) -> str:
        """What our scope does with a new connection: C(accept), C(drop) or C(continue) to the rules of others."""
        address = ipaddress.ip_address(source.split("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        address = mapped or address
        if address.is_loopback:
            return "accept"
        for item in self.accepts:
            if item.protocol != protocol or not any(low <= port <= high for low, high in item.ports):
                continue
            if any(address in ipaddress.ip_network(text) for text in item.family(address.version)):
                return "accept"
        if self.mode == "enforce":
            return "drop"
        if self.mode == "guard" and any(low <= port <= high for low, high in self.guarded(protocol)):
            return "drop"
        return "continue"


def plan_of(data: Mapping[str, Any]) -> Plan:
    """A plan out of the record; KeyError, TypeError or ValueError where it is none."""
    accepts = [
        Accept(item["id"], item["protocol"], tuple((int(low), int(high)) for low, high in item["ports"]), tuple(item["sources"]), item["reason"])
        for item in data["accepts"]
    ]
    block = Block(tuple(data["block"]["networks"]), tuple(data["block"]["dns"])) if data["block"] else None
    return Plan(data["mode"], tuple(accepts), block, tuple(data["interfaces"]))


def together(plans: Sequence[Plan]) -> Optional[Plan]:
    """One plan that lets in what any of them does, as strict as the strictest; None without any."""
    if len(plans) < 2:
        return plans[0] if plans else None
    sources: dict[tuple[str, str, tuple[tuple[int, int], ...]], list[str]] = {}
    reasons: dict[tuple[str, str, tuple[tuple[int, int], ...]], str] = {}
    for item in (item for plan in plans for item in plan.accepts):
        key = (item.id, item.protocol, item.ports)
        sources.setdefault(key, []).extend(item.sources)
        reasons.setdefault(key, item.reason)
    accepts = [Accept(*key, _networks(key[0], found, []), reasons[key]) for key, found in sources.items()]
    blocks = [plan.block for plan in plans if plan.block is not None]
    networks = dict.fromkeys(network for block in blocks for network in block.networks)
    servers = dict.fromkeys(server for block in blocks for server in block.dns)
    return Plan(
        mode=max((plan.mode for plan in plans), key=MODES.index),
        accepts=tuple(accepts),
        block=Block(tuple(networks), tuple(servers)) if blocks else None,
        interfaces=tuple(dict.fromkeys(name for plan in plans for name in plan.interfaces)),
    )


def _short(network: str) -> str:
    parsed = ipaddress.ip_network(network)
    return str(parsed.network_address) if parsed.prefixlen == parsed.max_prefixlen else str(parsed)


def port_text(ports: Sequence[tuple[int, int]], dash: str = "-") -> str:
    """``22, 80-90`` and the like."""
    return ", ".join(str(low) if low == high else f"{low}{dash}{high}" for low, high in ports)


def _ports(rule_id: str, values: Any, problems: list[str]) -> tuple[tuple[int, int], ...]:
    result = []
    for value in [values] if isinstance(values, (str, int)) else list(values or []):
        match = re.fullmatch(r"\s*(\d{1,5})(?:\s*[-:]\s*(\d{1,5}))?\s*", str(value))
        if not match:
            problems.append(f"rule {rule_id}: port {value!r}; a number or a range such as 64535-65535 is needed")
            continue
        low = int(match.group(1))
        high = int(match.group(2) or low)
        if low > high:
            problems.append(f"rule {rule_id}: port range {value!r} runs backwards; write {high}-{low}")
        elif not 1 <= low <= high <= 65535:
            problems.append(f"rule {rule_id}: port {value!r} is outside 1-65535")
        else:
            result.append((low, high))
    return tuple(sorted(set(result)))


def _networks(rule_id: str, values: Any, problems: list[str]) -> tuple[str, ...]:
    parsed: list[Network] = []
    for value in [values] if isinstance(values, str) else list(values or []):
        try:
            parsed.append(ipaddress.ip_network(str(value).strip(), strict=True))
        except ValueError:
            problems.append(f"rule {rule_id}: peer {value!r} is not an IP address or a network in CIDR form")
    four = ipaddress.collapse_addresses(item for item in parsed if isinstance(item, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(item for item in parsed if isinstance(item, ipaddress.IPv6Network))
    return tuple(str(item) for item in (*four, *six))


def parse_plan(
    rules: Sequence[Mapping[str, Any]], mode: str, interfaces: Sequence[str] = ("docker*", "br-*", "ci-privileged")
) -> Plan:
    """A plan out of the port model's rules, or of rules written by hand; every problem is reported at once."""
    problems: list[str] = []
    accepts: list[Accept] = []
    blocked: list[str] = []
    dns: list[str] = []
    if mode not in MODES:
        problems.append(f"mode {mode!r} is unknown; known are {', '.join(MODES)}")
    for interface in interfaces:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,15}\*?", interface):
            problems.append(f"interface {interface!r} is not a name of at most 15 characters that may end in *")
    for number, rule in enumerate(rules):
        rule_id = str(rule.get("id") or f"number {number + 1}")
        if not _ID.fullmatch(rule_id):
            problems.append(f"rule {rule_id!r}: the id needs letters, digits, dot, dash and underline only")
            continue
        if str(rule.get("state", "apply")) != "apply":
            continue
        direction = str(rule.get("direction", "ingress"))
        if direction == "egress":
            continue
        peers = _networks(rule_id, rule.get("peers"), problems)
        if direction == "egress_from_containers":
            (blocked if rule.get("action") == "drop" else dns).extend(peers)
            continue
        if direction != "ingress":
            problems.append(f"rule {rule_id}: direction {direction!r}; known are ingress, egress, egress_from_containers")
            continue
        protocol = str(rule.get("protocol", "tcp"))
        if protocol not in ("tcp", "udp"):
            problems.append(f"rule {rule_id}: protocol {protocol!r}; known are tcp and udp")
            continue
        if rule.get("action", "accept") != "accept":
            problems.append(f"rule {rule_id}: action {rule.get('action')!r}; what comes in can only be accepted by a rule")
            continue
        ports = _ports(rule_id, rule.get("ports"), problems)
        if rule.get("any_peer"):
            given = [item for item in peers if ipaddress.ip_network(item).prefixlen == 0]
            versions = {ipaddress.ip_network(item).version for item in given} or {4, 6}
            peers = (*(["0.0.0.0/0"] if 4 in versions else []), *(["::/0"] if 6 in versions else []),
                     *(item for item in peers if ipaddress.ip_network(item).version not in versions))  # fmt: skip
        if not peers:
            problems.append(f"rule {rule_id}: no peer has an address; name one, or set any_peer for everybody")
        elif not ports and not rule.get("ports"):
            problems.append(f"rule {rule_id}: no port is named")
        elif ports:
            accepts.append(Accept(rule_id, protocol, ports, tuple(peers), str(rule.get("reason", ""))))
    if problems:
        raise FirewallError(*problems)
    block = Block(tuple(dict.fromkeys(blocked)), tuple(dict.fromkeys(dns))) if blocked else None
    return Plan(mode=mode, accepts=tuple(accepts), block=block, interfaces=tuple(interfaces))
