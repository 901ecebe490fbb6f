# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A file for encrypted text, and whether it will still be there after the run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

_MEMORY = ("tmpfs", "ramfs")
# AWX gives these to each of its jobs; ansible-runner mounts the folder into the container that it starts for one.
_JOB_MARKS = ("AWX_HOST", "AWX_PRIVATE_DATA_DIR", "AWX_ISOLATED_DATA_DIR", "TOWER_HOST")
_JOB_FOLDER = "/runner"


def mounts(text: str) -> list[tuple[str, str]]:
    """Mount points and file system types out of /proc/self/mountinfo."""
    found = []
    for line in text.splitlines():
        left, _dash, right = line.partition(" - ")
        fields = left.split()
        if len(fields) > 4 and right:
            found.append((fields[4].replace("\\040", " "), right.split()[0]))
    return found


def in_job(environment: Mapping[str, str], folder: str = _JOB_FOLDER) -> bool:
    """Whether this process runs in the container of an AWX job, which is thrown away with all that was written there."""
    return any(environment.get(mark) for mark in _JOB_MARKS) or (bool(environment.get("JOB_ID")) and Path(folder).is_dir())


def will_not_last(path: str, *, job: bool, table: list[tuple[str, str]]) -> str:
    """Why a file would not outlive the run, empty when it would."""
    full = os.path.realpath(path)
    points = [point for point in table if full == point[0] or full.startswith(point[0].rstrip("/") + "/")]
    point, kind = max(points, key=lambda one: len(one[0]), default=("/", ""))
    if kind in _MEMORY:
        return f"{path} lies in memory ({kind} at {point}) and is gone after a restart"
    below_job = full == _JOB_FOLDER or full.startswith(_JOB_FOLDER + "/")
    if job and (point == "/" or below_job or point == _JOB_FOLDER):
        return f"{path} lies in the container of an AWX job and is gone after it"
    return ""


def lasting_problem(path: str) -> str:
    """As will_not_last, for this host and process."""
    try:
        table = mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    except OSError:
        table = []
    return will_not_last(path, job=in_job(os.environ), table=table)


def read_text(path: str) -> str:
    """The text of a file, empty when there is none."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def write_text(path: str, text: str) -> None:
    """Replace a file whole, so that a killed run leaves the old one."""
    folder = Path(path).parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".escrow-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink()
        raise
