# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""From the workloads of a namespace to the services of the catalog, each with what fails for users when it is down."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ..helm.kube import KubeApi

KINDS = {"deployments": "Deployment", "statefulsets": "StatefulSet"}
# Reasons that explain themselves; anything else that waits is just starting.
TELLING = {
    "CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError",
    "RunContainerError",
}  # fmt: skip


def read_namespace(api: KubeApi, namespace: str) -> dict[str, Any]:
    """Workloads, pods and volume claims of a namespace, and the version of the cluster."""
    found: dict[str, Any] = {"workloads": [], "pods": [], "claims": []}
    for plural, kind in KINDS.items():
        for item in _items(api, f"/apis/apps/v1/namespaces/{namespace}/{plural}"):
            found["workloads"].append(_workload(kind, item))
    found["workloads"] += [_job(item) for item in _items(api, f"/apis/batch/v1/namespaces/{namespace}/jobs")]
    found["pods"] = [_pod(item) for item in _items(api, f"/api/v1/namespaces/{namespace}/pods")]
    for item in _items(api, f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"):
        phase = str((item.get("status") or {}).get("phase", ""))
        found["claims"].append({"name": item["metadata"]["name"], "phase": phase})
    found["kubernetes"] = str(api.request("GET", "/version").get("gitVersion", "")).lstrip("v")
    return found


def _items(api: KubeApi, path: str) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    query = {"limit": "500"}
    while True:
        answer = api.request("GET", path, query)
        result += answer.get("items") or []
        more = (answer.get("metadata") or {}).get("continue")
        if not more:
            return result
        query = {"limit": "500", "continue": more}


def _workload(kind: str, item: Mapping[str, Any]) -> dict[str, Any]:
    spec, status = item.get("spec") or {}, item.get("status") or {}
    pod = ((spec.get("template") or {}).get("spec")) or {}
    return {
        "kind": kind,
        "name": str(item["metadata"]["name"]),
        "wanted": int(spec.get("replicas", 1)),
        "ready": int(status.get("readyReplicas") or 0),
        "images": [str(part.get("image")) for part in pod.get("containers") or []],
    }


def _job(item: Mapping[str, Any]) -> dict[str, Any]:
    """A Job is ready when it has come to its end."""
    complete = any(one.get("type") == "Complete" and one.get("status") == "True" for one in (item.get("status") or {}).get("conditions") or [])
    pod = (((item.get("spec") or {}).get("template") or {}).get("spec")) or {}
    images = [str(part.get("image")) for part in pod.get("containers") or []]
    return {"kind": "Job", "name": str(item["metadata"]["name"]), "wanted": 1, "ready": int(complete), "images": images}


def _is(work: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether a workload is the one of the catalog. Jobs have a suffix that each release or revision makes anew."""
    if work["kind"] == "Job":
        return row.get("kind") == "job" and (work["name"] == row["name"] or str(work["name"]).startswith(f"{row['name']}-"))
    return bool(work["name"] == row["name"])


def _pod(item: Mapping[str, Any]) -> dict[str, Any]:
    status = item.get("status") or {}
    owners = item["metadata"].get("ownerReferences") or [{}]
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    reasons = []
    for part in containers:
        waiting = (part.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in TELLING:
            reasons.append(str(waiting["reason"]))
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            reasons.append(str(condition.get("message") or "no node takes the pod"))
    return {
        "name": str(item["metadata"]["name"]),
        "owner_kind": str(owners[0].get("kind", "")),
        "owner": str(owners[0].get("name", "")),
        "restarts": sum(int(part.get("restartCount") or 0) for part in containers),
        "reasons": list(dict.fromkeys(reasons)),
        "images": [str(part.get("image")) for part in status.get("containerStatuses") or [] if part.get("image")],
    }


def _pods_of(workload: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    name = workload["name"]
    result = []
    for pod in pods:
        if pod["owner_kind"] in ("StatefulSet", "Job") and (pod["owner_kind"], pod["owner"]) == (workload["kind"], name):
            result.append(pod)
        # A replica set is called after its deployment and a hash of letters and digits.
        elif pod["owner_kind"] == "ReplicaSet" and workload["kind"] == "Deployment":
            stem, _dash, hashed = str(pod["owner"]).rpartition("-")
            if stem == name and hashed:
                result.append(pod)
    return result


def _state(service: Mapping[str, Any], names: Sequence[str], found: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    if not names:
        return "unknown", "the catalog knows no workload of it"
    if not found:
        if service.get("optional"):
            needs = service.get("needs")
            return "not installed", f"needs {needs}" if needs else "optional"
        if all(work.get("certainty") in ("inferred", "gap", "disputed") for work in service.get("workloads") or []):
            return "unknown", f"no workload {', '.join(names)}, but that name is only inferred"
        if all(work.get("kind") == "job" for work in service.get("workloads") or []):
            return "unknown", f"no Job {', '.join(names)}, which may have been taken away after its end"
        return "missing", f"no workload {', '.join(names)}"
    wanted = sum(work["wanted"] for work in found)
    ready = sum(work["ready"] for work in found)
    if wanted == 0:
        return "down", "scaled to 0"
    reasons = list(dict.fromkeys(reason for work in found for reason in work["reasons"]))
    why = f": {'; '.join(reasons[:2])}" if reasons else ""
    broken = [work for work in found if work["ready"] == 0 and work["wanted"] > 0]
    if ready == 0:
        return "down", f"0 of {wanted} ready{why}"
    if ready < wanted or broken:
        return "degraded", f"{ready} of {wanted} ready, {', '.join(work['name'] for work in found if work['ready'] < work['wanted'])}{why}"
    absent = [
        str(row["name"]) for row in service.get("workloads") or [] if row.get("certainty") == "documented" and not any(_is(work, row) for work in found)
    ]
    if absent:
        return "degraded", f"without {', '.join(absent)}"
    return "healthy", ""


def assess(wanted: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> dict[str, Any]:
    """Services with their state, and workloads that no service explains."""
    explained: set[str] = set()
    services = []
    for service in wanted:
        rows = service.get("workloads") or []
        names = [str(row["name"]) for row in rows]
        works = []
        for work in found["workloads"]:
            if not any(_is(work, row) for row in rows):
                continue
            explained.add(work["name"])
            pods = _pods_of(work, found["pods"])
            running = list(dict.fromkeys(image for pod in pods for image in pod["images"]))
            works.append(
                {**work, "images": running or work["images"], "restarts": sum(pod["restarts"] for pod in pods),
                 "reasons": [reason for pod in pods for reason in pod["reasons"]]}
            )  # fmt: skip
        state, detail = _state(service, names, works)
        services.append(
            {
                "name": str(service["name"]),
                "component": service.get("component") or "",
                "description": service.get("description") or "",
                "impact": service.get("impact") or "",
                "state": state,
                "detail": detail,
                "workloads": [{key: value for key, value in work.items() if key != "reasons"} for work in works],
            }
        )
    # What a Job that nobody knows has done is over.
    others = sorted(work["name"] for work in found["workloads"] if work["name"] not in explained and work["kind"] != "Job")
    unbound = [item["name"] for item in found["claims"] if item["phase"] != "Bound"]
    return {"services": services, "unexplained": others, "unbound_claims": unbound, "kubernetes": found["kubernetes"]}


def today() -> datetime.date:
    """The day, apart for tests."""
    return datetime.datetime.now(datetime.timezone.utc).date()


def support_days(end: Optional[str], day: datetime.date) -> Optional[int]:
    """Days until the support of a release ends; None when nobody knows."""
    try:
        return (datetime.date.fromisoformat(str(end)) - day).days
    except ValueError:
        return None
