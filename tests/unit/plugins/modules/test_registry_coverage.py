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


def test_images_that_nothing_names_are_asked_for_as_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The reaper's image is in no pod and in no job: Nomad clients pull it by themselves."""

    class Registry:
        def client(self, _host: str) -> Registry:
            return self

        def head_manifest(self, repository: str, _tag: str) -> str | None:
            return None if repository == "pause" else "sha256:1"

    class Nothing:
        def request(self, _method: str, _path: str) -> dict[str, Any]:
            return {"items": []}

    monkeypatch.setattr(registry_coverage, "KubernetesClient", lambda _kubeconfig: Nothing())
    monkeypatch.setattr(registry_coverage, "registry_access", lambda _options: Registry())
    host = "registry.example.com:5000"
    wanted: dict[str, Any] = {"kubeconfig": "/k", "registry": host, "namespaces": ["ns"], "images": [f"{host}/pause:3.6", f"{host}/circleci/docker-gc:2.0"]}
    (entry,) = run_module(registry_coverage, capsys, **wanted)["missing"]
    assert entry["image"] == f"{host}/pause:3.6" and entry["reason"] == f"{host}/pause has no 3.6"
    assert "Nomad clients" in entry["used_by"][0]
