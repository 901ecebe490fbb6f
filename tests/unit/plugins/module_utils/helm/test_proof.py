# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
"""Proof before an install: each item that would fail is one sentence with what mends it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.proof import Proof
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.helm.fake_kube import FakeKube

REGISTRY = "registry.example.com:5000"
NS = "circleci"


def pod(image: str = f"{REGISTRY}/frontend:1", **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": image, **spec.pop("container", {})}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "frontend"},
        "spec": {"template": {"spec": {"containers": [container], **spec}}},
    }


def proof(*documents: dict[str, Any], values: dict[str, Any] | None = None, **options: Any) -> Proof:
    return Proof(documents, namespace=NS, registry=REGISTRY, values=values or {}, **options)


def sentences(found: Proof) -> list[str]:
    return [item.sentence() for item in found.findings.items]


@pytest.mark.parametrize(
    ("image", "values", "key"),
    [
        ("cciserver.azurecr.io/frontend:1", {}, "global.container.registry"),
        ("kong:3.4.2", {"kong": {"image": {"repository": "kong"}}}, "kong.image.repository"),
        ("docker.io/bitnami/redis:6", {"redis": {"image": {"registry": "docker.io", "repository": "bitnami/redis"}}}, "redis.image.registry"),
        (f"{REGISTRY}.evil.example/frontend:1", {}, "global.container.registry"),
    ],
)
def test_image_from_outside_names_the_key_that_moves_it(image: str, values: dict[str, Any], key: str) -> None:
    found = proof(pod(image), values=values)
    assert found.check_prefixes() == []
    assert sentences(found) == [f"image {image}: does not begin with {REGISTRY}/ (used by Deployment/frontend). Set {key} in circleci_values."]


def test_image_of_an_allowed_registry_passes() -> None:
    found = proof(pod("other.example.com/frontend:1"), allowed_registries=["other.example.com/"])
    assert found.check_prefixes() == ["other.example.com/frontend:1"]
    assert sentences(found) == []


def test_registry_without_an_image_is_told_for_each_image() -> None:
    second = pod(f"{REGISTRY}/kong:3")
    second["metadata"] = {"name": "kong"}
    found = proof(pod(), second)
    found.check_images(found.check_prefixes(), lambda path, tag: (path, tag) != ("kong", "3"))
    (text,) = sentences(found)
    assert text.startswith(f"image {REGISTRY}/kong:3: is not in the private registry (used by Deployment/kong).")


def test_registry_that_does_not_answer_is_told_with_its_reason() -> None:
    def exists(path: str, tag: str) -> bool:
        raise OSError("connection refused")

    found = proof(pod())
    found.check_images(found.check_prefixes(), exists)
    assert "cannot be looked up (connection refused)" in sentences(found)[0]


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({"env": [{"name": "AGENTS", "value": "https://circleci-binary-releases.s3.amazonaws.com/x"}]}, "Deployment/frontend, variable AGENTS"),
        ({"args": ["--from", "https://releases.hashicorp.com/nomad"]}, "used by Deployment/frontend"),
        ({"command": ["curl", "http://quay.io/v2/"]}, "address http://quay.io"),
    ],
)
def test_values_that_send_a_pod_outside_are_told(container: dict[str, Any], expected: str) -> None:
    (text,) = sentences(proof(pod(container=container)))
    assert "lies outside the site" in text
    assert expected in text


def test_address_outside_names_the_value_that_holds_it() -> None:
    url = "https://circleci-binary-releases.s3.amazonaws.com"
    found = proof(pod(container={"env": [{"name": "A", "value": url}]}), values={"distributor": {"agent_base_url": url}})
    assert "Set distributor.agent_base_url to an address of the site." in sentences(found)[0]


@pytest.mark.parametrize("host", ["my-releases.hashicorp.com.example.com", "circleci-binary-releases.s3.amazonaws.com.example.com"])
def test_name_that_only_looks_like_the_vendors_is_no_problem(host: str) -> None:
    assert sentences(proof(pod(container={"env": [{"name": "A", "value": f"https://{host}/x"}]}))) == []


def test_everything_that_pods_refer_to_must_be_there() -> None:
    api = FakeKube(NS)
    api.secret(NS, "license", {"other": "x"})
    document = pod(
        serviceAccountName="robot",
        priorityClassName="urgent",
        imagePullSecrets=[{"name": "regcred"}],
        volumes=[{"name": "c", "configMap": {"name": "settings"}}, {"name": "d", "persistentVolumeClaim": {"claimName": "disk"}}],
        container={
            "env": [
                {"name": "L", "valueFrom": {"secretKeyRef": {"name": "license", "key": "license"}}},
                {"name": "T", "valueFrom": {"secretKeyRef": {"name": "tink", "key": "keyset"}}},
                {"name": "O", "valueFrom": {"secretKeyRef": {"name": "perhaps", "key": "x", "optional": True}}},
            ]
        },
    )
    custom = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "fast"}, "spec": {"storageClassName": "fast"}}
    found = proof(document, custom, claim)
    found.check_cluster(api)
    told = "\n".join(sentences(found))
    for text in (
        f"Secret regcred: does not exist in namespace {NS}", f"Secret tink: does not exist in namespace {NS}",
        "Secret license, key license: does not exist", "It has other: run the verb secrets", "ConfigMap settings: does not exist",
        "PersistentVolumeClaim disk: does not exist", "service account robot", "priority class urgent", "StorageClass fast: does not exist",
        "kind Widget (example.com/v1): is not known to this cluster",
    ):  # fmt: skip
        assert text in told, text
    assert "perhaps" not in told
    assert [name for name, _key in found.secret_references] == ["regcred", "license", "tink"]


def test_pull_secrets_of_the_wrong_form_are_told() -> None:
    assert "has the wrong form for Kubernetes" in sentences(proof(pod(imagePullSecrets=["regcred"])))[0]


def postgresql(version: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "postgresql", "labels": {"app.kubernetes.io/name": "postgresql"}, **metadata},
        "spec": {"template": {"spec": {"containers": [{"name": "postgresql", "image": f"{REGISTRY}/server-postgres:{version}"}]}}},
    }


@pytest.mark.parametrize(
    ("live", "rendered", "step", "expected"),
    [
        ("12.16.37-x", "12.22.1-x", "", ""),
        ("12.16.37-x", "14.22.1-x", "14", ""),
        ("12.16.37-x", "14.22.1-x", "", 'version 12 runs, and its data do not open with version 14.*leave circleci_postgresql_version at "14" and run the verb upgrade'),
        ("14.22.1-x", "12.16.37-x", "", 'version 14 runs.*Set circleci_postgresql_version to "14"'),
        ("14.22.1-x", "12.16.37-x", "14", 'version 14 runs.*Set circleci_postgresql_version to "14"'),
    ],
)
def test_a_postgresql_that_would_not_open_its_data_is_told(live: str, rendered: str, step: str, expected: str) -> None:
    api = FakeKube(NS)
    api.put(f"/apis/apps/v1/namespaces/{NS}/statefulsets/postgresql", postgresql(live))
    found = proof(postgresql(rendered))
    found.check_postgresql(api, step)
    assert len(sentences(found)) == bool(expected) and re.search(expected, " ".join(sentences(found)))


def test_a_postgresql_whose_data_are_on_their_way_is_told() -> None:
    api = FakeKube(NS)
    api.put(
        f"/apis/apps/v1/namespaces/{NS}/statefulsets/postgresql",
        postgresql("14.22.1-x", annotations={"onprem.circleci-server/unfinished-upgrade": "20260102T030405Z-4.9.5"}),
    )
    found = proof(postgresql("14.22.1-x"))
    found.check_postgresql(api)
    (sentence,) = sentences(found)
    assert "from restore point 20260102T030405Z-4.9.5" in sentence and "Run the verb upgrade again" in sentence
    again = proof(postgresql("14.22.1-x"))
    again.check_postgresql(api, "14")
    assert sentences(again) == []


def test_a_new_site_begins_with_any_postgresql() -> None:
    found = proof(postgresql("14.22.1-x"))
    found.check_postgresql(FakeKube(NS))
    assert sentences(found) == []
