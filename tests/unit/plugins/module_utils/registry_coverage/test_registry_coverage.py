# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import KubeError
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.transport import NomadError
from ansible_collections.onprem.circleci_server.plugins.module_utils.registry_coverage import (
    Used,
    from_cluster,
    from_nomad,
    joined,
    missing,
)

REGISTRY = "registry.example:5000"


class Api:
    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    def request(self, method: str, path: str, query: Any = None, body: Any = None, content_type: str = "") -> Any:
        assert method == "GET"
        answer = self.answers.get(path, {"items": []})
        if isinstance(answer, KubeError):
            raise answer
        return answer


def pod(name: str, image: str, phase: str = "Running") -> dict[str, Any]:
    spec = {"initContainers": [{"image": f"{image}-init"}], "containers": [{"image": image}]}
    return {"metadata": {"namespace": "n", "name": name}, "spec": spec, "status": {"phase": phase}}


def test_reads_pods_and_what_makes_them() -> None:
    cron = {"metadata": {"namespace": "n", "name": "c"}, "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"image": "cron:1"}]}}}}}}
    api = Api({"/api/v1/namespaces/n/pods": {"items": [pod("a", "x:1"), pod("b", "x:1"), pod("old", "done:1", "Succeeded")]}, "/apis/batch/v1/namespaces/n/cronjobs": {"items": [cron]}})
    found = from_cluster(api, ["n"])
    assert {image: used.by for image, used in found.items()} == {
        "x:1": ["pod n/a", "pod n/b"],
        "x:1-init": ["pod n/a", "pod n/b"],
        "cron:1": ["cronjob n/c"],
    }


def test_all_namespaces() -> None:
    assert set(from_cluster(Api({"/api/v1/pods": {"items": [pod("a", "x:1")]}}), [])) == {"x:1", "x:1-init"}


def test_reads_nomads_jobs_through_the_api_server() -> None:
    base = "/api/v1/namespaces/n/services/nomad-server:4646/proxy/v1"
    job = {"TaskGroups": [{"Name": "g", "Tasks": [{"Name": "t", "Config": {"image": "job:1"}}, {"Name": "raw", "Config": {"command": "x"}}]}]}
    api = Api({f"{base}/jobs": json.dumps([{"ID": "probe"}]), f"{base}/job/probe": job})
    assert {image: used.by for image, used in from_nomad(api, "n", "nomad-server:4646").items()} == {"job:1": ["Nomad job probe g/t"]}
    assert from_nomad(Api({f"{base}/jobs": KubeError(404, "no service")}), "n", "nomad-server:4646") == {}
    with pytest.raises(NomadError, match="no right"):
        from_nomad(Api({f"{base}/jobs": KubeError(403, "no right")}), "n", "nomad-server:4646")


def test_what_would_fail_to_pull() -> None:
    there = {("library/kong", "3.4.2"), ("frontend", "1"), ("hub/library/nginx", "2")}
    used = joined(
        {"kong:3.4.2": Used("kong:3.4.2", ["pod n/kong"]), f"{REGISTRY}/frontend:1": Used(f"{REGISTRY}/frontend:1", ["pod n/f"])},
        {f"{REGISTRY}/frontend:2": Used(f"{REGISTRY}/frontend:2", ["pod n/f", "pod n/f"]), "Bad Name": Used("Bad Name", ["pod n/b"])},
    )
    found = missing(used, REGISTRY, {}, lambda repository, tag: "sha256:x" if (repository, tag) in there else None)
    assert found == [
        {"image": "Bad Name", "used_by": ["pod n/b"], "reason": "is no image reference"},
        {"image": f"{REGISTRY}/frontend:2", "used_by": ["pod n/f"], "reason": f"{REGISTRY}/frontend has no 2"},
    ]
    below = f"{REGISTRY}/example-project/circleci"
    inside = {f"{below}/{name}": Used(f"{below}/{name}", ["pod n/f"]) for name in ("frontend:1", "frontend:2")}
    found = missing(inside, below, {}, lambda repository, tag: "sha256:x" if (repository, tag) in there else None)
    assert [item["reason"] for item in found] == [f"{below}/frontend has no 2"]
    nginx = {"nginx:2": Used("nginx:2", ["x"])}
    assert missing(nginx, REGISTRY, {"docker.io": "hub"}, lambda repository, tag: "d" if (repository, tag) in there else None) == []
