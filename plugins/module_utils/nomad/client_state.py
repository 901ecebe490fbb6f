# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Nomad client shows by itself of ways in which its jobs fail: cgroup version, the unit docker-gc, the disk of Docker. Reads only."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..host.units import Runner, run_command
from ..preflight.host import cgroup_version, existing_parent

UNIT = "docker-gc.service"
DOCKER = "var/lib/docker"
FULL_PERCENT = 90
_PROPERTIES = "LoadState,ActiveState,NRestarts,ActiveEnterTimestampMonotonic"
# A unit in a loop is up for a moment again and again: one that has been up for longer is well, however often it was started before.
_LOOP_RESTARTS = 3
_LOOP_SECONDS = 300.0


def read_state(root: Path = Path("/"), run: Runner = run_command, now: Callable[[], float] = time.monotonic) -> dict[str, Any]:
    """C(cgroup), C(docker_gc) and C(docker_disk_full), without figures that differ from look to look."""
    disk = shutil.disk_usage(existing_parent(root / DOCKER))
    return {
        "cgroup": cgroup_version(root),
        "docker_gc": _unit(run, now),
        # What the file system keeps for root is as good as used.
        "docker_disk_full": disk.free * 100 <= (disk.used + disk.free) * (100 - FULL_PERCENT),
    }


def _unit(run: Runner, now: Callable[[], float]) -> str:
    """``running``, ``restarting`` (it does not stay up), ``stopped`` or ``missing``."""
    done = run(["systemctl", "show", f"--property={_PROPERTIES}", UNIT])
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if done.returncode != 0 or found.get("LoadState") in (None, "not-found"):
        return "missing"
    active = found.get("ActiveState", "")
    if active not in ("active", "activating", "reloading"):
        return "stopped"
    since = now() - int(found.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    often = int(found.get("NRestarts") or 0) >= _LOOP_RESTARTS
    return "restarting" if often and (active == "activating" or since < _LOOP_SECONDS) else "running"
