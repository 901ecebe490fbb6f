# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight import site
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.findings import (
    OK,
    PROBLEM,
    WAIVED,
    WARNING,
    Finding,
    apply_waivers,
    summary,
)

RELEASE = {
    "version": "4.10.0",
    "kubernetes_min": "1.33",
    "kubernetes_max": "1.35",
    "cluster_nodes": 4,
    "cluster_cpus": 24,
    "cluster_memory_gb": 90,
    "upgrade_from": ["4.9.5"],
    "support_end": "2027-05-13",
}
NODE = {"name": "n", "ready": True, "cpu": "8", "memory": "32Gi"}
DEFAULT_CLASS = {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}


def cluster(**changes: Any) -> site.ClusterFacts:
    facts: dict[str, Any] = {"version": "v1.33.0", "nodes": [NODE] * 4, "storage_classes": [DEFAULT_CLASS], "api_groups": ["apps"]}
    return site.ClusterFacts(**{**facts, **changes})


def problems(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings if finding.level == PROBLEM]


def check(facts: site.ClusterFacts, brings: bool = False) -> list[Finding]:
    return site.check_cluster(facts, RELEASE, brings_storage_class=brings, kubeconfig="/etc/kubeconfig")


def test_good_cluster() -> None:
    assert problems(check(cluster())) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": "v1.32.9"}, "kubernetes_version"),
        ({"version": "v1.36.0"}, "kubernetes_version"),
        ({"nodes": [NODE] * 3}, "cluster_size"),
        ({"nodes": [NODE] * 3 + [{**NODE, "ready": False}]}, "cluster_size"),
        ({"nodes": [{**NODE, "cpu": "500m"}] * 4}, "cluster_size"),
        ({"storage_classes": []}, "storage_class"),
        ({"storage_classes": [DEFAULT_CLASS, {**DEFAULT_CLASS, "name": "slow"}]}, "storage_class"),
        ({"api_groups": ["apps", "config.openshift.io"]}, "openshift"),
    ],
)
def test_each_rule_of_the_cluster(changes: dict[str, Any], expected: str) -> None:
    assert problems(check(cluster(**changes))) == [expected]


def test_brought_storage_class_wants_no_other_default() -> None:
    assert problems(check(cluster(storage_classes=[]), brings=True)) == []
    assert problems(check(cluster(), brings=True)) == ["storage_class"]
    assert problems(check(cluster(storage_classes=[{**DEFAULT_CLASS, "name": "local-path"}]), brings=True)) == []


def test_unreachable_cluster_is_one_problem_and_not_many() -> None:
    assert problems(check(site.ClusterFacts(error="connection refused"))) == ["cluster_reachable"]
    assert site.check_secrets(site.ClusterFacts(error="x"), {"license": ["license"]}, "ns") == []


def test_missing_secrets_are_listed_with_their_keys() -> None:
    facts = cluster(secrets={"license": ["license"], "signing-keys": ["signing-key"]})
    (finding,) = site.check_secrets(facts, {"license": ["license"], "signing-keys": ["signing-key", "encryption-key"], "tink": ["keyset"]}, "ns")
    assert finding.level == PROBLEM
    assert "signing-keys (encryption-key)" in finding.found and "tink (keyset)" in finding.found and "license" not in finding.found
    assert "verb secrets" in finding.remedy


@pytest.mark.parametrize(
    ("answer", "ours", "check_name", "level"),
    [
        (site.RegistryAnswer(status=200), False, "registry", OK),
        (site.RegistryAnswer(status=401), True, "registry_credentials", PROBLEM),
        (site.RegistryAnswer(error="certificate verify failed: unable to get local issuer certificate"), True, "registry_certificate", PROBLEM),
        (site.RegistryAnswer(error="connection refused"), True, "registry", OK),
        (site.RegistryAnswer(error="connection refused"), False, "registry", PROBLEM),
        (site.RegistryAnswer(status=404), False, "registry", PROBLEM),
    ],
)
def test_answers_of_the_registry(answer: site.RegistryAnswer, ours: bool, check_name: str, level: str) -> None:
    finding = site.check_registry(answer, "registry.example.com:5000", ours_to_make=ours)
    assert (finding.check, finding.level) == (check_name, level)


@pytest.mark.parametrize(("installed", "level"), [("", OK), ("4.10.0", OK), ("4.9.5", OK), ("4.8.12", PROBLEM), ("4.9.1", PROBLEM)])
def test_steps_cannot_be_left_out(tmp_path: Path, installed: str, level: str) -> None:
    if installed:
        (tmp_path / "release.json").write_text(json.dumps({"version": installed}), encoding="utf-8")
    finding = site.check_step(tmp_path, RELEASE)
    assert finding.level == level
    assert level == OK or "4.9.5" in finding.remedy


def test_end_of_support_is_a_warning() -> None:
    assert site.check_support(RELEASE, date(2027, 5, 13)).level == OK
    assert site.check_support(RELEASE, date(2027, 5, 14)).level == WARNING


@pytest.mark.parametrize(("text", "number"), [("500m", 0.5), ("4", 4), ("2Gi", 2 * 1024**3), ("1000Ki", 1024000), ("x", 0)])
def test_quantity(text: str, number: float) -> None:
    assert site.quantity(text) == number


def test_waivers_take_only_what_may_be_waived() -> None:
    findings = [Finding("cluster_size", PROBLEM, "nodes", "1", "4", "vendor"), Finding("openshift", PROBLEM, "p", "x", "y", "vendor")]
    waivers = [{"name": "cluster_size", "reason": "a lab"}, {"name": "openshift", "reason": "please"}]
    result = apply_waivers(findings, waivers)
    assert [(f.check, f.level) for f in result] == [("cluster_size", WAIVED), ("openshift", PROBLEM), ("waivers", PROBLEM)]
    assert "a lab" in result[0].sentence()
    assert summary(result).startswith("2 problem(s)")


def test_a_bundle_of_another_release_is_refused() -> None:
    finding = site.check_bundle_release("/srv/bundle", ["4.10.0"], "4.7.15")
    assert finding.level == "problem"
    assert "a bundle of release 4.10.0" in finding.sentence() and "expected a bundle of release 4.7.15" in finding.sentence()
    assert site.check_bundle_release("/srv/bundle", ["4.10.0"], "4.10.0").level == "ok"
