# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""The rules as people read them: a table for a network team, and why one port of one host is as it is."""

from __future__ import annotations

import csv
import io
from typing import Any

from .model import PortModel, Rule

COLUMNS = ("host", "direction", "protocol", "ports", "peers", "action", "reason", "rule", "status", "state", "source")


def _peers(rule: Rule) -> str:
    if rule.any_peer and any(peer.endswith("/0") for peer in rule.peers):
        return "anywhere"
    return ", ".join(peer.removesuffix("/32").removesuffix("/128") for peer in rule.peers) or "nobody known"


def _row(rule: Rule) -> dict[str, str]:
    return {
        "host": rule.host,
        "direction": rule.direction.replace("_", " "),
        "protocol": rule.protocol,
        "ports": ", ".join(rule.ports),
        "peers": _peers(rule),
        "action": rule.action,
        "reason": rule.reason,
        "rule": rule.id,
        "status": rule.status,
        "state": rule.state,
        "source": rule.source,
    }


def rule_table(model: PortModel, form: str = "rows") -> Any:
    """All rules as C(rows) (a list of mappings), C(markdown) or C(csv)."""
    rows = [_row(rule) for rule in model.rules]
    if form == "rows":
        return rows
    if form == "csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        writer.writeheader()
        # A cell that begins like a formula is run by spreadsheet programs.
        writer.writerows({key: f"'{value}" if value[:1] in "=+-@" else value for key, value in row.items()} for row in rows)
        return buffer.getvalue()
    if form == "markdown":
        lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        lines += ["| " + " | ".join(row[name].replace("|", "\\|") for name in COLUMNS) + " |" for row in rows]
        return "\n".join(lines) + "\n"
    raise ValueError(f"form {form!r} is unknown; known are rows, markdown and csv")


def explain(model: PortModel, host: str = "", port: int = 0) -> list[str]:
    """One sentence per rule that concerns a host, a port, or both."""
    result = []
    for rule in model.rules:
        if host and rule.host != host:
            continue
        if port and not any(_contains(part, port) for part in rule.ports):
            continue
        verb = {"ingress": "comes in", "egress": "goes out"}.get(rule.direction, "goes out of containers")
        side = "from" if rule.direction == "ingress" else "to"
        allowed = "is dropped" if rule.action == "drop" else "is let through"
        result.append(
            f"{rule.host}: {rule.protocol} {', '.join(rule.ports)} that {verb} {side} {_peers(rule)} {allowed}"
            f" ({rule.reason}); rule {rule.id}, {rule.status}, {rule.source}; {rule.state}"
        )
    return result


def _contains(part: str, port: int) -> bool:
    if part == "any":
        return True
    low, _dash, high = part.partition("-")
    return int(low) <= port <= int(high or low)
