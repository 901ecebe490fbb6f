# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain: one sandbox, its tests in the order of the file, each building on the one before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sandbox import docker, layout, tripwire, verbs  # noqa: E402 - the path is set above


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tarball", required=True, help="the built collection that is installed on bastion and workstation")
    parser.addoption("--keep", action="store_true", help="take the sandbox as it stands, to run a part of the chain again")


@dataclass(frozen=True)
class Chain:
    """Commands of an operator, and looks from outside."""

    logs: Path

    def sandbox(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "sandbox", *arguments], cwd=ROOT, env=environment, check=False, capture_output=True, text=True)

    def run(self, verb: str, *, extra: Mapping[str, Any] | None = None, arguments: Sequence[str] = (), name: str = "", kill_at: str = "") -> verbs.Result:
        return verbs.run(verb, extra=extra, arguments=arguments, log=self.logs / f"{name or verb}.log", kill_at=kill_at)

    def on(self, host: str, *command: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        return docker.execute(layout.host(host).container, list(command), check=False, stdin=stdin)

    def attempts_outside(self) -> int:
        return int(tripwire.read()["total"])


@pytest.fixture(scope="session")
def chain(pytestconfig: pytest.Config) -> Chain:
    logs = ROOT / "build" / "chain"
    logs.mkdir(parents=True, exist_ok=True)
    capture: Any = pytestconfig.pluginmanager.getplugin("capturemanager")
    up = ("up",) if pytestconfig.getoption("--keep") else ("up", "--fresh")
    for command in (up, ("install-collection", pytestconfig.getoption("--tarball"))):
        # The first run builds for half an hour: whoever waits sees what, and how long it usually takes.
        with capture.global_and_fixture_disabled():
            done = subprocess.run([sys.executable, "-m", "sandbox", *command], cwd=ROOT, check=False)
        assert done.returncode == 0, f"sandbox {' '.join(command)} ended with {done.returncode}"
    for host in ("workstation", "bastion"):
        verbs.prepare(host)
    return Chain(logs)
