# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the outcome as evidence beside what the steps of the scenario saw."""

from __future__ import annotations

import os

import pytest

from sandbox import scenarios


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    name = os.environ.get("MOLECULE_SCENARIO_NAME", "")
    if reporter is None or name not in scenarios.SCENARIOS:
        return
    counts = {outcome: len(reporter.stats.get(outcome, ())) for outcome in ("passed", "failed", "error", "skipped")}
    if counts["passed"] or counts["failed"] or counts["error"]:
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        scenarios.note(name, outside=scenarios.cell("no" if exitstatus else "yes", f"checks by testinfra: {told}", "real component"))
