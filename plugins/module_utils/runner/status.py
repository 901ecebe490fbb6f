# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the unit of a runner does, in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..host.units import Runner, run_command

UNIT = "circleci-runner.service"
_PROPERTIES = "LoadState,ActiveState,SubState,Result,ExecMainStatus,NRestarts,ActiveEnterTimestampMonotonic"


@dataclass(frozen=True)
class Status:
    """``state`` is running, draining, restarting, stopped, failed or missing."""

    state: str
    detail: str
    seconds: float = 0.0
    """How long it has been running."""

    @property
    def well(self) -> bool:
        return self.state in ("running", "draining")


def _ended(found: Mapping[str, str]) -> str:
    return f"ended with status {found.get('ExecMainStatus') or '?'} ({found.get('Result') or 'unknown'})"


def read_status(run: Runner = run_command, now: Callable[[], float] = time.monotonic) -> Status:
    """What systemd says of the unit right now."""
    done = run(["systemctl", "show", f"--property={_PROPERTIES}", UNIT])
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    active = found.get("ActiveState", "")
    if done.returncode != 0 or found.get("LoadState") in (None, "not-found"):
        return Status("missing", "it is not installed")
    if active in ("active", "reloading"):
        since = int(found.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
        return Status("running", "it runs", max(0.0, now() - since))
    if active == "deactivating":
        return Status("draining", "it takes no more jobs and ends the one that it has")
    if active == "activating":
        return Status("restarting", f"it does not stay up: it {_ended(found)}, {found.get('NRestarts') or 'some'} times so far")
    if active == "failed":
        return Status("failed", f"it does not run: it {_ended(found)}")
    return Status("stopped", "it does not run: somebody stopped it")


def settled(seconds: float, run: Runner = run_command, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> Status:
    """The status once the runner has been up for *seconds*, or once it is seen not to stay up."""
    limit = now() + seconds + 60
    while True:
        status = read_status(run, now)
        if status.state != "running" or status.seconds >= seconds or now() >= limit:
            return status
        sleep(min(0.5, max(0.05, seconds - status.seconds)))


def last_words(run: Runner = run_command, lines: int = 5) -> str:
    """The end of its log."""
    return run(["journalctl", "--no-pager", f"--lines={lines}", "--output=cat", f"--unit={UNIT}"]).stdout.strip()
