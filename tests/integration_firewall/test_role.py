# SPDX-License-Identifier: GPL-3.0-or-later
"""The role, run by the real ansible-playbook from another host: a change is confirmed over a new connection, and one that cuts Ansible off is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .lab import EXEC_PORT, FILTERS, Host

# Of the system, since that of firewalld has its library.
PYTHON = "/usr/bin/python3"


# Seconds until a change is taken back: one filter without a manager, one with, which needs several for the change itself.
SOON = {"nftables": 10, "firewalld": 30}


@pytest.fixture(params=list(SOON))
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(FILTERS[name]) is None:
        pytest.skip(f"needs {FILTERS[name]}: apt-get install {name}")
    return name


def run(friend: Host, folder: Path, rules: list[dict[str, Any]], revert_after: int) -> tuple[int, dict[str, int], str]:
    """Exit code, tasks that changed something by name, and all that was said."""
    options = {"circleci_firewall_rules": rules, "circleci_firewall_revert_after": revert_after}
    play = [{"hosts": "host", "gather_facts": False, "roles": [{"role": "onprem.circleci_server.firewall", "vars": options}]}]
    inventory = {"all": {"hosts": {"host": {"ansible_connection": "lab_exec", "ansible_host": "10.77.0.1", "ansible_port": EXEC_PORT, "ansible_python_interpreter": PYTHON}}}}
    (folder / "play.yml").write_text(json.dumps(play), encoding="utf-8")
    (folder / "inventory.json").write_text(json.dumps(inventory), encoding="utf-8")
    environment = {
        **os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl", "ANSIBLE_HOME": str(folder / "home"), "ANSIBLE_PIPELINING": "true", "NO_COLOR": "1",
        "ANSIBLE_CONNECTION_PLUGINS": str(Path(__file__).parent / "connection_plugins"),
    }  # fmt: skip
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder / "inventory.json"), str(folder / "play.yml")]
    done = subprocess.run(["nsenter", "-t", str(friend.pid), "-m", "-n", *words], env=environment, capture_output=True, text=True, check=False)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    changed = {event["task"]["name"]: 1 for event in events for result in (event.get("hosts") or {}).values() if result.get("changed")}
    return done.returncode, changed, done.stdout + done.stderr


def test_a_change_is_confirmed_and_one_that_cuts_ansible_off_is_told(host: Host, friend: Host, backend: str, tmp_path: Path) -> None:
    if backend == "firewalld":
        host.run("firewall-cmd", f"--add-port={EXEC_PORT}/tcp")
    host.serve_commands(PYTHON)
    host.listen(4647)
    good = [{"id": "way-in", "ports": [EXEC_PORT], "peers": ["10.77.0.2"]}, {"id": "nomad-in-rpc", "ports": [4647], "peers": ["10.77.0.2"]}]
    code, changed, said = run(friend, tmp_path, good, SOON[backend])
    assert code == 0 and list(changed) == ["onprem.circleci_server.firewall : Bring the packet filter of this host to the rules"], said
    assert run(friend, tmp_path, good, SOON[backend])[:2] == (0, {})

    # The way in is no SSH, so that nothing knows beforehand that the rules shut it.
    code, _changed, said = run(friend, tmp_path, [{"id": "way-in", "ports": [EXEC_PORT], "peers": ["10.77.0.77"]}], SOON[backend])
    assert code == 2, said
    assert f"The rules of host cut Ansible off, so the host took them back after {SOON[backend]} seconds. Name the address" in said
    assert friend.connect("10.77.0.1", 4647) == "open"

    code, changed, said = run(friend, tmp_path, good, SOON[backend])
    assert (code, changed) == (0, {}), said
    assert "an earlier change of the packet filter was not confirmed and the host took it back at" in said
