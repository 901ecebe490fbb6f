# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""What runs out or drifts at an installed site: certificates, licence, disks and volumes, queues, versions.

Everything is asked through the Kubernetes API. What cannot be asked is told as not measured, with the reason; nothing is guessed.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from ..connectivity.certificates import CertificateError, days_left, not_after, pem_blocks
from ..helm.kube import KubeApi, KubeError, core
from ..nomad.transport import ClusterTransport, NomadError

NOMAD_SERVICE = "nomad-server:4646"
RABBITMQ_METRICS = 15692
# circleci-proxy, and with a certificate of AWS circleci-proxy-acm.
PROXY_SERVICE = "circleci-proxy"
# Kubernetes: a kubelet may be three minors older than its API server, and never newer.
KUBELET_BEHIND = 3
_PROXY = "It needs get on nodes/proxy."


def _items(answer: Any) -> list[dict[str, Any]]:
    return list((answer or {}).get("items") or []) if isinstance(answer, Mapping) else []


def read_upkeep(api: KubeApi, namespace: str, nomad_service: str = NOMAD_SERVICE) -> dict[str, Any]:
    """What the cluster tells. Contents of Secrets stay here: only ends of certificates and lengths go out."""
    secrets = [item for item in _items(api.request("GET", core(namespace, "secrets"))) if item.get("type") != "helm.sh/release.v1"]
    nodes = _items(api.request("GET", "/api/v1/nodes"))
    pods = _items(api.request("GET", core(namespace, "pods")))
    claims = {str(item["metadata"]["name"]) for item in _items(api.request("GET", core(namespace, "persistentvolumeclaims")))}
    found: dict[str, Any] = {
        "certificates": certificates_of(secrets),
        "secret_lengths": _lengths(secrets),
        "licence": any("license" in (item.get("data") or {}) for item in secrets if item["metadata"]["name"] == "license"),
        "kubelets": {str(node["metadata"]["name"]): str(((node.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion", "")).lstrip("v")
                     for node in nodes},
        "storage": [], "queues": [], "unmeasured": [],
        "images": sorted({str(part.get("image")) for pod in pods for part in (pod.get("spec") or {}).get("containers") or []}),
    }  # fmt: skip
    for name in found["kubelets"]:
        try:
            found["storage"] += disks_of(name, api.request("GET", f"/api/v1/nodes/{name}/proxy/stats/summary"), namespace)
        except KubeError as error:
            found["unmeasured"].append({"what": f"disks and volumes of node {name}", "why": error.message + (f" {_PROXY}" if error.status == 403 else "")})
    measured = {item["name"] for item in found["storage"]}
    # A volume that is a folder of its node has no size of its own: it ends with the disk of the node.
    found["storage"] = sorted({item["name"]: item for item in found["storage"]}.values(), key=lambda item: str(item["name"]))
    silent = sorted(name for name in claims if f"volume {name}" not in measured)
    if silent:
        found["unmeasured"].append({"what": f"volumes {', '.join(silent)}", "why": "the kubelet tells no figures of them; folders of a node share its disk"})
    _nomad(api, namespace, nomad_service, found)
    _rabbitmq(api, namespace, pods, found)
    proxies = [item for item in _items(api.request("GET", core(namespace, "services"))) if item["metadata"]["name"].startswith(PROXY_SERVICE)]
    found["external_ips"] = {str(item["metadata"]["name"]): list((item.get("spec") or {}).get("externalIPs") or []) for item in proxies}
    found["pod_security"] = str(_labels(api, namespace).get("pod-security.kubernetes.io/enforce", ""))
    return found


def _labels(api: KubeApi, namespace: str) -> Mapping[str, Any]:
    metadata = api.request("GET", f"/api/v1/namespaces/{namespace}").get("metadata") or {}
    return dict(metadata.get("labels") or {})


def _decoded(value: Any) -> bytes:
    try:
        return base64.b64decode(str(value), validate=True)
    except (binascii.Error, ValueError):
        return b""


def certificates_of(secrets: Iterable[Mapping[str, Any]], now: Optional[datetime.datetime] = None) -> list[dict[str, Any]]:
    """The first to end of the certificates in each key of each Secret."""
    result = []
    for item in secrets:
        for key, value in sorted((item.get("data") or {}).items()):
            text = _decoded(value).decode("utf-8", errors="replace")
            if "-----BEGIN CERTIFICATE-----" not in text:
                continue
            name = f"Secret {item['metadata']['name']} {key}"
            try:
                result.append({"name": name, "days_left": min(days_left(not_after(der), now) for der in pem_blocks(text)), "detail": ""})
            except (CertificateError, ValueError) as error:
                result.append({"name": name, "days_left": None, "detail": str(error)})
    return sorted(result, key=lambda item: (item["days_left"] is None, item["days_left"] or 0, item["name"]))


def _lengths(secrets: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Lengths of the two values for which the vendor demands one."""
    wanted = ("session-cookie-key", "gossip-key")
    return {
        f"{item['metadata']['name']} {key}": len(_decoded(value))
        for item in secrets
        for key, value in (item.get("data") or {}).items()
        if key in wanted
    }


def disks_of(node: str, summary: Mapping[str, Any], namespace: str) -> list[dict[str, Any]]:
    """Disk of a node and bound volumes of its pods, out of the kubelet's summary."""
    result = []

    def add(name: str, figures: Mapping[str, Any], detail: str) -> None:
        capacity, used = figures.get("capacityBytes"), figures.get("usedBytes")
        if not capacity or used is None:
            return
        free = figures.get("availableBytes")
        # What the file system keeps for root is as good as used.
        taken = int(capacity) - int(free) if free is not None else int(used)
        result.append({"name": name, "used_bytes": taken, "capacity_bytes": int(capacity), "used_percent": round(100 * taken / int(capacity)),
                       "detail": detail})  # fmt: skip

    add(f"node {node}", (summary.get("node") or {}).get("fs") or {}, "disk of the kubelet")
    for pod in summary.get("pods") or []:
        for volume in pod.get("volume") or []:
            claim = volume.get("pvcRef") or {}
            if claim.get("namespace") == namespace:
                add(f"volume {claim.get('name')}", volume, "")
    return result


def _nomad(api: KubeApi, namespace: str, service: str, found: dict[str, Any]) -> None:
    nomad = ClusterTransport(api, namespace, service)
    found["nomad"] = {"leader": None, "clients": [], "servers": []}
    try:
        found["nomad"]["leader"] = bool(nomad.request("GET", "status/leader"))
        for node in nomad.request("GET", "nodes") or []:
            docker = ((node.get("Drivers") or {}).get("docker") or {}).get("Attributes") or {}
            found["nomad"]["clients"].append({"name": str(node.get("Name")), "address": str(node.get("Address")), "status": str(node.get("Status")),
                                              "version": str(node.get("Version")), "docker": str(docker.get("driver.docker.version", ""))})  # fmt: skip
        members = nomad.request("GET", "agent/members") or {}
        found["nomad"]["servers"] = [str((member.get("Tags") or {}).get("build", "")) for member in members.get("Members") or []]
        jobs = nomad.request("GET", "jobs", {"namespace": "*"}) or []
    except NomadError as error:
        if "No cluster leader" in str(error):
            found["nomad"]["leader"] = False
        found["unmeasured"].append({"what": "Nomad", "why": str(error)})
        return
    waiting = sum(
        int(group.get("Queued") or 0) for job in jobs for group in (((job.get("JobSummary") or {}).get("Summary")) or {}).values()
    )  # fmt: skip
    found["queues"].append({"name": "Nomad", "waiting": waiting, "detail": "allocations that no client has room for"})


_QUEUE = re.compile(r"^rabbitmq_queue_messages(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


def _rabbitmq(api: KubeApi, namespace: str, pods: Sequence[Mapping[str, Any]], found: dict[str, Any]) -> None:
    """Messages in all queues by the metrics of its own plugin; its other API wants a login, which the proxy of the API server does not carry."""
    names = [str(pod["metadata"]["name"]) for pod in pods if re.fullmatch(r"rabbitmq(-\d+)?|.*-rabbitmq-\d+", str(pod["metadata"]["name"]))]
    if not names:
        return
    try:
        text = str(api.request("GET", f"/api/v1/namespaces/{namespace}/pods/{names[0]}:{RABBITMQ_METRICS}/proxy/metrics"))
    except KubeError as error:
        found["unmeasured"].append({"what": "queues of RabbitMQ", "why": f"pod {names[0]} gives no metrics on {RABBITMQ_METRICS}: {error.message}"})
        return
    depths = [float(value) for value in _QUEUE.findall(text)]
    if depths:
        found["queues"].append({"name": "RabbitMQ", "waiting": int(sum(depths)), "detail": "messages in all queues"})
    else:
        found["unmeasured"].append({"what": "queues of RabbitMQ", "why": f"the metrics of pod {names[0]} name no queue"})


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def versions_of(found: Mapping[str, Any], kubernetes: str) -> list[dict[str, Any]]:
    """One line for kubelets and one for Nomad's clients, each against its servers."""
    result = []
    api = _numbers(kubernetes)[:2]
    kubelets = {name: version for name, version in found["kubelets"].items() if _numbers(version)}
    if kubelets and len(api) == 2:
        off = [name for name, version in kubelets.items() if not (api[0], api[1] - KUBELET_BEHIND) <= _numbers(version)[:2] <= api]
        result.append({"component": "kubelets", "found": ", ".join(sorted(set(kubelets.values()), key=_numbers)),
                       "expected": f"{api[0]}.{api[1] - KUBELET_BEHIND} to {api[0]}.{api[1]}", "state": "wrong" if off else "ok",
                       "detail": f"on {', '.join(sorted(off))}" if off else ""})  # fmt: skip
    servers = [_numbers(version) for version in found["nomad"]["servers"] if _numbers(version)]
    clients = [client for client in found["nomad"]["clients"] if _numbers(client["version"])]
    if servers and clients:
        oldest = min(servers)
        newer = sorted(client["name"] for client in clients if _numbers(client["version"]) > oldest)
        result.append({"component": "Nomad clients", "found": ", ".join(sorted({client["version"] for client in clients}, key=_numbers)),
                       "expected": f"not newer than the servers, {'.'.join(map(str, oldest))}", "state": "wrong" if newer else "ok",
                       "detail": f"on {', '.join(newer)}" if newer else ""})  # fmt: skip
    return result


def licence_of(present: bool, end: str, today: datetime.date) -> dict[str, Any]:
    """The vendor does not document the form of the licence, so its end is what the site says."""
    days = (datetime.date.fromisoformat(end) - today).days if end else None
    return {"present": present, "end": end, "days_left": days}
