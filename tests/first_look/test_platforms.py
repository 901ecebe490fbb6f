# SPDX-License-Identifier: GPL-3.0-or-later
"""The example inventory of each platform through plan and preflight, as an operator looks first."""

from __future__ import annotations

import json
import os
import shutil
from datetime import date
from pathlib import Path

import pytest
import yaml
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.tests.first_look.world import World

from sandbox import scenarios

PLATFORMS = ("eks", "gke", "azure", "digitalocean", "rancher")
SECRETS = {
    "circleci_registry_password": "canary-registry",
    "circleci_object_storage_secret_key": "canary-store",
    "circleci_license": "canary-licence",
    "circleci_github_client_id": "Iv1.x",
    "circleci_github_client_secret": "canary-github",
    "circleci_github_default_token": "canary-token",
}
SEEN = {
    "eks": ("nginx.private_load_balancers", "object_storage.s3.irsaRole", "object_storage.expireAfter"),
    "gke": ("nginx.private_load_balancers", "nginx.loadBalancerIp", "object_storage.gcs.workloadIdentity"),
    "azure": (
        'nginx.annotations."service.beta.kubernetes.io/azure-load-balancer-internal"',
        'nginx.annotations."service.beta.kubernetes.io/azure-load-balancer-ipv4"',
        'nginx.annotations."service.beta.kubernetes.io/azure-load-balancer-tcp-idle-timeout"',
    ),
    "digitalocean": ('nginx.annotations."service.beta.kubernetes.io/do-loadbalancer-network"', "object_storage.expireAfter"),
    "rancher": ('nginx.annotations."metallb.io/loadBalancerIPs"',),
}


def bastion(platform: str) -> str:
    return f"bastion.{platform}.example.com"


@pytest.mark.parametrize("platform", PLATFORMS)
def test_plan_tells_what_the_platform_wants(platform: str, world: World) -> None:
    result = world.run("plan", platform, local=[bastion(platform)])
    assert result.code == 0, result.messages() + result.said
    plan = world.plan("site")
    assert [row for row in plan["findings"] if row["severity"] == "problem"] == []
    assert set(SEEN[platform]) <= {row["key"] for row in plan["values"]}
    known = Catalog.load().platform(platform)
    told = {row["found"] for row in plan["findings"]}
    assert {fact.value for fact in (*known.blockers, *known.warnings)} <= told
    assert world.run("plan", platform, local=[bastion(platform)]).changed == {}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_scenario_passes_the_gate_with_the_addresses_of_the_sandbox(platform: str, world: World) -> None:
    scenario = scenarios.find(platform)
    shutil.copytree(world.inventory("sandbox"), world.home / "inventory")
    shutil.copy(Path(scenarios.__file__).parent / "standin" / "values-small.yml", world.home)
    hosts = world.home / "inventory" / "hosts.yml"
    hosts.write_text(yaml.safe_dump(scenario.hosts(hosts.read_text(encoding="utf-8"))), encoding="utf-8")
    result = world.run("plan", str(world.home / "inventory"), local=["bastion"], extra={**SECRETS, **scenario.extra()})
    assert result.code == 0, result.messages() + result.said
    plan = world.plan("sandbox")
    assert [row for row in plan["findings"] if row["severity"] == "problem"] == []
    assert {row["key"]: row["value"] for row in plan["values"]}["object_storage.bucketName"] == scenario.extra().get("circleci_object_storage_bucket", "circleci-data")


def test_gateway_of_azure_in_the_cluster_passes_the_gate_and_is_told(world: World) -> None:
    shutil.copytree(world.inventory("azure"), world.home / "inventory")
    hosts = world.home / "inventory" / "hosts.yml"
    groups = yaml.safe_load(hosts.read_text(encoding="utf-8"))
    groups["circleci_object_storage"]["hosts"] = {}
    hosts.write_text(yaml.safe_dump(groups), encoding="utf-8")
    given = {"circleci_object_storage_placement": "cluster", "circleci_object_storage_load_balancer_address": "192.0.2.101"}
    result = world.run("plan", str(world.home / "inventory"), local=[bastion("azure")], extra=given)
    assert result.code == 0, result.messages() + result.said
    plan = world.plan("site")
    assert [row for row in plan["findings"] if row["severity"] == "problem"] == []
    assert [row["kind"] for row in plan["kubernetes"] if row["name"] == "onprem-circleci-object-storage"].count("Deployment") == 1
    # The other way round nothing is planned.
    refused = world.run("plan", str(world.home / "inventory"), local=[bastion("azure")], extra={**given, "circleci_object_storage_kind": "versitygw_posix"})
    assert refused.code == 2 and "keeps the objects itself" in refused.messages() + refused.said


@pytest.mark.parametrize("platform", PLATFORMS)
def test_preflight_finds_only_what_is_not_there_yet(platform: str, world: World) -> None:
    # The stores of clouds are asked as well; no test leaves this machine.
    cloud = {"circleci_object_storage_endpoint": "https://127.0.0.1:1"} if platform in ("eks", "gke", "digitalocean") else {}
    result = world.run("preflight", platform, local=[bastion(platform)], extra={**SECRETS, **cloud})
    assert result.code == 2
    missing = {"cluster_reachable", "bundle", "host_reachable", *(("registry",) if platform in ("eks", "gke") else ()), *(("object_storage",) if cloud else ())}
    assert {check for check, _subject in result.problems(bastion(platform))} == missing


@pytest.mark.parametrize("verb", ["plan", "preflight", "install"])
def test_openshift_is_refused_whatever_is_waived(verb: str, world: World) -> None:
    waivers = [{"name": name, "reason": "please"} for name in ("openshift", "platform", "cluster_size")]
    result = world.run(verb, "openshift", local=[bastion("openshift")], extra={**SECRETS, "circleci_waivers": waivers})
    assert result.code == 2
    for text in ("circleci_platform: found 'openshift'", "known not to work", "There is no override", "Runners may run there"):
        assert text in result.messages()
    assert not world.plans.exists()
    assert result.changed == {}
    folder = os.environ.get("ONPREM_CIRCLECI_EVIDENCE")
    if folder and verb == "install":
        seen = "install ends with code 2 and the vendor's verdict before anything is looked at; plan and preflight do the same"
        cells = {"release": {"result": "refused", "level": "real component", "detail": seen}}
        found = {"platform": "openshift", "store": "", "level": "real component", "blind_spots": "", "stand_ins": [], "cells": cells}
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "openshift.json").write_text(json.dumps({**found, "date": f"{date.today()}"}, indent=2, sort_keys=True) + "\n")


@pytest.mark.parametrize(
    ("platform", "extra", "words"),
    [
        ("azure", {"circleci_object_storage_kind": "minio_gateway_azure"}, ("nobody maintains", "accepted_risks: [minio_gateway_azure]")),
        ("azure", {"circleci_object_storage_versioning": True}, ("versitygw_azure", "cannot keep versions")),
        ("azure", {"circleci_object_storage_expiry_days": 9}, ("versitygw_azure has no expiry rules",)),
        ("rancher", {"circleci_object_storage_kind": "minio_server"}, ("nobody maintains", "accepted_risks: [minio_server]")),
        ("eks", {"circleci_object_storage_irsa_role": ""}, ("circleci_object_storage_irsa_role: not set", "aws_s3_irsa")),
        ("gke", {"circleci_object_storage_bucket": "google-data"}, ("circleci_object_storage_bucket", "Google allows no name")),
        ("eks", {"circleci_object_storage_bucket": "xn--data"}, ("circleci_object_storage_bucket", "AWS keeps names")),
    ],
)
def test_what_a_kind_of_store_cannot_do_is_refused(platform: str, extra: dict[str, object], words: tuple[str, ...], world: World) -> None:
    result = world.run("plan", platform, local=[bastion(platform)], extra=extra)
    assert result.code == 2
    for text in words:
        assert text in result.messages()
    assert not world.plans.exists()
