# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Ansible's own way in: from where it came, so that no change of ours shuts it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Optional

from .errors import FirewallError
from .plan import Plan


@dataclass(frozen=True)
class WayIn:
    """Client address and server port of the SSH connection that runs the module."""

    address: str
    port: int


def _environment(pid: int) -> dict[str, str]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as handle:
            content = handle.read().decode(errors="replace")
    except OSError:
        return {}
    return dict(part.split("=", 1) for part in content.split("\0") if "=" in part)


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
            return int(handle.read().rsplit(")", 1)[1].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def parse_connection(text: str) -> Optional[WayIn]:
    """``client port server port`` as sshd writes it."""
    words = text.split()
    if len(words) != 4 or not words[3].isdigit():
        return None
    return WayIn(words[0].split("%")[0], int(words[3]))


def find_way_in() -> Optional[WayIn]:
    """The SSH connection of this process. sudo takes the variable away, so parents are asked as well."""
    pid = os.getpid()
    for _step in range(64):
        found = parse_connection(_environment(pid).get("SSH_CONNECTION", ""))
        if found is not None:
            return found
        pid = _parent(pid)
        if pid <= 1:
            return None
    return None


def check_way_in(plan: Plan, ways: list[WayIn]) -> None:
    """Refuse a plan that shuts a way in."""
    problems = []
    for way in ways:
        if plan.verdict(way.address, "tcp", way.port) == "drop":
            managed = [item.id for item in plan.accepts if any(low <= way.port <= high for low, high in item.ports)]
            who = f"rules {', '.join(managed)} let others in there" if managed else "no rule names that port"
            problems.append(
                f"the rules would close the port Ansible came in by: {way.address} to port {way.port} ({who}); "
                f"add {way.address} to the administrators, or a rule for port {way.port}"
            )
    if problems:
        raise FirewallError(*problems)
