# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""nftables: one table of our own, replaced as a whole in one transaction."""

from __future__ import annotations

import ipaddress
from typing import Optional

from .base import FOLDER, HEADER, LOAD, TABLE, UNIT_FILE, Backend, Change, Snapshot, quote, unit_text
from .plan import Accept, Plan, port_text

RULES = FOLDER + "/rules.nft"


def _set(values: list[str]) -> str:
    return values[0] if len(values) == 1 else "{ " + ", ".join(values) + " }"


def _sources(item: Accept, version: int) -> str:
    field = "ip" if version == 4 else "ip6"
    if item.anywhere(version):
        return "meta nfproto ipv4 " if version == 4 else "meta nfproto ipv6 "
    return f"{field} saddr {_set([_plain(text) for text in item.family(version)])} "


def _plain(text: str) -> str:
    network = ipaddress.ip_network(text)
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _ports(spans: tuple[tuple[int, int], ...]) -> str:
    return _set(port_text(spans).split(", "))


def _accepts(item: Accept, port: str) -> list[str]:
    if item.anywhere(4) and item.anywhere(6):
        return [f'{port} accept comment "{item.id}"']
    return [f'{_sources(item, version)}{port} accept comment "{item.id}"' for version in (4, 6) if item.family(version)]


def input_chain(plan: Plan) -> list[str]:
    """What comes in for the host itself."""
    lines = ["type filter hook input priority filter - 5; policy accept;", "ct state established,related accept",
             'iifname "lo" accept']  # fmt: skip
    for item in plan.accepts:
        lines += _accepts(item, f"{item.protocol} dport {_ports(item.ports)}")
    if plan.mode == "guard":
        for protocol in ("tcp", "udp"):
            ports = plan.guarded(protocol)
            if ports:
                lines.append(f'{protocol} dport {_ports(ports)} counter drop comment "everybody else"')
    elif plan.mode == "enforce":
        # Without neighbour discovery, path MTU and a lease a host is soon gone from the network.
        lines += ["meta l4proto { icmp, ipv6-icmp } accept", "udp dport { 68, 546 } accept",
                  'counter drop comment "everybody else"']  # fmt: skip
    return lines


def forward_chain(plan: Plan) -> list[str]:
    """What containers send out, and ports that a container engine publishes: they never meet the input chain."""
    lines = ["type filter hook forward priority filter - 5; policy accept;", "ct state established,related accept"]
    if plan.block is not None:
        for interface in plan.interfaces:
            for server in plan.block.dns:
                field = "ip" if ipaddress.ip_network(server).version == 4 else "ip6"
                for protocol in ("udp", "tcp"):
                    lines.append(f'iifname "{interface}" {field} daddr {_plain(server)} {protocol} dport 53 accept')
            for network in plan.block.networks:
                field = "ip" if ipaddress.ip_network(network).version == 4 else "ip6"
                lines.append(f'iifname "{interface}" {field} daddr {network} counter drop comment "not for containers"')
    if plan.mode == "open":
        return lines
    for item in plan.accepts:
        lines += _accepts(item, f"ct status dnat meta l4proto {item.protocol} ct original proto-dst {_ports(item.ports)}")
    for protocol in ("tcp", "udp"):
        ports = plan.guarded(protocol)
        if plan.mode == "guard" and ports:
            lines.append(
                f"ct status dnat meta l4proto {protocol} ct original proto-dst {_ports(ports)}"
                ' counter drop comment "everybody else"'
            )
    if plan.mode == "enforce":
        for interface in plan.interfaces:
            lines.append(f'iifname "{interface}" accept')
        lines.append('ct status dnat counter drop comment "everybody else"')
    return lines


def table_text(plan: Plan, chains: tuple[str, ...] = ("input", "forward")) -> str:
    """The file that nft loads: it replaces our table in one transaction and knows no other."""
    makers = {"input": input_chain, "forward": forward_chain}
    text = HEADER + f"table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n"
    for name in chains:
        body = "".join(f"\t\t{line}\n" for line in makers[name](plan))
        text += f"\tchain {name} {{\n{body}\t}}\n"
    return text + "}\n"


def load_script(path: str) -> str:
    """Shell that makes the kernel follow the file; ``stop`` takes the table away."""
    return f"""#!/bin/sh
{HEADER}set -eu
if [ "${{1:-}}" != stop ] && [ -f {quote(path)} ]; then
\texec nft -f {quote(path)}
fi
if nft list table inet {TABLE} >/dev/null 2>&1; then
\texec nft delete table inet {TABLE}
fi
"""


def live_table(backend: Backend) -> str:
    """Our table as the kernel lists it, without counters' values."""
    result = backend.system.run(["nft", "-s", "list", "table", "inet", TABLE])
    return result.out if result.code == 0 else ""


class Nftables(Backend):
    """The table inet onprem_circleci."""

    name = "nftables"
    modes = ("open", "guard", "enforce")
    chains: tuple[str, ...] = ("input", "forward")

    def snapshot(self) -> Snapshot:
        return Snapshot(self._files([RULES, LOAD, UNIT_FILE]), live_table(self))

    def _script(self) -> str:
        return load_script(self.system.path(RULES))

    def change(self, plan: Optional[Plan], now: Snapshot) -> Change:
        if plan is None:
            return Change({RULES: None, LOAD: None, UNIT_FILE: None}, self._script(), unit=True)
        files: dict[str, Optional[str]] = {
            RULES: table_text(plan, self.chains),
            LOAD: self._script(),
            UNIT_FILE: unit_text("Ports of CircleCI Server on this host (nftables)"),
        }
        return Change(files, self._script(), unit=True)

    def undo(self, now: Snapshot, plan: Optional[Plan]) -> Change:
        return Change(dict(now.files), self._script(), unit=True)

    def warnings(self) -> list[str]:
        result = self.system.run(["nft", "list", "chains"])
        family = table = chain = ""
        found = []
        for line in result.out.splitlines():
            words = line.split()
            if words[:1] == ["table"]:
                family, table = words[1], words[2]
            elif words[:1] == ["chain"]:
                chain = words[1]
            elif "hook input" in line and "policy drop" in line and table != TABLE:
                found.append(f"{family} {table} {chain}")
        return [
            f"the chain {name} drops by default: what our own table accepts must be accepted there as well"
            for name in found
        ]
