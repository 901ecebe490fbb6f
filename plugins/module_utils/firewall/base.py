# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""What each backend answers, and the names of everything of ours on a host."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional

from .plan import Plan
from .system import System

FOLDER = "/etc/onprem-circleci/firewall"
LOAD = FOLDER + "/load.sh"
UNIT = "onprem-circleci-firewall.service"
UNIT_FILE = "/etc/systemd/system/" + UNIT
TABLE = "onprem_circleci"
CHAIN = "ONPREM-CIRCLECI"
HEADER = "# Written by onprem.circleci_server; changes by hand are replaced.\n"


@dataclass(frozen=True)
class Change:
    """Files to write (None removes) and then a shell script that makes the kernel follow."""

    files: dict[str, Optional[str]] = field(default_factory=dict)
    script: str = ""
    unit: bool = False


@dataclass(frozen=True)
class Snapshot:
    """Our own scope as it is: files, and the kernel's own words about it."""

    files: dict[str, Optional[str]]
    live: str


class Backend:
    """One packet filter. A subclass owns a scope (table, chains, tuples, rich rules) and nothing else."""

    name = ""
    modes: tuple[str, ...] = ("open", "guard")

    def __init__(self, system: System) -> None:
        self.system = system

    def snapshot(self) -> Snapshot:
        """Our scope now."""
        raise NotImplementedError

    def change(self, plan: Optional[Plan], now: Snapshot) -> Change:
        """What leads from now to the plan; None takes our scope away."""
        raise NotImplementedError

    def undo(self, now: Snapshot, plan: Optional[Plan]) -> Change:
        """What leads back to ``now`` after the change to ``plan``."""
        raise NotImplementedError

    def settled(self, plan: Optional[Plan], now: Snapshot) -> Snapshot:
        """Our scope right after a change of ours that nothing refused."""
        return self.snapshot()

    def reached(self, plan: Optional[Plan], now: Snapshot, recorded: str) -> bool:
        """Whether now is the plan; ``recorded`` is what the kernel said right after the last change of ours."""
        wanted = self.change(plan, now)
        same_files = all(now.files.get(name) == content for name, content in wanted.files.items())
        return same_files and (now.live == recorded if plan is not None else now.live == "")

    def reached_recorded(self, record: Mapping[str, object], now: Snapshot) -> bool:
        """Whether the host still is as the record says."""
        files = record.get("files")
        return record.get("live") == now.live and files == now.files

    def warnings(self) -> list[str]:
        """What the operator should know about this host's filter."""
        return []

    def _files(self, names: list[str]) -> dict[str, Optional[str]]:
        return {name: self.system.read(name) for name in names}


def unit_text(description: str) -> str:
    """Unit that loads our scope before the network comes up, and again after nftables.service has flushed all."""
    return f"""{HEADER}[Unit]
Description={description}
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
After=local-fs.target nftables.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {LOAD}
ExecReload=/bin/sh {LOAD}
ExecStop=/bin/sh {LOAD} stop

[Install]
WantedBy=sysinit.target
"""


def quote(path: str) -> str:
    """A path for the shell."""
    return shlex.quote(path)
