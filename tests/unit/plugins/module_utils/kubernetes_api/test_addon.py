# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import pytest
import yaml
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import KubeError
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.objects import Masker
from ansible_collections.onprem.circleci_server.plugins.module_utils.kubernetes_api.addon import (
    AddonError,
    Installer,
    Login,
    Wish,
    documents_of,
)
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.helm.fake_kube import FakeKube

MANIFEST = """
apiVersion: v1
kind: Namespace
metadata: {name: pool-system}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: pools.pool.example, creationTimestamp: null}
spec: {conversion: {webhook: {clientConfig: {caBundle: Cg==}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: controller, namespace: pool-system}
spec:
  selector: {matchLabels: {app: controller}}
  template:
    spec:
      initContainers: [{name: init, image: busybox}]
      containers: [{name: controller, image: "quay.io/pool/controller:main"}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: config, namespace: pool-system}
data:
  helperPod.yaml: |-
    apiVersion: v1
    kind: Pod
    metadata: {name: helper-pod}
    spec:
      containers: [{name: helper-pod, image: busybox}]
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local-path}
provisioner: rancher.io/local-path
"""
LOGIN = Login("registry.example.com:5000", "site", "canary-password")
IMAGES = ["quay.io/pool/controller:v1.2.3", "docker.io/library/busybox:stable"]
POOL = {"apiVersion": "pool.example/v1", "kind": "Pool", "metadata": {"name": "circleci", "namespace": "pool-system"}, "spec": {"addresses": ["192.0.2.1/32"]}}
POOL_PATH = "/apis/pool.example/v1/namespaces/pool-system/pools/circleci"


def wish(**more: Any) -> Wish:
    return Wish("pool", MANIFEST, more.pop("images", IMAGES), LOGIN, **more)


class Cluster(FakeKube):
    """With a controller that makes deployments ready, and serves the kind of a definition when it has been applied."""

    def __init__(self, *, webhook_answers_after: int = 0) -> None:
        super().__init__("default", "pool-system")
        self.objects.pop("/api/v1/namespaces/pool-system")
        self.refusals = webhook_answers_after
        self.selector = ""
        self.hooks.append(self._behave)

    def request(self, method: str, path: str, query: Any = None, body: Any = None, content_type: str = "application/json") -> Any:
        self.selector = (query or {}).get("labelSelector", "")
        return super().request(method, path, query, body, content_type)

    def _behave(self, method: str, path: str) -> Any:
        if method == "GET" and (answer := self._discovery(path)) is not None:
            return answer
        if path == "/apis/pool.example/v1" and any("customresourcedefinitions/" in name for name in self.objects):
            return {"resources": [{"kind": "Pool", "name": "pools", "namespaced": True, "verbs": ["list", "delete"]}]}
        if path.endswith("/pools"):
            return {"items": [item for name, item in self.objects.items() if "/pools/" in name]}
        if method == "PATCH" and path == POOL_PATH and self.refusals:
            self.refusals -= 1
            raise KubeError(500, 'failed calling webhook "poolvalidation": connection refused', f"PATCH {path}")
        if method == "GET" and path.endswith("/deployments"):
            for name, item in self.objects.items():
                if "/deployments/" in name:
                    item["status"] = {"readyReplicas": 1, "updatedReplicas": 1, "availableReplicas": 1, "replicas": 1}
        return None


    def _discovery(self, path: str) -> Any:
        """The API's own description of itself, and lists over all namespaces."""
        served = {
            "/api/v1": [("Namespace", "namespaces", False), ("ConfigMap", "configmaps", True), ("Secret", "secrets", True)],
            "/apis/apps/v1": [("Deployment", "deployments", True)],
            "/apis/storage.k8s.io/v1": [("StorageClass", "storageclasses", False)],
            "/apis/apiextensions.k8s.io/v1": [("CustomResourceDefinition", "customresourcedefinitions", False)],
            "/apis/pool.example/v1": [("Pool", "pools", True)],
        }
        if path == "/apis":
            return {"groups": [{"preferredVersion": {"groupVersion": base.removeprefix("/apis/")}} for base in served if base != "/api/v1"]}
        if path in served and path != "/apis/pool.example/v1":
            verbs = ["list", "delete"]
            return {"resources": [{"kind": kind, "name": name, "namespaced": deep, "verbs": verbs} for kind, name, deep in served[path]]}
        for base, rows in served.items():
            for _kind, name, deep in rows:
                if path == f"{base}/{name}" and deep:
                    items = [item for where, item in self.objects.items() if where.startswith(f"{base}/") and f"/{name}/" in where]
                    return {"items": [item for item in items if self._selected(item, self.selector)]}
        return None


def installer(api: FakeKube, **more: Any) -> Installer:
    return Installer(api, sleep=lambda _seconds: None, **more)


def test_images_come_from_the_private_registry_with_a_login() -> None:
    by_kind = {document["kind"]: document for document in documents_of(wish())}
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "registry.example.com:5000/pool/controller:v1.2.3"
    assert pod["initContainers"][0]["image"] == "registry.example.com:5000/library/busybox:stable"
    assert pod["imagePullSecrets"] == [{"name": "onprem-circleci-registry"}]
    helper = yaml.safe_load(by_kind["ConfigMap"]["data"]["helperPod.yaml"])
    assert helper["spec"]["containers"][0]["image"] == "registry.example.com:5000/library/busybox:stable"
    assert helper["spec"]["imagePullSecrets"] == [{"name": "onprem-circleci-registry"}]
    config = json.loads(base64.b64decode(by_kind["Secret"]["data"][".dockerconfigjson"]))
    assert base64.b64decode(config["auths"]["registry.example.com:5000"]["auth"]) == b"site:canary-password"


def test_all_images_that_the_bundle_lacks_are_named_at_once() -> None:
    with pytest.raises(AddonError) as caught:
        documents_of(wish(images=["quay.io/other/thing:1"]))
    assert len(caught.value.problems) == 3
    assert "quay.io/pool/controller:main" in " ".join(caught.value.problems)


def test_first_run_applies_second_run_finds_nothing_to_do() -> None:
    api = Cluster(webhook_answers_after=3)
    result = installer(api).ensure(wish(settings=[POOL], default_storage_class="local-path"))
    assert result.changed
    assert api.objects[POOL_PATH]["spec"]["addresses"] == ["192.0.2.1/32"]
    assert api.objects["/apis/storage.k8s.io/v1/storageclasses/local-path"]["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
    api.requests.clear()
    again = installer(api).ensure(wish(settings=[POOL], default_storage_class="local-path"))
    assert (again.changed, api.writes()) == (False, [])


def test_check_mode_on_an_empty_cluster_tells_everything_and_writes_nothing() -> None:
    api = Cluster()
    result = installer(api).ensure(wish(settings=[POOL]), check=True)
    assert "Pool/circleci" in result.diff.names()["created"]
    assert api.writes() == []


def test_a_new_password_is_a_change_and_stands_in_no_text() -> None:
    api = Cluster()
    installer(api).ensure(wish())
    changed = Wish("pool", MANIFEST, IMAGES, Login("registry.example.com:5000", "site", "another-canary"))
    result = installer(api).ensure(changed)
    assert result.diff.names()["changed"] == ["Secret/onprem-circleci-registry"]
    data = changed.login.pull_secret("pool-system")["data"]
    assert data[".dockerconfigjson"] not in "".join(result.diff.texts(Masker()))
    assert api.objects["/api/v1/namespaces/pool-system/secrets/onprem-circleci-registry"]["data"] == data
    assert not installer(api).ensure(changed).changed


def test_what_someone_else_installed_is_refused() -> None:
    api = Cluster()
    api.put("/api/v1/namespaces/pool-system", {})
    api.put("/apis/apps/v1/namespaces/pool-system/deployments/controller", {})
    with pytest.raises(AddonError, match="circleci_load_balancer: provided"):
        installer(api).ensure(wish())


def test_a_second_default_storage_class_is_refused() -> None:
    api = Cluster()
    api.put(
        "/apis/storage.k8s.io/v1/storageclasses/fast", {"metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}
    )
    with pytest.raises(AddonError, match="StorageClass fast already"):
        installer(api).ensure(wish(default_storage_class="local-path"))


def test_removal_takes_only_what_is_ours_and_needs_no_manifest() -> None:
    api = Cluster()
    installer(api).ensure(wish(settings=[POOL]))
    api.objects["/api/v1/namespaces/pool-system/configmaps/config"]["metadata"]["labels"].pop("app.kubernetes.io/managed-by")
    assert installer(api).remove("another") == []
    before = dict(api.objects)
    predicted = installer(api).remove("pool", check=True)
    assert api.objects == before
    gone = installer(api).remove("pool")
    assert gone == predicted
    assert gone.index("Pool/circleci") < gone.index("CustomResourceDefinition/pools.pool.example") < gone.index("Namespace/pool-system")
    assert not [name for name in api.objects if "/deployments/" in name or "/pools/" in name]
    assert "/api/v1/namespaces/pool-system/configmaps/config" in api.objects
    assert installer(api).remove("pool") == []


# -- objects of a role, without a manifest --------------------------------------------------------------------------------

GATEWAY = "ghcr.io/pool/gateway:v1"
SERVICE_PATH = "/api/v1/namespaces/pool-system/services/gateway"
SECRET_PATH = "/api/v1/namespaces/pool-system/secrets/gateway"
DIGEST = "sha256:" + "a" * 64


def _object(kind: str, version: str, name: str, **more: Any) -> dict[str, Any]:
    place = {"name": name} if kind == "Namespace" else {"name": name, "namespace": "pool-system"}
    return {"apiVersion": version, "kind": kind, "metadata": place, **more}


def role_wish(key: str = "canary-of-the-role", *, serving: str = "") -> Wish:
    spec = {"selector": {"matchLabels": {"app": "gateway"}}, "template": {"spec": {"containers": [{"name": "gateway", "image": GATEWAY}]}}}
    objects = [
        _object("Namespace", "v1", "pool-system"),
        _object("Service", "v1", "gateway", spec={"type": "LoadBalancer", "publishNotReadyAddresses": False, "ports": [{"port": 80}]}),
        _object("Deployment", "apps/v1", "gateway", spec=spec),
    ]
    data = {"KEY": base64.b64encode(key.encode()).decode()}
    secrets = [_object("Secret", "v1", "gateway", type="Opaque", data=data)]
    return Wish("gateway", "", [GATEWAY], LOGIN, objects=objects, secrets=secrets, digests={GATEWAY: DIGEST}, serving=serving)


class Filling(Cluster):
    """Pods run at once, and are ready when there is something for them to read."""

    def __init__(self, *, image_is_there: bool = True) -> None:
        super().__init__()
        self.filled = False
        self.ending = 0
        self.state: dict[str, Any] = {"running": {}} if image_is_there else {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
        self.hooks.insert(0, self._pods)

    def _pods(self, method: str, path: str) -> Any:
        if method != "GET" or not path.startswith(("/api/v1/namespaces/pool-system/pods", "/apis/apps/v1/namespaces/pool-system/deployments")):
            return None
        if path.endswith("/pods"):
            metadata = {"name": "gateway-1", "labels": {"app": "gateway", "pod-template-hash": "1"}, "creationTimestamp": "2026-01-01T00:00:00Z"}
            status = {"containerStatuses": [{"name": "gateway", "state": self.state}]}
            old = {**metadata, "name": "gateway-0", "creationTimestamp": "2025-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:00:00Z"}
            return {"items": [{"metadata": metadata, "status": status}, *([{"metadata": old, "status": status}] if self.ending else [])]}
        ready = {"readyReplicas": 1, "updatedReplicas": 1, "availableReplicas": 1, "replicas": 1} if self.filled else {"replicas": 1, "updatedReplicas": 1}
        items = [{**item, "status": ready} for name, item in self.objects.items() if "/deployments/" in name]
        return {"items": items} if path.endswith("/deployments") else None


def test_image_of_a_role_is_pulled_by_its_digest() -> None:
    found = {document["kind"]: document for document in documents_of(role_wish()) if document["metadata"]["name"] != "onprem-circleci-registry"}
    assert found["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"] == f"registry.example.com:5000/pool/gateway@{DIGEST}"
    assert {document["metadata"]["labels"]["app.kubernetes.io/part-of"] for document in found.values()} == {"gateway"}


def test_service_leads_to_pods_that_run_until_one_is_ready() -> None:
    api = Filling()
    first = installer(api).ensure(role_wish(serving="gateway"))
    assert first.changed and api.objects[SERVICE_PATH]["spec"]["publishNotReadyAddresses"] is True
    # Killed here, the same call goes on from there.
    assert not installer(api).ensure(role_wish(serving="gateway")).changed
    api.filled = True
    closing = installer(api).ensure(role_wish())
    assert closing.diff.names() == {"created": [], "changed": ["Service/gateway"], "removed": []}
    assert api.objects[SERVICE_PATH]["spec"]["publishNotReadyAddresses"] is False
    api.requests.clear()
    assert [installer(api).ensure(role_wish(serving=name)).changed for name in ("gateway", "")] == [False, False]
    assert api.writes() == []


def test_check_mode_predicts_the_same_objects() -> None:
    api = Filling()
    predicted = installer(api).ensure(role_wish(serving="gateway"), check=True).diff.names()
    assert api.writes() == []
    assert installer(api).ensure(role_wish(serving="gateway")).diff.names() == predicted


def test_image_that_cannot_be_pulled_is_named_though_nothing_must_be_ready() -> None:
    with pytest.raises(AddonError, match=r"0 of 1 run.*ImagePullBackOff"):
        installer(Filling(image_is_there=False), timeout=0.0).ensure(role_wish(serving="gateway"))


def test_a_new_key_is_in_force_only_when_the_old_pods_are_gone() -> None:
    # Seen on a real cluster: a node sent the first request with the new key to a pod that was about to end.
    api = Filling()
    api.filled, api.ending = True, 2
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        api.ending -= 1

    Installer(api, sleep=sleep).ensure(role_wish())
    assert (len(slept), api.ending) == (2, 0)


def test_pods_that_never_see_the_store_behind_are_told_with_what_to_look_at() -> None:
    with pytest.raises(AddonError) as caught:
        installer(Filling(), timeout=0.0).ensure(dataclasses.replace(role_wish(), hint="Look at the key."))
    assert "0 of 1 ready" in caught.value.problems[0] and caught.value.problems[-1] == "Look at the key."


def test_a_new_value_of_a_secret_is_a_change_and_stands_in_no_text() -> None:
    api = Filling()
    api.filled = True
    installer(api).ensure(role_wish())
    new = role_wish("another-canary")
    result = installer(api).ensure(new)
    assert result.diff.names()["changed"] == ["Secret/gateway"]
    assert api.objects[SECRET_PATH]["data"] == new.secrets[0]["data"]
    said = "".join(result.diff.texts(Masker())) + repr(new)
    assert [text for text in ("another-canary", base64.b64encode(b"another-canary").decode()) if text in said] == []
    assert not installer(api).ensure(new).changed


@pytest.mark.parametrize("path", ["/api/v1/namespaces/pool-system", SERVICE_PATH, SECRET_PATH])
def test_nothing_of_somebody_else_is_taken_over_by_a_role(path: str) -> None:
    api = Filling()
    api.put("/api/v1/namespaces/pool-system", {} if path.endswith("pool-system") else {"metadata": {"labels": {"app.kubernetes.io/managed-by": "onprem.circleci_server"}}})
    if not path.endswith("pool-system"):
        api.put(path, {})
    with pytest.raises(AddonError, match=r"was not made by this collection\. Take it away, or give it another name"):
        installer(api).ensure(role_wish())
    assert api.writes() == []


def test_addresses_of_services_are_told() -> None:
    api = Filling()
    api.filled = True
    installer(api).ensure(role_wish())
    assert installer(api).addresses(role_wish()) == {"gateway": []}
    api.objects[SERVICE_PATH]["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.101"}, {"hostname": "lb.example.net"}]}}
    assert installer(api).addresses(role_wish()) == {"gateway": ["192.0.2.101", "lb.example.net"]}
