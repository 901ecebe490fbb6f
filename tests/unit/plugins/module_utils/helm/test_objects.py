# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.objects import (
    Cluster,
    Masker,
    compare,
    differences,
    parse_documents,
)
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.helm.fake_kube import FakeKube

NS = "circleci-server"


def deployment(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "frontend"},
        "spec": {"replicas": 1, **spec},
    }


@pytest.mark.parametrize(
    ("want", "have"),
    [
        ({"a": None, "b": {}, "c": [], "d": ""}, {}),
        ({"resources": {"limits": {"cpu": "1000m", "memory": "1Gi"}}}, {"resources": {"limits": {"cpu": "1", "memory": "1024Mi"}}}),
        ({"spec": {"resources": {"requests": {"cpu": "0.001"}}}}, {"spec": {"resources": {"requests": {"cpu": "1m"}}}}),
        ({"spec": {"ports": [{"port": 80}]}}, {"spec": {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 30000}]}}),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "INJECTED"}, {"name": "A", "value": "1"}]}),
        ({"metadata": {"annotations": {"checksum/secret": "a"}}}, {"metadata": {"annotations": {"checksum/secret": "b"}}}),
        ({"hostNetwork": False}, {}),
    ],
)
def test_what_the_server_makes_of_an_object_is_no_difference(want: Any, have: Any) -> None:
    assert differences(want, have) == []


@pytest.mark.parametrize(
    ("want", "have", "path"),
    [
        ({"spec": {"replicas": 1}}, {"spec": {"replicas": 0}}, "spec.replicas"),
        ({"containers": [{"name": "a", "image": "x:2"}]}, {"containers": [{"name": "a", "image": "x:1"}]}, "containers[a].image"),
        ({"args": ["a", "b"]}, {"args": ["a"]}, "args"),
        ({"data": {"k": "1"}}, {"data": {}}, "data.k"),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": []}, "env[A]"),
        ({"spec": {"resources": {"limits": {"cpu": "2"}}}}, {"spec": {"resources": {"limits": {"cpu": "1"}}}}, "spec.resources.limits.cpu"),
    ],
)
def test_real_differences_are_found_with_their_path(want: Any, have: Any, path: str) -> None:
    assert [row[0] for row in differences(want, have)] == [path]


def test_data_of_secrets_is_never_compared() -> None:
    api = FakeKube(NS)
    api.secret(NS, "pusher", {"secret": "one"})
    wanted = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pusher"}, "data": {"secret": "dHdv"}}
    assert not compare(Cluster(api, NS), [wanted])


def test_created_changed_and_removed() -> None:
    api = FakeKube(NS)
    base = f"/apis/apps/v1/namespaces/{NS}/deployments"
    api.put(f"{base}/frontend", deployment(replicas=3))
    api.put(f"{base}/gone", {**deployment(), "metadata": {"name": "gone"}})
    api.put(f"/api/v1/namespaces/{NS}/configmaps/kept", {})
    earlier = [
        {**deployment(), "metadata": {"name": "gone"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept", "annotations": {"helm.sh/resource-policy": "keep"}}},
    ]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "frontend"}}
    diff = compare(Cluster(api, NS), [deployment(), service], earlier)
    assert diff.names() == {"created": ["Service/frontend"], "changed": ["Deployment/frontend"], "removed": ["Deployment/gone"]}
    before, after = diff.texts(Masker())
    assert "spec.replicas: 3" in before
    assert "spec.replicas: 1" in after
    assert "Deployment/gone" in before


def test_each_kind_is_listed_once() -> None:
    api = FakeKube(NS)
    documents = [{**deployment(), "metadata": {"name": f"d{index}"}} for index in range(50)]
    compare(Cluster(api, NS), documents)
    assert len(api.requests) == 1


def test_without_the_right_to_list_objects_are_read_one_by_one() -> None:
    api = FakeKube(NS)
    api.put(f"/apis/apps/v1/namespaces/{NS}/deployments/frontend", deployment())

    def refuse(method: str, path: str) -> Any:
        if path.endswith("/deployments"):
            from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import KubeError

            raise KubeError(403, "no list")
        return None

    api.hooks.append(refuse)
    assert not compare(Cluster(api, NS), [deployment()])


def test_noise_that_was_there_after_the_rollout_is_left_out() -> None:
    api = FakeKube(NS)
    api.put(f"/apis/apps/v1/namespaces/{NS}/deployments/frontend", deployment(replicas=3, paused=True))
    diff = compare(Cluster(api, NS), [deployment(paused=False)])
    assert diff.fingerprints() == {"Deployment/frontend|spec.replicas", "Deployment/frontend|spec.paused"}
    left = diff.without({"Deployment/frontend|spec.replicas"})
    assert left.fingerprints() == {"Deployment/frontend|spec.paused"}
    assert not left.without({"Deployment/frontend|spec.paused"})


def test_masking() -> None:
    masker = Masker(["canary-canary", "short"])
    document = {
        "kind": "Deployment",
        "spec": {
            "env": [
                {"name": "CIRCLE_SECRETS__KEYSET__SIGN", "value": "{:meta}"},
                {"name": "PGPASSWORD", "value": "x"},
                {"name": "URI", "value": "postgres://circle:hidden@postgresql:5432/x"},
                {"name": "PLAIN", "value": "short and canary-canary"},
                {"name": "API_TOKEN", "valueFrom": {"secretKeyRef": {"name": "api-token"}}},
            ]
        },
    }
    text = str(masker.document(document))
    for secret in ("{:meta}", "hidden", "canary-canary"):
        assert secret not in text
    assert "short and" in text
    assert "api-token" in text
    masked = masker.document({"kind": "Secret", "data": {"a": "b"}, "stringData": {"c": "d"}})
    assert masked["data"] == {"a": "********"}
    assert masked["stringData"] == {"c": "********"}
    assert masker.value("x", "spec.containers[a].env[PGPASSWORD].value") == "********"


def test_lists_and_empty_documents() -> None:
    text = "---\n# nothing\n---\nkind: List\nitems:\n- kind: ConfigMap\n  metadata: {name: a}\n---\nkind: Service\nmetadata: {name: b}\n"
    assert [item["kind"] for item in parse_documents(text)] == ["ConfigMap", "Service"]
