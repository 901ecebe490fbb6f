# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Proof before an install: nothing that the chart renders points outside, and all that it refers to is there."""

from __future__ import annotations

import concurrent.futures
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from ..operations.stores import POSTGRES, UNFINISHED, find_store, major_of
from .kube import KubeApi, KubeError, core, get_or_none
from .objects import Cluster, object_id

# What the chart asks for when nobody tells it otherwise; a pod that is given one of these looks outside.
VENDOR_HOSTS = re.compile(
    r"https?://(?:[a-z0-9.-]*\.)?(circleci-binary-releases\.s3\.amazonaws\.com|cciserver\.azurecr\.io|docker\.io|quay\.io|ghcr\.io"
    r"|registry\.k8s\.io|releases\.hashicorp\.com)(?![a-z0-9.-])"
)
DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})$")


@dataclass(frozen=True)
class Item:
    """One failing item. C(fix) is the values key (or the deed) that mends it."""

    kind: str
    what: str
    problem: str
    where: tuple[str, ...]
    fix: str

    def sentence(self) -> str:
        places = ", ".join(self.where[:3]) + (f" and {len(self.where) - 3} more" if len(self.where) > 3 else "")
        return f"{self.kind} {self.what}: {self.problem} (used by {places}). {self.fix}"

    def plain(self) -> dict[str, Any]:
        return {"kind": self.kind, "what": self.what, "problem": self.problem, "where": list(self.where), "fix": self.fix}


@dataclass
class Findings:
    items: list[Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)


def split_image(image: str) -> tuple[str, str, str]:
    """Registry (empty when the reference has none), path, and tag or digest."""
    digest = DIGEST.search(image)
    name = image[: digest.start()] if digest else image
    head, slash, rest = name.partition("/")
    registry, path = (head, rest) if slash and ("." in head or ":" in head or head == "localhost") else ("", name)
    last = path.rpartition("/")[2]
    tag = ""
    if ":" in last:
        path, _colon, tag = path.rpartition(":")
    return registry, path, digest.group(1) if digest else tag or "latest"


def pod_spec(document: Mapping[str, Any]) -> Optional[dict[str, Any]]:
    spec = document.get("spec") or {}
    kind = document.get("kind")
    if kind == "Pod":
        return dict(spec)
    if kind == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    template = (spec.get("template") or {}).get("spec") if isinstance(spec.get("template"), dict) else None
    return dict(template) if isinstance(template, dict) and "containers" in template else None


def flat(values: Any, path: str = "") -> Iterable[tuple[str, str]]:
    """Every text among values with its dotted key."""
    if isinstance(values, dict):
        for key, item in values.items():
            name = f'"{key}"' if "." in str(key) else str(key)
            yield from flat(item, f"{path}.{name}".lstrip("."))
    elif isinstance(values, list):
        for index, item in enumerate(values):
            yield from flat(item, f"{path}[{index}]")
    elif isinstance(values, str) and values:
        yield path, values


class KeyFinder:
    """Finds the values key behind an image: the one whose text is its repository, in the chart's defaults and ours."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._by_text: dict[str, list[str]] = {}
        for key, text in flat(dict(values)):
            self._by_text.setdefault(text, []).append(key)

    def key(self, image: str, own_registry_key: str = "global.container.registry") -> str:
        registry, path, _reference = split_image(image)
        for text in (f"{registry}/{path}" if registry else path, path, f"library/{path}", path.removeprefix("library/")):
            for key in self._by_text.get(text, []):
                if not key.endswith(("repository", "repo", "image", "Image", "name")):
                    continue
                parent = key.rpartition(".")[0]
                # A repository without its host has the host in a key beside it.
                beside = f"{parent}.registry"
                if text == path and registry and any(beside in keys for keys in self._by_text.values()):
                    return beside
                return key
        return own_registry_key


class Proof:
    """Collects everything that would fail."""

    def __init__(
        self,
        documents: Sequence[Mapping[str, Any]],
        *,
        namespace: str,
        registry: str,
        values: Mapping[str, Any],
        allowed_registries: Sequence[str] = (),
    ) -> None:
        self.documents = list(documents)
        self.namespace = namespace
        self.registry = registry.rstrip("/")
        self.allowed = [self.registry, *(name.rstrip("/") for name in allowed_registries)]
        self.finder = KeyFinder(values)
        self.findings = Findings()
        self._images: dict[str, set[str]] = {}
        self._secrets: dict[tuple[str, str], set[str]] = {}
        self._maps: dict[tuple[str, str], set[str]] = {}
        self._accounts: dict[str, set[str]] = {}
        self._priorities: dict[str, set[str]] = {}
        self._classes: dict[str, set[str]] = {}
        self._collect()

    @property
    def secret_references(self) -> Mapping[tuple[str, str], set[str]]:
        """Secrets that pods name, with the key (empty when all of them are meant) and the places."""
        return self._secrets

    # -- what the manifest refers to ------------------------------------------------------------------------------

    def _collect(self) -> None:
        for document in self.documents:
            place = f"{document['kind']}/{(document.get('metadata') or {}).get('name')}"
            spec = pod_spec(document)
            if spec is not None:
                self._pod(spec, place)
            elif document["kind"] not in ("ConfigMap", "Secret"):
                for image in _images_of(document):
                    self._images.setdefault(image, set()).add(place)
            if document["kind"] == "StatefulSet":
                for claim in (document.get("spec") or {}).get("volumeClaimTemplates") or []:
                    self._claim(claim.get("spec") or {}, place)
            if document["kind"] == "PersistentVolumeClaim":
                self._claim(document.get("spec") or {}, place)
        self.findings.images = sorted(self._images)
        self.findings.secrets = sorted({name for name, _key in self._secrets})

    def _claim(self, spec: Mapping[str, Any], place: str) -> None:
        if spec.get("volumeName") or spec.get("storageClassName") == "":
            return
        self._classes.setdefault(str(spec.get("storageClassName") or ""), set()).add(place)

    def _pod(self, spec: Mapping[str, Any], place: str) -> None:
        for image in _images_of(spec):
            self._images.setdefault(image, set()).add(place)
        for item in spec.get("imagePullSecrets") or []:
            name = item.get("name") if isinstance(item, dict) else item
            if not isinstance(item, dict):
                self._add("pull secret", str(item), "has the wrong form for Kubernetes", [place], "Correct global.imagePullSecrets.")
            if name:
                self._secrets.setdefault((str(name), ""), set()).add(place)
        account = spec.get("serviceAccountName")
        if account and account != "default":
            self._accounts.setdefault(str(account), set()).add(place)
        if spec.get("priorityClassName"):
            self._priorities.setdefault(str(spec["priorityClassName"]), set()).add(place)
        for group in ("initContainers", "containers"):
            for container in spec.get(group) or []:
                self._environment(container, place)
        for volume in spec.get("volumes") or []:
            self._volume(volume, place)

    def _environment(self, container: Mapping[str, Any], place: str) -> None:
        for variable in container.get("env") or []:
            source = variable.get("valueFrom") or {}
            self._reference(source.get("secretKeyRef"), self._secrets, place)
            self._reference(source.get("configMapKeyRef"), self._maps, place)
            found = VENDOR_HOSTS.search(str(variable.get("value") or ""))
            if found:
                self._outside(found.group(0), f"{place}, variable {variable.get('name')}")
        for text in [*(container.get("command") or []), *(container.get("args") or [])]:
            found = VENDOR_HOSTS.search(str(text))
            if found:
                self._outside(found.group(0), place)
        for source in container.get("envFrom") or []:
            self._reference(source.get("secretRef"), self._secrets, place, whole=True)
            self._reference(source.get("configMapRef"), self._maps, place, whole=True)

    @staticmethod
    def _reference(
        reference: Optional[Mapping[str, Any]], into: dict[tuple[str, str], set[str]], place: str, whole: bool = False
    ) -> None:
        if reference and not reference.get("optional"):
            key = "" if whole else str(reference.get("key") or "")
            into.setdefault((str(reference.get("name")), key), set()).add(place)

    def _volume(self, volume: Mapping[str, Any], place: str) -> None:
        sources = [volume, *((volume.get("projected") or {}).get("sources") or [])]
        for source in sources:
            for kind, into, name_key in (("secret", self._secrets, "secretName"), ("configMap", self._maps, "name")):
                part = source.get(kind)
                if not isinstance(part, dict) or part.get("optional"):
                    continue
                name = str(part.get(name_key) or part.get("name") or "")
                keys = [str(item.get("key")) for item in part.get("items") or []] or [""]
                for key in keys:
                    into.setdefault((name, key), set()).add(place)
        claim = volume.get("persistentVolumeClaim")
        if isinstance(claim, dict):
            self._maps.setdefault((f"claim:{claim.get('claimName')}", ""), set()).add(place)

    def _add(self, kind: str, what: str, problem: str, where: Iterable[str], fix: str) -> None:
        self.findings.items.append(Item(kind, what, problem, tuple(sorted(where)), fix))

    def _outside(self, url: str, place: str) -> None:
        key = next((key for key, text in ((key, text) for text, keys in self.finder._by_text.items() for key in keys) if text.startswith(url)), "")
        fix = f"Set {key} to an address of the site." if key else "Find the value that holds it and set it in circleci_values."
        self._add("address", url, "lies outside the site", [place], fix)

    # -- checks ---------------------------------------------------------------------------------------------------

    def check_prefixes(self) -> list[str]:
        """Images outside the private registry are noted; the others are returned."""
        inside = []
        for image, places in sorted(self._images.items()):
            if any(image.startswith(f"{prefix}/") for prefix in self.allowed):
                inside.append(image)
                continue
            key = self.finder.key(image)
            self._add("image", image, f"does not begin with {self.registry}/", places, f"Set {key} in circleci_values.")
        return inside

    def add_image(self, image: str, place: str) -> None:
        """An image that no pod shows: Nomad clients pull it."""
        self._images.setdefault(image, set()).add(place)
        self.findings.images = sorted(self._images)

    def check_images(self, images: Sequence[str], exists: Callable[[str, str], bool], parallel: int = 8) -> None:
        """Each image must be there. C(exists) gets path and tag or digest, and may raise with a reason."""

        def one(image: str) -> tuple[str, str]:
            _registry, path, reference = split_image(image)
            prefix = self.registry.partition("/")[2]
            path = path if not prefix or path.startswith(f"{prefix}/") else f"{prefix}/{path}"
            try:
                return image, "" if exists(path, reference) else "is not in the private registry"
            except Exception as error:
                return image, f"cannot be looked up ({error})"

        own = [image for image in images if image.startswith(f"{self.registry}/")]
        with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
            for image, problem in pool.map(one, own):
                if problem:
                    tag_key = self.finder.key(image, "").rpartition(".")[0]
                    other = f", or set {tag_key}.tag to one that is there" if tag_key else ""
                    fix = f"Run the mirror step with a bundle that holds it{other}."
                    self._add("image", image, problem, self._images.get(image, {"Nomad clients"}), fix)

    def check_cluster(self, api: KubeApi) -> None:
        """Secrets, configuration, accounts, classes, namespaces and kinds that are referred to must exist."""
        cluster = Cluster(api, self.namespace)
        rendered = {(str(doc["kind"]), str((doc.get("metadata") or {}).get("name"))): doc for doc in self.documents}
        self._check_secrets(api, rendered)
        self._check_maps(api, rendered)
        for account, places in sorted(self._accounts.items()):
            if ("ServiceAccount", account) not in rendered and get_or_none(api, core(self.namespace, "serviceaccounts", account)) is None:
                self._add("service account", account, "does not exist", places, "Make it before the install.")
        for name, places in sorted(self._priorities.items()):
            path = f"/apis/scheduling.k8s.io/v1/priorityclasses/{name}"
            if ("PriorityClass", name) not in rendered and not name.startswith("system-") and get_or_none(api, path) is None:
                self._add("priority class", name, "does not exist", places, "Make it before the install.")
        self._check_classes(api)
        self._check_namespaces(api, cluster)

    def check_postgresql(self, api: KubeApi, step: str = "") -> None:
        """The data of PostgreSQL open with one major version only. *step* is the one that the run brings them to before."""
        wanted = find_store(self.documents, POSTGRES)
        live = get_or_none(api, f"/apis/apps/v1/namespaces/{self.namespace}/statefulsets/{wanted.name}") if wanted else None
        running = find_store([live], POSTGRES) if live else None
        if wanted is None or live is None or running is None:
            return
        place = [f"StatefulSet/{wanted.name}"]
        unfinished = (live["metadata"].get("annotations") or {}).get(UNFINISHED)
        image, have, want = wanted.image, major_of(running.image), major_of(wanted.image)
        if unfinished and not step:
            problem = f"its data are on their way into version {want}, from restore point {unfinished}, and half of them may be missing"
            self._add("PostgreSQL", image, problem, place, "Run the verb upgrade again as it was begun, or the verb rollback.")
        elif have != want and str(want) != step:
            fix = (
                f'To go to {want}, leave circleci_postgresql_version at "{want}" and run the verb upgrade; to stay, set it to "{have}".'
                if want > have
                else f'Set circleci_postgresql_version to "{have}".'
            )
            self._add("PostgreSQL", image, f"version {have} runs, and its data do not open with version {want}", place, fix)

    def _check_secrets(self, api: KubeApi, rendered: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
        live: dict[str, Optional[dict[str, Any]]] = {}
        missing: dict[str, set[str]] = {}
        for (name, key), places in sorted(self._secrets.items()):
            if name not in live:
                live[name] = get_or_none(api, core(self.namespace, "secrets", name))
            found = live[name]
            made = rendered.get(("Secret", name))
            if found is None and made is None:
                missing.setdefault(name, set()).update(places)
                continue
            have = {*((found or {}).get("data") or {}), *((made or {}).get("data") or {}), *((made or {}).get("stringData") or {})}
            if key and key not in have:
                fix = f"It has {', '.join(sorted(have)) or 'no keys'}: run the verb secrets, or correct the Secret."
                self._add("Secret", f"{name}, key {key}", "does not exist", places, fix)
        for name, places in sorted(missing.items()):
            fix = self._secret_fix(name)
            self._add("Secret", name, f"does not exist in namespace {self.namespace}", places, fix)

    def _secret_fix(self, name: str) -> str:
        keys = [key for key in self.finder._by_text.get(name, []) if "ecret" in key]
        other = f", or set {keys[0]} to one that is there" if keys else ""
        return f"Run the verb secrets{other}."

    def _check_maps(self, api: KubeApi, rendered: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
        for (name, key), places in sorted(self._maps.items()):
            kind, plural = "ConfigMap", "configmaps"
            if name.startswith("claim:"):
                kind, plural, name = "PersistentVolumeClaim", "persistentvolumeclaims", name[len("claim:") :]
            made = rendered.get((kind, name))
            found = None if made is not None else get_or_none(api, core(self.namespace, plural, name))
            if made is None and found is None:
                if name == "kube-root-ca.crt":
                    continue  # every namespace gets it
                self._add(kind, name, f"does not exist in namespace {self.namespace}", places, "Make it before the install.")
            elif key and key not in {*((made or found or {}).get("data") or {}), *((made or found or {}).get("binaryData") or {})}:
                self._add(kind, f"{name}, key {key}", "does not exist", places, "Correct it before the install.")

    def _check_classes(self, api: KubeApi) -> None:
        if not self._classes:
            return
        try:
            listed = api.request("GET", "/apis/storage.k8s.io/v1/storageclasses").get("items", [])
        except KubeError as error:
            if error.status == 403:
                self.findings.notes.append("StorageClasses could not be read with the rights of circleci_kubeconfig; they are not proved.")
                return
            raise
        names = {item["metadata"]["name"] for item in listed}
        mark = "storageclass.kubernetes.io/is-default-class"
        default = [item for item in listed if (item["metadata"].get("annotations") or {}).get(mark) == "true"]
        for name, places in sorted(self._classes.items()):
            if name and name not in names:
                have = ", ".join(sorted(names)) or "none"
                self._add("StorageClass", name, f"does not exist (there are: {have})", places, "Correct it in circleci_values.")
            elif not name and not default:
                fix = "Mark one as default: the chart has no values key for it."
                self._add("StorageClass", "(the default one)", "does not exist", places, fix)

    def _check_namespaces(self, api: KubeApi, cluster: Cluster) -> None:
        seen: dict[str, set[str]] = {}
        kinds: dict[tuple[str, str], set[str]] = {}
        own_kinds = {
            str(((document.get("spec") or {}).get("names") or {}).get("kind"))
            for document in self.documents
            if document["kind"] == "CustomResourceDefinition"
        }
        for document in self.documents:
            identity = object_id(document, self.namespace)
            if identity.namespace:
                seen.setdefault(identity.namespace, set()).add(str(identity))
            kinds.setdefault((str(document.get("apiVersion")), identity.kind), set()).add(str(identity))
        for name, places in sorted(seen.items()):
            try:
                found = get_or_none(api, f"/api/v1/namespaces/{name}")
            except KubeError as error:
                if error.status == 403:
                    continue
                raise
            if found is None and ("Namespace", name) not in {(doc["kind"], (doc.get("metadata") or {}).get("name")) for doc in self.documents}:
                self._add("namespace", name, "does not exist", places, "Run the verb secrets, which makes the one of the release.")
        for (version, kind), places in sorted(kinds.items()):
            if kind not in own_kinds and not cluster.served(version, kind):
                self._add("kind", f"{kind} ({version})", "is not known to this cluster", places, "Install its definition, or switch off what uses it.")


def _images_of(node: Any) -> Iterable[str]:
    """Every text under a key named image, wherever it stands."""
    if isinstance(node, dict):
        for key, item in node.items():
            if key == "image" and isinstance(item, str) and item:
                yield item
            elif key == "image" and isinstance(item, dict) and isinstance(item.get("reference"), str):
                yield item["reference"]
            else:
                yield from _images_of(item)
    elif isinstance(node, list):
        for item in node:
            yield from _images_of(item)
