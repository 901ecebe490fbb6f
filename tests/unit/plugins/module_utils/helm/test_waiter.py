# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import KubeError
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.objects import Masker
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.waiter import (
    Outcome,
    Patience,
    Target,
    Waiter,
    layer_of,
    targets_of,
)
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.helm.fake_kube import FakeKube

NS = "circleci-server"
PATIENCE = Patience(total=1000, image=60, config=60, unschedulable=60, volume=60, restarts=5, quorum=30, poll=5)


class World:
    """A cluster whose state changes while time passes."""

    def __init__(self) -> None:
        self.api = FakeKube(NS)
        self.now = 0.0
        self.events: list[tuple[float, Callable[[], None]]] = []
        self.progress: list[dict[str, Any]] = []

    def workload(self, name: str, kind: str = "Deployment", ready: int = 0, replicas: int = 1, layer: str = "application") -> None:
        plural = f"{kind.lower()}s"
        group = "batch" if kind == "Job" else "apps"
        self.api.put(
            f"/apis/{group}/v1/namespaces/{NS}/{plural}/{name}",
            {
                "metadata": {"name": name, "generation": 1},
                "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}},
                "status": {
                    "observedGeneration": 1, "replicas": replicas, "readyReplicas": ready, "updatedReplicas": replicas,
                    "availableReplicas": ready,
                },
            },
        )

    def pod(self, name: str, app: str, restarts: int = 0, waiting: str = "", phase: str = "Running", **status: Any) -> None:
        state = {"waiting": {"reason": waiting, "message": "why canary-canary"}} if waiting else {"running": {}}
        container = {
            "name": "main", "image": "registry/x:1", "restartCount": restarts, "ready": False, "state": state,
            "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}} if restarts else {},
        }
        self.api.put(
            f"/api/v1/namespaces/{NS}/pods/{name}",
            {
                "metadata": {"name": name, "labels": {"app": app}, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "status": {"phase": phase, "containerStatuses": [container], **status},
            },
        )

    def at(self, when: float, action: Callable[[], None]) -> None:
        self.events.append((when, action))

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for when, action in list(self.events):
            if when <= self.now:
                self.events.remove((when, action))
                action()

    def wait(self, *targets: Target, **rest: Any) -> Outcome:
        waiter = Waiter(
            self.api, NS, targets, patience=rest.pop("patience", PATIENCE), progress=self.progress.append,
            masker=Masker(["canary-canary"]), clock=lambda: self.now, sleep=self.sleep, **rest,
        )
        return waiter.wait()


FRONTEND = Target("Deployment", "frontend")
POSTGRES = Target("StatefulSet", "postgresql", "data")
NOMAD = Target("StatefulSet", "nomad-server", "execution")


@pytest.fixture
def world() -> World:
    return World()


def test_waits_until_everything_is_ready_and_says_what_for(world: World) -> None:
    world.workload("postgresql", "StatefulSet")
    world.workload("frontend")
    world.pod("frontend-1", "frontend", waiting="CrashLoopBackOff")
    world.at(20, lambda: world.workload("postgresql", "StatefulSet", ready=1))
    world.at(40, lambda: world.workload("frontend", ready=1))
    outcome = world.wait(FRONTEND, POSTGRES)
    assert outcome.ready
    assert outcome.waited == 40
    assert world.progress[0]["phase"] == "wait for the data layer"
    assert world.progress[0]["done"] == 0
    assert world.progress[0]["total"] == 2
    assert "Deployment/frontend (0 of 1 ready, main: CrashLoopBackOff)" in world.progress[0]["waiting_for"]
    assert world.progress[-1] == {"phase": "wait", "done": 2, "total": 2, "waiting_for": []}


def test_image_that_cannot_be_pulled_stops_early_with_reason_and_log(world: World) -> None:
    world.workload("frontend")
    world.pod("frontend-1", "frontend", waiting="ImagePullBackOff")
    outcome = world.wait(FRONTEND)
    assert not outcome.ready
    assert 60 <= outcome.waited < 70
    assert "image registry/x:1 cannot be pulled (ImagePullBackOff" in outcome.problems[0]
    assert "canary" not in str(outcome.problems)


def test_image_that_comes_in_time_is_no_reason_to_stop(world: World) -> None:
    world.workload("frontend")
    world.pod("frontend-1", "frontend", waiting="ErrImagePull")
    world.at(30, lambda: world.pod("frontend-1", "frontend"))
    world.at(40, lambda: world.pod("frontend-1", "frontend", waiting="ErrImagePull"))
    world.at(80, lambda: world.pod("frontend-1", "frontend"))
    world.at(100, lambda: world.workload("frontend", ready=1))
    assert world.wait(FRONTEND).ready


def test_crashes_while_databases_start_are_forgiven(world: World) -> None:
    world.workload("postgresql", "StatefulSet")
    world.workload("frontend")
    world.pod("frontend-1", "frontend", restarts=12, waiting="CrashLoopBackOff")
    world.at(100, lambda: world.workload("postgresql", "StatefulSet", ready=1))
    world.at(120, lambda: world.pod("frontend-1", "frontend", restarts=14, waiting="CrashLoopBackOff"))
    world.at(200, lambda: world.workload("frontend", ready=1))
    assert world.wait(FRONTEND, POSTGRES).ready


def test_crash_loop_after_the_databases_are_ready_stops_with_the_previous_log(world: World) -> None:
    world.workload("postgresql", "StatefulSet", ready=1)
    world.workload("frontend")
    world.pod("frontend-1", "frontend", restarts=2, waiting="CrashLoopBackOff")
    world.api.logs["frontend-1"] = "starting\nlicence canary-canary refused\n"
    world.at(50, lambda: world.pod("frontend-1", "frontend", restarts=7, waiting="CrashLoopBackOff"))
    outcome = world.wait(FRONTEND, POSTGRES)
    assert "restarted 5 times after what it needs was ready (exit code 3, Error)" in outcome.problems[0]
    assert outcome.logs == {"frontend-1/main": ["starting", "licence ******** refused"]}


def test_databases_that_crash_need_no_other_layer(world: World) -> None:
    world.workload("postgresql", "StatefulSet")
    world.pod("postgresql-0", "postgresql")
    world.at(30, lambda: world.pod("postgresql-0", "postgresql", restarts=5, waiting="CrashLoopBackOff"))
    assert "pod postgresql-0" in world.wait(POSTGRES).problems[0]


def test_unschedulable_pod_and_unbound_volume_come_together(world: World) -> None:
    world.workload("postgresql", "StatefulSet")
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]
    world.pod("postgresql-0", "postgresql", phase="Pending", conditions=conditions)
    world.api.put(f"/api/v1/namespaces/{NS}/persistentvolumeclaims/data-postgresql-0", {"status": {"phase": "Pending"}, "spec": {}})
    problems = world.wait(POSTGRES).problems
    assert any("cannot be scheduled: 0/1 nodes" in text for text in problems)
    assert any("data-postgresql-0 is not bound (no StorageClass" in text for text in problems)


def test_missing_secret_of_a_container_stops(world: World) -> None:
    world.workload("frontend")
    world.pod("frontend-1", "frontend", waiting="CreateContainerConfigError")
    assert "CreateContainerConfigError" in world.wait(FRONTEND).problems[0]


def test_failed_job_stops_at_once(world: World) -> None:
    world.workload("migrate", "Job")
    job = world.api.objects[f"/apis/batch/v1/namespaces/{NS}/jobs/migrate"]
    job["status"] = {"conditions": [{"type": "Failed", "status": "True", "message": "BackoffLimitExceeded"}]}
    outcome = world.wait(Target("Job", "migrate"))
    assert outcome.problems == ["Job migrate failed: BackoffLimitExceeded."]
    assert outcome.waited == 0


def test_pods_of_an_earlier_revision_may_crash(world: World) -> None:
    world.workload("frontend")
    world.pod("old", "frontend", waiting="ImagePullBackOff")
    world.pod("new", "frontend")
    world.api.objects[f"/api/v1/namespaces/{NS}/pods/old"]["metadata"]["labels"]["pod-template-hash"] = "a"
    new = world.api.objects[f"/api/v1/namespaces/{NS}/pods/new"]["metadata"]
    new["labels"]["pod-template-hash"] = "b"
    new["creationTimestamp"] = "2026-02-01T00:00:00Z"
    world.at(200, lambda: world.workload("frontend", ready=1))
    assert world.wait(FRONTEND).ready


def test_expected_failures_are_not_waited_for(world: World) -> None:
    world.workload("frontend", ready=1)
    world.workload("machine-provisioner")
    world.pod("machine-provisioner-1", "machine-provisioner", waiting="ImagePullBackOff")
    outcome = world.wait(FRONTEND, Target("Deployment", "machine-provisioner"), expected_to_fail=["machine-provisioner"])
    assert outcome.ready
    assert outcome.expected_failures == ["machine-provisioner"]


def test_time_out_says_what_is_missing_and_how_to_go_on(world: World) -> None:
    world.workload("frontend")
    outcome = world.wait(FRONTEND)
    assert "Deployment/frontend (0 of 1 ready)" in outcome.problems[0]
    assert "Run the same command again" in outcome.problems[0]


def test_scaled_to_zero_counts_as_ready(world: World) -> None:
    world.workload("frontend", replicas=0)
    assert world.wait(FRONTEND).ready


def test_api_that_is_away_for_a_moment_is_no_failure(world: World) -> None:
    world.workload("frontend")
    world.api.down = True

    def back() -> None:
        world.api.down = False
        world.workload("frontend", ready=1)

    world.at(100, back)
    assert world.wait(FRONTEND).ready


def test_api_that_stays_away_is_one(world: World) -> None:
    world.api.down = True
    with pytest.raises(KubeError):
        world.wait(FRONTEND)
    assert world.now < 320


def _nomad(world: World, leaders: list[str]) -> None:
    """Each restart of all servers goes on to the next answer."""
    world.workload("nomad-server", "StatefulSet", ready=3, replicas=3)

    def start() -> None:
        for index in range(3):
            world.pod(f"nomad-server-{index}", "nomad-server")

    start()

    def answer(method: str, path: str) -> Any:
        if method == "DELETE" and "/pods/nomad-server" in path:
            world.at(world.now + 10, start)
        if path.endswith("/status/leader"):
            return leaders[min(restarts(world), len(leaders) - 1)]
        if path.endswith("/status/peers"):
            return ["a", "b", "c"] if leaders[min(restarts(world), len(leaders) - 1)] else ["a"]
        return None

    world.api.hooks.append(answer)


def restarts(world: World) -> int:
    return len([entry for entry in world.api.requests if entry == ("DELETE", f"/api/v1/namespaces/{NS}/pods/nomad-server-0")])


def test_nomad_servers_without_a_leader_are_restarted_together(world: World) -> None:
    _nomad(world, ["", "10.0.0.1:4647"])
    outcome = world.wait(NOMAD)
    assert outcome.ready
    assert outcome.nomad_restarts == 1
    deletes = [path for method, path in world.api.requests if method == "DELETE"]
    assert len(deletes) == 3
    assert any("a quorum of the Nomad servers" in row["waiting_for"] for row in world.progress)


def test_nomad_servers_with_a_leader_are_left_alone(world: World) -> None:
    _nomad(world, ["10.0.0.1:4647"])
    assert world.wait(NOMAD).nomad_restarts == 0


def test_nomad_that_never_finds_a_leader_ends(world: World) -> None:
    _nomad(world, [""])
    outcome = world.wait(NOMAD)
    assert not outcome.ready
    assert outcome.nomad_restarts == 3
    assert "a quorum of the Nomad servers" in outcome.problems[0]


def test_targets_and_layers() -> None:
    documents = [
        {"kind": "Deployment", "metadata": {"name": "a", "labels": {"layer": "execution"}}},
        {"kind": "StatefulSet", "metadata": {"name": "redis-master"}, "spec": {"template": {"metadata": {"labels": {"app": "redis"}}}}},
        {"kind": "Job", "metadata": {"name": "hook", "annotations": {"helm.sh/hook": "pre-install"}}},
        {"kind": "Service", "metadata": {"name": "x"}},
    ]
    assert [str(target) for target in targets_of(documents)] == ["Deployment/a", "StatefulSet/redis-master"]
    assert [target.layer for target in targets_of(documents)] == ["execution", "data"]
    assert layer_of("mongodb", {}) == "data"
    assert layer_of("frontend", {}) == "application"


def test_a_pod_of_an_old_template_that_will_never_be_ready_is_replaced() -> None:
    world = World()
    world.workload("rabbitmq", kind="StatefulSet", layer="data")
    live = world.api.objects[f"/apis/apps/v1/namespaces/{NS}/statefulsets/rabbitmq"]
    live["status"].update(updateRevision="rabbitmq-new")
    world.pod("rabbitmq-0", "rabbitmq", phase="Pending")
    path = f"/api/v1/namespaces/{NS}/pods/rabbitmq-0"
    world.api.objects[path]["metadata"]["labels"]["controller-revision-hash"] = "rabbitmq-old"

    def replaced(method: str, where: str) -> None:
        if method == "DELETE" and where == path:
            live["status"].update(readyReplicas=1, availableReplicas=1, currentRevision="rabbitmq-new")

    world.api.hooks.append(replaced)
    waiter = Waiter(world.api, NS, [Target("StatefulSet", "rabbitmq", "data")], patience=PATIENCE, clock=lambda: world.now, sleep=world.sleep)
    assert waiter.wait().ready
    assert world.api.writes() == [("DELETE", path)] and world.now >= 15
