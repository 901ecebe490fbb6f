# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module says when somebody cannot be asked; the engine has tests of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.modules import registry_coverage
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module


@pytest.mark.parametrize(
    ("options", "check", "failed", "findings"),
    [({}, False, False, 1), ({"fail": True}, False, True, 0), ({"registry_may_be_missing": True}, False, False, 1), ({"registry_may_be_missing": True}, True, False, 0)],
)
def test_who_cannot_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], check: bool, failed: bool, findings: int) -> None:
    kubeconfig = str(tmp_path / "kubeconfig")
    result = run_module(registry_coverage, capsys, check=check, kubeconfig=kubeconfig, registry="registry.example.com", **options)
    assert result.get("failed", False) is failed and result["checked"] is False and result["missing"] == []
    assert len(result["findings"]) == findings and kubeconfig in result["problem"]
    if findings:
        assert result["findings"][0]["urgency"] == 1 and result["findings"][0]["found"] == result["problem"]
