# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether each node of a cluster pulls an image from the private registry: by pulling one on each, and taking the pods away again."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..helm.kube import KubeApi, KubeError, core

LABELS = {"app.kubernetes.io/managed-by": "onprem.circleci_server", "app.kubernetes.io/component": "pull-proof"}
SELECTOR = ",".join(f"{name}={value}" for name, value in LABELS.items())
PATIENCE = 30.0
"""Seconds in which a pull without the Secret is not the last word: the kubelet tries again after 10."""
_HINTS = (
    (
        ("x509", "certificate"),
        "the node does not trust the registry's certificate: put the node into circleci_cluster_nodes; where nodes cannot be edited, give the registry a "
        "certificate of a public authority",
    ),
    (("server gave HTTP response",), "the registry speaks plain http on that port, which nodes refuse: give it a certificate"),
    (("unauthorized", "401", "denied", "403"), "the login is refused: check circleci_registry_password and its user, then run the verb secrets"),
    (("no such host", "lookup"), "the node cannot resolve the name: check the DNS of the nodes and circleci_registry_host"),
    (("not found", "manifest unknown"), "the registry lacks the image: load the bundle again"),
    (("timeout", "i/o", "refused", "unreachable"), "the node does not reach the registry: check routes and the rule registry-in of its packet filter"),
)


@dataclass(frozen=True)
class Refusal:
    """A node that did not pull, and why."""

    node: str
    message: str

    @property
    def hint(self) -> str:
        return next((hint for words, hint in _HINTS if any(word in self.message for word in words)), "look at the events of the node")


def pod(node: str, image: str, pull_secret: str) -> dict[str, Any]:
    """A pod that is bound to *node* past the scheduler, and asks the registry each time."""
    name = f"onprem-circleci-pull-{hashlib.sha256(node.encode()).hexdigest()[:10]}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": LABELS},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "imagePullSecrets": [{"name": pull_secret}] if pull_secret else [],
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "pull",
                    "image": image,
                    "imagePullPolicy": "Always",
                    "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }


def verdict(item: Mapping[str, Any]) -> str:
    """``pulled``, empty while it is open, or why it was not pulled."""
    status = item.get("status") or {}
    states = status.get("containerStatuses") or [{}]
    state = states[0].get("state") or {}
    waiting = state.get("waiting") or {}
    # The image is there as soon as the container was made of it, whatever the container does then.
    if states[0].get("imageID") or "running" in state or "terminated" in state or waiting.get("reason") in ("CreateContainerError", "RunContainerError"):
        return "pulled"
    if waiting.get("reason") in ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"):
        return str(waiting.get("message") or waiting["reason"])
    if status.get("phase") == "Failed":
        return f"{status.get('reason') or 'Failed'}: {status.get('message') or 'the node took no pod'}"
    return ""


def _events(api: KubeApi, namespace: str, name: str) -> Sequence[Mapping[str, Any]]:
    try:
        found: Sequence[Mapping[str, Any]] = api.request("GET", core(namespace, "events"), {"fieldSelector": f"involvedObject.name={name}"}).get("items") or ()
    except KubeError:
        return ()
    return found


def last_word(api: KubeApi, namespace: str, name: str) -> str:
    """The message of the last failed pull, which says more than that it is being tried again."""
    events = _events(api, namespace, name)
    said = [str(event.get("message") or "") for event in events if event.get("reason") == "Failed" and "ailed to pull" in str(event.get("message"))]
    return said[-1] if said else ""


def without_secret(api: KubeApi, namespace: str, name: str) -> bool:
    """Whether the kubelet has ever lacked the Secret: a node may read it only some moments after a pod that names it was bound to the node."""
    return any(event.get("reason") == "FailedToRetrieveImagePullSecret" for event in _events(api, namespace, name))


def prove(
    api: KubeApi,
    namespace: str,
    image: str,
    pull_secret: str,
    seconds: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Sequence[str], list[Refusal]]:
    """Nodes that were asked, and those that did not pull. Nothing is left behind."""
    nodes = [str(item["metadata"]["name"]) for item in api.request("GET", "/api/v1/nodes").get("items") or ()]
    _clean(api, namespace)
    open_nodes: dict[str, str] = {}
    refusals = []
    try:
        for node in nodes:
            wish = pod(node, image, pull_secret)
            api.request("POST", core(namespace, "pods"), None, wish)
            open_nodes[wish["metadata"]["name"]] = node
        begun = clock()
        end = begun + seconds
        while open_nodes:
            for item in api.request("GET", core(namespace, "pods"), {"labelSelector": SELECTOR}).get("items") or ():
                name = str(item["metadata"]["name"])
                said = verdict(item) if name in open_nodes else ""
                if said not in ("", "pulled") and clock() - begun < min(PATIENCE, seconds) and without_secret(api, namespace, name):
                    continue
                if said:
                    node = open_nodes.pop(name)
                    if said != "pulled":
                        refusals.append(Refusal(node, last_word(api, namespace, name) or said))
            if open_nodes and clock() >= end:
                refusals += [Refusal(node, f"no answer within {seconds:.0f} seconds") for node in open_nodes.values()]
                break
            if open_nodes:
                sleep(1)
    finally:
        _clean(api, namespace)
    return nodes, sorted(refusals, key=lambda item: item.node)


def _clean(api: KubeApi, namespace: str) -> None:
    for item in api.request("GET", core(namespace, "pods"), {"labelSelector": SELECTOR}).get("items") or ():
        # One that has gone meanwhile is what is wanted.
        with contextlib.suppress(KubeError):
            api.request("DELETE", core(namespace, "pods", str(item["metadata"]["name"])), {"gracePeriodSeconds": "0"})
