# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP API of Nomad as far as it is needed here, with what it answers as typed data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional
from urllib.parse import quote

from .transport import NomadError, Transport


@dataclass(frozen=True)
class Driver:
    """A task driver as a node reports it."""

    detected: bool
    healthy: bool
    detail: str = ""


@dataclass(frozen=True)
class Node:
    """A client of Nomad."""

    id: str
    name: str
    address: str
    datacenter: str
    status: str
    status_detail: str
    eligible: bool
    draining: bool
    pool: str = ""
    drivers: Mapping[str, Driver] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskEvent:
    """Something that happened to a task; *time* in nanoseconds since 1970."""

    type: str
    time: int
    message: str
    details: Mapping[str, str]


@dataclass(frozen=True)
class Task:
    """A task of an allocation."""

    state: str
    failed: bool
    events: tuple[TaskEvent, ...]

    @property
    def exit_code(self) -> Optional[int]:
        """How its program ended; None when it never did."""
        for event in reversed(self.events):
            code = event.details.get("exit_code", "")
            if event.type == "Terminated" and code.lstrip("-").isdigit():
                return int(code)
        return None


@dataclass(frozen=True)
class Allocation:
    """One placement of a group of tasks on a node."""

    id: str
    group: str
    node_id: str
    client_status: str
    client_detail: str
    created: int
    tasks: Mapping[str, Task]


@dataclass(frozen=True)
class Evaluation:
    """What the scheduler made of a job; *failed* holds the figures of groups that it could not place."""

    id: str
    status: str
    detail: str
    failed: Mapping[str, Mapping[str, Any]]


class NomadClient:
    """Requests in the namespace ``default``, which is the only one that CircleCI Server uses."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def nodes(self) -> list[Node]:
        return [_node(item) for item in self._list("nodes")]

    def own_node(self) -> str:
        """Id of the node that the agent behind the address is, empty when it is no client."""
        answer = self._transport.request("GET", "agent/self")
        stats = answer.get("stats") if isinstance(answer, dict) else None
        return str(((stats or {}).get("client") or {}).get("node_id") or "")

    def node(self, node: str) -> Node:
        answer = self._transport.request("GET", f"node/{quote(node, safe='')}")
        if not isinstance(answer, dict):
            raise NomadError(f"Nomad answered GET /v1/node/{node} with no node; is there something else behind that address?", 200)
        return _node(answer)

    def running(self, node: str) -> list[str]:
        """Names of what runs on a node; jobs of the type system run on every node and are left out."""
        found = self._list(f"node/{quote(node, safe='')}/allocations")
        return [
            str(item.get("Name") or item.get("ID"))
            for item in found
            if item.get("ClientStatus") in ("pending", "running") and str((item.get("Job") or {}).get("Type")) not in ("system", "sysbatch")
        ]

    def drain(self, node: str, seconds: int) -> None:
        """Take no new jobs; those that run may end until the deadline. The node stays ineligible after it."""
        wish = {"DrainSpec": {"Deadline": seconds * 10**9, "IgnoreSystemJobs": True}, "MarkEligible": False}
        self._transport.request("POST", f"node/{quote(node, safe='')}/drain", None, wish)

    def make_eligible(self, node: str) -> None:
        self._transport.request("POST", f"node/{quote(node, safe='')}/eligibility", None, {"Eligibility": "eligible"})

    def jobs(self, prefix: str = "") -> list[str]:
        """Ids of jobs."""
        return [str(item["ID"]) for item in self._list("jobs", {"prefix": prefix} if prefix else None)]

    def job(self, job: str) -> dict[str, Any]:
        answer = self._transport.request("GET", f"job/{quote(job, safe='')}")
        return answer if isinstance(answer, dict) else {}

    def register(self, job: Mapping[str, Any]) -> str:
        """Hand a job in; the id of its evaluation."""
        answer = self._transport.request("POST", "jobs", None, {"Job": job})
        if not isinstance(answer, dict) or not answer.get("EvalID"):
            raise NomadError(f"Nomad took the job {job.get('ID')} without evaluating it; is there something else behind that address?", 200)
        return str(answer["EvalID"])

    def evaluation(self, evaluation: str) -> Evaluation:
        return _evaluation(self._transport.request("GET", f"evaluation/{evaluation}"))

    def evaluations(self, job: str) -> list[Evaluation]:
        """All evaluations of a job, the newest last."""
        found = sorted(self._list(f"job/{quote(job, safe='')}/evaluations"), key=lambda item: int(item.get("CreateIndex") or 0))
        return [_evaluation(item) for item in found]

    def allocations(self, job: str) -> list[Allocation]:
        return [_allocation(item) for item in self._list(f"job/{quote(job, safe='')}/allocations")]

    def log(self, allocation: str, task: str, stream: str = "stderr") -> str:
        """What a task wrote. The server asks its client for it."""
        query = {"task": task, "type": stream, "plain": "true"}
        answer = self._transport.request("GET", f"client/fs/logs/{allocation}", query)
        return answer if isinstance(answer, str) else ""

    def purge(self, job: str) -> None:
        """Stop a job and forget it."""
        try:
            self._transport.request("DELETE", f"job/{quote(job, safe='')}", {"purge": "true"})
        except NomadError as error:
            if error.status != 404:
                raise

    def _list(self, path: str, query: Optional[Mapping[str, str]] = None) -> list[dict[str, Any]]:
        answer = self._transport.request("GET", path, query)
        if answer is None:
            return []
        if not isinstance(answer, list):
            raise NomadError(f"Nomad answered GET /v1/{path} with no list; is there something else behind that address?", 200)
        return answer


def _node(item: Mapping[str, Any]) -> Node:
    drivers = {
        str(name): Driver(bool(driver.get("Detected")), bool(driver.get("Healthy")), str(driver.get("HealthDescription") or ""))
        for name, driver in (item.get("Drivers") or {}).items()
    }
    return Node(
        id=str(item["ID"]),
        name=str(item.get("Name") or ""),
        address=str(item.get("Address") or ""),
        datacenter=str(item.get("Datacenter") or ""),
        status=str(item.get("Status") or ""),
        status_detail=str(item.get("StatusDescription") or ""),
        eligible=item.get("SchedulingEligibility") == "eligible",
        # A list of nodes has Drain, a node alone has its strategy.
        draining=bool(item.get("Drain") or item.get("DrainStrategy")),
        pool=str(item.get("NodePool") or ""),
        drivers=drivers,
    )


def _task(item: Mapping[str, Any]) -> Task:
    events = tuple(
        TaskEvent(
            str(event.get("Type") or ""),
            int(event.get("Time") or 0),
            str(event.get("DisplayMessage") or event.get("DriverError") or event.get("Message") or ""),
            {str(key): str(value) for key, value in (event.get("Details") or {}).items()},
        )
        for event in item.get("Events") or []
    )
    return Task(str(item.get("State") or ""), bool(item.get("Failed")), events)


def _allocation(item: Mapping[str, Any]) -> Allocation:
    return Allocation(
        id=str(item["ID"]),
        group=str(item.get("TaskGroup") or ""),
        node_id=str(item.get("NodeID") or ""),
        client_status=str(item.get("ClientStatus") or ""),
        client_detail=str(item.get("ClientDescription") or ""),
        created=int(item.get("CreateIndex") or 0),
        tasks={str(name): _task(state) for name, state in (item.get("TaskStates") or {}).items()},
    )


def _evaluation(item: Mapping[str, Any]) -> Evaluation:
    return Evaluation(str(item["ID"]), str(item.get("Status") or ""), str(item.get("StatusDescription") or ""), dict(item.get("FailedTGAllocs") or {}))
