# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import ssl
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.bundle_plan import wheels
from ansible_collections.onprem.circleci_server.plugins.module_utils.bundle_plan.tools import PlanError


def item(name: str, version: str, **archive: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "version": version}, "download_info": {"url": f"https://192.0.2.1/{name}-{version}-py3-none-any.whl", "archive_info": archive}}


def pip(monkeypatch: pytest.MonkeyPatch, returncode: int, stdout: str = "", stderr: str = "") -> list[list[str]]:
    """What pip answers; returns what it was asked."""
    asked: list[list[str]] = []

    def run(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, returncode, stdout, stderr)

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_wheels_are_for_the_python_of_the_far_side_and_locked_by_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"install": [item("b", "2", hashes={"sha256": "2" * 64}), item("a", "1", hashes={"sha256": "1" * 64})]}
    asked = pip(monkeypatch, 0, json.dumps(report))
    found = wheels.resolve_wheels("3.12", ["a", "b>=2"])
    assert asked[0][asked[0].index("--python-version") + 1] == "3.12"
    assert asked[0][-2:] == ["a", "b>=2"] and "--only-binary=:all:" in asked[0]
    assert [wheel.filename for wheel in found] == ["a-1-py3-none-any.whl", "b-2-py3-none-any.whl"]
    assert wheels.requirements_text(found) == f"a==1 --hash=sha256:{'1' * 64}\nb==2 --hash=sha256:{'2' * 64}\n"


def test_pip_trusts_the_authority_beside_those_of_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    system = tmp_path / "system.pem"
    system.write_text("SYSTEM")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: SimpleNamespace(cafile=str(system)))
    trusted: list[str] = []

    def run(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        trusted.append(Path(command[command.index("--cert") + 1]).read_text() if "--cert" in command else "")
        return subprocess.CompletedProcess(command, 0, '{"install": []}', "")

    monkeypatch.setattr(subprocess, "run", run)
    wheels.resolve_wheels("3.11", ["a"], "PROXY")
    wheels.resolve_wheels("3.11", ["a"])
    assert trusted[0].split() == ["SYSTEM", "PROXY"] and trusted[1] == ""


def test_order_of_the_index_does_not_change_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [item(name, "1", hashes={"sha256": name * 64}) for name in "abc"]
    pip(monkeypatch, 0, json.dumps({"install": items}))
    first = wheels.requirements_text(wheels.resolve_wheels("3.11", ["a"]))
    pip(monkeypatch, 0, json.dumps({"install": items[::-1]}))
    assert wheels.requirements_text(wheels.resolve_wheels("3.11", ["a"])) == first


@pytest.mark.parametrize(
    ("python", "answer", "said"),
    [
        ("3", {}, r"circleci_bundle_python: '3' is no version of Python"),
        ("3.11.2", {}, r"is no version of Python"),
        ("3.11", {"returncode": 1, "stderr": "/usr/bin/python3: No module named pip"}, r"has no pip; install it"),
        ("3.11", {"returncode": 1, "stderr": "ERROR: No matching distribution found for a"}, r"finds no wheels for Python 3.11: ERROR: No matching"),
        ("3.11", {"returncode": 0, "stdout": json.dumps({"install": [item("a", "1")]})}, r"has no sha256 for a 1"),
    ],
)
def test_bad_answers_are_told(python: str, answer: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pip(monkeypatch, **{"returncode": 0, **answer})
    with pytest.raises(PlanError, match=said):
        wheels.resolve_wheels(python, ["a"])
