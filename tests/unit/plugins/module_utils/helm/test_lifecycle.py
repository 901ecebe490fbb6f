# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
"""What is refused before Helm is asked to change anything, and a cluster that goes away in the middle. Helm itself is real in the sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm import releases
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.cli import Chart, Helm, HelmError, Source
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import SITE_ANNOTATION, KubeError
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.lifecycle import (
    Lifecycle,
    ReleaseError,
    Wanted,
)
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.helm.fake_kube import FakeKube

NS, NAME, DOMAIN = "circleci-server", "circleci-server", "ci.example.com"
VALUES = {"global": {"domainName": DOMAIN}}


class Program:
    """The part of Helm that a lifecycle asks; it notes what it was asked to change."""

    def __init__(self, api: FakeKube) -> None:
        self.api = api
        self.changed: list[str] = []
        self.fails: Exception | None = None

    def obtain(self, source: Source) -> Chart:
        return Chart(Path("/chart.tgz"), "circleci-server", source.version, "ab")

    def values_file(self, _values: dict[str, Any]) -> Path:
        return Path("/values")

    def upgrade(self, chart: Chart, name: str, *_rest: object) -> None:
        self.changed.append(f"upgrade {name}")
        if self.fails:
            raise self.fails
        release(self.api, 2, chart.version)


def release(api: FakeKube, revision: int, version: str, *, name: str = NAME, chart: str = "circleci-server", domain: str = DOMAIN, manifest: str = "") -> None:
    document = {
        "name": name, "version": revision, "config": {"global": {"domainName": domain}}, "manifest": manifest,
        "info": {"status": "deployed", "description": ""}, "chart": {"metadata": {"name": chart, "version": version}, "values": {}},
    }  # fmt: skip
    labels = {"owner": "helm", "name": name, "version": str(revision), "status": "deployed"}
    secret = f"sh.helm.release.v1.{name}.v{revision}"
    body = {"metadata": {"name": secret, "labels": labels}, "type": "helm.sh/release.v1", "data": {"release": releases.encode(document)}}
    api.put(f"/api/v1/namespaces/{NS}/secrets/{secret}", body)


def lifecycle(api: FakeKube, program: Program | None = None, **changes: Any) -> Lifecycle:
    wanted = Wanted(NAME, NS, Source("oci://registry.example.com/charts/circleci-server", "4.10.0"), VALUES, **{"domain": DOMAIN, **changes})
    return Lifecycle(api, cast("Helm", program or Program(api)), wanted, sleep=lambda _seconds: None)


def refused(api: FakeKube, check: bool = False, **changes: Any) -> ReleaseError:
    before = len(api.writes())
    with pytest.raises(ReleaseError) as caught:
        lifecycle(api, **changes).plan(check=check)
    assert len(api.writes()) == before
    return caught.value


@pytest.mark.parametrize("check", [False, True], ids=["run", "check"])
def test_a_foreign_release_of_the_same_name_is_refused(check: bool) -> None:
    api = FakeKube(NS)
    release(api, 1, "1.0.0", chart="somebody-elses")
    error = refused(api, check)
    assert error.code == "foreign_release" and "somebody-elses" in str(error) and "circleci_release_name" in str(error)


def test_a_release_of_another_site_and_a_second_one_are_refused() -> None:
    api = FakeKube(NS)
    release(api, 1, "4.9.5", domain="ci.osaka.example")
    assert refused(api).code == "foreign_site"
    assert lifecycle(api, takeover=True).plan(check=False).action == "upgrade"
    second = FakeKube(NS)
    release(second, 1, "4.9.5", name="another")
    error = refused(second)
    assert error.code == "second_release" and "another" in str(error)


@pytest.mark.parametrize("check", [False, True], ids=["run", "check"])
def test_a_namespace_of_another_site_is_refused_also_while_it_holds_no_release(check: bool) -> None:
    api = FakeKube()
    api.put(f"/api/v1/namespaces/{NS}", {"metadata": {"name": NS, "annotations": {SITE_ANNOTATION: "ci.osaka.example"}}})
    error = refused(api, check)
    assert error.code == "foreign_namespace"
    assert "ci.osaka.example" in str(error) and DOMAIN in str(error) and "circleci_namespace" in str(error)


def test_a_namespace_that_is_being_deleted_is_refused() -> None:
    api = FakeKube()
    api.put(f"/api/v1/namespaces/{NS}", {"metadata": {"name": NS, "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    assert refused(api).code == "namespace_terminating"


def test_rights_in_the_namespace_alone_are_enough() -> None:
    api = FakeKube(NS)
    release(api, 1, "4.9.5")
    api.forbidden.add(("GET", "namespaces"))
    program = Program(api)
    made = lifecycle(api, program)
    assert made.apply(made.plan(check=False)).chart_version == "4.10.0" and program.changed == [f"upgrade {NAME}"]


def test_without_the_right_to_read_secrets_the_sentence_names_it() -> None:
    api = FakeKube(NS)
    api.forbidden.add(("GET", "secrets"))
    with pytest.raises(KubeError) as caught:
        lifecycle(api).plan(check=False)
    assert "lacks a right" in caught.value.sentence and "secrets is forbidden" in caught.value.sentence


def goes_down(api: FakeKube, after: Sequence[str]) -> None:
    def hook(method: str, path: str) -> None:
        api.down = api.down or [method, path] == list(after)

    api.hooks.append(hook)


def test_a_cluster_that_goes_away_in_mid_upgrade_is_one_sentence_and_the_next_run_goes_on() -> None:
    api = FakeKube(NS)
    release(api, 1, "4.9.5")
    program = Program(api)
    made = lifecycle(api, program)
    plan = made.plan(check=False)
    program.fails = HelmError("helm upgrade: Kubernetes cluster unreachable: connection refused", "helm")
    with pytest.raises(ReleaseError) as caught:
        made.apply(plan)
    assert caught.value.code == "helm" and "unreachable" in str(caught.value)
    # And when it is the look after Helm that fails.
    program.fails = None
    goes_down(api, ("GET", f"/api/v1/namespaces/{NS}/secrets"))
    with pytest.raises(KubeError) as lost:
        made.apply(plan)
        made.current()
    assert "cannot be reached" in lost.value.sentence and "circleci_kubeconfig" in lost.value.sentence
    api.down = False
    api.hooks.clear()
    assert lifecycle(api, program).plan(check=False).action == "none"


def claim(api: FakeKube, name: str, **labels: str) -> None:
    api.put(f"/api/v1/namespaces/{NS}/persistentvolumeclaims/{name}", {"metadata": {"name": name, "labels": {key.replace("_", "/"): text for key, text in labels.items()}}})


def pod(api: FakeKube, name: str, kind: str, owner: str, volume: str) -> None:
    body = {
        "metadata": {"name": name, "ownerReferences": [{"kind": kind, "name": owner}]},
        "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": volume}}, {"name": "e", "emptyDir": {}}]},
    }  # fmt: skip
    api.put(f"/api/v1/namespaces/{NS}/pods/{name}", body)


@pytest.mark.parametrize("ours", [True, False])
def test_volumes_of_others_stay_in_a_namespace_that_was_there_before(ours: bool) -> None:
    api = FakeKube(NS)
    if ours:
        api.put(f"/api/v1/namespaces/{NS}", {"metadata": {"name": NS, "labels": {"app.kubernetes.io/managed-by": "onprem.circleci_server"}}})
    manifest = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: postgresql}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web-ui}\n"
    release(api, 1, "4.10.0", manifest=manifest)
    claim(api, "data-postgresql-0")
    claim(api, "web")
    claim(api, "leftover-of-ours", **{"app.kubernetes.io_instance": NAME})
    claim(api, "others-data", **{"app.kubernetes.io_instance": "grafana"})
    claim(api, "wiki")
    pod(api, "postgresql-0", "StatefulSet", "postgresql", "data-postgresql-0")
    pod(api, "web-ui-6d5f-x", "ReplicaSet", "web-ui-6d5f", "web")
    pod(api, "wiki-7c9-y", "ReplicaSet", "wiki-7c9", "wiki")
    found = lifecycle(api).removal(delete_volumes=True, delete_secrets=False)
    others = [] if ours else ["others-data", "wiki"]
    assert found["kept_volumes"] == others
    assert found["volumes"] == sorted({"data-postgresql-0", "web", "leftover-of-ours", "others-data", "wiki"} - set(others))
    assert lifecycle(api).removal(delete_volumes=False, delete_secrets=False)["volumes"] == []


def test_rights_in_the_namespace_alone_are_enough_to_take_the_release_away() -> None:
    api = FakeKube(NS)
    release(api, 1, "4.10.0")
    claim(api, "data-postgresql-0")
    api.forbidden |= {("GET", "namespaces"), ("GET", "persistentvolumes")}
    work = lifecycle(api)
    found = work.removal(delete_volumes=True, delete_secrets=True)
    assert (found["volumes"], found["namespace"]) == (["data-postgresql-0"], False)
    work.remove({**found, "release": False})
    assert f"/api/v1/namespaces/{NS}/persistentvolumeclaims/data-postgresql-0" not in api.objects
