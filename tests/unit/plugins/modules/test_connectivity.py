# SPDX-License-Identifier: GPL-3.0-or-later
"""The module connectivity: lists or their JSON texts in, a JSON text out."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.modules import connectivity
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module


@pytest.mark.parametrize("carry", [list, json.dumps], ids=["list", "text"])
def test_takes_connections_as_list_and_as_text(capsys: pytest.CaptureFixture[str], carry: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        flow = {"name": "a", "address": "127.0.0.1", "port": server.getsockname()[1], "protocol": "tcp", "expect": "open", "rule": "r"}
        found = run_module(connectivity, capsys, flows=carry([flow]), rules=carry([]))
    assert found["summary"] == {"proved": 1, "failed": 0, "unproved": 0}
    assert [(item["name"], item["rule"], item["found"]) for item in json.loads(found["results"])] == [("a", "r", "open")]


def test_tells_all_that_is_wrong_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_module(connectivity, capsys, flows="[{", rules='{"a": 1}', parallel=0)
    assert found["failed"]
    assert [problem.split()[0] for problem in found["problems"]] == ["parallel", "flows", "rules"]
    assert "a list of mappings is needed" in found["msg"]
