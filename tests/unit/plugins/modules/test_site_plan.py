# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.modules import site_plan
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module

PLAN = {"site": "osaka", "release": "4.10.0", "domain": "ci.example.com", "hosts": [{"name": "nomad1", "roles": ["Nomad client"]}]}
FILES = {"change-request.md", "change-request.html", "change-request.json", "ports.csv"}


def write(capsys: pytest.CaptureFixture[str], folder: Path, *, check: bool = False, **changes: Any) -> dict[str, Any]:
    return run_module(site_plan, capsys, check=check, path=str(folder), plan={**PLAN, **changes}, ports_csv="host,ports\n")


def test_check_mode_tells_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = write(capsys, tmp_path / "plan", check=True)
    assert result["changed"] and "nomad1" in result["diff"]["after"] and result["diff"]["before"] == ""
    assert not (tmp_path / "plan").exists()


def test_the_same_plan_changes_nothing_and_keeps_its_time(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "plan"
    assert write(capsys, folder)["changed"]
    assert {path.name for path in folder.iterdir()} == FILES
    first = json.loads((folder / "change-request.json").read_text(encoding="utf-8"))
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    monkeypatch.setattr(site_plan, "now", lambda: "2099-01-01 00:00 UTC")
    again = write(capsys, folder)
    assert not again["changed"] and again["diff"]["before"] == again["diff"]["after"]
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    other = write(capsys, folder, release="4.9.5")
    assert other["changed"] and "2099-01-01" in other["diff"]["after"] and first["generated"] in other["diff"]["before"]


def test_a_cloud_gets_two_files_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"path": str(tmp_path), "plan": PLAN, "ports_csv": "host,ports\n", "cloud_csv": "name,ports\n", "cloud_markdown": "| name |\n"}
    assert run_module(site_plan, capsys, **options)["changed"]
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"cloud-rules.csv", "cloud-rules.md"}
    assert not run_module(site_plan, capsys, **options)["changed"]


def test_a_file_that_somebody_edited_is_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(capsys, tmp_path)
    (tmp_path / "change-request.md").write_text("mine", encoding="utf-8")
    assert write(capsys, tmp_path)["changed"]
    assert "nomad1" in (tmp_path / "change-request.md").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = write(capsys, tmp_path / "file" / "plan")
    assert result["failed"] and "circleci_plan_dir" in result["msg"] and str(tmp_path) in result["msg"]
