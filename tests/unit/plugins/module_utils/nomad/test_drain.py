# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.drain import DrainError, NodeDrain
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.transport import NomadError

NODE = "6f3c"


class Agent:
    """Answers as the agent of a client does; a real one is in tests/integration_nomad."""

    def __init__(self, *, client: bool = True, servers: bool = True, running: int = 0, status: str = "ready") -> None:
        self.client, self.servers, self.running, self.status = client, servers, running, status
        self.draining, self.eligible = False, True
        self.asked: list[tuple[str, str]] = []

    def request(self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None) -> Any:
        self.asked.append((method, path))
        if path == "agent/self":
            return {"stats": {"client": {"node_id": NODE}} if self.client else {}}
        if not self.servers:
            raise NomadError("No cluster leader", 500)
        if path == f"node/{NODE}":
            strategy = {"Deadline": 1} if self.draining else None
            state = "eligible" if self.eligible else "ineligible"
            return {"ID": NODE, "Name": "nomad1", "Status": self.status, "SchedulingEligibility": state, "DrainStrategy": strategy}
        if path.endswith("/allocations"):
            system = {"Name": "system", "ClientStatus": "running", "Job": {"Type": "system"}}
            return [system, *({"Name": f"build{number}", "ClientStatus": "running", "Job": {"Type": "batch"}} for number in range(self.running))]
        if path.endswith("/drain"):
            assert body["DrainSpec"] == {"Deadline": 60 * 10**9, "IgnoreSystemJobs": True} and body["MarkEligible"] is False
            self.draining, self.eligible = bool(self.running), False
            return {}
        assert path.endswith("/eligibility") and body == {"Eligibility": "eligible"}
        self.eligible = True
        return {}


def drain(agent: Agent, folder: Path, deadline: int = 60) -> NodeDrain:
    clock = iter(range(0, 10**6, 50))
    return NodeDrain(agent, deadline, folder / "etc" / ".drained", sleep=lambda _seconds: None, clock=lambda: float(next(clock)))


def test_a_host_without_a_client_has_nothing_to_drain(tmp_path: Path) -> None:
    class Silent(Agent):
        def request(self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None) -> Any:
            raise NomadError("connection refused")

    for agent in (Silent(), Agent(client=False)):
        made = drain(agent, tmp_path)
        assert made.before(False) == "" and made.after(False, False) == "" and made.notes == []


def test_a_client_without_servers_is_restarted_all_the_same_and_that_is_said(tmp_path: Path) -> None:
    made = drain(Agent(servers=False), tmp_path)
    assert made.before(False) == "" and not made.due()
    assert "without being drained" in made.notes[0] and "No cluster leader" in made.notes[0]


def test_jobs_of_the_type_system_are_not_waited_for(tmp_path: Path) -> None:
    agent = Agent()
    made = drain(agent, tmp_path)
    assert made.before(False) and made.due() and not agent.eligible
    assert made.after(False, True) and agent.eligible and not made.due()


def test_a_job_that_outlives_its_deadline_is_named(tmp_path: Path) -> None:
    made = drain(Agent(running=2), tmp_path)
    with pytest.raises(DrainError, match=r"nomad1 is not drained .*build0, build1 runs still.*circleci_nomad_client_drain_deadline"):
        made.before(False)
    assert made.due()


def test_a_client_that_does_not_come_back_is_an_error_and_the_next_run_goes_on(tmp_path: Path) -> None:
    agent = Agent()
    made = drain(agent, tmp_path)
    made.before(False)
    agent.status = "initializing"
    with pytest.raises(DrainError, match="its state is initializing"):
        made.after(False, True)
    assert made.due() and not agent.eligible
    agent.status = "ready"
    assert drain(agent, tmp_path).after(False, False) and agent.eligible


def test_check_mode_asks_and_changes_nothing(tmp_path: Path) -> None:
    agent = Agent(running=1)
    made = drain(agent, tmp_path)
    assert made.before(True) and made.after(True, True)
    assert {method for method, _path in agent.asked} == {"GET"} and not made.due()
    assert drain(agent, tmp_path, 0).before(True) == ""
