# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose folder of records it is: two sites that name the same one on one control host are told, before one takes what is the other's."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils import site_folder as engine
from ansible_collections.onprem.circleci_server.plugins.modules import site_folder
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module

TOKYO: dict[str, Any] = {"site": "tokyo", "domain": "ci.tokyo.example.com"}
OSAKA: dict[str, Any] = {"site": "osaka", "domain": "ci.osaka.example.com"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lib" / "state"


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


def test_the_first_site_that_writes_there_marks_it_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_module(site_folder, capsys, path=str(folder), **TOKYO)["marked"] is False
    predicted = run_module(site_folder, capsys, path=str(folder), state="claimed", check=True, **TOKYO)
    assert not folder.exists()
    done = run_module(site_folder, capsys, path=str(folder), state="claimed", **TOKYO)
    assert predicted["changed"] and done["changed"] and predicted["diff"] == done["diff"] and done["marked"] is True
    assert done["diff"]["before"] == "" and "ci.tokyo.example.com" in done["diff"]["after"]
    mark = folder / "site.json"
    assert json.loads(mark.read_text(encoding="utf-8")) == {"format": 1, **TOKYO}
    assert stat.S_IMODE(mark.stat().st_mode) == 0o600
    # Services of other users have their folders below the same one.
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    again = run_module(site_folder, capsys, path=str(folder), state="claimed", **TOKYO)
    assert not again["changed"] and again["marked"] is True and files(folder) == ["site.json"]


@pytest.mark.parametrize("state", ["looked_at", "claimed", "released"])
@pytest.mark.parametrize("check", [False, True])
def test_another_site_is_refused_and_changes_nothing(folder: Path, state: str, check: bool, capsys: pytest.CaptureFixture[str]) -> None:
    run_module(site_folder, capsys, path=str(folder), state="claimed", **TOKYO)
    before = (folder / "site.json").stat().st_mtime_ns
    result = run_module(site_folder, capsys, path=str(folder), state=state, check=check, **OSAKA)
    assert result["failed"]
    for text in ("circleci_state_dir", str(folder), "site tokyo (ci.tokyo.example.com)", "site.json", "ci.osaka.example.com", "circleci_former_domains"):
        assert text in result["msg"]
    assert (folder / "site.json").stat().st_mtime_ns == before and files(folder) == ["site.json"]


def test_a_look_can_tell_it_as_a_finding(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_module(site_folder, capsys, path=str(folder), state="claimed", **TOKYO)
    result = run_module(site_folder, capsys, path=str(folder), fail=False, **OSAKA)
    (finding,) = result["findings"]
    assert not result.get("failed") and not result["changed"] and result["marked"] is False
    assert (finding["check"], finding["level"], finding["subject"]) == ("state_folder", "problem", "circleci_state_dir")
    assert "ci.tokyo.example.com" in finding["found"] and "circleci_former_domains" in finding["remedy"]
    assert run_module(site_folder, capsys, path=str(folder), fail=False, **TOKYO)["findings"] == []


def test_a_changed_domain_is_taken_over_when_the_old_one_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_module(site_folder, capsys, path=str(folder), state="claimed", **TOKYO)
    renamed: dict[str, Any] = {"site": "tokyo", "domain": "ci.kanto.example.com"}
    assert run_module(site_folder, capsys, path=str(folder), state="claimed", **renamed)["failed"]
    wrong = run_module(site_folder, capsys, path=str(folder), state="claimed", former_domains=["ci.edo.example.com"], **renamed)
    assert wrong["failed"]
    done = run_module(site_folder, capsys, path=str(folder), state="claimed", former_domains=["ci.tokyo.example.com"], **renamed)
    assert done["changed"] and "ci.tokyo.example.com" in done["diff"]["before"] and "ci.kanto.example.com" in done["diff"]["after"]
    # The name may stay in the inventory, and is not needed any more.
    assert not run_module(site_folder, capsys, path=str(folder), state="claimed", former_domains=["ci.tokyo.example.com"], **renamed)["changed"]
    assert not run_module(site_folder, capsys, path=str(folder), state="claimed", **renamed)["changed"]


def test_another_short_name_is_the_same_site(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_module(site_folder, capsys, path=str(folder), state="claimed", site="site", domain="ci.tokyo.example.com")
    assert run_module(site_folder, capsys, path=str(folder), **TOKYO)["marked"] is False
    assert run_module(site_folder, capsys, path=str(folder), state="claimed", **TOKYO)["changed"]


def _report(folder: Path, domain: str) -> None:
    (folder / "reports").mkdir(parents=True)
    (folder / "reports" / "report.json").write_text(json.dumps({"site": "x", "domain": domain}), encoding="utf-8")


def _restore_point(folder: Path, domain: str) -> None:
    (folder / "restore-points" / "20260101T000000Z-4.9.5").mkdir(parents=True)
    (folder / "restore-points" / "20260101T000000Z-4.9.5" / "restore-point.json").write_text(json.dumps({"format": 1, "domain": domain}), encoding="utf-8")


@pytest.mark.parametrize("evidence", [_report, _restore_point])
def test_a_folder_without_a_mark_is_adopted_when_nothing_in_it_names_another_site(evidence: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evidence(folder, "ci.tokyo.example.com")
    refused = run_module(site_folder, capsys, path=str(folder), state="claimed", **OSAKA)
    assert refused["failed"] and "ci.tokyo.example.com" in refused["msg"] and not (folder / "site.json").exists()
    assert run_module(site_folder, capsys, path=str(folder), state="claimed", former_domains=["ci.tokyo.example.com"], check=True, **OSAKA)["changed"]
    assert run_module(site_folder, capsys, path=str(folder), state="claimed", **TOKYO)["changed"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"domain": 5}', '{"site": "x"}'])
def test_what_says_nothing_about_a_site_hinders_nobody(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _report(folder, "")
    (folder / "reports" / "report.json").write_text(text, encoding="utf-8")
    (folder / "records").mkdir()
    (folder / "records" / "gates.json").write_text('{"format": 1, "passed": ["dns"]}', encoding="utf-8")
    assert run_module(site_folder, capsys, path=str(folder), state="claimed", **OSAKA)["changed"]


@pytest.mark.parametrize("text", ["", "{", '{"format": 2, "domain": "ci.tokyo.example.com"}', '{"format": 1}'])
def test_a_mark_that_cannot_be_read_is_refused_by_its_name(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir(parents=True)
    (folder / "site.json").write_text(text, encoding="utf-8")
    for state in ("looked_at", "claimed", "released"):
        result = run_module(site_folder, capsys, path=str(folder), state=state, **TOKYO)
        assert result["failed"] and str(folder / "site.json") in result["msg"]
    assert (folder / "site.json").read_text(encoding="utf-8") == text


def test_of_two_sites_that_come_at_once_one_gets_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_comes_first(*_arguments: Any) -> list[str]:
        if not (folder / "site.json").exists():
            monkeypatch.undo()
            engine.SiteFolder(folder, engine.Site(**OSAKA)).claim(check=False)
        return []

    monkeypatch.setattr(engine, "_named_in", other_comes_first)
    with pytest.raises(engine.ForeignFolderError, match=r"ci\.osaka\.example\.com"):
        engine.SiteFolder(folder, engine.Site(**TOKYO)).claim(check=False)
    assert json.loads((folder / "site.json").read_text(encoding="utf-8"))["site"] == "osaka" and files(folder) == ["site.json"]


def test_where_hard_links_are_not_to_be_had_the_mark_is_made_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_arguments: Any, **_options: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    assert engine.SiteFolder(folder, engine.Site(**TOKYO)).claim(check=False)
    assert files(folder) == ["site.json"]


def test_the_mark_goes_with_the_records(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_module(site_folder, capsys, path=str(folder), state="claimed", **TOKYO)
    predicted = run_module(site_folder, capsys, path=str(folder), state="released", check=True, **TOKYO)
    assert predicted["changed"] and files(folder) == ["site.json"]
    done = run_module(site_folder, capsys, path=str(folder), state="released", **TOKYO)
    assert done["changed"] and done["diff"] == predicted["diff"] and done["diff"]["after"] == "" and files(folder) == []
    assert not run_module(site_folder, capsys, path=str(folder), state="released", **TOKYO)["changed"]
    assert not run_module(site_folder, capsys, path=str(folder.parent / "nowhere"), state="released", **TOKYO)["changed"]


def test_a_path_that_is_a_file_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("x", encoding="utf-8")
    result = run_module(site_folder, capsys, path=str(folder), state="claimed", **TOKYO)
    assert result["failed"] and "circleci_state_dir" in result["msg"] and str(folder) in result["msg"]
