# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module says before it comes to Nomad; against a real one it is tried in tests/integration_nomad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.modules import infrastructure_probe
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {
        "kubeconfig": str(tmp_path / "kubeconfig"), "namespace": "circleci-server", "registry": "registry.example.com", "image": "cimg/base:1", "bucket": "circleci-data",
        "endpoint": "http://127.0.0.1:1", "access_key": "a", "secret_key": "canary", "lock_file": str(tmp_path / "records" / "lock"),
    }  # fmt: skip


def test_check_mode_touches_nothing(options: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = run_module(infrastructure_probe, capsys, check=True, **options)
    assert result["changed"] is False and result["passed"] is False and result["evidence"]["state"] == "not run"
    assert result["evidence"]["missing"] == ["a run without --check"] and list(tmp_path.iterdir()) == []


def test_nomad_must_be_somewhere(options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(infrastructure_probe, capsys, **{**options, "namespace": ""})
    assert result["failed"] and "kubeconfig and namespace are needed" in result["msg"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "the Kubernetes API cannot be reached (there is no file"),
        ({"endpoint": "store.example.com"}, "circleci_object_storage_endpoint is 'store.example.com'"),
        ({"nomad_address": "nomad"}, "the address of Nomad is 'nomad'"),
    ],
)
def test_who_cannot_be_asked_is_evidence_or_a_failure(options: dict[str, Any], changes: dict[str, Any], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = {**options, "nomad_address": "http://127.0.0.1:1", **changes} if changes else options
    result = run_module(infrastructure_probe, capsys, fail=False, **given)
    assert not result.get("failed") and result["evidence"]["state"] == "failed" and result["clients"] == []
    assert sentence in result["evidence"]["detail"] and len(result["problems"]) == 1
    assert "canary" not in str({key: value for key, value in result.items() if key != "invocation"})
    failed = run_module(infrastructure_probe, capsys, fail=True, **given)
    assert failed["failed"] and sentence in failed["msg"] and failed["changed"] is False
