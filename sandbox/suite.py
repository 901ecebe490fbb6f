# SPDX-License-Identifier: GPL-3.0-or-later
"""How suites of tests that have the sandbox to themselves begin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def add_options(parser: pytest.Parser) -> None:
    """Options of such a suite."""
    parser.addoption("--tarball", required=True, help="the built collection that is installed on bastion and workstation")
    parser.addoption("--keep", action="store_true", help="take the sandbox as it stands, to run a part of the suite again")


def bring_up(config: pytest.Config) -> None:
    """A fresh sandbox, or the one that stands, with the built collection installed."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    up = ("up",) if config.getoption("--keep") else ("up", "--fresh")
    for command in (up, ("install-collection", config.getoption("--tarball"))):
        # The first run builds for half an hour: whoever waits sees what, and how long it usually takes.
        with capture.global_and_fixture_disabled():
            done = subprocess.run([sys.executable, "-m", "sandbox", *command], cwd=ROOT, check=False)
        assert done.returncode == 0, f"sandbox {' '.join(command)} ended with {done.returncode}"
