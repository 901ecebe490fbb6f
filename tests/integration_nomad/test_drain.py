# SPDX-License-Identifier: GPL-3.0-or-later
"""A real client is drained before its unit restarts: jobs end or are stopped at the deadline, and the client takes jobs again."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.host.units import File, HostUnits, Outcome, Unit
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.drain import NodeDrain
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.transport import AddressTransport

from .conftest import Cluster, until

NAME = "drained1"
LINES = ["drain the Nomad client", "restart nomad.service", "let the Nomad client take jobs again"]


@dataclass
class Host:
    """A host whose unit is the real agent of a client: systemctl restarts the process."""

    cluster: Cluster
    folder: Path
    restarts: int = 0
    dies: bool = False

    def __call__(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        said = ""
        if argv[1] == "show":
            said = "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n"
        elif argv[1] == "restart":
            if self.dies:
                raise KeyboardInterrupt
            self.cluster.stop_client(NAME)
            self.cluster.start_client(NAME)
            self.restarts += 1
        return subprocess.CompletedProcess(list(argv), 0, said, "")

    @property
    def marker(self) -> Path:
        return self.folder / ".drained"

    def drain(self, deadline: int) -> NodeDrain:
        return NodeDrain(AddressTransport(f"http://127.0.0.1:{self.cluster.ports[NAME]}"), deadline, self.marker)

    def run(self, content: str, deadline: int = 60, *, check: bool = False) -> Outcome:
        files = [File(self.folder / "client.hcl", content.encode())]
        unit = Unit("nomad.service", restart_on=[str(self.folder / "client.hcl")])
        return HostUnits([], files, [unit], run=self, around={"nomad.service": self.drain(deadline)}).apply(check=check)

    @property
    def eligible(self) -> bool:
        return self.cluster.node(NAME).eligible


@dataclass
class Job:
    """A batch job on the client that ends when it is told to, as a job of CircleCI does."""

    cluster: Cluster
    name: str
    end: Path

    def start(self) -> None:
        script = f"while [ ! -e {self.end} ]; do sleep 0.1; done"
        task = {"Name": "t", "Driver": "raw_exec", "Config": {"command": "/bin/sh", "args": ["-c", script]}, "Resources": {"CPU": 50, "MemoryMB": 20}}
        group = {"Name": "g", "Count": 1, "Tasks": [task], "RestartPolicy": {"Attempts": 0, "Mode": "fail"}, "ReschedulePolicy": {"Attempts": 0}}
        job: dict[str, Any] = {
            "ID": self.name, "Type": "batch", "Datacenters": ["dc1"], "TaskGroups": [group],
            "Constraints": [{"LTarget": "${node.unique.name}", "RTarget": NAME, "Operand": "="}],
        }  # fmt: skip
        self.cluster.api.register(job)
        until(lambda: self.states() == ["running"], f"job {self.name}")

    def states(self) -> list[str]:
        return [allocation.client_status for allocation in self.cluster.api.allocations(self.name)]


@pytest.fixture
def host(cluster: Cluster, tmp_path: Path) -> Iterator[Host]:
    cluster.start_client(NAME)
    until(lambda: cluster.node(NAME), "the client")
    made = Host(cluster, tmp_path)
    (tmp_path / "client.hcl").write_text("one")
    yield made
    node = cluster.node(NAME)
    cluster.api.make_eligible(node.id)
    cluster.stop_client(NAME)
    until(lambda: all(one.status == "down" for one in cluster.api.nodes() if one.name == NAME), "the client to be gone")


@pytest.fixture
def job(host: Host, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Job]:
    made = Job(host.cluster, f"job-{request.node.name.replace('_', '-')}", tmp_path / "end")
    made.start()
    yield made
    made.end.touch()
    host.cluster.api.purge(made.name)


def test_a_job_that_runs_may_end_before_the_client_restarts(host: Host, job: Job) -> None:
    assert host.run("two", check=True).changes == [f"file {host.folder}/client.hcl", *LINES]
    assert host.eligible and job.states() == ["running"] and not host.marker.exists() and host.restarts == 0
    outcomes: list[Outcome] = []
    waiting = threading.Thread(target=lambda: outcomes.append(host.run("two")))
    waiting.start()
    until(lambda: not host.eligible, "the drain")
    assert job.states() == ["running"] and host.restarts == 0 and host.marker.exists()
    job.end.touch()
    waiting.join(60)
    assert outcomes and outcomes[0].changes == [f"file {host.folder}/client.hcl", *LINES]
    assert job.states() == ["complete"] and host.restarts == 1
    assert host.eligible and not host.marker.exists()
    assert host.run("two").changes == [] and host.restarts == 1


def test_what_runs_at_the_deadline_is_stopped_by_the_servers(host: Host, job: Job) -> None:
    assert host.run("two", 2).changes[1:] == LINES
    assert job.states() != ["running"] and not job.end.exists()
    assert host.eligible and host.restarts == 1


def test_without_a_deadline_the_client_restarts_at_once_and_jobs_go_on(host: Host, job: Job) -> None:
    assert host.run("two", 0).changes[1:] == ["restart nomad.service"]
    until(lambda: host.eligible and job.states() == ["running"], "the client and its job")


def test_a_run_that_was_killed_is_finished_by_the_next_one(host: Host) -> None:
    host.dies = True
    with pytest.raises(KeyboardInterrupt):
        host.run("two")
    assert not host.eligible and host.marker.exists()
    host.dies = False
    assert host.run("two", check=True).changes == LINES
    assert host.run("two").changes == LINES
    assert host.eligible and not host.marker.exists() and host.restarts == 1


def test_a_client_that_somebody_else_set_aside_stays_aside(host: Host) -> None:
    node = host.cluster.node(NAME)
    host.cluster.ask("POST", f"node/{node.id}/eligibility", {"Eligibility": "ineligible"})
    assert host.run("two", check=True).changes[1:] == LINES[:2]
    assert host.run("two").changes[1:] == LINES[:2]
    until(lambda: host.cluster.node(NAME).status == "ready", "the client")
    assert not host.eligible and not host.marker.exists()


def test_a_client_that_goes_is_drained_before_it_stops(host: Host, job: Job) -> None:
    job.end.touch()
    units = [Unit("nomad.service", state="absent")]
    found = HostUnits([], [], units, run=host, unit_folder=host.folder, around={"nomad.service": host.drain(60)})
    assert found.apply(check=True).changes == found.apply(check=False).changes == ["drain the Nomad client", "stop nomad.service"]
    assert job.states() == ["complete"] and not host.eligible
