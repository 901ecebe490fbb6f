# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An add-on of the cluster that the bundle brings: an upstream manifest, or objects of a role, whose images come from the private registry."""

from __future__ import annotations

import base64
import copy
import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Optional
from urllib.parse import quote

from ..helm.kube import KubeApi, KubeError
from ..helm.objects import WORKLOADS, Cluster, ObjectDiff, ObjectId, compare, object_id, parse_documents, to_yaml
from ..helm.waiter import Patience, Waiter, targets_of
from ..mirror.errors import UsageError
from ..mirror.oci import Reference

OWNER_LABEL = "app.kubernetes.io/managed-by"
OWNER = "onprem.circleci_server"
ADDON_LABEL = "app.kubernetes.io/part-of"
FIELD_MANAGER = "onprem.circleci_server"
APPLY_PATCH = "application/apply-patch+yaml"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
PULL_SECRET = "onprem-circleci-registry"  # noqa: S105 - the name of a Secret
_FIRST = (
    "Namespace",
    "CustomResourceDefinition",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "Service",
)
# Answers of an API server whose admission webhook is still starting.
_WEBHOOK_STARTS = (500, 503, 504)


class AddonError(Exception):
    """Sentences for the operator, all that are known at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(" ".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class Login:
    """Access to the private registry."""

    registry: str
    username: str
    password: str = field(repr=False)

    def pull_secret(self, namespace: str) -> dict[str, Any]:
        """The Secret that lets pods of a namespace pull."""
        token = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        config = json.dumps({"auths": {self.registry.partition("/")[0]: {"auth": token}}}, sort_keys=True)
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": PULL_SECRET, "namespace": namespace},
            "data": {".dockerconfigjson": base64.b64encode(config.encode()).decode()},
        }


@dataclass(frozen=True)
class Wish:
    """What is to be in the cluster. C(settings) are objects of kinds that the manifest defines; they follow when it runs.

    C(objects) and C(secrets) are what a role asks for beside a manifest or without one. C(digests) names images of the bundle by the digest that the
    private registry has. C(serving) is a Service of C(objects) that leads to pods which are not ready as well while none of them is.
    C(hint) is told when pods do not become ready in time.
    """

    name: str
    manifest: str
    images: Sequence[str]
    login: Login
    settings: Sequence[Mapping[str, Any]] = ()
    default_storage_class: str = ""
    objects: Sequence[Mapping[str, Any]] = ()
    secrets: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    digests: Mapping[str, str] = field(default_factory=dict)
    serving: str = ""
    hint: str = ""


def documents_of(wish: Wish) -> list[dict[str, Any]]:
    """The objects of the manifest as this site needs them, in the order in which they are applied."""
    relocated = _relocation(wish)
    documents = [_without_placeholders(document) for document in parse_documents(wish.manifest)]
    documents += [copy.deepcopy(dict(document)) for document in (*wish.objects, *wish.secrets)]
    if not documents:
        raise AddonError([f"The manifest of {wish.name} holds no object. Make the bundle anew on the connected side."])
    problems: list[str] = []
    namespaces: dict[str, None] = {}
    for document in documents:
        template = _pod_spec(document)
        if template is not None:
            _relocate(template, relocated, problems, str(document["metadata"]["name"]))
            namespaces[str(document["metadata"].get("namespace", "default"))] = None
        if document["kind"] == "ConfigMap":
            _relocate_texts(document, relocated, problems)
        if document["kind"] == "StorageClass" and document["metadata"]["name"] == wish.default_storage_class:
            document["metadata"].setdefault("annotations", {})[DEFAULT_CLASS] = "true"
    if problems:
        raise AddonError([f"{wish.name}: {problem}" for problem in dict.fromkeys(problems)])
    documents += [wish.login.pull_secret(namespace) for namespace in namespaces if wish.login.username]
    return sorted((_owned(document, wish.name) for document in documents), key=_rank)


def settings_of(wish: Wish) -> list[dict[str, Any]]:
    """The site's own objects of the add-on."""
    return [_owned(copy.deepcopy(dict(document)), wish.name) for document in wish.settings]


def _rank(document: Mapping[str, Any]) -> tuple[int, str, str]:
    kind = str(document["kind"])
    return (_FIRST.index(kind) if kind in _FIRST else len(_FIRST), kind, str(document["metadata"]["name"]))


def _owned(document: dict[str, Any], addon: str) -> dict[str, Any]:
    labels = document["metadata"].setdefault("labels", {})
    labels.update({OWNER_LABEL: OWNER, ADDON_LABEL: addon})
    return document


def _without_placeholders(value: Any) -> Any:
    """Upstream prints what its generator left empty, and placeholders where the add-on itself puts the authority of its webhooks."""
    if isinstance(value, dict):
        return {key: _without_placeholders(item) for key, item in value.items() if key not in ("caBundle", "creationTimestamp")}
    if isinstance(value, list):
        return [_without_placeholders(item) for item in value]
    return value


def _relocation(wish: Wish) -> dict[str, str]:
    """Repository of each image that the bundle holds to its name in the private registry."""
    found = {}
    for image in wish.images:
        reference = Reference.parse(image)
        digest = wish.digests.get(image)
        found[reference.repository] = f"{wish.login.registry}/{reference.repository}@{digest}" if digest else f"{wish.login.registry}/{reference.local}"
    return found


def _pod_spec(document: Mapping[str, Any]) -> Optional[dict[str, Any]]:
    if document["kind"] == "Pod":
        return document.setdefault("spec", {})  # type: ignore[attr-defined, no-any-return]
    if document["kind"] in WORKLOADS:
        return document["spec"]["template"]["spec"]  # type: ignore[no-any-return]
    return None


def _relocate(spec: dict[str, Any], relocated: Mapping[str, str], problems: list[str], where: str) -> None:
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        image = str(container.get("image", ""))
        try:
            repository = Reference.parse(image).repository
        except UsageError as error:
            problems.append(f"{where}: {error}")
            continue
        if repository in relocated:
            container["image"] = relocated[repository]
        else:
            problems.append(f"{where} uses the image {image}, which is not among those of the bundle: {', '.join(sorted(relocated))}")
    spec["imagePullSecrets"] = [{"name": PULL_SECRET}]


def _relocate_texts(document: dict[str, Any], relocated: Mapping[str, str], problems: list[str]) -> None:
    """Pods that a program makes from a template in its configuration."""
    for key, text in (document.get("data") or {}).items():
        if not isinstance(text, str) or "image:" not in text:
            continue
        pods = parse_documents(text)
        for pod in pods:
            template = _pod_spec(pod)
            if template is not None:
                _relocate(template, relocated, problems, f"{document['metadata']['name']}, {key}")
        if len(pods) == 1:
            document["data"][key] = to_yaml(pods[0])


@dataclass
class Result:
    """What was, or would be, done."""

    diff: ObjectDiff
    changed: bool = False
    waited: float = 0.0


class Installer:
    """Brings one add-on into one cluster, or takes it away. C(sleep) is given by tests."""

    def __init__(self, api: KubeApi, *, timeout: float = 300.0, sleep: Callable[[float], None] = time.sleep) -> None:
        self.api = api
        self.timeout = timeout
        self.sleep = sleep

    def ensure(self, wish: Wish, *, check: bool = False) -> Result:
        """All objects are there and all its workloads are ready, or run where the Service leads to them all the same."""
        documents, settings = documents_of(wish), settings_of(wish)
        cluster = Cluster(self.api, "default")
        self._refuse_foreign(cluster, wish, [*documents, *settings])
        early = bool(wish.serving) and not _serves(cluster, documents)
        for document in documents:
            if early and document["kind"] == "Service" and document["metadata"]["name"] == wish.serving:
                document["spec"]["publishNotReadyAddresses"] = True
        diff = compare(cluster, [*documents, *settings])
        ours = {object_id(document, "default") for document in wish.secrets}
        for identity, wanted in _secrets(documents, ours):
            live = cluster.live(wanted)
            if live is not None and (live.get("data") or {}) != wanted["data"]:
                diff.changed.append((identity, [("data", "differs", "")]))
        result = Result(diff, changed=bool(diff))
        if check:
            return result
        touched = {identity for identity, _more in [*diff.created, *diff.changed]}
        self._apply([item for item in documents if object_id(item, "default") in touched])
        try:
            result.waited = self._wait(documents, running=early, replaced=bool(wish.objects))
        except AddonError as error:
            raise AddonError([*error.problems, *filter(None, [wish.hint])]) from error
        self._apply([item for item in settings if object_id(item, "default") in touched], webhooks=True)
        return result

    def addresses(self, wish: Wish) -> dict[str, list[str]]:
        """What the cluster gave to the wanted Services of type LoadBalancer; nothing as long as it has given none."""
        cluster, found = Cluster(self.api, "default"), {}
        for document in wish.objects:
            if document["kind"] == "Service" and (document.get("spec") or {}).get("type") == "LoadBalancer":
                given = ((((cluster.live(document) or {}).get("status") or {}).get("loadBalancer") or {}).get("ingress")) or []
                found[str(document["metadata"]["name"])] = [str(item.get("ip") or item.get("hostname")) for item in given]
        return found

    def remove(self, addon: str, *, check: bool = False) -> list[str]:
        """Take away what carries our label and the name of the add-on, wherever the cluster has it; neither manifest nor registry is needed."""
        found = sorted(self._labelled(addon), key=lambda item: _rank(item[1]), reverse=True)
        for path, _document in found if not check else ():
            try:
                self.api.request("DELETE", path, {"propagationPolicy": "Foreground"})
            except KubeError as error:
                # A definition takes its objects along.
                if error.status != 404:
                    raise
        return [f"{document['kind']}/{document['metadata']['name']}" for _path, document in found]

    def _labelled(self, addon: str) -> list[tuple[str, dict[str, Any]]]:
        found = []
        query = {"labelSelector": f"{OWNER_LABEL}={OWNER},{ADDON_LABEL}={addon}"}
        for base in self._api_versions():
            for resource in self._resources(base):
                if "/" in resource["name"] or not {"list", "delete"} <= set(resource.get("verbs") or []):
                    continue
                try:
                    items = self.api.request("GET", f"{base}/{resource['name']}", query).get("items") or []
                except KubeError as error:
                    if error.status in (403, 404, 405):
                        continue
                    raise
                for item in items:
                    if item["metadata"].get("ownerReferences") or item["metadata"].get("deletionTimestamp"):
                        continue  # goes with its owner
                    where = f"/namespaces/{quote(item['metadata']['namespace'])}" if resource["namespaced"] else ""
                    found.append((f"{base}{where}/{resource['name']}/{quote(item['metadata']['name'])}", {**item, "kind": resource["kind"]}))
        return found

    def _resources(self, base: str) -> list[dict[str, Any]]:
        try:
            return list(self.api.request("GET", base).get("resources") or [])
        except KubeError as error:
            # Served by somebody else's program that is down, or gone with its definition since the groups were listed.
            if error.status in (404, 503):
                return []
            raise

    def _api_versions(self) -> list[str]:
        groups = self.api.request("GET", "/apis").get("groups") or []
        return ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]

    def _refuse_foreign(self, cluster: Cluster, wish: Wish, documents: Sequence[Mapping[str, Any]]) -> None:
        problems = []
        # A namespace of a role goes when the add-on goes, with all that is in it.
        own = {object_id(document, "default") for document in (*wish.objects, *wish.secrets)}
        for document in documents:
            identity = object_id(document, "default")
            if document["kind"] not in (*WORKLOADS, "StorageClass", "IPAddressPool") and identity not in own:
                continue
            live = cluster.live(document)
            if live is None or _is_ours(live):
                continue
            # Where no manifest comes, nobody else brings the same.
            variable = "circleci_storage_class" if wish.default_storage_class else "circleci_load_balancer"
            remedy = f"Set {variable}: provided to use it, or take it away." if wish.manifest else "Take it away, or give it another name."
            problems.append(f"{wish.name}: {identity} is in the cluster already and was not made by this collection. {remedy}")
        if wish.default_storage_class:
            problems += self._other_defaults(wish)
        if problems:
            raise AddonError(problems)

    def _other_defaults(self, wish: Wish) -> list[str]:
        names = [
            str(item["metadata"]["name"])
            for item in self.api.request("GET", "/apis/storage.k8s.io/v1/storageclasses").get("items", [])
            if (item["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true" and item["metadata"]["name"] != wish.default_storage_class
        ]
        if not names:
            return []
        return [
            f"{wish.name}: the cluster has the default StorageClass {', '.join(names)} already. Set circleci_storage_class: provided to use it, "
            f"or take its annotation {DEFAULT_CLASS} away."
        ]

    def _path(self, cluster: Cluster, document: Mapping[str, Any]) -> str:
        path = cluster.path(document)
        if path is None:
            raise KubeError(404, f"the API does not serve {document['kind']} of {document['apiVersion']}")
        return path

    def _apply(self, documents: Sequence[Mapping[str, Any]], *, webhooks: bool = False) -> None:
        # A definition made a moment ago is served by a fresh look only.
        cluster = Cluster(self.api, "default")
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        deadline = self.timeout
        for document in documents:
            while True:
                try:
                    self.api.request("PATCH", self._path(cluster, document), query, document, APPLY_PATCH)
                    break
                except KubeError as error:
                    starting = error.status == 404 or (webhooks and error.status in _WEBHOOK_STARTS)
                    if not starting or deadline <= 0:
                        raise
                    deadline -= 1.0
                    self.sleep(1.0)
                    cluster = Cluster(self.api, "default")

    def _wait(self, documents: Sequence[Mapping[str, Any]], *, running: bool, replaced: bool) -> float:
        waited = 0.0
        by_namespace: dict[str, list[Mapping[str, Any]]] = {}
        for document in documents:
            if document["kind"] in WORKLOADS:
                by_namespace.setdefault(str(document["metadata"].get("namespace", "default")), []).append(document)
        problems = []
        for namespace, workloads in by_namespace.items():
            patience = Patience(total=self.timeout, image=60.0, unschedulable=60.0, poll=1.0)
            waiter = Waiter(self.api, namespace, targets_of(workloads), patience=patience, sleep=self.sleep, running=running, replaced=replaced)
            outcome = waiter.wait()
            waited += outcome.waited
            problems += [f"{namespace}: {problem}" for problem in outcome.problems]
        if problems:
            raise AddonError(problems)
        return waited


def _secrets(documents: Sequence[Mapping[str, Any]], ours: Collection[ObjectId]) -> list[tuple[ObjectId, Mapping[str, Any]]]:
    """Secrets whose values are ours. Those of a manifest are filled by the add-on itself."""
    named = [(object_id(document, "default"), document) for document in documents if document["kind"] == "Secret"]
    return [(identity, document) for identity, document in named if identity.name == PULL_SECRET or identity in ours]


def _serves(cluster: Cluster, documents: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a pod of each workload is ready."""
    live = [cluster.live(document) for document in documents if document["kind"] in WORKLOADS]
    return all(((item or {}).get("status") or {}).get("readyReplicas") for item in live)


def _is_ours(live: Mapping[str, Any]) -> bool:
    return ((live.get("metadata") or {}).get("labels") or {}).get(OWNER_LABEL) == OWNER
