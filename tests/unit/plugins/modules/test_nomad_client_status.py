# SPDX-License-Identifier: GPL-3.0-or-later
"""The module on this very machine, which need not be a Nomad client."""

from __future__ import annotations

import pytest
from ansible_collections.onprem.circleci_server.plugins.modules import nomad_client_status
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module


def test_any_host_can_be_looked_at_and_nothing_is_changed(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_module(nomad_client_status, capsys, check=True)
    assert found["changed"] is False and not found.get("failed")
    assert found["cgroup"] in ("v1", "v2") and found["docker_gc"] in ("running", "restarting", "stopped", "missing")
    assert found["docker_disk_full"] in (True, False)
