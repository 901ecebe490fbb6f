# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway as a workload of the cluster: what is in its objects, and what must not be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils import object_storage
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.object_storage.workload import (
    CREDENTIALS,
    NAME,
    TLS_SECRET,
)
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.site_plan.ownership import filled, load_ownership

CATALOG = Catalog.load()
OPTIONS: dict[str, Any] = {
    "access_key": "circleci", "secret_key": "canary of clients", "region": "us-east-1", "policies": "circleci-data-gateway", "environment": {},
    "backend_endpoint": "http://store.example.net:9000", "backend_account": "behind", "backend_key": "canary behind", "backend_region": "eu-west-1",
    "origins": [], "namespace": "circleci-object-storage", "image": "ghcr.io/versity/versitygw:v1.8.0", "replicas": 2, "resources": {"requests": {"cpu": "100m"}},
    "port": 443, "health_path": "/circleci-agents/.onprem-circleci-site", "service_annotations": {}, "tls": False, "certificate": "", "private_key": "",
}  # fmt: skip
TLS: dict[str, Any] = {"tls": True, "certificate": "PEM of the certificate", "private_key": "canary of the key"}


def made(kind: str = "versitygw_s3", **more: Any) -> dict[str, Any]:
    return object_storage.workload(kind, {**OPTIONS, **more})


def of_kind(found: dict[str, Any], kind: str) -> dict[str, Any]:
    (one,) = [item for item in found["objects"] if item["kind"] == kind]
    return dict(one)


def pod(found: dict[str, Any]) -> dict[str, Any]:
    return dict(of_kind(found, "Deployment")["spec"]["template"]["spec"])


@pytest.mark.parametrize("kind", object_storage.IN_CLUSTER)
def test_credentials_are_in_secrets_only(kind: str) -> None:
    found = made(kind, **TLS, environment={"AZ_SAS_TOKEN": "canary of the token"})
    assert "canary" not in json.dumps(found["objects"])
    data = {text for item in found["secrets"] for text in item["data"].values()}
    assert data == {"canary of clients", "canary behind", "canary of the key", "canary of the token"}
    assert "canary" not in json.dumps([item["plain"] for item in found["secrets"]])


@pytest.mark.parametrize("kind", object_storage.IN_CLUSTER)
def test_environment_is_that_of_a_host(kind: str) -> None:
    found = made(kind, **TLS)
    (container,) = pod(found)["containers"]
    here = {item["name"]: item["value"] for item in container["env"]}
    secret = next(item for item in found["secrets"] if item["name"] == NAME)
    on_host = object_storage.service(kind, {**OPTIONS, **TLS, "port": 7070, "data_dir": "/srv", "versioning": False})
    assert {**here, **secret["plain"], **secret["data"]} == on_host["environment"]
    assert container["command"] == [kind.partition("_")[0], *on_host["arguments"]]
    assert container["envFrom"] == [{"secretRef": {"name": NAME}}]


def test_pods_have_no_rights_that_they_do_not_need() -> None:
    spec = pod(made())
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert of_kind(made(), "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_one_replica_stays_whatever_happens() -> None:
    found = made()
    deployment, budget = of_kind(found, "Deployment")["spec"], of_kind(found, "PodDisruptionBudget")["spec"]
    assert (deployment["replicas"], deployment["strategy"]["rollingUpdate"]) == (2, {"maxUnavailable": 0, "maxSurge": 1})
    assert (budget["minAvailable"], budget["selector"]) == (1, deployment["selector"])
    assert of_kind(found, "Service")["spec"]["selector"] == deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]
    (term,) = pod(found)["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"] == {"labelSelector": deployment["selector"], "topologyKey": "kubernetes.io/hostname"}


@pytest.mark.parametrize(("tls", "scheme"), [({}, "HTTP"), (TLS, "HTTPS")])
def test_readiness_reads_an_object_and_liveness_does_not(tls: dict[str, Any], scheme: str) -> None:
    (container,) = pod(made(**tls))["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/circleci-agents/.onprem-circleci-site", "port": "s3", "scheme": scheme}
    assert "httpGet" not in container["livenessProbe"]


def test_certificate_lies_where_the_program_looks() -> None:
    found = made(**TLS)
    spec = pod(found)
    environment = {item["name"]: item["value"] for item in spec["containers"][0]["env"]}
    mount = next(item for item in spec["containers"][0]["volumeMounts"] if item["name"] == "certificate")
    volume = next(item for item in spec["volumes"] if item["name"] == "certificate")
    paths = {item["key"]: f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
    assert paths == {"tls.crt": environment["VGW_CERT"], "tls.key": environment["VGW_KEY"]}
    assert volume["secret"]["secretName"] == TLS_SECRET and TLS_SECRET in {item["name"] for item in found["secrets"]}
    assert not [item for item in pod(made())["volumes"] if "secret" in item]


def annotation(**more: Any) -> str:
    return str(of_kind(made(**more), "Deployment")["spec"]["template"]["metadata"]["annotations"][CREDENTIALS])


def test_new_values_roll_the_pods_and_old_ones_do_not() -> None:
    assert annotation() == annotation()
    seen = [annotation(), annotation(secret_key="another"), annotation(backend_key="another"), annotation(**TLS), annotation(**{**TLS, "private_key": "x"})]
    assert len(set(seen)) == len(seen)


def test_service_has_the_port_of_the_endpoint() -> None:
    (port,) = of_kind(made(port=443), "Service")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (443, "s3")
    (container,) = pod(made(port=443))["containers"]
    # Below 1024 a program that is not root listens nowhere.
    assert container["ports"] == [{"name": "s3", "containerPort": 7070, "protocol": "TCP"}]


@pytest.mark.parametrize(
    ("platform", "balancer", "annotations"),
    [
        ("rancher", {"kind": "metallb", "internal": False, "address": "192.0.2.101"}, {"metallb.io/loadBalancerIPs": "192.0.2.101"}),
        ("generic", {"kind": "metallb", "internal": True, "address": "192.0.2.101"}, {"metallb.io/loadBalancerIPs": "192.0.2.101"}),
        (
            "azure", {"kind": "provided", "internal": True, "address": "192.0.2.101"},
            {"service.beta.kubernetes.io/azure-load-balancer-internal": "true", "service.beta.kubernetes.io/azure-load-balancer-ipv4": "192.0.2.101"},
        ),
        ("eks", {"kind": "provided", "internal": False, "address": ""}, {}),
    ],
)  # fmt: skip
def test_annotations_of_the_service_are_those_of_the_platform(platform: str, balancer: dict[str, Any], annotations: dict[str, str]) -> None:
    assert object_storage.service_annotations(CATALOG, platform, balancer, {}) == annotations
    assert object_storage.service_annotations(CATALOG, platform, balancer, {"own": "text"}) == {**annotations, "own": "text"}


def test_internal_service_is_refused_where_nobody_knows_how() -> None:
    wanted = {"kind": "provided", "internal": True, "address": ""}
    with pytest.raises(object_storage.ServiceError, match=r"circleci_load_balancer_internal: found true.*eks.*circleci_object_storage_service_annotations"):
        object_storage.service_annotations(CATALOG, "eks", wanted, {})
    assert object_storage.service_annotations(CATALOG, "eks", wanted, {"own": "text"}) == {"own": "text"}


@pytest.mark.parametrize("kind", ["versitygw_posix", "minio_server", "minio_nas", "minio_gateway_azure", "s3"])
def test_kinds_that_are_not_run_in_the_cluster_are_refused(kind: str) -> None:
    with pytest.raises(object_storage.ServiceError, match=f"circleci_object_storage_placement: found cluster with circleci_object_storage_kind '{kind}'"):
        made(kind)


def test_each_object_stands_in_the_table_of_ownership() -> None:
    found = made(**TLS)
    objects = {(item["kind"], item["metadata"]["name"], item["metadata"].get("namespace", "")) for item in found["objects"]}
    objects |= {("Secret", item["name"], item["namespace"]) for item in found["secrets"]}
    facts = {"gateway_namespace": "circleci-object-storage", "namespace": "circleci"}
    rows = [item for item in load_ownership().cluster if item.role == "object_storage"]
    table = {(item.kind, filled(item.name, facts), filled(item.namespace, facts)) for item in rows}
    assert table == objects | {("Secret", "onprem-circleci-registry", "circleci-object-storage")}
