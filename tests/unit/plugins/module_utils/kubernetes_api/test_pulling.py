# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import KubeError
from ansible_collections.onprem.circleci_server.plugins.module_utils.kubernetes_api.pulling import (
    Refusal,
    prove,
    verdict,
)

PULLED = {"containerStatuses": [{"imageID": "registry/x@sha256:1", "state": {"running": {}}}]}


def backoff(message: str) -> dict[str, Any]:
    return {"containerStatuses": [{"imageID": "", "state": {"waiting": {"reason": "ImagePullBackOff", "message": message}}}]}


class Cluster:
    """Two nodes whose kubelets report what the test says, after being asked twice."""

    def __init__(self, reports: dict[str, dict[str, Any]], events: dict[str, str] | None = None) -> None:
        self.reports, self.events = reports, events or {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.asked = 0
        self.made = 0

    def request(self, method: str, path: str, query: Any = None, body: Any = None, content_type: str = "") -> Any:
        if path == "/api/v1/nodes":
            return {"items": [{"metadata": {"name": name}} for name in self.reports]}
        if path.endswith("/events"):
            name = query["fieldSelector"].partition("=")[2]
            node = self.pods[name]["spec"]["nodeName"]
            return {"items": [{"reason": "Failed", "message": self.events[node]}] if node in self.events else []}
        if method == "POST":
            self.made += 1
            self.pods[body["metadata"]["name"]] = body
            return body
        if method == "DELETE":
            if self.pods.pop(path.rpartition("/")[2], None) is None:
                raise KubeError(404, "not found")
            return {}
        self.asked += 1
        ready = self.asked > 2
        return {"items": [{**item, "status": self.reports[item["spec"]["nodeName"]] if ready else {}} for item in self.pods.values()]}


def test_each_node_is_asked_past_the_scheduler_and_nothing_is_left() -> None:
    cluster = Cluster({"node1": PULLED, "node2": PULLED})
    nodes, refused = prove(cluster, "ns", "registry/pause:3.6", "regcred", 60, sleep=lambda _seconds: None)
    assert (nodes, refused, cluster.pods, cluster.made) == (["node1", "node2"], [], {}, 2)


def test_node_that_cannot_pull_is_named_with_the_reason_of_its_last_try() -> None:
    said = 'Failed to pull image "registry/pause:3.6": tls: failed to verify certificate: x509: certificate signed by unknown authority'
    cluster = Cluster({"node1": PULLED, "node2": backoff("Back-off pulling image")}, {"node2": said})
    _nodes, (refused,) = prove(cluster, "ns", "registry/pause:3.6", "regcred", 60, sleep=lambda _seconds: None)
    assert refused == Refusal("node2", said) and "circleci_cluster_nodes" in refused.hint
    assert cluster.pods == {}


class WithoutSecretAtFirst(Cluster):
    """A kubelet that was refused the Secret when it first asked, and *heals* or not with its next try."""

    def __init__(self, heals: bool) -> None:
        super().__init__({"node1": backoff("pull access denied: 401 Unauthorized")})
        self.heals = heals

    def request(self, method: str, path: str, query: Any = None, body: Any = None, content_type: str = "") -> Any:
        if path.endswith("/events"):
            return {"items": [{"reason": "FailedToRetrieveImagePullSecret"}, {"reason": "Failed", "message": "Failed to pull: 401 Unauthorized"}]}
        if self.heals and self.asked == 5:
            self.reports["node1"] = PULLED
        return super().request(method, path, query, body, content_type)


@pytest.mark.parametrize("heals", [True, False])
def test_pull_without_the_secret_is_not_the_last_word(heals: bool) -> None:
    cluster = WithoutSecretAtFirst(heals)
    seconds = iter(range(1000))
    _nodes, refused = prove(cluster, "ns", "registry/pause:3.6", "regcred", 180, sleep=lambda _seconds: None, clock=lambda: float(next(seconds)))
    assert refused == ([] if heals else [Refusal("node1", "Failed to pull: 401 Unauthorized")])
    assert cluster.pods == {} and cluster.asked < 60, "and it does not wait for the whole of the time"


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("pull access denied: 401 Unauthorized", "circleci_registry_password"),
        ("dial tcp: lookup registry on 10.0.0.2:53: no such host", "DNS"),
        ("http: server gave HTTP response to HTTPS client", "plain http"),
        ("dial tcp 192.0.2.1:5000: i/o timeout", "registry-in"),
        ("manifest unknown", "load the bundle again"),
        ("something else", "events"),
    ],
)
def test_reason_tells_what_to_do(message: str, hint: str) -> None:
    assert hint in Refusal("node1", message).hint


def test_node_that_says_nothing_is_named_and_nothing_is_left() -> None:
    times = iter(range(0, 1000, 30))
    cluster = Cluster({"node1": {}})
    _nodes, (refused,) = prove(cluster, "ns", "i", "", 60, sleep=lambda _seconds: None, clock=lambda: float(next(times)))
    assert "no answer within 60 seconds" in refused.message and cluster.pods == {}


def test_leftovers_of_a_run_that_was_killed_go_first() -> None:
    cluster = Cluster({"node1": PULLED})
    cluster.pods["onprem-circleci-pull-old"] = {"metadata": {"name": "onprem-circleci-pull-old"}, "spec": {"nodeName": "node1"}}
    prove(cluster, "ns", "i", "", 60, sleep=lambda _seconds: None)
    assert cluster.pods == {}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (PULLED, "pulled"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "CreateContainerError"}}}]}, "pulled"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]}, ""),
        ({"phase": "Failed", "reason": "OutOfpods", "message": "Node didn't have enough resource"}, "OutOfpods: Node didn't have enough resource"),
        ({}, ""),
    ],
)
def test_state_of_a_pod_is_a_verdict(status: dict[str, Any], expected: str) -> None:
    assert verdict({"status": status}) == expected
