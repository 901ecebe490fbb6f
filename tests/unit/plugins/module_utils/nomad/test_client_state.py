# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad import client_state
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.preflight.test_host import make_root

NOW = 10_000.0


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def state(root: Path, properties: dict[str, str] | None = None, code: int = 0) -> dict[str, Any]:
    def run(argv: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        assert argv[:2] == ["systemctl", "show"] and argv[-1] == "docker-gc.service"
        return subprocess.CompletedProcess(argv, code, "".join(f"{name}={value}\n" for name, value in (properties or {}).items()), "")

    return client_state.read_state(root, run, lambda: NOW)  # type: ignore[arg-type]


def entered(seconds_ago: float) -> str:
    return str(int((NOW - seconds_ago) * 1e6))


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"LoadState": "loaded", "ActiveState": "active", "NRestarts": "0", "ActiveEnterTimestampMonotonic": entered(20)}, "running"),
        # Up and down every minute.
        ({"LoadState": "loaded", "ActiveState": "active", "NRestarts": "9", "ActiveEnterTimestampMonotonic": entered(20)}, "restarting"),
        ({"LoadState": "loaded", "ActiveState": "activating", "NRestarts": "9", "ActiveEnterTimestampMonotonic": entered(70)}, "restarting"),
        # Docker was restarted now and then, long ago.
        ({"LoadState": "loaded", "ActiveState": "active", "NRestarts": "9", "ActiveEnterTimestampMonotonic": entered(900)}, "running"),
        ({"LoadState": "loaded", "ActiveState": "activating", "NRestarts": "1", "ActiveEnterTimestampMonotonic": "0"}, "running"),
        ({"LoadState": "loaded", "ActiveState": "failed", "NRestarts": "9"}, "stopped"),
        ({"LoadState": "loaded", "ActiveState": "inactive", "NRestarts": "0"}, "stopped"),
        ({"LoadState": "not-found", "ActiveState": "inactive"}, "missing"),
        ({}, "missing"),
    ],
)
def test_docker_gc_that_does_not_stay_up_is_told_from_one_that_was_restarted(tmp_path: Path, properties: dict[str, str], expected: str) -> None:
    assert state(make_root(tmp_path), properties)["docker_gc"] == expected
    assert state(tmp_path, properties, 1)["docker_gc"] == "missing"


@pytest.mark.parametrize(("cgroup", "expected"), [("tmpfs", "v1"), ("cgroup2", "v2")])
def test_version_of_cgroups(tmp_path: Path, cgroup: str, expected: str) -> None:
    assert state(make_root(tmp_path, cgroup=cgroup))["cgroup"] == expected


@pytest.mark.parametrize(("used", "free", "full"), [(89, 11, False), (90, 10, True), (85, 5, True), (0, 0, True)])
def test_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: int, free: int, full: bool) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(used + free + 5, used, free))
    assert state(make_root(tmp_path))["docker_disk_full"] is full
