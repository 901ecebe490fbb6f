# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""iptables and ip6tables: own chains, one restore per address family that flushes nothing of others."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Optional

from .base import CHAIN, FOLDER, HEADER, LOAD, UNIT_FILE, Backend, Change, Snapshot, quote, unit_text
from .plan import Accept, Plan

RULES4 = FOLDER + "/rules.v4"
RULES6 = FOLDER + "/rules.v6"
ANYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


def chunks(ports: Sequence[tuple[int, int]], limit: int = 15) -> Iterator[list[tuple[int, int]]]:
    """Ports in portions that one multiport match can hold; a range counts twice."""
    portion: list[tuple[int, int]] = []
    used = 0
    for low, high in ports:
        weight = 1 if low == high else 2
        if used + weight > limit:
            yield portion
            portion, used = [], 0
        portion.append((low, high))
        used += weight
    if portion:
        yield portion


def _colon(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}:{high}"


def port_matches(ports: Sequence[tuple[int, int]]) -> list[str]:
    """One match per portion of ports."""
    result = []
    for portion in chunks(ports):
        if len(portion) == 1:
            result.append(f"--dport {_colon(*portion[0])}")
        else:
            result.append("-m multiport --dports " + ",".join(_colon(*span) for span in portion))
    return result


def _sources(item: Accept, version: int) -> list[str]:
    if item.anywhere(version):
        return [""]
    return [f"-s {text} " for text in item.family(version)]


def _comment(text: str) -> str:
    return f'-m comment --comment "{text}"'


def filter_rules(plan: Plan, version: int) -> list[str]:
    """Rules of our chain behind INPUT."""
    lines = ["-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-i lo -j ACCEPT"]
    for item in plan.accepts:
        for source in _sources(item, version) if item.family(version) else []:
            for ports in port_matches(item.ports):
                lines.append(f"{source}-p {item.protocol} {ports} {_comment(item.id)} -j ACCEPT")
    if plan.mode == "guard":
        for protocol in ("tcp", "udp"):
            for ports in port_matches(plan.guarded(protocol)):
                lines.append(f"-p {protocol} {ports} {_comment('everybody else')} -j DROP")
    elif plan.mode == "enforce":
        lines += [f"-p {'icmp' if version == 4 else 'ipv6-icmp'} -j ACCEPT",
                  f"-p udp --dport {68 if version == 4 else 546} -j ACCEPT",
                  f"{_comment('everybody else')} -j DROP"]  # fmt: skip
    return lines


def mangle_rules(plan: Plan, version: int) -> list[str]:
    """Rules of our chain behind FORWARD of the table mangle.

    Docker puts its own jumps at the top of filter FORWARD whenever it starts, so a chain there is soon behind Docker's
    accept. mangle comes before filter, and Docker has nothing in it.
    """
    lines = ["-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"]
    if plan.block is not None:
        for interface in plan.interfaces:
            name = interface[:-1] + "+" if interface.endswith("*") else interface
            for server in plan.block.dns:
                if ipaddress.ip_network(server).version == version:
                    lines += [f"-i {name} -d {server} -p {protocol} --dport 53 -j RETURN" for protocol in ("udp", "tcp")]
            for network in plan.block.networks:
                if ipaddress.ip_network(network).version == version:
                    lines.append(f"-i {name} -d {network} {_comment('not for containers')} -j DROP")
    if plan.mode == "open":
        return lines
    for item in plan.accepts:
        for source in _sources(item, version) if item.family(version) else []:
            for span in item.ports:
                lines.append(
                    f"{source}-p {item.protocol} -m conntrack --ctstate DNAT --ctorigdstport {_colon(*span)}"
                    f" {_comment(item.id)} -j RETURN"
                )
    for protocol in ("tcp", "udp"):
        for span in plan.guarded(protocol) if plan.mode == "guard" else ():
            lines.append(
                f"-p {protocol} -m conntrack --ctstate DNAT --ctorigdstport {_colon(*span)}"
                f" {_comment('everybody else')} -j DROP"
            )
    if plan.mode == "enforce":
        for interface in plan.interfaces:
            lines.append(f"-i {interface[:-1] + '+' if interface.endswith('*') else interface} -j RETURN")
        lines.append(f"-m conntrack --ctstate DNAT {_comment('everybody else')} -j DROP")
    return lines


def restore_text(plan: Plan, version: int, tables: Sequence[str]) -> str:
    """Input of iptables-restore --noflush: naming a chain empties that chain only."""
    makers = {"filter": filter_rules, "mangle": mangle_rules}
    text = HEADER
    for table in tables:
        body = "".join(f"-A {CHAIN} {line}\n" for line in makers[table](plan, version))
        text += f"*{table}\n:{CHAIN} - [0:0]\n{body}COMMIT\n"
    return text


HOOKS = {"filter": "INPUT", "mangle": "FORWARD"}


def load_script(paths: dict[int, str], tables: Sequence[str]) -> str:
    """Shell that makes both address families follow the files; the jump goes to the top once."""
    text = f"#!/bin/sh\n{HEADER}set -eu\n"
    for version, path in paths.items():
        tool = "iptables" if version == 4 else "ip6tables"
        # A kernel without IPv6 has nothing to filter there.
        guard = "" if version == 4 else " && [ -e /proc/net/if_inet6 ]"
        text += f'if [ "${{1:-}}" != stop ] && [ -f {quote(path)} ]{guard}; then\n'
        text += f"\t{tool}-restore -w --noflush < {quote(path)}\n"
        for table in tables:
            hook = HOOKS[table]
            text += f"\t{tool} -w -t {table} -C {hook} -j {CHAIN} 2>/dev/null || {tool} -w -t {table} -I {hook} 1 -j {CHAIN}\n"
        text += "else\n"
        for table in tables:
            hook = HOOKS[table]
            text += f"\twhile {tool} -w -t {table} -D {hook} -j {CHAIN} 2>/dev/null; do :; done\n"
            text += f"\t{tool} -w -t {table} -F {CHAIN} 2>/dev/null && {tool} -w -t {table} -X {CHAIN} || :\n"
        text += "fi\n"
    return text


def live_chains(backend: Backend, tables: Sequence[str]) -> str:
    """Every line of both families that names our chain."""
    lines = []
    for tool in ("iptables", "ip6tables"):
        for table in tables:
            result = backend.system.run([f"{tool}-save", "-t", table])
            found = [line for line in result.out.splitlines() if CHAIN in line]
            lines += [f"{tool} {table} {line.split(' [')[0] if line.startswith(':') else line}" for line in found]
    return "\n".join(lines)


class Iptables(Backend):
    """Chains ONPREM-CIRCLECI in filter and mangle."""

    name = "iptables"
    modes = ("open", "guard", "enforce")
    tables: tuple[str, ...] = ("filter", "mangle")

    def snapshot(self) -> Snapshot:
        return Snapshot(self._files([RULES4, RULES6, LOAD, UNIT_FILE]), live_chains(self, self.tables))

    def _script(self) -> str:
        return load_script({4: self.system.path(RULES4), 6: self.system.path(RULES6)}, self.tables)

    def change(self, plan: Optional[Plan], now: Snapshot) -> Change:
        if plan is None:
            return Change({RULES4: None, RULES6: None, LOAD: None, UNIT_FILE: None}, self._script(), unit=True)
        files: dict[str, Optional[str]] = {
            RULES4: restore_text(plan, 4, self.tables),
            RULES6: restore_text(plan, 6, self.tables),
            LOAD: self._script(),
            UNIT_FILE: unit_text("Ports of CircleCI Server on this host (iptables)"),
        }
        return Change(files, self._script(), unit=True)

    def undo(self, now: Snapshot, plan: Optional[Plan]) -> Change:
        return Change(dict(now.files), self._script(), unit=True)
