# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The databases of a release in its cluster: which StatefulSet, which pod, which password, which volume."""

from __future__ import annotations

import base64
import copy
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from ..helm.kube import MERGE_PATCH, KubeApi, KubeError, core, get_or_none
from ..helm.releases import StoredRelease
from ..helm.waiter import IMAGE_REASONS, Patience
from .kubectl import OperationError, Place, Pods
from .mongodb import Mongo
from .postgres import Postgres

POSTGRES, MONGODB = "postgresql", "mongodb"
UNFINISHED = "onprem.circleci-server/unfinished-upgrade"
"""Annotation of the StatefulSet of a database whose data are on their way into another version; the restore point that they come from."""


@dataclass(frozen=True)
class StatefulStore:
    """The StatefulSet of a database, as a manifest has it."""

    product: str
    name: str
    container: str
    image: str
    claims: tuple[str, ...]

    @property
    def place(self) -> Place:
        return Place(f"{self.name}-0", self.container)


def find_store(documents: Sequence[Mapping[str, Any]], product: str) -> Optional[StatefulStore]:
    """The database *product* of a manifest; None when the release does not bring it."""
    for document in documents:
        metadata = document.get("metadata") or {}
        if document.get("kind") != "StatefulSet" or (metadata.get("labels") or {}).get("app.kubernetes.io/name") != product:
            continue
        spec = document.get("spec") or {}
        containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or []
        container = next((item for item in containers if item.get("name") == product), containers[0] if containers else None)
        if container is None:
            continue
        name = str(metadata["name"])
        claims = tuple(f"{claim['metadata']['name']}-{name}-0" for claim in spec.get("volumeClaimTemplates") or [])
        return StatefulStore(product, name, str(container["name"]), str(container.get("image") or ""), claims)
    return None


def tag_of(image: str) -> str:
    """The tag of an image's name, empty when it has none."""
    last = image.partition("@")[0].rsplit("/", 1)[-1]
    return last.partition(":")[2]


def value_at(values: Mapping[str, Any], path: str, default: Any = None) -> Any:
    here: Any = values
    for part in path.split("."):
        here = here.get(part) if isinstance(here, Mapping) else None
    return default if here is None else here


class Databases:
    """The databases of one release. C(clock) and C(sleep) are given by tests."""

    def __init__(
        self,
        api: KubeApi,
        pods: Pods,
        namespace: str,
        release: StoredRelease,
        documents: Sequence[Mapping[str, Any]],
        *,
        patience: float = 900.0,
        progress: Optional[Callable[[dict[str, Any]], None]] = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.api = api
        self.pods = pods
        self.namespace = namespace
        self.release = release
        self.documents = list(documents)
        self.patience = patience
        self.progress = progress or (lambda _state: None)
        self.clock = clock
        self.sleep = sleep

    def store(self, product: str) -> Optional[StatefulStore]:
        return find_store(self.documents, product)

    def postgres(self) -> Optional[Postgres]:
        store = self.store(POSTGRES)
        if store is None:
            return None
        secret = str(value_at(self.release.values, "postgresql.auth.existingSecret", "") or POSTGRES)
        return Postgres(self.pods, store.place, self._password(secret, "postgres-password"))

    def mongo(self) -> Optional[Mongo]:
        store = self.store(MONGODB)
        if store is None:
            return None
        secret = str(value_at(self.release.values, "mongodb.auth.existingSecret", "") or MONGODB)
        user = str(value_at(self.release.values, "mongodb.auth.username", "") or "root")
        return Mongo(self.pods, store.place, user, self._password(secret, "mongodb-root-password"))

    def _password(self, secret: str, key: str) -> str:
        found = get_or_none(self.api, core(self.namespace, "secrets", secret))
        data = (found or {}).get("data") or {}
        if key not in data:
            raise OperationError("secret", f"Secret {secret} in namespace {self.namespace} has no key {key}: without it the database cannot be asked.")
        return base64.b64decode(data[key]).decode()

    # -- the StatefulSet itself -------------------------------------------------------------------------------------

    def _path(self, store: StatefulStore) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/statefulsets/{store.name}"

    def unfinished(self, store: StatefulStore) -> str:
        """The restore point that its data are on their way from, empty when they are whole."""
        found = get_or_none(self.api, self._path(store))
        return str(((found or {}).get("metadata") or {}).get("annotations", {}).get(UNFINISHED) or "")

    def mark_unfinished(self, store: StatefulStore, point: str) -> None:
        """Say that its data are on their way from *point*, or with an empty one that they are whole."""
        self.api.request("PATCH", self._path(store), None, {"metadata": {"annotations": {UNFINISHED: point or None}}}, MERGE_PATCH)

    def live_image(self, store: StatefulStore) -> str:
        """Image that the StatefulSet has now; empty when it is gone."""
        found = get_or_none(self.api, self._path(store))
        if found is None:
            return ""
        containers = found["spec"]["template"]["spec"]["containers"]
        return str(next(item for item in containers if item["name"] == store.container).get("image") or "")

    def set_image(self, store: StatefulStore, image: str) -> None:
        """Give the StatefulSet another image and wait until its pod runs it."""
        live = self.api.request("GET", self._path(store))
        containers = [
            {**item, "image": image} if item["name"] == store.container else item for item in live["spec"]["template"]["spec"]["containers"]
        ]
        self.api.request("PATCH", self._path(store), None, {"spec": {"template": {"spec": {"containers": containers}}}}, MERGE_PATCH)
        self.wait(store, image)

    def renew_volume(self, store: StatefulStore, image: str) -> None:
        """Take the database and its volume away and start it empty with *image*. The data are gone: a dump must be at hand."""
        if not store.claims:
            raise OperationError("volume", f"StatefulSet {store.name} has no volume claim of its own, so its data cannot be taken away: do it by hand.")
        self._replicas(store, 0)
        self._until(lambda: not get_or_none(self.api, core(self.namespace, "pods", store.place.pod)), f"pod {store.place.pod} to go")
        for claim in store.claims:
            try:
                self.api.request("DELETE", core(self.namespace, "persistentvolumeclaims", claim))
            except KubeError as error:
                if error.status != 404:
                    raise
            self._until(
                lambda name=claim: not get_or_none(self.api, core(self.namespace, "persistentvolumeclaims", name)),  # type: ignore[misc]
                f"volume claim {claim} to go",
            )
        live = self.api.request("GET", self._path(store))
        containers = [
            {**item, "image": image} if item["name"] == store.container else item for item in live["spec"]["template"]["spec"]["containers"]
        ]
        body = {"spec": {"replicas": 1, "template": {"spec": {"containers": containers}}}}
        self.api.request("PATCH", self._path(store), None, body, MERGE_PATCH)
        self.wait(store, image)

    def healthy(self, store: StatefulStore) -> bool:
        """Whether its pod is ready now."""
        pod = get_or_none(self.api, core(self.namespace, "pods", store.place.pod))
        conditions = ((pod or {}).get("status") or {}).get("conditions") or []
        return any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)

    def bring_template(self, store: StatefulStore, image: str) -> None:
        """The StatefulSet as its manifest has it, with *image*, for a database that a newer manifest keeps from starting. Data are not touched."""
        wanted = next(
            item for item in self.documents if item.get("kind") == "StatefulSet" and item["metadata"]["name"] == store.name
        )
        live = self.api.request("GET", self._path(store))
        template = copy.deepcopy(wanted["spec"]["template"])
        next(item for item in template["spec"]["containers"] if item["name"] == store.container)["image"] = image
        live["spec"]["template"] = template
        live["spec"]["replicas"] = int(wanted["spec"].get("replicas", 1))
        live.pop("status", None)
        self.api.request("PUT", self._path(store), None, live)
        self._forget(store.place.pod)  # a StatefulSet does not replace a pod that never became ready
        self.wait(store, image)

    def ensure_running(self, store: StatefulStore) -> None:
        self._replicas(store, 1)
        self.wait(store, self.live_image(store))

    def _replicas(self, store: StatefulStore, number: int) -> None:
        live = self.api.request("GET", self._path(store))
        if int((live.get("spec") or {}).get("replicas", 1)) != number:
            self.api.request("PATCH", self._path(store), None, {"spec": {"replicas": number}}, MERGE_PATCH)

    def wait(self, store: StatefulStore, image: str) -> None:
        """Until the pod of the StatefulSet runs *image* and is ready. A pod that cannot start with the old image is taken away."""

        def ready() -> bool:
            pod = get_or_none(self.api, core(self.namespace, "pods", store.place.pod))
            if pod is None or pod["metadata"].get("deletionTimestamp"):
                return False
            container: dict[str, Any] = next((item for item in pod["spec"]["containers"] if item["name"] == store.container), {})
            conditions = (pod.get("status") or {}).get("conditions") or []
            well = any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)
            if container.get("image") != image and not well:
                # A StatefulSet does not replace a pod that never became ready.
                self._forget(store.place.pod)
            return container.get("image") == image and well

        failing_since: list[float] = []

        def hopeless() -> bool:
            if not self._image_fails(store):
                failing_since.clear()
                return False
            failing_since.append(self.clock())
            return self.clock() - failing_since[0] >= Patience.image

        self._until(ready, f"{store.name} with image {image.rsplit('/', 1)[-1]} to be ready", lambda: self._why(store), hopeless)

    def _forget(self, pod: str) -> None:
        try:
            self.api.request("DELETE", core(self.namespace, "pods", pod))
        except KubeError as error:
            if error.status != 404:
                raise

    def _image_fails(self, store: StatefulStore) -> bool:
        pod = get_or_none(self.api, core(self.namespace, "pods", store.place.pod))
        statuses = ((pod or {}).get("status") or {}).get("containerStatuses") or []
        return any((((status.get("state") or {}).get("waiting")) or {}).get("reason") in IMAGE_REASONS for status in statuses)

    def _why(self, store: StatefulStore) -> str:
        """The state of the pod, and the last lines of a container that crashes."""
        pod = get_or_none(self.api, core(self.namespace, "pods", store.place.pod))
        if pod is None:
            return "there is no pod"
        found = []
        for status in (pod.get("status") or {}).get("containerStatuses") or []:
            waiting = (status.get("state") or {}).get("waiting") or {}
            found.append(f"{waiting.get('reason', 'not ready')} {waiting.get('message', '')}".strip())
        for condition in (pod.get("status") or {}).get("conditions") or []:
            if condition.get("status") == "False" and condition.get("message"):
                found.append(str(condition["message"]))
        return "; ".join(dict.fromkeys(found)) or "not ready"

    def _until(
        self, done: Callable[[], bool], what: str, why: Optional[Callable[[], str]] = None, hopeless: Optional[Callable[[], bool]] = None
    ) -> None:
        """Wait until *done*, as long as there is patience and hope."""
        began = self.clock()
        while not done():
            self.progress({"phase": "wait", "done": 0, "total": 0, "waiting_for": [what]})
            if self.clock() - began >= self.patience or (hopeless is not None and hopeless()):
                raise OperationError("waited", f"waited {self.clock() - began:.0f} s for {what}" + (f": {why()}" if why else "") + ".")
            self.sleep(1.0)


def major_of(image: str) -> int:
    """The major version that the tag of an image names, 0 when it names none."""
    return (number_of(tag_of(image)) or (0,))[0]


def number_of(version: str) -> tuple[int, ...]:
    """The digits of a version before anything else: ``4.4.15-debian`` is ``(4, 4, 15)``."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
