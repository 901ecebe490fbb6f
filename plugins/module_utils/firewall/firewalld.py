# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""firewalld: rich rules with a priority of our own, at run time and for good, without a reload.

A reload would take rules away that live at run time only, and empties the iptables chains of Docker until Docker
notices. The priority tells our rules from others and sorts them before services and ports of the zone.
"""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional

from .base import LOAD, UNIT_FILE, Backend, Change, Snapshot
from .errors import FirewallError
from .nftables import RULES, Nftables
from .plan import Plan
from .system import System

ACCEPT_PRIORITY = -20470
DROP_PRIORITY = -20469
# Zones that container and VM managers fill and own.
FOREIGN_ZONES = ("docker", "docker-forwarding", "libvirt", "libvirt-routed", "podman", "nm-shared")


def rich_rules(plan: Plan) -> list[str]:
    """Our rules as firewalld prints them."""
    result = []
    for item in plan.accepts:
        for version in (4, 6):
            for source in item.family(version):
                network = ipaddress.ip_network(source)
                text = str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
                origin = "" if network.prefixlen == 0 else f' source address="{text}"'
                for low, high in item.ports:
                    port = str(low) if low == high else f"{low}-{high}"
                    result.append(
                        f'rule priority="{ACCEPT_PRIORITY}" family="ipv{version}"{origin}'
                        f' port port="{port}" protocol="{item.protocol}" accept'
                    )
    if plan.mode == "guard":
        for protocol in ("tcp", "udp"):
            for low, high in plan.guarded(protocol):
                port = str(low) if low == high else f"{low}-{high}"
                result.append(f'rule priority="{DROP_PRIORITY}" port port="{port}" protocol="{protocol}" drop')
    return list(dict.fromkeys(result))


def ours(text: str) -> list[str]:
    """Our rules out of a listing."""
    marks = (f'priority="{ACCEPT_PRIORITY}"', f'priority="{DROP_PRIORITY}"')
    return sorted(line.strip() for line in text.splitlines() if any(mark in line for mark in marks))


class _ForwardOnly(Nftables):
    chains = ("forward",)


class Firewalld(Backend):
    """Rich rules in every zone that traffic from outside can enter; published ports by our own forward chain."""

    name = "firewalld"

    def __init__(self, system: System) -> None:
        super().__init__(system)
        self.forward = _ForwardOnly(system)
        self._zones: list[str] = []

    def _ask(self, *arguments: str) -> str:
        return self.system.run(["firewall-cmd", *arguments], check=True).out

    @staticmethod
    def _ask_at_once(questions: list[Callable[[], Any]]) -> list[Any]:
        """Each start of firewall-cmd costs a fifth of a second, nearly all of it in the client."""
        with ThreadPoolExecutor(len(questions)) as pool:
            return [answer.result() for answer in [pool.submit(question) for question in questions]]

    def zones(self) -> list[str]:
        """The default zone and the active ones, without those of container managers."""
        if not self._zones:
            default, active = self._ask_at_once([lambda: self._ask("--get-default-zone"), lambda: self._ask("--get-active-zones")])
            found = [default.strip(), *(line.split()[0] for line in active.splitlines() if line[:1].strip())]
            self._zones = [zone for zone in dict.fromkeys(found) if zone and zone not in FOREIGN_ZONES]
        return self._zones

    def _scope(self) -> dict[str, dict[str, list[str]]]:
        """Our rules by zone, at run time and for good; zones that we left long ago are looked at as well."""
        result: dict[str, dict[str, list[str]]] = {}
        zones, *listings = self._ask_at_once([self.zones, lambda: self._ask("--list-all-zones"), lambda: self._ask("--permanent", "--list-all-zones")])
        for when, listing in zip(("now", "always"), listings):
            zone = ""
            for line in listing.splitlines():
                if line[:1].strip():
                    zone = line.split()[0]
                else:
                    found = ours(line)
                    if found:
                        result.setdefault(zone, {"now": [], "always": []})[when] += found
        for zone in zones:
            result.setdefault(zone, {"now": [], "always": []})
        return {zone: {when: sorted(rules) for when, rules in times.items()} for zone, times in sorted(result.items())}

    def snapshot(self) -> Snapshot:
        forward = self.forward.snapshot()
        return Snapshot(forward.files, json.dumps({"zones": self._scope(), "forward": forward.live}, sort_keys=True))

    def _steps(self, have: dict[str, dict[str, list[str]]], want: dict[str, dict[str, list[str]]]) -> str:
        text = ""
        for zone in sorted({*have, *want}):
            # For good first: a host that dies in between comes back with the new rules, not with half of them.
            for when in ("always", "now"):
                old = have.get(zone, {}).get(when, [])
                new = want.get(zone, {}).get(when, [])
                options = ["firewall-cmd", *(["--permanent"] if when == "always" else []), f"--zone={zone}"]
                # What is let in comes first, so that no moment is closed that should be open.
                adding = [rule for rule in new if rule not in old]
                for rules, verb in (
                    ([rule for rule in adding if rule.endswith(" accept")], "add"),
                    ([rule for rule in old if rule not in new], "remove"),
                    ([rule for rule in adding if not rule.endswith(" accept")], "add"),
                ):
                    for start in range(0, len(rules), 100):
                        portion = [f"--{verb}-rich-rule={rule}" for rule in rules[start : start + 100]]
                        text += " ".join(shlex.quote(word) for word in [*options, *portion]) + " >/dev/null\n"
        return text

    def _wanted(self, plan: Optional[Plan]) -> dict[str, dict[str, list[str]]]:
        if plan is None:
            return {}
        rules = sorted(rich_rules(plan))
        return {zone: {"now": rules, "always": rules} for zone in self.zones()}

    def change(self, plan: Optional[Plan], now: Snapshot) -> Change:
        have = json.loads(now.live)["zones"]
        forward = self.forward.change(plan, now)
        script = "#!/bin/sh\nset -eu\n" + self._steps(have, self._wanted(plan)) + "(\n" + forward.script + ")\n"
        return Change(forward.files, script, unit=True)

    def settled(self, plan: Optional[Plan], now: Snapshot) -> Snapshot:
        # Each rule was taken by a command that succeeded; asking for all of them again would cost as much as the change.
        zones = {**{zone: {"now": [], "always": []} for zone in self.zones()}, **self._wanted(plan)}
        forward = self.forward.snapshot()
        return Snapshot(forward.files, json.dumps({"zones": dict(sorted(zones.items())), "forward": forward.live}, sort_keys=True))

    def undo(self, now: Snapshot, plan: Optional[Plan]) -> Change:
        back = json.loads(now.live)["zones"]
        script = "#!/bin/sh\nset -u\n" + self._steps(self._wanted(plan), back) + "(\n" + self.forward._script() + ")\n"
        return Change({name: now.files.get(name) for name in (RULES, LOAD, UNIT_FILE)}, script, unit=True)

    def reached(self, plan: Optional[Plan], now: Snapshot, recorded: str) -> bool:
        data = json.loads(now.live)
        have = {zone: times for zone, times in data["zones"].items() if times["now"] or times["always"]}
        want = {zone: times for zone, times in self._wanted(plan).items() if times["now"]}
        if have != want:
            return False
        wanted = self.forward.change(plan, now)
        if any(now.files.get(name) != content for name, content in wanted.files.items()):
            return False
        before = json.loads(recorded)["forward"] if recorded else ""
        return bool(data["forward"] == (before if plan is not None else ""))


def running(system: System) -> bool:
    """Whether firewalld answers; one that is started but silent is an error, not an absence."""
    if system.which("firewall-cmd") is None:
        return False
    try:
        state = system.run(["firewall-cmd", "--state"])
    except FirewallError as error:
        # Without a firewalld it ends at once: somebody holds the line and is silent.
        raise FirewallError(f"firewalld is started but does not answer ({error}); look at `systemctl status firewalld dbus`") from error
    if state.code == 0 and "running" in state.out + state.err:
        return True
    if system.systemd() and system.run(["systemctl", "is-active", "--quiet", "firewalld.service"]).code == 0:
        words = (state.err or state.out).strip()
        raise FirewallError(
            f"firewalld is started but does not answer ({words or state.code}); look at `systemctl status firewalld dbus`"
        )
    return False
