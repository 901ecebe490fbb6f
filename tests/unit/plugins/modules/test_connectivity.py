# SPDX-License-Identifier: GPL-3.0-or-later
"""The module connectivity: lists or their JSON texts in, a JSON text out."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.json_option import packed, unpacked
from ansible_collections.onprem.circleci_server.plugins.modules import connectivity
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module


@pytest.mark.parametrize("carry", [list, json.dumps, packed], ids=["list", "text", "packed"])
def test_takes_connections_as_list_and_as_text(capsys: pytest.CaptureFixture[str], carry: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        flow = {"name": "a", "address": "127.0.0.1", "port": server.getsockname()[1], "protocol": "tcp", "expect": "open", "rule": "r"}
        found = run_module(connectivity, capsys, flows=carry([flow]), rules=carry([]))
    assert found["summary"] == {"proved": 1, "failed": 0, "unproved": 0}
    assert [(item["name"], item["rule"], item["found"]) for item in json.loads(found["connections"])] == [("a", "r", "open")]


def test_tells_all_that_is_wrong_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_module(connectivity, capsys, flows="[{", rules='{"a": 1}', parallel=0)
    assert found["failed"]
    assert [problem.split()[0] for problem in found["problems"]] == ["parallel", "flows", "rules"]
    assert "a list of mappings is needed" in found["msg"]


def test_what_the_hosts_found_reaches_the_verdict_through_ansible(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        flow = {"name": "a", "address": "127.0.0.1", "port": server.getsockname()[1], "protocol": "tcp", "expect": "open", "rule": "r", "to": "{{ other }}"}
        flows = "{{ [flow] | onprem.circleci_server.packed_json }}"
        tried = {"onprem.circleci_server.connectivity": {"flows": flows}, "vars": {"flow": flow, "other": "b"}, "register": "tried"}
        joined = "{{ 'tried' | onprem.circleci_server.site_connections(groups, hostvars, inventory_hostname) }}"
        judged = {"onprem.circleci_server.site_verdict": {"site": {"site": "x"}, "hosts": joined}, "register": "judged"}
        told = {"ansible.builtin.debug": {"msg": "{{ judged.findings }}"}}
        plays = [{"hosts": "circleci_sites", "gather_facts": False, "tasks": [tried, judged, told]}]
        hosts = {"b": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}
        (tmp_path / "inventory.json").write_text(json.dumps({"circleci_sites": {"hosts": hosts}}), encoding="utf-8")
        (tmp_path / "play.yml").write_text(json.dumps(plays), encoding="utf-8")
        environment = {**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl", "ANSIBLE_HOME": str(tmp_path / "home"), "NO_COLOR": "1"}
        words = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(tmp_path / "inventory.json"), str(tmp_path / "play.yml")]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    findings = unpacked([event["hosts"]["b"]["msg"] for event in events if "msg" in (event.get("hosts") or {}).get("b", {})][-1])
    assert [(item["from"], item["to"], item["verdict"]) for item in findings["flows"]] == [("b", "b", "proved")]
    assert "WARNING" not in done.stdout + done.stderr
