# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Install, upgrade, wait for and take away one release; says beforehand what would change."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

from . import releases
from .cli import Chart, Helm, HelmError, Source
from .kube import KubeApi, KubeError, core, get_or_none, owner_of
from .objects import Cluster, Masker, ObjectDiff, compare, parse_documents
from .releases import StoredRelease
from .waiter import Outcome, Patience, Waiter, targets_of

NOISE_FORMAT = "onprem.circleci_server/release-noise/1"
MAX_NOISE = 2000


class ReleaseError(Exception):
    """The release cannot be brought where it should be. C(code) tells tests and reports which case it is."""

    def __init__(self, code: str, message: str, details: Optional[dict[str, Any]] = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = details or {}


@dataclass(frozen=True)
class Wanted:
    """The release as it should be."""

    name: str
    namespace: str
    source: Source
    values: dict[str, Any]
    chart_name: str = "circleci-server"
    domain: str = ""
    takeover: bool = False
    post_renderer: str = ""
    state_file: str = ""
    pending_age: float = 300.0
    history: int = 10


@dataclass
class Plan:
    """What would be done, and why."""

    action: str
    reasons: list[str] = field(default_factory=list)
    chart: Optional[Chart] = None
    current: Optional[StoredRelease] = None
    diff: Optional[ObjectDiff] = None
    notes: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return self.action != "none"


class Lifecycle:
    def __init__(
        self,
        api: KubeApi,
        helm: Helm,
        wanted: Wanted,
        *,
        masker: Optional[Masker] = None,
        progress: Optional[Callable[[dict[str, Any]], None]] = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.api = api
        self.helm = helm
        self.wanted = wanted
        self.masker = masker or Masker()
        self.progress = progress or (lambda _state: None)
        self.clock = clock
        self.sleep = sleep

    # -- finding out ----------------------------------------------------------------------------------------------

    def current(self) -> Optional[StoredRelease]:
        return releases.current(releases.history(self.api, self.wanted.namespace, self.wanted.name))

    def plan(self, *, check: bool) -> Plan:
        """Compare chart, values and objects. In check mode the objects of the next revision are rendered as well."""
        wanted = self.wanted
        self.progress({"phase": "compare", "done": 0, "total": 0, "waiting_for": []})
        namespace_there = self._namespace()
        present = self.current() if namespace_there else None
        if present is not None and present.pending:
            present = self._settle(present, check=check)
        self._refuse_foreign(present, namespace_there)
        try:
            chart = self.helm.obtain(wanted.source)
        except HelmError as error:
            if check and error.kind == "chart":
                return self._without_chart(present, error)
            raise
        if chart.name != wanted.chart_name:
            raise ReleaseError(
                "wrong_chart", f"the chart at {wanted.source.chart} is {chart.name}, wanted is {wanted.chart_name}."
            )
        reasons = self._reasons(present, chart)
        notes: list[str] = []
        diff: Optional[ObjectDiff] = None
        cluster = Cluster(self.api, wanted.namespace)
        stored = parse_documents(present.manifest) if present else []
        if present is not None and not reasons:
            diff = compare(cluster, stored).without(self._noise(present.revision))
            if diff:
                reasons.append(_drift(diff))
        if not reasons:
            return Plan("none", [], chart, present, diff, notes)
        if check and (present is None or diff is None):
            diff = self._rendered_diff(chart, cluster, stored, namespace_there, notes)
        return Plan("upgrade" if present else "install", reasons, chart, present, diff, notes)

    def _namespace(self) -> bool:
        try:
            found = get_or_none(self.api, f"/api/v1/namespaces/{self.wanted.namespace}")
        except KubeError as error:
            if error.status == 403:
                return True
            raise
        if found and (found.get("metadata") or {}).get("deletionTimestamp"):
            raise ReleaseError(
                "namespace_terminating",
                f"namespace {self.wanted.namespace} is being deleted: wait until it is gone, then run the same command again.",
            )
        owner = owner_of(found)
        if owner and self.wanted.domain and owner != self.wanted.domain and not self.wanted.takeover:
            raise ReleaseError(
                "foreign_namespace",
                f"namespace {self.wanted.namespace} belongs to the site {owner}, not to {self.wanted.domain}: choose another circleci_namespace, or set "
                "circleci_release_takeover to true when the domain really changes.",
            )
        return found is not None

    def _without_chart(self, present: Optional[StoredRelease], error: HelmError) -> Plan:
        """In check mode the mirror step of this very run would bring the chart."""
        note = f"The chart cannot be had yet ({error}); its objects are not listed."
        wanted = self.wanted
        if present is None:
            return Plan("install", ["there is no release yet"], None, None, None, [note])
        reasons = []
        if present.chart_version != wanted.source.version:
            reasons.append(f"chart version {present.chart_version} → {wanted.source.version}")
        reasons += self._value_reasons(present)
        return Plan("upgrade" if reasons else "none", reasons, None, present, None, [note])

    def _refuse_foreign(self, present: Optional[StoredRelease], namespace_there: bool) -> None:
        wanted = self.wanted
        if present is not None and present.chart_name != wanted.chart_name:
            raise ReleaseError(
                "foreign_release",
                f"the Helm release {wanted.name} in namespace {wanted.namespace} is one of the chart {present.chart_name}, not of "
                f"{wanted.chart_name}: choose another circleci_release_name or circleci_namespace.",
            )
        domain = ((present.values.get("global") or {}) if present else {}).get("domainName")
        if domain and wanted.domain and domain != wanted.domain and not wanted.takeover:
            raise ReleaseError(
                "foreign_site",
                f"the Helm release {wanted.name} in namespace {wanted.namespace} serves {domain}, not {wanted.domain}: choose another "
                "circleci_namespace, or set circleci_release_takeover to true when the domain really changes.",
            )
        if namespace_there and present is None:
            names = releases.others(self.api, wanted.namespace, wanted.name, wanted.chart_name)
            if names:
                raise ReleaseError(
                    "second_release",
                    f"namespace {wanted.namespace} holds the release {', '.join(names)} of the same chart, and its workloads carry no "
                    "release name: set circleci_release_name to it, or choose another circleci_namespace.",
                )

    def _value_reasons(self, present: StoredRelease) -> list[str]:
        keys = releases.differing_keys(present.values, json.loads(json.dumps(self.wanted.values)))
        if not keys:
            return []
        shown = ", ".join(keys[:20]) + (f" and {len(keys) - 20} more" if len(keys) > 20 else "")
        return [f"values differ: {shown}"]

    def _reasons(self, present: Optional[StoredRelease], chart: Chart) -> list[str]:
        if present is None:
            return ["there is no release yet"]
        reasons = []
        if present.status != "deployed":
            reasons.append(f"revision {present.revision} is {present.status}")
        if present.chart_version != chart.version:
            reasons.append(f"chart version {present.chart_version} → {chart.version}")
        elif present.chart_digest and present.chart_digest != chart.digest:
            reasons.append("the chart has other contents under the same version")
        return reasons + self._value_reasons(present)

    def _rendered_diff(
        self, chart: Chart, cluster: Cluster, stored: Sequence[Mapping[str, Any]], namespace_there: bool, notes: list[str]
    ) -> ObjectDiff:
        values = self.helm.values_file(self.wanted.values)
        if namespace_there:
            manifest = self.helm.dry_run(chart, self.wanted.name, values)
        else:
            manifest = self.helm.template(chart, self.wanted.name, values)
            notes.append(f"Namespace {self.wanted.namespace} is not there yet; the objects were rendered without the cluster.")
        return compare(cluster, parse_documents(manifest), stored)

    # -- interrupted releases -------------------------------------------------------------------------------------

    def _settle(self, present: StoredRelease, *, check: bool) -> Optional[StoredRelease]:
        """A helm that was killed leaves a pending revision, and the next one refuses to work.

        Nobody can tell a killed helm from one that still works, so it is given time first. Then only the record of the
        unfinished revision is taken away; objects stay and are adopted by the next one.
        """
        wanted = self.wanted
        if check:
            return present
        found: Optional[StoredRelease] = present
        while found is not None and found.pending:
            age = self.clock() - float(found.modified or 0)
            if age >= wanted.pending_age or not found.modified:
                break
            self.progress(
                {
                    "phase": "wait for another helm", "done": 0, "total": 0,
                    "waiting_for": [f"revision {found.revision} is {found.status} since {age:.0f} s"],
                }
            )
            self.sleep(min(10.0, max(1.0, wanted.pending_age - age)))
            found = self.current()
        if found is None or not found.pending:
            return found
        self.api.request("DELETE", core(wanted.namespace, "secrets", found.secret))
        return self.current()

    # -- noise ----------------------------------------------------------------------------------------------------

    def _noise(self, revision: int) -> set[str]:
        """Differences that were there right after this revision was rolled out (defaults, admission hooks, autoscalers)."""
        if not self.wanted.state_file:
            return set()
        try:
            state = json.loads(Path(self.wanted.state_file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return set()
        if state.get("format") != NOISE_FORMAT or state.get("revision") != revision or state.get("release") != self.wanted.name:
            return set()
        return set(state.get("noise") or [])

    def remember(self) -> None:
        """Write down the differences that the cluster makes of a revision that has just been rolled out."""
        present = self.current()
        if present is None or not self.wanted.state_file:
            return
        diff = compare(Cluster(self.api, self.wanted.namespace), parse_documents(present.manifest))
        # What is missing right after a good rollout was removed by someone: that is drift, not noise.
        noise = sorted(text for text in diff.fingerprints() if not text.endswith("|absent"))[:MAX_NOISE]
        state = {"format": NOISE_FORMAT, "release": self.wanted.name, "revision": present.revision, "noise": noise}
        write_private(Path(self.wanted.state_file), json.dumps(state, indent=1))

    # -- doing ----------------------------------------------------------------------------------------------------

    def apply(self, plan: Plan) -> StoredRelease:
        """Install or upgrade, as the plan says."""
        if plan.chart is None:
            raise ReleaseError("no_chart", "there is no chart to install.")
        self.progress({"phase": plan.action, "done": 0, "total": 0, "waiting_for": ["helm"]})
        values = self.helm.values_file(self.wanted.values)
        description = f"onprem.circleci_server {plan.action} (chart sha256:{plan.chart.digest})"
        try:
            self.helm.upgrade(
                plan.chart, self.wanted.name, values, description, self.wanted.post_renderer, self.wanted.history
            )
        except HelmError as error:
            raise ReleaseError("helm", self._explained(str(error))) from error
        present = self.current()
        if present is None:
            raise ReleaseError("helm", "helm ended well, yet there is no release.")
        return present

    @staticmethod
    def _explained(message: str) -> str:
        if "invalid ownership metadata" in message or "cannot be imported into the current release" in message:
            return (
                f"{message} An object was made by someone else: run the verb secrets, which gives Secrets the metadata that Helm "
                "asks for, or take the object away."
            )
        if "values don't meet the specifications of the schema" in message:
            return f"{message} Correct circleci_values."
        return message

    def wait(
        self, present: StoredRelease, patience: Patience, expected_to_fail: Sequence[str], clock: Callable[[], float] = time.monotonic
    ) -> Outcome:
        waiter = Waiter(
            self.api,
            self.wanted.namespace,
            targets_of(parse_documents(present.manifest)),
            patience=patience,
            expected_to_fail=expected_to_fail,
            progress=self.progress,
            masker=self.masker,
            clock=clock,
            sleep=self.sleep,
        )
        return waiter.wait()

    # -- taking away ----------------------------------------------------------------------------------------------

    def removal(self, *, delete_volumes: bool, delete_secrets: bool) -> dict[str, Any]:
        """What an uninstall takes away and what it leaves."""
        namespace = self.wanted.namespace
        found: dict[str, Any] = {
            "release": False, "namespace": False, "volumes": [], "secrets": [], "kept_volumes": [], "kept_secrets": [],
        }  # fmt: skip
        if not self._namespace():
            return found
        present = self.current()
        self._refuse_foreign(present, namespace_there=False)
        found["release"] = present is not None
        documents = parse_documents(present.manifest) if present else []
        # Ours is only a namespace that the verb secrets made; one that was there before stays, and others may have their things in it.
        ours = self._made_by_us()
        claims = {str(item["metadata"]["name"]): item for item in self.api.request("GET", core(namespace, "persistentvolumeclaims"))["items"]}
        kept_claims = set() if ours else self._foreign_claims(claims, documents)
        kept_claims = kept_claims if delete_volumes else set(claims)
        found["volumes"], found["kept_volumes"] = sorted(set(claims) - kept_claims), sorted(kept_claims)
        manifest = {str(doc["metadata"]["name"]) for doc in documents if doc["kind"] == "Secret"}
        kept = []
        for item in self.api.request("GET", core(namespace, "secrets"))["items"]:
            metadata = item["metadata"]
            labels = metadata.get("labels") or {}
            managed = labels.get("app.kubernetes.io/managed-by")
            keep = (metadata.get("annotations") or {}).get("helm.sh/resource-policy") == "keep"
            if labels.get("owner") == "helm" or item.get("type") == "kubernetes.io/service-account-token":
                continue
            if managed == "onprem.circleci_server" or keep or (managed == "Helm" and metadata["name"] not in manifest):
                kept.append(metadata["name"])
        found["secrets" if delete_secrets else "kept_secrets"] = sorted(kept)
        found["namespace"] = delete_volumes and delete_secrets and ours
        return found

    def _made_by_us(self) -> bool:
        try:
            found = self.api.request("GET", f"/api/v1/namespaces/{self.wanted.namespace}")
        except KubeError as error:
            if error.status == 403:
                return False
            raise
        return (found["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") == "onprem.circleci_server"

    def _foreign_claims(self, claims: Mapping[str, Mapping[str, Any]], documents: Sequence[Mapping[str, Any]]) -> set[str]:
        """Volume claims that bear the name of another release, or that a pod uses which no workload of the release makes."""
        named = {
            name for name, item in claims.items()
            if ((item["metadata"].get("labels") or {}).get("app.kubernetes.io/instance") or self.wanted.name) != self.wanted.name
        }  # fmt: skip
        workloads = {(str(doc["kind"]), str(doc["metadata"]["name"])) for doc in documents}
        for pod in self.api.request("GET", core(self.wanted.namespace, "pods")).get("items", []):
            owner = (pod["metadata"].get("ownerReferences") or [{}])[0]
            kind, name = str(owner.get("kind", "")), str(owner.get("name", ""))
            if kind == "ReplicaSet":
                kind, name = "Deployment", name.rpartition("-")[0]
            if (kind, name) not in workloads:
                volumes = [volume.get("persistentVolumeClaim") or {} for volume in (pod.get("spec") or {}).get("volumes") or []]
                named |= {str(volume["claimName"]) for volume in volumes if volume.get("claimName") in claims}
        return named

    def remove(self, removal: Mapping[str, Any]) -> None:
        namespace = self.wanted.namespace
        if removal["release"]:
            self.progress({"phase": "uninstall", "done": 0, "total": 0, "waiting_for": ["helm"]})
            self.helm.uninstall(self.wanted.name)
        for kind, names in (("persistentvolumeclaims", removal["volumes"]), ("secrets", removal["secrets"])):
            for name in names:
                try:
                    self.api.request("DELETE", core(namespace, kind, name))
                except KubeError as error:
                    if error.status != 404:
                        raise
        if removal["namespace"]:
            with contextlib.suppress(KubeError):
                self.api.request("DELETE", f"/api/v1/namespaces/{namespace}")
        if removal["volumes"] or removal["namespace"]:
            self._wait_until_gone(removal)
        if self.wanted.state_file:
            with contextlib.suppress(FileNotFoundError):
                Path(self.wanted.state_file).unlink()

    def _wait_until_gone(self, removal: Mapping[str, Any], seconds: float = 300.0) -> None:
        """The provisioner of the volumes must still be there while it deletes their data."""
        namespace, deadline = self.wanted.namespace, self.clock() + seconds
        while True:
            left = [
                f"volume {item['metadata']['name']}"
                for item in self._volumes()
                if ((item.get("spec") or {}).get("claimRef") or {}).get("namespace") == namespace
                and item["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
                and item["spec"]["claimRef"].get("name") in removal["volumes"]
            ]
            if removal["namespace"] and get_or_none(self.api, f"/api/v1/namespaces/{namespace}"):
                left.append(f"namespace {namespace}")
            if not left:
                return
            if self.clock() >= deadline:
                raise ReleaseError("still_there", f"after {seconds:.0f} s these are still being deleted: {', '.join(left)}. Run the same command again.")
            self.progress({"phase": "uninstall", "done": 0, "total": 0, "waiting_for": left})
            self.sleep(1.0)

    def _volumes(self) -> list[dict[str, Any]]:
        try:
            return list(self.api.request("GET", "/api/v1/persistentvolumes").get("items", []))
        except KubeError as error:
            if error.status == 403:
                return []  # whoever has rights in the namespace alone cannot see them go
            raise


def _drift(diff: ObjectDiff) -> str:
    names = diff.names()
    parts = []
    if names["created"]:
        parts.append(f"missing in the cluster: {', '.join(names['created'][:10])}")
    if names["changed"]:
        parts.append(f"changed in the cluster: {', '.join(names['changed'][:10])}")
    return "; ".join(parts)


def write_private(path: Path, text: str) -> None:
    """Replace a file of mode 0600 in one step."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


class ProgressFile:
    """Writes progress as JSON, replaced in one step, for whoever shows it."""

    def __init__(self, path: str, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path) if path else None
        self.clock = clock
        self.started = clock()

    def __call__(self, state: dict[str, Any]) -> None:
        if self.path is None:
            return
        waiting = list(state.get("waiting_for") or [])
        shown = ", ".join(waiting[:3]) + (f" and {len(waiting) - 3} more" if len(waiting) > 3 else "")
        document = {
            **state,
            "items": "workloads ready",
            "items_done": state.get("done") or 0,
            "items_total": state.get("total") or 0,
            "message": f"waiting for {shown}" if shown else "",
            "pid": os.getpid(),
            "started": round(self.started, 1),
            "updated": round(self.clock(), 1),
        }
        with contextlib.suppress(OSError):
            write_private(self.path, json.dumps(document))
