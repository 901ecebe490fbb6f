# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.onprem.circleci_server.plugins.modules import human_gate

GATES = [
    {"name": "dns", "sentence": "Make DNS entries", "resolves": {"names": ["ci.example.com"], "address": "10.0.0.5"}},
    {"name": "first_administrator", "sentence": "Log in"},
    {"name": "personal_token", "sentence": "Make a token"},
]


@contextlib.contextmanager
def dns(answers: dict[str, str]) -> Iterator[None]:
    def getaddrinfo(name: str, port: object) -> list[tuple[Any, ...]]:
        if name not in answers:
            raise OSError("unknown name")
        return [(2, 1, 6, "", (answers[name], 0))]

    with patch("socket.getaddrinfo", getaddrinfo):
        yield


def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    check = options.pop("_ansible_check_mode", False)
    with patch_module_args({"gates": GATES, "record": str(tmp_path / "records/gates.json"), "_ansible_check_mode": check, **options}):
        with pytest.raises(SystemExit):
            human_gate.main()
    basic._ANSIBLE_ARGS = None
    return dict(json.loads(capsys.readouterr().out))


def test_dns_stays_open_until_the_name_resolves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _again in range(2):
        with dns({"ci.example.com": "10.9.9.9"}):
            result = run(tmp_path, capsys)
        assert result["open"] == "dns"
        assert "ci.example.com (10.9.9.9)" in result["sentence"] and "same command again" in result["sentence"]


def test_a_name_of_the_load_balancer_counts_by_its_addresses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gates = [{"name": "dns", "sentence": "Make DNS entries", "resolves": {"names": ["ci.example.com"], "address": "lb.cloud.example"}}]
    with dns({"ci.example.com": "10.0.0.7", "lb.cloud.example": "10.0.0.7"}):
        assert run(tmp_path, capsys, gates=gates)["open"] == ""
    with dns({"ci.example.com": "10.0.0.7", "lb.cloud.example": "10.0.0.8"}):
        assert run(tmp_path, capsys, gates=gates)["open"] == "dns"


def test_the_same_command_goes_on_gate_by_gate_and_then_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with dns({"ci.example.com": "10.0.0.5"}):
        seen = [run(tmp_path, capsys) for _run in range(4)]
    assert [result["open"] for result in seen] == ["first_administrator", "personal_token", "", ""]
    assert [result["changed"] for result in seen] == [True, True, True, False]


def test_answers_in_advance_skip_all_gates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with dns({}):
        result = run(tmp_path, capsys, passed=["dns", "first_administrator", "personal_token"])
    assert result["open"] == "" and result["changed"] is True


def test_check_mode_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with dns({"ci.example.com": "10.0.0.5"}):
        result = run(tmp_path, capsys, _ansible_check_mode=True)
    assert result["open"] == "first_administrator"
    assert not (tmp_path / "records").exists()


def test_damaged_record_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records/gates.json").write_text("{", encoding="utf-8")
    result = run(tmp_path, capsys)
    assert result["failed"] and "gates.json" in result["msg"] and "Restore" in result["msg"]


def test_a_gate_stays_open_as_long_as_it_waits_for_something(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def waiting(*hosts: str) -> list[dict[str, Any]]:
        return [{"name": "runner_tokens", "sentence": "Make a token", "waits_for": list(hosts)}]

    for _again in range(2):
        assert run(tmp_path, capsys, gates=waiting("runner1"))["open"] == "runner_tokens"
    assert run(tmp_path, capsys, gates=waiting("runner1"), passed=["runner_tokens"])["open"] == ""
    first = run(tmp_path, capsys, gates=waiting())
    assert (first["open"], run(tmp_path, capsys, gates=waiting())["changed"]) == ("", False)
    # A runner that comes later needs its token all the same.
    assert run(tmp_path, capsys, gates=waiting("runner2"))["open"] == "runner_tokens"
