# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
"""A strict stand-in for the Kubernetes API: it keeps objects, and refuses what the real one refuses."""

from __future__ import annotations

import base64
import copy
import re
from typing import Any, Callable

from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import KubeError

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")
KEY = re.compile(r"[-._a-zA-Z0-9]+$")
KINDS = {
    "namespaces": "Namespace",
    "secrets": "Secret",
    "configmaps": "ConfigMap",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "pods": "Pod",
    "services": "Service",
    "serviceaccounts": "ServiceAccount",
    "deployments": "Deployment",
    "statefulsets": "StatefulSet",
    "daemonsets": "DaemonSet",
    "jobs": "Job",
    "storageclasses": "StorageClass",
    "events": "Event",
    "poddisruptionbudgets": "PodDisruptionBudget",
    "priorityclasses": "PriorityClass",
    "clusterroles": "ClusterRole",
    "customresourcedefinitions": "CustomResourceDefinition",
}


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            # RFC 7396: a mapping that is not there yet is made, and takes no nulls over.
            target[key] = target[key] if isinstance(target.get(key), dict) else {}
            _merge(target[key], value)
        else:
            target[key] = copy.deepcopy(value)


class FakeKube:
    def __init__(self, *namespaces: str) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.forbidden: set[tuple[str, str]] = set()
        self.down = False
        self.hooks: list[Callable[[str, str], Any]] = []
        self.logs: dict[str, str] = {}
        for name in namespaces:
            self.put(f"/api/v1/namespaces/{name}", {"metadata": {"name": name}})

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        body = copy.deepcopy(body)
        body.setdefault("metadata", {}).setdefault("name", path.rpartition("/")[2])
        self.objects[path] = body
        return body

    def secret(self, namespace: str, name: str, data: dict[str, str], **metadata: Any) -> None:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.put(f"/api/v1/namespaces/{namespace}/secrets/{name}", {"metadata": {"name": name, **metadata}, "data": encoded})

    def writes(self) -> list[tuple[str, str]]:
        return [entry for entry in self.requests if entry[0] != "GET"]

    def request(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Any:
        self.requests.append((method, path))
        if self.down:
            raise KubeError(0, "connection refused", f"{method} {path}")
        for hook in self.hooks:
            answer = hook(method, path)
            if answer is not None:
                return answer
        kind = self._kind(path)
        if (method, kind) in self.forbidden:
            raise KubeError(403, f'{kind} is forbidden: User "tester" cannot {method.lower()}', f"{method} {path}")
        if path.endswith("/log"):
            return self.logs.get(path.split("/")[-2], "")
        if method == "GET":
            return self._get(path, query or {})
        if method == "POST":
            return self._post(path, body)
        if method == "PATCH" and content_type == "application/apply-patch+yaml":
            return self._server_side_apply(path, query or {}, body)
        if method == "PATCH":
            if content_type != "application/merge-patch+json":
                raise KubeError(415, f"unsupported media type {content_type}")
            found = self._need(path)
            _merge(found, body)
            self._validate(path, found)
            return copy.deepcopy(found)
        if method == "PUT":
            self._need(path)
            self._validate(path, body)
            return copy.deepcopy(self.put(path, body))
        if method == "DELETE":
            self._need(path)
            return self.objects.pop(path)
        raise KubeError(405, "method not allowed")

    def _server_side_apply(self, path: str, query: dict[str, str], body: dict[str, Any]) -> Any:
        if not query.get("fieldManager"):
            raise KubeError(422, "fieldManager is required for apply patch")
        parts = path.strip("/").split("/")
        if "namespaces" in parts[:-2] and f"/api/v1/namespaces/{parts[parts.index('namespaces') + 1]}" not in self.objects:
            raise KubeError(404, f"namespaces {parts[parts.index('namespaces') + 1]!r} not found", f"PATCH {path}")
        if not body.get("kind") or not body.get("apiVersion") or body["metadata"]["name"] != parts[-1]:
            raise KubeError(400, "an applied object needs apiVersion, kind and the name of its path")
        self._validate(path, body)
        found = self.objects.setdefault(path, {"metadata": {"name": parts[-1]}})
        _merge(found, body)
        found["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
        return copy.deepcopy(self.objects[path])

    @staticmethod
    def _kind(path: str) -> str:
        parts = path.strip("/").split("/")
        for part in reversed(parts):
            if part in KINDS:
                return part
        return parts[-1]

    def _need(self, path: str) -> dict[str, Any]:
        if path not in self.objects:
            raise KubeError(404, f"{path} not found", path)
        return self.objects[path]

    def _get(self, path: str, query: dict[str, str]) -> Any:
        if path in self.objects:
            return copy.deepcopy(self.objects[path])
        if path.rpartition("/")[2] not in KINDS:
            raise KubeError(404, f"{path} not found", f"GET {path}")
        items = [
            copy.deepcopy(item)
            for name, item in sorted(self.objects.items())
            if name.rpartition("/")[0] == path and self._selected(item, query.get("labelSelector", ""))
        ]
        return {"kind": "List", "items": items}

    @staticmethod
    def _selected(item: dict[str, Any], selector: str) -> bool:
        labels = (item.get("metadata") or {}).get("labels") or {}
        for part in filter(None, selector.split(",")):
            key, _equal, value = part.partition("=")
            if labels.get(key) != value:
                return False
        return True

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        name = body["metadata"]["name"]
        full = f"{path}/{name}"
        if full in self.objects:
            raise KubeError(409, f"{name} already exists", f"POST {path}")
        parts = path.strip("/").split("/")
        if "namespaces" in parts[:-1]:
            namespace = parts[parts.index("namespaces") + 1]
            if f"/api/v1/namespaces/{namespace}" not in self.objects:
                raise KubeError(404, f'namespaces "{namespace}" not found', f"POST {path}")
        self._validate(full, body)
        self.objects[full] = copy.deepcopy(body)
        return copy.deepcopy(body)

    @staticmethod
    def _validate(path: str, body: dict[str, Any]) -> None:
        metadata = body["metadata"]
        if not NAME.match(metadata["name"]) or len(metadata["name"]) > 253:
            raise KubeError(422, f"{metadata['name']!r} is no valid name")
        for key, value in (metadata.get("labels") or {}).items():
            if not isinstance(value, str) or not LABEL.match(value):
                raise KubeError(422, f"label {key} has the value {value!r}")
        for key, value in (metadata.get("annotations") or {}).items():
            if not isinstance(value, str):
                raise KubeError(400, f"annotation {key} is no string")
        if "/secrets/" in path:
            for key, value in (body.get("data") or {}).items():
                if not KEY.match(key):
                    raise KubeError(422, f"data key {key!r}")
                base64.b64decode(value, validate=True)
            needed = {"kubernetes.io/tls": ("tls.crt", "tls.key"), "kubernetes.io/dockerconfigjson": (".dockerconfigjson",)}
            for key in needed.get(body.get("type", ""), ()):
                if key not in (body.get("data") or {}):
                    raise KubeError(422, f"Secret of type {body['type']} needs {key}")
