# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The objects of a manifest: reading, comparing with the cluster, masking."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional
from urllib.parse import quote

from .kube import KubeApi, KubeError, get_or_none, split_api_version

try:
    import yaml

    HAS_YAML = True
except ImportError:  # pragma: no cover
    HAS_YAML = False

MASK = "********"

# Environment variables that the vendor's support bundle blanks too: some secrets stand in pod specs as plain values.
SECRET_NAME = re.compile(
    r"SESSION_COOKIE_KEY|CLIENT_ID|CLIENT_SECRET|PUSHER__(SECRET|KEY)|DEFAULT_APP_(SECRET|KEY)|KEYSET__|JSON_WEB_KEYS|PGPASSWORD"
    r"|PASSWORD|PASSWD|SMTP__PASS|TOKEN|ENCRYPTION_KEY|SEGMENT_API_KEY|SSL_CERT_KEY|ACCESS_KEY|SECRET|PRIVATE_KEY|CREDENTIAL",
    re.IGNORECASE,
)
URI_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]+:)[^\s@/]+(@)", re.IGNORECASE)

PLURALS = {
    "Deployment": "deployments",
    "StatefulSet": "statefulsets",
    "DaemonSet": "daemonsets",
    "Job": "jobs",
    "CronJob": "cronjobs",
    "Secret": "secrets",
    "ConfigMap": "configmaps",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "NetworkPolicy": "networkpolicies",
    "Ingress": "ingresses",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "Pod": "pods",
    "PriorityClass": "priorityclasses",
    "StorageClass": "storageclasses",
    "Namespace": "namespaces",
    "CustomResourceDefinition": "customresourcedefinitions",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
}
CLUSTER_SCOPED = frozenset(
    {
        "ClusterRole", "ClusterRoleBinding", "PriorityClass", "StorageClass", "Namespace", "CustomResourceDefinition",
        "ValidatingWebhookConfiguration",
    }
)  # fmt: skip
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")

_QUANTITY = re.compile(r"(-?\d+(?:\.\d+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$")
_FACTORS = {
    "m": 1e-3, "k": 1e3, "Ki": 2.0**10, "M": 1e6, "Mi": 2.0**20, "G": 1e9, "Gi": 2.0**30, "T": 1e12, "Ti": 2.0**40,
    "P": 1e15, "Pi": 2.0**50,
}
_EMPTY: tuple[Any, ...] = (None, {}, [], "", False, 0)


def parse_documents(text: str) -> list[dict[str, Any]]:
    """The objects of a manifest, lists taken apart."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: list[dict[str, Any]] = []
    for document in yaml.load_all(text, Loader=loader):
        if not isinstance(document, dict) or not document.get("kind"):
            continue
        if document["kind"] == "List":
            found += [item for item in document.get("items") or [] if isinstance(item, dict)]
        else:
            found.append(document)
    return found


def to_yaml(document: Any) -> str:
    return str(yaml.safe_dump(document, sort_keys=True, default_flow_style=False, width=120))


@dataclass(frozen=True)
class ObjectId:
    kind: str
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


def object_id(document: Mapping[str, Any], namespace: str) -> ObjectId:
    metadata = document.get("metadata") or {}
    kind = str(document["kind"])
    where = "" if kind in CLUSTER_SCOPED else str(metadata.get("namespace") or namespace)
    return ObjectId(kind, str(metadata.get("name")), where)


class Cluster:
    """Live objects, listed once per kind."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self._lists: dict[tuple[str, str, str], Optional[dict[str, dict[str, Any]]]] = {}
        self._resources: dict[str, dict[str, tuple[str, bool]]] = {}

    def _base(self, api_version: str) -> str:
        group, version = split_api_version(api_version)
        return f"/apis/{group}/{version}" if group else f"/api/{version}"

    def _resource(self, api_version: str, kind: str) -> Optional[tuple[str, bool]]:
        """Plural and whether it is namespaced; None when the API does not serve the kind."""
        if kind in PLURALS:
            return PLURALS[kind], kind not in CLUSTER_SCOPED
        if api_version not in self._resources:
            found = get_or_none(self.api, self._base(api_version))
            rows = (found or {}).get("resources") or []
            self._resources[api_version] = {
                row["kind"]: (row["name"], bool(row["namespaced"])) for row in rows if "/" not in row["name"]
            }
        return self._resources[api_version].get(kind)

    def served(self, api_version: str, kind: str) -> bool:
        """Whether the API knows a kind (a custom resource may lack its definition)."""
        return self._resource(api_version, kind) is not None

    def path(self, document: Mapping[str, Any]) -> Optional[str]:
        """Where the object is written to; None when the API does not serve its kind."""
        api_version, identity = str(document.get("apiVersion") or "v1"), object_id(document, self.namespace)
        resource = self._resource(api_version, identity.kind)
        if resource is None:
            return None
        plural, namespaced = resource
        where = f"/namespaces/{quote(identity.namespace)}" if namespaced else ""
        return f"{self._base(api_version)}{where}/{plural}/{quote(identity.name)}"

    def live(self, document: Mapping[str, Any]) -> Optional[dict[str, Any]]:
        """The object as the cluster has it, or None."""
        api_version, identity = str(document.get("apiVersion") or "v1"), object_id(document, self.namespace)
        resource = self._resource(api_version, identity.kind)
        if resource is None:
            return None
        plural, namespaced = resource
        base = self._base(api_version)
        if not namespaced:
            found = get_or_none(self.api, f"{base}/{plural}/{quote(identity.name)}")
            return found if isinstance(found, dict) else None
        key = (base, plural, identity.namespace)
        if key not in self._lists:
            self._lists[key] = self._list(f"{base}/namespaces/{identity.namespace}/{plural}")
        listed = self._lists[key]
        if listed is None:
            found = get_or_none(self.api, f"{base}/namespaces/{identity.namespace}/{plural}/{quote(identity.name)}")
            return found if isinstance(found, dict) else None
        return listed.get(identity.name)

    def _list(self, path: str) -> Optional[dict[str, dict[str, Any]]]:
        try:
            answer = self.api.request("GET", path)
        except KubeError as error:
            if error.status == 404:
                return {}
            if error.status == 403:
                return None  # single objects may still be readable
            raise
        return {item["metadata"]["name"]: item for item in answer.get("items", [])}


def _number(value: Any) -> Optional[float]:
    if isinstance(value, bool):
        return None
    match = _QUANTITY.match(str(value))
    return float(match.group(1)) * _FACTORS.get(match.group(2) or "", 1.0) if match else None


def _same_scalar(want: Any, have: Any, path: str) -> bool:
    if want == have:
        return True
    if ".requests." in path or ".limits." in path or path.endswith((".sizeLimit", ".storage")):
        left, right = _number(want), _number(have)
        return left is not None and left == right
    return False


def _identity(item: Any) -> Any:
    if not isinstance(item, dict):
        return None
    for keys in (("name",), ("containerPort", "protocol"), ("port", "protocol"), ("mountPath",), ("key",), ("ip",)):
        if keys[0] in item:
            return tuple(item.get(key) for key in keys if key != "protocol")
    return None


def differences(want: Any, have: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Where the cluster does not hold what is wanted. What the cluster adds of its own is no difference."""
    if have is None and want in _EMPTY:
        return []
    if isinstance(want, dict) and isinstance(have, dict):
        found = []
        for key, value in want.items():
            below = f"{path}.{key}" if path else str(key)
            if _ignored(below, key):
                continue
            found += differences(value, have.get(key), below)
        return found
    if isinstance(want, list) and isinstance(have, list):
        return _list_differences(want, have, path)
    return [] if _same_scalar(want, have, path) else [(path, have, want)]


def _ignored(path: str, key: str) -> bool:
    # Checksums of Secrets roll with every rendering; what they stand for is compared itself.
    return key.startswith("checksum/") or path in ("status", "apiVersion", "kind", "metadata.namespace")


def _list_differences(want: list[Any], have: list[Any], path: str) -> list[tuple[str, Any, Any]]:
    identities = [_identity(item) for item in want]
    if want and all(identity is not None for identity in identities) and len(set(identities)) == len(want):
        by_identity = {_identity(item): item for item in have}
        found = []
        for identity, item in zip(identities, want):
            label = "-".join(str(part) for part in identity)
            found += differences(item, by_identity.get(identity), f"{path}[{label}]")
        return found
    if len(want) != len(have):
        return [(path, have, want)]
    found = []
    for index, (left, right) in enumerate(zip(want, have)):
        found += differences(left, right, f"{path}[{index}]")
    return found


def comparable(document: Mapping[str, Any]) -> dict[str, Any]:
    """An object without what is never compared."""
    result = {key: value for key, value in document.items() if key != "status"}
    if document.get("kind") == "Secret":
        # A rendering without the cluster makes new random values; those of the cluster are the truth.
        result.pop("data", None)
        result.pop("stringData", None)
    if document.get("kind") == "Job":
        # Its template cannot be changed; only whether it is there counts.
        result.pop("spec", None)
    return result


class Masker:
    """Hides secrets in objects and texts."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # Short ones would blank harmless words.
        unique = {text for secret in secrets for text in [secret, *secret.splitlines()] if len(text) >= 8}
        self._secrets = sorted(unique, key=len, reverse=True)

    def text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return URI_PASSWORD.sub(rf"\1{MASK}\2", text)

    def value(self, value: Any, path: str = "") -> Any:
        if isinstance(value, str):
            return MASK if self._named_secret(path) else self.text(value)
        if isinstance(value, dict):
            hidden = "name" in value and "value" in value and SECRET_NAME.search(str(value["name"]))
            return {
                key: MASK if hidden and key == "value" and item not in (None, "") else self.value(item, f"{path}.{key}")
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self.value(item, path) for item in value]
        return value

    @staticmethod
    def _named_secret(path: str) -> bool:
        """A path such as C(…env[PGPASSWORD].value)."""
        match = re.search(r"env\[([^\]]+)\]\.value$", path)
        return bool(match and SECRET_NAME.search(match.group(1)))

    def document(self, document: Mapping[str, Any]) -> dict[str, Any]:
        result = dict(document)
        if document.get("kind") == "Secret":
            for part in ("data", "stringData"):
                if isinstance(document.get(part), dict):
                    result[part] = dict.fromkeys(document[part], MASK)
            return result
        masked: dict[str, Any] = self.value(result)
        return masked


@dataclass
class ObjectDiff:
    """What a manifest means for the cluster. C(changed): object, then path, before, after."""

    created: list[tuple[ObjectId, dict[str, Any]]]
    changed: list[tuple[ObjectId, list[tuple[str, Any, Any]]]]
    removed: list[ObjectId]

    def __bool__(self) -> bool:
        return bool(self.created or self.changed or self.removed)

    def names(self) -> dict[str, list[str]]:
        return {
            "created": sorted(str(item) for item, _document in self.created),
            "changed": sorted(str(item) for item, _paths in self.changed),
            "removed": sorted(str(item) for item in self.removed),
        }

    def fingerprints(self) -> set[str]:
        """One text per difference, without its values."""
        found = {f"{item}|{path}" for item, rows in self.changed for path, _have, _want in rows}
        return found | {f"{item}|absent" for item, _document in self.created}

    def without(self, known: set[str]) -> ObjectDiff:
        """Without differences that were there right after the last successful run: what the cluster makes of the objects."""
        changed = []
        for item, rows in self.changed:
            kept = [row for row in rows if f"{item}|{row[0]}" not in known]
            if kept:
                changed.append((item, kept))
        created = [(item, document) for item, document in self.created if f"{item}|absent" not in known]
        return ObjectDiff(created, changed, self.removed)

    def texts(self, masker: Masker) -> tuple[str, str]:
        """Before and after, masked."""
        before, after = [], []
        for item, document in sorted(self.created, key=lambda row: str(row[0])):
            after.append(f"# {item}\n{to_yaml(masker.document(document))}")
        for item, rows in sorted(self.changed, key=lambda row: str(row[0])):
            before.append(f"# {item}\n" + "".join(_line(masker, path, have) for path, have, _want in rows))
            after.append(f"# {item}\n" + "".join(_line(masker, path, want) for path, _have, want in rows))
        before += [f"# {item}\npresent\n" for item in sorted(self.removed, key=str)]
        return "---\n".join(before), "---\n".join(after)


def _line(masker: Masker, path: str, value: Any) -> str:
    shown = masker.value(value, path)
    return f"{path}: {to_yaml(shown).strip() if isinstance(shown, (dict, list)) else shown}\n"


def compare(
    cluster: Cluster, wanted: Sequence[Mapping[str, Any]], earlier: Sequence[Mapping[str, Any]] = ()
) -> ObjectDiff:
    """What is wanted against what lives, and what an earlier manifest had that is wanted no more."""
    result = ObjectDiff([], [], [])
    seen = set()
    for document in wanted:
        identity = object_id(document, cluster.namespace)
        seen.add(identity)
        live = cluster.live(document)
        if live is None:
            result.created.append((identity, dict(document)))
            continue
        rows = differences(comparable(document), live)
        if rows:
            result.changed.append((identity, rows))
    for document in earlier:
        identity = object_id(document, cluster.namespace)
        annotations = (document.get("metadata") or {}).get("annotations") or {}
        if identity not in seen and annotations.get("helm.sh/resource-policy") != "keep" and cluster.live(document):
            result.removed.append(identity)
    return result
