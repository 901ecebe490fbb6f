# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that talk to the cluster, when a verb only looks and there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.modules import site_preflight, site_secret_values, site_secrets
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values.secret_plan import PLAN_FORMAT
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: t}}]
"""
RELEASE = {
    "version": "4.10.0", "kubernetes_min": "1.33", "kubernetes_max": "1.35", "cluster_users": "<500", "cluster_nodes": 4, "cluster_cpus": 24, "cluster_memory_gb": 90,
    "upgrade_from": ["4.9.5"], "support_end": "2099-01-01",
}  # fmt: skip


@pytest.fixture(params=["", "/nowhere/kubeconfig", "dead"])
def kubeconfig(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param != "dead":
        return str(request.param)
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG, encoding="utf-8")
    return str(path)


def test_values_of_secrets_are_empty_only_when_that_is_asked_for(kubeconfig: str, capsys: pytest.CaptureFixture[str]) -> None:
    wanted: dict[str, Any] = {"kubeconfig": kubeconfig, "namespace": "ns", "secrets": [{"name": "x", "optional": True}]}
    assert run_module(site_secret_values, capsys, **wanted, cluster_may_be_missing=True)["values"] == {}
    assert "cannot be reached" in run_module(site_secret_values, capsys, **wanted)["msg"]


def test_secrets_that_cannot_be_asked_for_are_no_failure_of_a_look(kubeconfig: str, capsys: pytest.CaptureFixture[str]) -> None:
    wanted: dict[str, Any] = {
        "state": "verified", "kubeconfig": kubeconfig, "namespace": "ns", "release_name": "r", "domain": "ci.example.com", "plan": {"format": PLAN_FORMAT, "release": "4.10.0", "secrets": []},
    }  # fmt: skip
    looked = run_module(site_secrets, capsys, **wanted, fail=False)
    assert not looked.get("failed") and not looked["changed"] and looked["findings"] == [] and looked["verified"] is False
    assert run_module(site_secrets, capsys, **wanted)["failed"]


def test_preflight_without_a_cluster_goes_on(kubeconfig: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(
        site_preflight,
        capsys,
        kubeconfig=kubeconfig,
        namespace="ns",
        release=RELEASE,
        registry_host="registry.example.com",
        bundle_dir=str(tmp_path / "nothing"),
        findings=[],
        fail=False,
    )
    found = {item["check"]: item["level"] for item in result["findings"]}
    assert found == {"cluster_reachable": "problem", "registry": "warning", "support_period": "ok", "bundle": "problem"}
    assert result["summary"].startswith("2 problem(s)")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"state": "prepared"}, "without a cluster a store must keep what is made"),
        ({"store": {"kind": "hashicorp_vault"}}, "circleci_secrets_store_url, circleci_secrets_store_path, circleci_secrets_store_token is empty"),
        ({"store": {"kind": "hashicorp_vault", "url": "file:///x", "path": "site", "token": "token-4711"}}, "allowed is a URL with http:// or https://"),
    ],
)
def test_stores_that_cannot_be_are_refused_before_the_cluster_is_asked(options: dict[str, Any], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(
        site_secrets, capsys, namespace="ns", release_name="r", domain="ci.example.com", plan={"format": PLAN_FORMAT, "release": "4.10.0", "secrets": []}, **options
    )
    assert result["failed"] and sentence in result["msg"]
