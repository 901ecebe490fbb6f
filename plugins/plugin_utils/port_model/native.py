# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Rules of a runner on macOS or Windows in the words of its own packet filter, for somebody to load there.

Evidence: texts are compared with golden ones; they were never run, since no macOS and no Windows host takes part in the tests.
"""

from __future__ import annotations

from collections.abc import Iterable

from .facts import BY_HAND
from .model import SET_BY_HAND, PortModel, Rule

ANCHOR = "onprem.circleci"
GROUP = "onprem-circleci"
NEVER_RUN = "Made by onprem.circleci_server from its model of ports; never run in its tests."
FORMS = ("pf", "powershell")
FORM_OF = {"circleci_runners_macos": "pf", "circleci_runners_windows": "powershell"}
NOTHING = "nothing to open: no rule lets anything in"


def _own(rules: Iterable[Rule]) -> list[Rule]:
    return [rule for rule in rules if rule.state.startswith(SET_BY_HAND) and rule.direction == "ingress" and rule.protocol in ("tcp", "udp")]


def _comment(text: str) -> str:
    return " ".join(text.split())


def render_pf(rules: Iterable[Rule]) -> str:
    """An anchor for pf: what may come in, then everybody else on the same ports is dropped; other ports are not touched."""
    lines = [f"# {NEVER_RUN}", f"# Load: pfctl -a {ANCHOR} -f FILE. Take away: pfctl -a {ANCHOR} -F rules. The main rules need: anchor \"{ANCHOR}\""]
    closed: dict[tuple[str, str], None] = {}
    for rule in _own(rules):
        lines.append(f"# {rule.id}: {_comment(rule.reason)}")
        for port in rule.ports:
            text = port.replace("-", ":")
            source = "any" if any(peer.endswith("/0") for peer in rule.peers) else f"{{ {' '.join(rule.peers)} }}"
            lines.append(f"pass in quick proto {rule.protocol} from {source} to any port {text}")
            closed[(rule.protocol, text)] = None
    lines += [f"block drop in quick proto {protocol} from any to any port {port}" for protocol, port in closed]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def render_powershell(rules: Iterable[Rule]) -> str:
    """Rules of a group of our own; whatever comes in besides is closed by Windows itself, which drops by default."""
    lines = [f"# {NEVER_RUN}", f"Remove-NetFirewallRule -Group {_quoted(GROUP)} -ErrorAction SilentlyContinue"]
    for rule in _own(rules):
        anywhere = any(peer.endswith("/0") for peer in rule.peers)
        source = "Any" if anywhere else ",".join(_quoted(peer) for peer in rule.peers)
        ports = ",".join(_quoted(port) for port in rule.ports)
        lines.append(
            f"New-NetFirewallRule -Name {_quoted(f'{GROUP} {rule.id} {rule.protocol}')} -DisplayName {_quoted(f'CircleCI: {_comment(rule.reason)}')} "
            f"-Group {_quoted(GROUP)} -Direction Inbound -Action Allow -Protocol {rule.protocol.upper()} -LocalPort {ports} -RemoteAddress {source}"
        )
    return "\r\n".join(lines) + "\r\n"


def render_native(rules: Iterable[Rule], form: str) -> str:
    """Text of one form."""
    if form == "pf":
        return render_pf(rules)
    if form == "powershell":
        return render_powershell(rules)
    raise ValueError(f"form {form!r} is unknown; known are {', '.join(FORMS)}")


def by_hand(model: PortModel) -> list[dict[str, str]]:
    """What somebody loads on runners with macOS or Windows, line by line; one line says so where nothing is to be opened."""
    rows = []
    for host in model.inventory.hosts:
        for group in (group for group in FORM_OF if group in host.groups):
            rules = model.for_host(host.name)
            lines = render_native(rules, FORM_OF[group]).splitlines()[1:] if _own(rules) else [NOTHING]
            rows += [{"host": host.name, "filter": BY_HAND[group], "evidence": "never run", "line": line} for line in lines]
    return rows
