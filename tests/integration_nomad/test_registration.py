# SPDX-License-Identifier: GPL-3.0-or-later
"""A real server that has lost its state, and real clients that it denies."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.host.units import HostError
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad import registration
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.client import NomadClient
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.registration import Registration
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.transport import AddressTransport

from .conftest import Cluster, until


@dataclass
class Host:
    """A host whose unit is the real agent of a client."""

    cluster: Cluster
    name: str
    commands: list[str] = field(default_factory=list)

    def __call__(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.commands.append(argv[1])
        assert argv[1] in ("stop", "start")
        (self.cluster.stop_client if argv[1] == "stop" else self.cluster.start_client)(self.name)
        return subprocess.CompletedProcess(list(argv), 0, "", "")

    @property
    def transport(self) -> AddressTransport:
        return AddressTransport(f"http://127.0.0.1:{self.cluster.ports[self.name]}")

    @property
    def node(self) -> str:
        return NomadClient(self.transport).own_node()

    def registration(self, patience: float = 0) -> Registration:
        return Registration(self.transport, self.cluster.folder / self.name / "data", "nomad", patience, run=self)

    def log(self) -> str:
        return (self.cluster.folder / self.name / "log").read_text(encoding="utf-8", errors="replace")


@pytest.fixture
def host(cluster: Cluster) -> Host:
    return Host(cluster, "nomad1")


def test_a_known_client_is_left_alone(host: Host) -> None:
    for check in (True, False):
        found = host.registration().ensure(check)
        assert (found.state, found.changed) == ("known", False)
    assert host.commands == []


def test_servers_that_have_begun_anew_know_their_client_again(host: Host) -> None:
    cluster, before, seen = host.cluster, host.node, len(host.log())
    cluster.server.stop(signal.SIGKILL)
    shutil.rmtree(cluster.folder / "server")
    cluster.start_server()
    cluster.wait_for_leader()
    until(lambda: "Permission denied" in host.log()[seen:], "the client to be denied")
    # Without patience: a client whose fingerprint happens to change, as it may in its first minutes, gets over it by itself.
    assert host.registration().ensure(check=True).changed and host.node == before and host.commands == []
    assert host.registration().ensure(check=False).changed
    assert host.commands == ["stop", "start"] and host.node != before
    until(lambda: cluster.node("nomad1").id == host.node, "the client to be ready")
    assert not host.registration().ensure(check=False).changed
    other = Host(cluster, "nomad2")
    assert other.registration(5).ensure(check=False).state == "known"
    until(lambda: cluster.node("nomad2").id == other.node, "the other client to be ready")


def test_servers_that_do_not_answer_are_no_reason(host: Host) -> None:
    cluster, node = host.cluster, host.node
    cluster.server.stop(signal.SIGINT)
    try:
        found = host.registration().ensure(check=False)
    finally:
        cluster.start_server()
        cluster.wait_for_leader()
    assert (found.state, found.changed, host.commands, host.node) == ("silent", False, [], node), found


def test_a_host_without_a_client_is_left_alone(tmp_path: Path) -> None:
    nobody = Registration(AddressTransport("http://127.0.0.1:1"), tmp_path, "nomad", 0, run=lambda argv: pytest.fail(f"{argv} was run"))
    found = nobody.ensure(check=False)
    assert (found.state, found.changed) == ("missing", False)


def test_a_client_that_stays_unknown_is_an_error(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "REGISTERED_SECONDS", 1)

    class Denied:
        def request(self, method: str, path: str, query: object = None, body: object = None) -> object:
            return {"stats": {"client": {"node_id": "6f3c"}}} if path == "agent/self" else []

    stuck = Registration(Denied(), tmp_path, "nomad", 0, run=lambda argv: subprocess.CompletedProcess(list(argv), 0, "", ""))
    with pytest.raises(HostError, match=r"new identity.*not known after 1 seconds.*journalctl -u nomad"):
        stuck.ensure(check=False)
