# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from sandbox import machine
from sandbox.common import SandboxError
from tools import needs


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What would be installed on a machine that has none of it."""
    asked: list[dict[str, str]] = []

    def install(missing: Mapping[str, str], *, start_services: bool = True) -> None:
        assert not start_services
        asked.append(dict(missing))

    monkeypatch.setattr(machine, "install", install)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return asked


def test_parts_are_asked_for_together(installed: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert needs.main(["toolchain", "units"]) == 0
    (missing,) = installed
    assert missing["git"] == "git"
    assert missing["ssh-keygen"] == "openssh-client"
    assert next(tool for tool, packages in missing.items() if packages == "python3-venv").endswith(" -m venv")


def test_python_with_venv_needs_no_package(installed: list[dict[str, str]]) -> None:
    assert needs.main(["toolchain"]) == 0
    assert installed == [{"git": "git"}]


def test_go_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert needs.main(["programs"]) == 1
    assert capsys.readouterr().err == (
        "`go` is not installed: install Go 1.24 or later (https://go.dev/doc/install) and put it on PATH. Then run the same command again\n"
    )


def test_sandbox_wants_go_while_its_programs_are_not_built(installed: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "check", lambda: None)
    monkeypatch.setenv("ONPREM_CIRCLECI_CACHE", str(tmp_path))
    assert needs.main(["sandbox"]) == 0
    (tmp_path / "artifacts").mkdir()
    assert needs.main(["sandbox"]) == 0
    assert installed == [{"go": ""}, {}]


@pytest.mark.parametrize("part", ["firewall", "nomad"])
def test_part_that_needs_root_says_so(part: str, installed: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert needs.main([part]) == 1
    assert "needs root. Use sudo" in capsys.readouterr().err
    assert installed == []


def test_machine_that_may_not_carry_the_sandbox_is_told_before_the_tool_chain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise SandboxError("not here")

    monkeypatch.setattr(machine, "check", refuse)
    assert needs.main(["sandbox"]) == 1
    assert capsys.readouterr().err == "not here\n"
