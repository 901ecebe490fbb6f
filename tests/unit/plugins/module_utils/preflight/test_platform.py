# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.filter.site import platform_facts
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight import platform, site
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.findings import (
    OK,
    PROBLEM,
    WARNING,
    Finding,
)
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.preflight.test_site import (
    DEFAULT_CLASS,
    NODE,
    RELEASE,
)

PLAIN = {"version": "v1.33.0", "provider_ids": [], "api_groups": ["apps"]}


def seen(**changes: Any) -> str:
    return platform.detected(platform_facts("generic", "4.10.0"), **{**PLAIN, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"provider_ids": ["aws:///us-west-2a/i-1", "aws:///us-west-2b/i-2"]}, "eks"),
        ({"provider_ids": ["gce://project/zone/node"]}, "gke"),
        ({"provider_ids": ["azure:///subscriptions/1"]}, "azure"),
        ({"provider_ids": ["digitalocean://1"]}, "digitalocean"),
        ({"provider_ids": ["aws:///us-west-2a/i-1"], "version": "v1.33.1+k3s1"}, "rancher"),
        ({"version": "v1.33.1+rke2r1"}, "rancher"),
        ({"provider_ids": ["aws:///us-west-2a/i-1"], "api_groups": ["apps", "config.openshift.io"]}, "openshift"),
        ({"provider_ids": ["aws:///1", "kind://2"]}, ""),
    ],
)
def test_platforms_are_told_by_what_their_api_shows(changes: dict[str, Any], expected: str) -> None:
    assert seen(**changes) == expected


def test_every_platform_but_the_generic_one_can_be_told() -> None:
    assert [item.id for item in Catalog.load().platforms() if not item.detect.value] == ["generic"]


def cluster(said: str, load_balancer: str = "provided", **changes: Any) -> dict[str, list[Finding]]:
    facts: dict[str, Any] = {"version": "v1.33.0", "nodes": [NODE] * 4, "storage_classes": [DEFAULT_CLASS], "api_groups": ["apps"]}
    release = {**RELEASE, "platform": platform_facts(said, "4.10.0"), "load_balancer": load_balancer}
    found = site.check_cluster(site.ClusterFacts(**{**facts, **changes}), release, brings_storage_class=False, kubeconfig="/etc/kubeconfig")
    by_check: dict[str, list[Finding]] = {}
    for finding in found:
        by_check.setdefault(finding.check, []).append(finding)
    return by_check


def test_unknown_kubernetes_is_treated_as_generic_and_that_is_said() -> None:
    (finding,) = cluster("generic")["platform"]
    assert finding.level == OK and "treated as generic" in finding.found


def test_cluster_that_is_another_platform_than_said_is_told() -> None:
    (finding,) = cluster("azure", version="v1.33.1+k3s1")["platform"]
    assert finding.level == WARNING and "looks like rancher" in finding.found and "circleci_platform to rancher" in finding.remedy
    (finding,) = cluster("eks", nodes=[{**NODE, "provider_id": "aws:///us-west-2a/i-1"}] * 4)["platform"]
    assert finding.level == OK


def test_verdict_of_the_vendor_stands_beside() -> None:
    assert cluster("eks")["vendor_verdict"][0].level == OK
    (finding,) = cluster("azure")["vendor_verdict"]
    assert finding.level == WARNING and "untested" in finding.found and "Runners are needed" in finding.remedy


def test_openshift_is_a_problem_by_its_api_groups_whatever_is_said() -> None:
    found = cluster("generic", api_groups=["apps", "security.openshift.io"])
    assert found["openshift"][0].level == PROBLEM and "no override" in found["openshift"][0].remedy and "platform" not in found


def test_volumes_that_die_with_their_node_are_told() -> None:
    local = {**DEFAULT_CLASS, "provisioner": "rancher.io/local-path"}
    (finding,) = cluster("rancher", storage_classes=[local])["storage_class_local"]
    assert finding.level == WARNING and "takes the databases along" in finding.remedy
    assert "storage_class_local" not in cluster("rancher")


def test_volumes_that_can_never_grow_are_told_with_what_follows() -> None:
    grows, fixed = ({**DEFAULT_CLASS, "provisioner": "csi.example.com", "expands": expands} for expands in (True, False))
    assert cluster("generic", storage_classes=[grows])["storage_class_growth"][0].level == OK
    (finding,) = cluster("generic", storage_classes=[fixed])["storage_class_growth"]
    assert finding.level == WARNING and finding.subject == "StorageClass fast" and "restore into a larger volume" in finding.remedy
    # No volume of the release is made by a class that is not the default, and folders of a node have no size of their own.
    assert "storage_class_growth" not in cluster("generic", storage_classes=[{**fixed, "annotations": {}}])
    assert "storage_class_growth" not in cluster("rancher", storage_classes=[{**fixed, "provisioner": "rancher.io/local-path"}])


@pytest.mark.parametrize("provisioner", ["kubernetes.io/aws-ebs", "ebs.csi.aws.com"])
def test_eks_without_the_driver_of_its_volumes_is_a_problem(provisioner: str) -> None:
    classes = [{**DEFAULT_CLASS, "provisioner": provisioner}]
    (finding,) = cluster("eks", storage_classes=classes, volume_drivers=["efs.csi.aws.com"])["storage_driver"]
    assert finding.level == PROBLEM and "ebs.csi.aws.com" in finding.found and "pending" in finding.remedy
    assert "storage_driver" not in cluster("eks", storage_classes=classes, volume_drivers=["ebs.csi.aws.com"])
    # Drivers that may not be read, and volumes of another kind, are no reason to stop.
    assert "storage_driver" not in cluster("eks", storage_classes=classes, volume_drivers=None)
    assert "storage_driver" not in cluster("eks", storage_classes=[{**DEFAULT_CLASS, "provisioner": "efs.csi.aws.com"}], volume_drivers=[])
    assert "storage_driver" not in cluster("azure", storage_classes=classes, volume_drivers=[])


TRAEFIK = platform.Holder("traefik", "kube-system", (80, 443), on_nodes=False)
SERVICELB = platform.Holder("svclb-traefik", "kube-system", (80, 443), on_nodes=True)
NGINX = platform.Holder("rke2-ingress-nginx-controller", "kube-system", (80, 443), on_nodes=True)


@pytest.mark.parametrize(
    ("holder", "setting"),
    [
        (TRAEFIK, "disable: [traefik] in /etc/rancher/k3s/config.yaml"),
        (SERVICELB, "disable: [traefik] in /etc/rancher/k3s/config.yaml"),
        (NGINX, "ingress-controller: none in /etc/rancher/rke2/config.yaml"),
        (platform.Holder("haproxy", "edge", (443,), on_nodes=True), "Take it away"),
    ],
)
def test_ingress_on_the_ports_of_users_is_found_with_the_setting(holder: platform.Holder, setting: str) -> None:
    (finding,) = cluster("rancher", holders=[holder])["web_ports"]
    assert finding.level == PROBLEM and setting in finding.remedy and holder.name in finding.subject
    assert cluster("rancher", "metallb", holders=[holder])["web_ports"][0].level == WARNING


def test_own_load_balancer_and_those_with_other_addresses_are_in_nobodys_way() -> None:
    own = platform.Holder("circleci-proxy", "circleci-server", (80, 443), on_nodes=False)
    other = platform.Holder("web", "shop", (443,), on_nodes=False)
    assert "web_ports" not in cluster("eks", holders=[own, other])


class Api:
    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    def request(self, method: str, path: str, query: Any = None, body: Any = None, content_type: str = "") -> Any:
        return self.answers[path]


def test_holders_are_read_from_daemonsets_and_services() -> None:
    def daemonset(name: str, host_network: bool, port: dict[str, int]) -> dict[str, Any]:
        spec = {"hostNetwork": host_network, "containers": [{"ports": [port]}]}
        return {"metadata": {"name": name, "namespace": "x"}, "spec": {"template": {"spec": spec}}}

    service: dict[str, Any] = {"metadata": {"name": "web", "namespace": "x"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}, {"port": 9000}]}}
    api = Api(
        {
            "/apis/apps/v1/daemonsets": {
                "items": [
                    daemonset("host-port", False, {"hostPort": 443, "containerPort": 8443}),
                    daemonset("host-network", True, {"containerPort": 80}),
                    daemonset("neither", False, {"containerPort": 80}),
                ]
            },
            "/api/v1/services": {"items": [service, {**service, "spec": {**service["spec"], "type": "ClusterIP"}}]},
        }
    )
    assert [(holder.name, holder.ports, holder.on_nodes) for holder in platform.read_holders(api)] == [
        ("host-port", (443,), True),
        ("host-network", (80,), True),
        ("web", (80,), False),
    ]
