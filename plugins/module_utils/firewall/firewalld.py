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
from collections.abc import Iterable, Mapping
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

# firewall-cmd starts Python for each question and asks firewalld three times for each rule that it adds, and firewalld then writes the whole zone anew.
# The library below firewall-cmd, which is where firewall-cmd is, sees in one start whether firewalld runs and all that it has, and hands it the rules
# of a zone at once. A zone without a file below /etc is as the distribution made it, without rules of ours, and takes longest to tell.
CLIENT = """
import json, os, sys
try:
    from firewall.client import FirewallClient
    from firewall.config import ETC_FIREWALLD_ZONES
    client = FirewallClient()
    state = str(client.get_property("state")) if client.connected else "not running"
except Exception as error:
    state = str(error)
if state != "RUNNING":
    sys.exit(state)
try:
    config = client.config()
    def settings(zone, when):
        return client.getZoneSettings(zone) if when == "now" else config.getZoneByName(zone).getSettings()
    def write(zone, when, found):
        client.setZoneSettings(zone, found) if when == "now" else config.getZoneByName(zone).update(found)
    if sys.argv[1] == "look":
        changed = [zone for zone in config.getZoneNames() if os.path.exists(os.path.join(ETC_FIREWALLD_ZONES, zone + ".xml"))]
        names = {"now": client.getZones(), "always": changed}
        rules = {when: {zone: settings(zone, when).getRichRules() for zone in zones} for when, zones in names.items()}
        json.dump({"default": client.getDefaultZone(), "active": list(client.getActiveZones()), "rules": rules}, sys.stdout)
    else:
        for step in json.load(sys.stdin):
            found = settings(step["zone"], step["when"])
            for rule in step["remove"]:
                if found.queryRichRule(rule): found.removeRichRule(rule)
            for rule in step["add"]:
                if not found.queryRichRule(rule): found.addRichRule(rule)
            write(step["zone"], step["when"], found)
except Exception as error:
    sys.exit("firewalld refuses: %s" % error)
"""


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


def ours(rules: Iterable[str]) -> list[str]:
    """Our rules among those of a zone."""
    marks = (f'priority="{ACCEPT_PRIORITY}"', f'priority="{DROP_PRIORITY}"')
    return sorted(rule for rule in rules if any(mark in rule for mark in marks))


class _ForwardOnly(Nftables):
    chains = ("forward",)


class Firewalld(Backend):
    """Rich rules in every zone that traffic from outside can enter; published ports by our own forward chain."""

    name = "firewalld"

    def __init__(self, system: System) -> None:
        super().__init__(system)
        self.forward = _ForwardOnly(system)
        self._zones: list[str] = []
        # What firewalld told when it was asked whether it runs: the first look at it, since each costs a start of Python.
        self.first_answer = ""

    def _look(self) -> dict[str, Any]:
        told, self.first_answer = self.first_answer, ""
        answer: dict[str, Any] = json.loads(told or self.system.run([*_client(self.system), "look"], check=True).out)
        found = [str(zone) for zone in (answer["default"], *answer["active"])]
        self._zones = [zone for zone in dict.fromkeys(found) if zone and zone not in FOREIGN_ZONES]
        return answer

    def zones(self) -> list[str]:
        """The default zone and the active ones, without those of container managers."""
        if not self._zones:
            self._look()
        return self._zones

    def _scope(self) -> dict[str, dict[str, list[str]]]:
        """Our rules by zone, at run time and for good; zones that we left long ago are looked at as well."""
        listed: Mapping[str, Mapping[str, list[str]]] = self._look()["rules"]
        result: dict[str, dict[str, list[str]]] = {}
        for zone in sorted({*listed["now"], *listed["always"]}):
            times = {when: ours(listed[when].get(zone, [])) for when in ("now", "always")}
            if zone in self._zones or any(times.values()):
                result[zone] = times
        return result

    def snapshot(self) -> Snapshot:
        forward = self.forward.snapshot()
        return Snapshot(forward.files, json.dumps({"zones": self._scope(), "forward": forward.live}, sort_keys=True))

    def _steps(self, have: dict[str, dict[str, list[str]]], want: dict[str, dict[str, list[str]]]) -> str:
        steps: list[dict[str, Any]] = []
        for zone in sorted({*have, *want}):
            # For good first: a host that dies in between comes back with the new rules, not with half of them.
            for when in ("always", "now"):
                old = have.get(zone, {}).get(when, [])
                new = want.get(zone, {}).get(when, [])
                adding = [rule for rule in new if rule not in old]
                # What is let in comes first, so that no moment is closed that should be open.
                for add, remove in (
                    ([rule for rule in adding if rule.endswith(" accept")], []),
                    ([rule for rule in adding if not rule.endswith(" accept")], [rule for rule in old if rule not in new]),
                ):
                    if add or remove:
                        steps.append({"zone": zone, "when": when, "add": add, "remove": remove})
        if not steps:
            return ""
        command = " ".join(shlex.quote(word) for word in [*_client(self.system), "change"])
        return f"{command} <<'END_OF_STEPS'\n{json.dumps(steps)}\nEND_OF_STEPS\n"

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


def _interpreter(system: System) -> str:
    """The Python that has firewalld's library, that of firewall-cmd; empty where firewall-cmd is no Python."""
    words = (system.read(system.which("firewall-cmd") or "") or "").partition("\n")[0].lstrip("#!").split()
    return words[0] if words and "python" in words[0] else ""


def _client(system: System) -> list[str]:
    interpreter = _interpreter(system)
    if not interpreter:
        raise FirewallError("firewall-cmd does not name the Python that runs it in its first line; firewalld as distributions pack it is needed")
    return [interpreter, "-c", CLIENT]


def running(system: System) -> Optional[Firewalld]:
    """firewalld, when it answers; one that is started but silent is an error, not an absence."""
    if system.which("firewall-cmd") is None:
        return None
    try:
        asked = system.run([*_client(system), "look"] if _interpreter(system) else ["firewall-cmd", "--state"])
    except FirewallError as error:
        # Without a firewalld it ends at once: somebody holds the line and is silent.
        raise FirewallError(f"firewalld is started but does not answer ({error}); look at `systemctl status firewalld dbus`") from error
    words = (asked.err or asked.out).strip()
    if asked.code == 0:
        found = Firewalld(system)
        found.first_answer = asked.out if _interpreter(system) else ""
        return found
    if words.startswith("firewalld refuses: "):
        raise FirewallError(f"{words}; look at `systemctl status firewalld dbus`")
    if system.systemd() and system.run(["systemctl", "is-active", "--quiet", "firewalld.service"]).code == 0:
        raise FirewallError(
            f"firewalld is started but does not answer ({words or asked.code}); look at `systemctl status firewalld dbus`"
        )
    return None
