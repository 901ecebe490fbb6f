# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible.template import trust_as_template
from ansible_collections.onprem.circleci_server.plugins.filter.trust import registries_yaml
from ansible_collections.onprem.circleci_server.plugins.module_utils.host import rancher
from ansible_collections.onprem.circleci_server.plugins.module_utils.host.units import HostError

SERVER = rancher.Node("rke2-server", "rke2", True)
AGENT = rancher.Node("k3s-agent", "k3s", False)
CA = "/etc/rancher/k3s/onprem-circleci-registry.crt"


class Machine:
    """A node with systemctl and kubectl as stand-ins: only what a restart looks at."""

    def __init__(self, unit: str = "rke2-server", ready: bool = True, lame: tuple[str, ...] = (), started: float = 0) -> None:
        self.unit, self.ready, self.lame, self.started = unit, ready, lame, started
        self.restarts: list[str] = []
        self.polls_until_ready = 0

    def __call__(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        words = " ".join(argv)
        if words.startswith("systemctl is-active"):
            return self.answer(0 if argv[-1] == self.unit else 3)
        if words.startswith("systemctl is-enabled"):
            return self.answer(1)
        if words.startswith("systemctl show"):
            return self.answer(0, f"{int(self.started * 1e6)}\n")
        if words.startswith("systemctl restart"):
            self.restarts.append(argv[-1])
            return self.answer(0)
        if "readyz" in words:
            if self.restarts and self.polls_until_ready > 0:
                self.polls_until_ready -= 1
                return self.answer(1, "", "connection refused")
            return self.answer(0, "[+]etcd ok\nreadyz check passed\n") if self.ready else self.answer(1, "[+]ping ok\n[-]etcd failed: reason withheld\n")
        nodes = [{"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": "False" if name in self.lame else "True"}]}} for name in ("a", "b", "c")]
        return self.answer(0, json.dumps({"items": nodes}))

    @staticmethod
    def answer(code: int, out: str = "", err: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], code, out, err)


@pytest.mark.parametrize("unit", rancher.UNITS)
def test_each_unit_is_found(unit: str) -> None:
    found = rancher.find(Machine(unit))
    assert found is not None and (found.unit, found.distribution, found.server) == (unit, *rancher.UNITS[unit])
    assert found.registries() == Path(f"/etc/rancher/{found.distribution}/registries.yaml")


def test_node_with_neither_has_none() -> None:
    assert rancher.find(Machine("containerd")) is None


def test_server_restarts_only_while_etcd_is_ready() -> None:
    machine = Machine(ready=False)
    with pytest.raises(HostError, match=r"rke2-server is not restarted: .*etcd failed.* loses its majority"):
        rancher.restart(SERVER, machine, 60)
    assert machine.restarts == []


def test_server_restarts_only_while_all_nodes_are_ready() -> None:
    machine = Machine(lame=("b",))
    with pytest.raises(HostError, match="not Ready: b"):
        rancher.restart(SERVER, machine, 60)
    assert machine.restarts == []


def test_restart_waits_until_the_cluster_is_whole_again() -> None:
    machine = Machine()
    machine.polls_until_ready = 3
    rancher.restart(SERVER, machine, 60, kubelet=lambda: True, sleep=lambda _seconds: None)
    assert machine.restarts == ["rke2-server"] and machine.polls_until_ready == 0


def test_node_that_does_not_come_back_stops_the_run() -> None:
    machine, times = Machine(), iter(range(0, 1000, 30))
    with pytest.raises(HostError, match=r"kubelet does not answer\. No other node was restarted"):
        rancher.restart(SERVER, machine, 60, kubelet=lambda: False, sleep=lambda _seconds: None, clock=lambda: float(next(times)))
    assert machine.restarts == ["rke2-server"]


def test_agent_needs_only_its_kubelet() -> None:
    machine = Machine("k3s-agent", ready=False)
    rancher.restart(AGENT, machine, 60, kubelet=lambda: True, sleep=lambda _seconds: None)
    assert machine.restarts == ["k3s-agent"]


def test_file_that_is_newer_than_the_service_was_not_read(tmp_path: Path) -> None:
    path = SERVER.registries(tmp_path)
    now = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert not rancher.stale(SERVER, Machine(started=now), tmp_path), "no file, nothing to read"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    os.utime(path, (time.time() - 50, time.time() - 50))
    assert rancher.stale(SERVER, Machine(started=now - 100), tmp_path)
    assert not rancher.stale(SERVER, Machine(started=now - 10), tmp_path)


THEIRS = """# theirs
mirrors:
  docker.io:
    endpoint: ["https://mirror.example.com"]
configs:
  mirror.example.com:
    auth: {username: them, password: theirs}
"""


def test_registries_of_others_stay() -> None:
    text = registries_yaml(THEIRS, "registry.example.com:5000", CA)
    assert "password: theirs" in text and "https://mirror.example.com" in text and f"ca_file: {CA}" in text
    assert registries_yaml(text, "registry.example.com:5000", CA) == text
    left = registries_yaml(text, "registry.example.com:5000")
    assert "password: theirs" in left and "registry.example.com:5000" not in left


def test_texts_of_ansible_are_written_as_plain_ones() -> None:
    text = registries_yaml(trust_as_template(""), trust_as_template("r.example:5000"), trust_as_template(CA))
    assert registries_yaml(text, "r.example:5000", CA) == text and CA in text


def test_login_of_others_for_our_registry_stays() -> None:
    before = "configs:\n  r.example:5000:\n    auth: {username: x}\n"
    text = registries_yaml(before, "r.example:5000", CA)
    assert "username: x" in text and CA in text
    assert "username: x" in registries_yaml(text, "r.example:5000")


def test_file_with_nothing_left_in_it_is_empty() -> None:
    assert registries_yaml(registries_yaml("", "r:5000", CA), "r:5000") == ""
    assert registries_yaml("", "r:5000") == ""


@pytest.mark.parametrize("text", ["- a list\n", "configs: [x]\n", "{"])
def test_file_that_nobody_can_read_is_refused(text: str) -> None:
    with pytest.raises(Exception, match=r"registries\.yaml of the node"):
        registries_yaml(text, "r:5000", CA)
