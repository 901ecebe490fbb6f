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

from sandbox import docker, layout, suite, tripwire, verbs  # noqa: E402 - the path is set above


def pytest_addoption(parser: pytest.Parser) -> None:
    suite.add_options(parser)


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
    suite.bring_up(pytestconfig)
    for host in ("workstation", "bastion"):
        verbs.prepare(host)
    return Chain(logs)
