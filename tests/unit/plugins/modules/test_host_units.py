# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.onprem.circleci_server.plugins.modules import host_units
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module


def test_a_secret_of_several_lines_is_not_in_the_log_of_the_system(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(AnsibleModule, "log", lambda _self, text, **_more: logged.append(str(text)))
    secret = "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n"
    files = [{"path": str(tmp_path / "key"), "secret_content": secret, "owner": "", "group": ""}]
    result = run_module(host_units, capsys, check=True, files=files, _ansible_no_log=False)
    assert result["changed"] and "canary" not in str(result)
    assert "canary" not in "".join(logged)


def test_what_the_system_refuses_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").mkdir()
    result = run_module(host_units, capsys, files=[{"path": str(tmp_path / "file"), "content": "x", "owner": "", "group": ""}])
    assert result["failed"] and result["msg"] == f"{tmp_path}/file: Is a directory."
