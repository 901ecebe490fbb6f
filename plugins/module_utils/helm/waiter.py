# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Waits until the workloads of a release are ready, and gives up early only on what will not heal by itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from .kube import KubeApi, KubeError, core
from .objects import WORKLOADS, Masker

IMAGE_REASONS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable", "ImageInspectError")
CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "ContainerCannotRun")
NOMAD = "nomad-server"
DATA_NAMES = ("postgresql", "mongodb", "rabbitmq", "redis", "vault")


@dataclass(frozen=True)
class Patience:
    """Seconds a state may last before it counts as one that will not heal."""

    total: float = 2700.0
    image: float = 120.0
    config: float = 120.0
    unschedulable: float = 240.0
    volume: float = 240.0
    restarts: int = 10
    quorum: float = 60.0
    stuck: float = 15.0
    quorum_restarts: int = 3
    poll: float = 3.0


@dataclass(frozen=True)
class Target:
    """A workload that is waited for."""

    kind: str
    name: str
    layer: str = "application"

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass
class Outcome:
    ready: bool
    waited: float
    targets: int
    expected_failures: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    logs: dict[str, list[str]] = field(default_factory=dict)
    nomad_restarts: int = 0
    workloads: list[dict[str, Any]] = field(default_factory=list)


def targets_of(documents: Sequence[Mapping[str, Any]]) -> list[Target]:
    """The workloads of a manifest, hooks left out."""
    found = []
    for document in documents:
        kind = str(document.get("kind"))
        metadata = document.get("metadata") or {}
        if kind not in WORKLOADS or "helm.sh/hook" in (metadata.get("annotations") or {}):
            continue
        name = str(metadata.get("name"))
        template = ((document.get("spec") or {}).get("template") or {}).get("metadata") or {}
        labels = {**(template.get("labels") or {}), **(metadata.get("labels") or {})}
        found.append(Target(kind, name, layer_of(name, labels)))
    return found


def layer_of(name: str, labels: Mapping[str, Any]) -> str:
    if labels.get("layer"):
        return str(labels["layer"])
    product = str(labels.get("app.kubernetes.io/name") or labels.get("app") or name)
    if product in DATA_NAMES:
        return "data"
    return "execution" if product == NOMAD else "application"


class Waiter:
    """One wait. C(clock) and C(sleep) are given by tests."""

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        targets: Sequence[Target],
        *,
        patience: Optional[Patience] = None,
        expected_to_fail: Sequence[str] = (),
        progress: Optional[Callable[[dict[str, Any]], None]] = None,
        masker: Optional[Masker] = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        running: bool = False,
        replaced: bool = False,
    ) -> None:
        self.api = api
        self.namespace = namespace
        # Containers that run are enough: what makes them ready comes later.
        self.running = running
        # Pods that end are waited for, too: nodes may still send connections to them.
        self.replaced = replaced
        self.targets = list(targets)
        self.patience = patience or Patience()
        self.expected = set(expected_to_fail)
        self.progress = progress or (lambda _state: None)
        self.masker = masker or Masker()
        self.clock = clock
        self.sleep = sleep
        self._since: dict[str, float] = {}
        self._seen: set[str] = set()
        self._restarts: dict[str, int] = {}
        self._nomad_since: Optional[float] = None
        self._nomad_restarts = 0
        self._unreachable_since: Optional[float] = None

    def wait(self) -> Outcome:
        started = self.clock()
        while True:
            now = self.clock()
            try:
                outcome = self._look(started, now)
                self._unreachable_since = None
            except KubeError as error:
                # The API server may restart; a release does not fail because of that.
                if error.status not in (0, 429, 500, 502, 503, 504):
                    raise
                self._unreachable_since = self._unreachable_since or now
                if now - self._unreachable_since > 300 or now - started > self.patience.total:
                    raise
                outcome = None
            if outcome is not None:
                return outcome
            self.sleep(self.patience.poll)

    # -- one look -------------------------------------------------------------------------------------------------

    def _list(self, path: str) -> list[dict[str, Any]]:
        items = self.api.request("GET", path).get("items", [])
        return list(items)

    def _look(self, started: float, now: float) -> Optional[Outcome]:
        self._seen = set()
        live = self._live()
        pods = self._list(core(self.namespace, "pods"))
        rows = [self._row(target, live.get((target.kind, target.name)), pods) for target in self.targets]
        counted = [row for row in rows if row["name"] not in self.expected]
        waiting = [row for row in counted if not row["ready"]]
        data_ready = all(row["ready"] for row in rows if row["layer"] == "data")
        problems = self._problems(waiting, data_ready, now)
        problems += self._volumes(now) if waiting else []
        self._replace_stuck(waiting, now)
        self._since = {key: since for key, since in self._since.items() if key in self._seen}
        quorum = self._quorum(rows, now)
        waiting_for = [f"{row['kind']}/{row['name']} ({row['detail']})" for row in waiting]
        if not quorum:
            waiting_for.append("a quorum of the Nomad servers")
        self.progress(
            {
                "phase": "wait" if data_ready else "wait for the data layer",
                "done": len(counted) - len(waiting),
                "total": len(counted),
                "waiting_for": waiting_for,
            }
        )
        outcome = Outcome(
            ready=False, waited=now - started, targets=len(counted), nomad_restarts=self._nomad_restarts,
            expected_failures=sorted(row["name"] for row in rows if row["name"] in self.expected and not row["ready"]),
            workloads=[{key: row[key] for key in ("kind", "name", "layer", "ready", "detail")} for row in rows],
        )
        if not waiting and quorum:
            outcome.ready = True
            return outcome
        if problems:
            outcome.problems = list(dict.fromkeys(problems))
            outcome.logs = self._logs(waiting)
            return outcome
        if now - started > self.patience.total:
            outcome.problems = [
                f"after {self.patience.total:.0f} s these are still not ready: {'; '.join(waiting_for)}. "
                "Run the same command again to go on waiting."
            ]
            outcome.logs = self._logs(waiting)
            return outcome
        return None

    def _live(self) -> dict[tuple[str, str], dict[str, Any]]:
        found = {}
        paths = {"Deployment": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "Job": "batch/v1"}
        for kind in sorted({target.kind for target in self.targets}):
            for item in self._list(f"/apis/{paths[kind]}/namespaces/{self.namespace}/{kind.lower()}s"):
                found[(kind, str(item["metadata"]["name"]))] = item
        return found

    def _row(self, target: Target, live: Optional[dict[str, Any]], pods: list[dict[str, Any]]) -> dict[str, Any]:
        row: dict[str, Any] = {"kind": target.kind, "name": target.name, "layer": target.layer, "pods": [], "live": live}
        if live is None:
            return {**row, "ready": False, "detail": "not there yet"}
        selector = ((live.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
        row["pods"] = [pod for pod in pods if selector and selector.items() <= _labels(pod).items()]
        ready, detail = _running(live, _newest(row)) if self.running else _readiness(target.kind, live)
        ending = sum(bool((pod.get("metadata") or {}).get("deletionTimestamp")) for pod in row["pods"])
        if ready and self.replaced and ending:
            ready, detail = False, f"{ending} of an earlier template still end"
        if not ready:
            reasons = [reason for pod in row["pods"] for reason in _pod_reasons(pod)]
            detail = ", ".join(dict.fromkeys([detail, *reasons]))
        return {**row, "ready": ready, "detail": detail}

    def _lasting(self, key: str, now: float) -> float:
        """Since when a state has been seen without a break."""
        self._seen.add(key)
        return now - self._since.setdefault(key, now)

    # -- what will not heal ---------------------------------------------------------------------------------------

    def _problems(self, rows: list[dict[str, Any]], data_ready: bool, now: float) -> list[str]:
        found = []
        for row in rows:
            job = _failed_job(row["live"]) if row["kind"] == "Job" and row["live"] else ""
            if job:
                found.append(f"Job {row['name']} failed: {job}.")
            for pod in _newest(row):
                found += self._pod(row, pod, data_ready, now)
        return found

    def _replace_stuck(self, rows: list[dict[str, Any]], now: float) -> None:
        """A StatefulSet waits for a pod of its old template that will never be ready: Kubernetes wants it deleted by hand."""
        for row in rows:
            status = (row["live"] or {}).get("status") or {}
            update = status.get("updateRevision")
            if row["kind"] != "StatefulSet" or not update or status.get("observedGeneration") != row["live"]["metadata"].get("generation"):
                continue
            for pod in row["pods"]:
                revision = _labels(pod).get("controller-revision-hash")
                ready = any(
                    item.get("type") == "Ready" and item.get("status") == "True" for item in (pod.get("status") or {}).get("conditions") or []
                )
                if not revision or revision == update or ready or pod["metadata"].get("deletionTimestamp"):
                    continue
                if self._lasting(f"{pod['metadata']['name']}|stuck", now) >= self.patience.stuck:
                    self._delete_pod(str(pod["metadata"]["name"]))

    def _delete_pod(self, name: str) -> None:
        try:
            self.api.request("DELETE", core(self.namespace, "pods", name))
        except KubeError as error:
            if error.status != 404:
                raise

    def _pod(self, row: dict[str, Any], pod: dict[str, Any], data_ready: bool, now: float) -> list[str]:
        name, found = str(pod["metadata"]["name"]), []
        for condition in (pod.get("status") or {}).get("conditions") or []:
            stuck = (condition.get("type"), condition.get("status"), condition.get("reason")) == (
                "PodScheduled", "False", "Unschedulable",
            )
            if stuck and self._lasting(f"{name}|schedule", now) >= self.patience.unschedulable:
                found.append(f"pod {name} cannot be scheduled: {condition.get('message')}")
        for container in _containers(pod):
            where = f"pod {name}, container {container['name']}"
            state = (container.get("state") or {}).get("waiting") or {}
            reason, message = str(state.get("reason") or ""), self.masker.text(str(state.get("message") or ""))
            if reason in IMAGE_REASONS and self._lasting(f"{name}|{container['name']}|image", now) >= self.patience.image:
                found.append(f"{where}: image {container.get('image')} cannot be pulled ({reason}: {message})")
            if reason in CONFIG_REASONS and self._lasting(f"{name}|{container['name']}|config", now) >= self.patience.config:
                found.append(f"{where}: {reason}: {message}")
            found += self._crashes(row, name, container, data_ready)
        return found

    def _crashes(self, row: dict[str, Any], pod: str, container: dict[str, Any], data_ready: bool) -> list[str]:
        count = int(container.get("restartCount") or 0)
        key = f"{pod}|{container['name']}"
        if not data_ready and row["layer"] != "data":
            # Restarts while the databases are still starting are no fault of a pod.
            self._restarts[key] = count
            return []
        base = self._restarts.setdefault(key, count)
        if count - base < self.patience.restarts:
            return []
        last = ((container.get("lastState") or {}).get("terminated")) or {}
        how = f"exit code {last.get('exitCode')}, {last.get('reason')}" if last else "no reason given"
        return [
            f"pod {pod}, container {container['name']}: restarted {count - base} times after what it needs was ready ({how})"
        ]

    def _volumes(self, now: float) -> list[str]:
        found = []
        for claim in self._list(core(self.namespace, "persistentvolumeclaims")):
            name = claim["metadata"]["name"]
            if (claim.get("status") or {}).get("phase") != "Pending":
                continue
            if self._lasting(f"pvc|{name}", now) >= self.patience.volume:
                storage_class = (claim.get("spec") or {}).get("storageClassName")
                what = f"StorageClass {storage_class}" if storage_class else "no StorageClass, and the cluster has no default one"
                found.append(f"volume claim {name} is not bound ({what})")
        return found

    # -- Nomad ----------------------------------------------------------------------------------------------------

    def _quorum(self, rows: list[dict[str, Any]], now: float) -> bool:
        """Nomad servers that did not start together never find a leader: all of them are restarted at once."""
        row = next((item for item in rows if item["kind"] == "StatefulSet" and item["name"] == NOMAD and item["live"]), None)
        if row is None or row["name"] in self.expected:
            return True
        wanted = int(((row["live"] or {}).get("spec") or {}).get("replicas") or 0)
        running = [pod for pod in row["pods"] if (pod.get("status") or {}).get("phase") == "Running"]
        if wanted == 0:
            return True
        if len(running) < wanted:
            self._nomad_since = None
            return False
        if self._has_leader(wanted):
            self._nomad_since = None
            return True
        self._nomad_since = self._nomad_since if self._nomad_since is not None else now
        if now - self._nomad_since >= self.patience.quorum and self._nomad_restarts < self.patience.quorum_restarts:
            for pod in row["pods"]:
                self._delete_pod(str(pod["metadata"]["name"]))
            self._nomad_restarts += 1
            self._nomad_since = None
        return False

    def _has_leader(self, wanted: int) -> bool:
        base = f"/api/v1/namespaces/{self.namespace}/services/http:{NOMAD}:4646/proxy/v1/status"
        try:
            leader = self.api.request("GET", f"{base}/leader")
            peers = self.api.request("GET", f"{base}/peers")
        except KubeError as error:
            if error.status in (401, 403):
                raise
            return False
        return bool(leader) and isinstance(leader, str) and isinstance(peers, list) and len(peers) >= wanted

    # -- evidence -------------------------------------------------------------------------------------------------

    def _logs(self, rows: list[dict[str, Any]]) -> dict[str, list[str]]:
        """The last lines of containers that are not well."""
        found: dict[str, list[str]] = {}
        for row in rows:
            for pod in _newest(row):
                for container in _containers(pod):
                    if container.get("ready") or len(found) >= 8:
                        continue
                    query = {"container": str(container["name"]), "tailLines": "15"}
                    if (container.get("state") or {}).get("waiting") and int(container.get("restartCount") or 0):
                        query["previous"] = "true"
                    name = str(pod["metadata"]["name"])
                    try:
                        text = self.api.request("GET", f"{core(self.namespace, 'pods', name)}/log", query)
                    except KubeError:
                        continue
                    lines = [self.masker.text(line) for line in str(text).splitlines() if line.strip()][-15:]
                    if lines:
                        found[f"{name}/{container['name']}"] = lines
        return found


def _labels(item: Mapping[str, Any]) -> dict[str, str]:
    return dict((item.get("metadata") or {}).get("labels") or {})


def _containers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _newest(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pods of the newest template: those of an earlier revision may crash while they are replaced."""
    pods = [pod for pod in row["pods"] if not (pod.get("metadata") or {}).get("deletionTimestamp")]
    if row["kind"] != "Deployment" or not pods:
        return pods
    last = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""))
    template = _labels(last).get("pod-template-hash")
    return [pod for pod in pods if _labels(pod).get("pod-template-hash") == template]


def _pod_reasons(pod: Mapping[str, Any]) -> list[str]:
    found = []
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason")
        if reason and reason not in ("PodInitializing", "ContainerCreating"):
            found.append(f"{container['name']}: {reason}")
    return found


def _failed_job(job: Mapping[str, Any]) -> str:
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Failed" and condition.get("status") == "True":
            return str(condition.get("message") or condition.get("reason") or "no reason given")
    return ""


def _running(live: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> tuple[bool, str]:
    spec, status = live.get("spec") or {}, live.get("status") or {}
    if int(status.get("observedGeneration") or 0) < int((live.get("metadata") or {}).get("generation") or 0):
        return False, "not seen by its controller yet"
    wanted = int(spec["replicas"] if spec.get("replicas") is not None else 1)
    run = sum(bool(found) and all("running" in (one.get("state") or {}) for one in found) for found in map(_containers, pods))
    return run >= wanted, f"{run} of {wanted} run"


def _readiness(kind: str, live: Mapping[str, Any]) -> tuple[bool, str]:
    spec, status = live.get("spec") or {}, live.get("status") or {}
    observed = int(status.get("observedGeneration") or 0)
    if kind != "Job" and observed < int((live.get("metadata") or {}).get("generation") or 0):
        return False, "not seen by its controller yet"
    if kind == "Job":
        wanted = int(spec.get("completions") or 1)
        done = int(status.get("succeeded") or 0)
        return done >= wanted, f"{done} of {wanted} done"
    if kind == "DaemonSet":
        wanted = int(status.get("desiredNumberScheduled") or 0)
        ready = min(int(status.get("numberReady") or 0), int(status.get("updatedNumberScheduled") or 0))
        return ready >= wanted, f"{ready} of {wanted} ready"
    wanted = int(spec["replicas"] if spec.get("replicas") is not None else 1)
    ready = int(status.get("readyReplicas") or 0)
    if kind == "Deployment":
        ready = min(ready, int(status.get("updatedReplicas") or 0), int(status.get("availableReplicas") or 0))
        settled = int(status.get("replicas") or 0) <= wanted
    else:
        if (spec.get("updateStrategy") or {}).get("type") != "OnDelete":
            ready = min(ready, int(status.get("updatedReplicas") or 0))
        settled = True
    return ready >= wanted and settled, f"{ready} of {wanted} ready"
