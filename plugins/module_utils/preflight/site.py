# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of a site from its control host: cluster, registry, bundle, upgrade step, support period. Reads only.

What reads the outside world is passed in (``ClusterFacts``, ``HttpAnswer``), so that every rule is tested without it.
"""

from __future__ import annotations

import base64
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Optional

from ..helm.kube import KubeApi, KubeError
from ..helm.releases import installed_version
from ..url_openers import token_opener
from .findings import OK, PROBLEM, WARNING, Finding
from .platform import (
    Holder,
    check_driver,
    check_growth,
    check_ports,
    check_said,
    check_storage,
    detected,
    items_or_none,
    read_holders,
)
from .rights import BRINGS_ADDONS, Rights, ask_rights, check_rights

_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_GIB = 1024**3
_SUFFIXES = {"Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4, "k": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}


@dataclass(frozen=True)
class ClusterFacts:
    """What the checks need to know of a cluster. ``error`` is set when it could not be asked, and the rest is empty."""

    error: str = ""
    version: str = ""
    nodes: Sequence[Mapping[str, Any]] = ()
    storage_classes: Sequence[Mapping[str, Any]] = ()
    volume_drivers: Optional[Sequence[str]] = None
    """None: they were not seen."""
    networks: Sequence[tuple[str, str]] = ()
    """Of pods and Services, each with what it is; empty where the API does not tell."""
    api_groups: Sequence[str] = ()
    secrets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    holders: Sequence[Holder] = ()
    """What holds 80 and 443."""
    installed: str = ""
    """Release that Helm has installed last, whether it became ready or not."""
    rights: Optional[Rights] = None
    """None: they were not asked for."""


@dataclass(frozen=True)
class HttpAnswer:
    """How a server answered: an HTTP status, or ``error`` with what stopped the request."""

    status: int = 0
    error: str = ""


def quantity(text: str) -> float:
    """A Kubernetes quantity in units: ``1500m`` is 1.5, ``2Gi`` is 2147483648."""
    match = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text))
    if match is None:
        return 0.0
    number, suffix = float(match.group(1)), match.group(2)
    return number / 1000 if suffix == "m" else number * _SUFFIXES.get(suffix, 1)


def minor(version: str) -> tuple[int, int]:
    """``v1.33.0`` and ``1.33`` are ``(1, 33)``."""
    numbers = re.findall(r"\d+", version)
    return (int(numbers[0]), int(numbers[1])) if len(numbers) > 1 else (0, 0)


def read_cluster(api: KubeApi, namespace: str, *, secrets: bool, whole_cluster: bool = False) -> ClusterFacts:
    """Ask the cluster for what the checks need; with *secrets* for the keys of those in *namespace* too, with *whole_cluster* for all rights."""
    try:
        found = api.request("GET", f"/api/v1/namespaces/{namespace}/secrets") if secrets else {}
        drivers = items_or_none(api, "/apis/storage.k8s.io/v1/csidrivers")
        nodes = api.request("GET", "/api/v1/nodes").get("items") or ()
        return ClusterFacts(
            version=str(api.request("GET", "/version").get("gitVersion", "")),
            nodes=[_node(item) for item in nodes],
            networks=_networks(api, nodes),
            storage_classes=[
                {
                    "name": item["metadata"]["name"],
                    "annotations": item["metadata"].get("annotations") or {},
                    "provisioner": item.get("provisioner", ""),
                    "expands": bool(item.get("allowVolumeExpansion")),
                }
                for item in api.request("GET", "/apis/storage.k8s.io/v1/storageclasses").get("items") or ()
            ],
            volume_drivers=None if drivers is None else [str(item["metadata"]["name"]) for item in drivers],
            api_groups=[str(group["name"]) for group in api.request("GET", "/apis").get("groups") or ()],
            secrets={item["metadata"]["name"]: sorted(item.get("data") or {}) for item in found.get("items") or ()},
            holders=read_holders(api),
            installed=installed_version(api, namespace),
            rights=ask_rights(api, namespace, whole_cluster=whole_cluster),
        )
    except KubeError as error:
        return ClusterFacts(error=error.sentence)


def _networks(api: KubeApi, nodes: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    pods = [(str(text), "pods") for node in nodes for text in (node.get("spec") or {}).get("podCIDRs") or ()]
    ranges = items_or_none(api, "/apis/networking.k8s.io/v1/servicecidrs") or ()
    return [*pods, *((str(text), "Services") for item in ranges for text in (item.get("spec") or {}).get("cidrs") or ())]


def _node(item: Mapping[str, Any]) -> dict[str, Any]:
    status = item.get("status") or {}
    room = status.get("allocatable") or {}
    ready = any(entry.get("type") == "Ready" and entry.get("status") == "True" for entry in status.get("conditions") or ())
    provider = str((item.get("spec") or {}).get("providerID") or "")
    return {"name": item["metadata"]["name"], "ready": ready, "provider_id": provider, "cpu": room.get("cpu", "0"), "memory": room.get("memory", "0")}


def _finding(check: str, good: bool, subject: str, found: str, expected: str, source: str, remedy: str, level: str = PROBLEM) -> Finding:
    return Finding(check, OK if good else level, subject, found, expected, source, "" if good else remedy)


def check_cluster(
    facts: ClusterFacts, release: Mapping[str, Any], *, brings_storage_class: bool, kubeconfig: str, namespace: str = "circleci-server"
) -> list[Finding]:
    """Kubernetes range, size, StorageClass and OpenShift.

    *release* holds ``version``, ``kubernetes_min``, ``kubernetes_max``, ``cluster_users``, ``cluster_nodes``, ``cluster_cpus`` and
    ``cluster_memory_gb``, and may hold ``platform``, what the catalog knows of the one that is said, and ``load_balancer``.
    """
    if facts.error:
        return [
            Finding(
                "cluster_reachable",
                PROBLEM,
                "circleci_kubeconfig",
                "not set" if not kubeconfig else facts.error if kubeconfig in facts.error else f"{kubeconfig}: {facts.error}",
                "a kubeconfig on the control host that reaches the cluster",
                "onprem.circleci_server",
                "Copy a kubeconfig there and try `kubectl get nodes` with it on the control host. "
                "Until then Kubernetes version, nodes, StorageClasses and Secrets are not looked at.",
            )
        ]
    findings = [Finding("cluster_reachable", OK, "circleci_kubeconfig", facts.version, "an answer", "onprem.circleci_server")]
    if facts.rights is not None:
        findings.append(check_rights(facts.rights, namespace, why_whole_cluster(release, brings_storage_class=brings_storage_class)))
    if any(group.endswith(".openshift.io") for group in facts.api_groups):
        findings.append(
            Finding(
                "openshift",
                PROBLEM,
                "circleci_platform",
                "OpenShift API groups",
                "any other Kubernetes",
                "vendor overview, platform table: known not to work",
                "CircleCI Server is known not to work on OpenShift; there is no override. Use another cluster.",
            )
        )
    known = release.get("platform")
    if known:
        ids = [str(node.get("provider_id") or "") for node in facts.nodes]
        seen = detected(known, version=facts.version, provider_ids=[item for item in ids if item], api_groups=facts.api_groups)
        findings += check_said(known, seen)
        findings += check_ports(facts.holders, known, load_balancer=str(release.get("load_balancer") or ""), namespace=namespace)
    low, high = str(release["kubernetes_min"]), str(release["kubernetes_max"])
    findings.append(
        _finding(
            "kubernetes_version",
            minor(low) <= minor(facts.version) <= minor(high),
            f"circleci_release {release['version']}",
            f"Kubernetes {facts.version}",
            f"{low} to {high}",
            "vendor version matrix",
            "Bring the cluster into that range first, or choose a release whose range holds it.",
        )
    )
    findings.append(_check_size(facts, release))
    defaults = [item["name"] for item in facts.storage_classes if item.get("annotations", {}).get(_DEFAULT_CLASS) == "true"]
    findings += check_storage(facts.storage_classes, defaults, brings=brings_storage_class)
    findings += check_growth(facts.storage_classes, defaults)
    findings += check_driver(known or {}, facts.storage_classes, defaults, facts.volume_drivers)
    if brings_storage_class:
        foreign = [name for name in defaults if name != "local-path"]
        findings.append(
            _finding(
                "storage_class",
                not foreign,
                "circleci_storage_class",
                f"default StorageClass {', '.join(foreign) or 'none'}",
                "no other default StorageClass when local_path is brought",
                "onprem.circleci_server",
                "Set circleci_storage_class to provided and use the one that is there.",
            )
        )
    else:
        findings.append(
            _finding(
                "storage_class",
                len(defaults) == 1,
                "circleci_storage_class",
                f"{len(defaults)} default StorageClass(es){': ' + ', '.join(defaults) if defaults else ''}",
                "exactly one default StorageClass; the chart names none",
                "vendor Helm values (no key for it)",
                f"Annotate one with {_DEFAULT_CLASS}=true, or set circleci_storage_class to local_path.",
            )
        )
    return findings


def why_whole_cluster(release: Mapping[str, Any], *, brings_storage_class: bool) -> str:
    """Why the rights of a namespace are not enough; empty when they are."""
    if brings_storage_class or str(release.get("load_balancer") or "") == "metallb":
        return BRINGS_ADDONS
    known = release.get("platform") or {}
    return f"the vendor asks for them on {known['name']}" if known.get("installer_rights") == "cluster" else ""


def _check_size(facts: ClusterFacts, release: Mapping[str, Any]) -> Finding:
    ready = [node for node in facts.nodes if node.get("ready")]
    cpus = sum(quantity(str(node.get("cpu", "0"))) for node in ready)
    memory = sum(quantity(str(node.get("memory", "0"))) for node in ready) / _GIB
    good = len(ready) >= release["cluster_nodes"] and cpus >= release["cluster_cpus"] and memory >= release["cluster_memory_gb"] * 0.93
    return _finding(
        "cluster_size",
        good,
        "Kubernetes nodes",
        f"{len(ready)} ready node(s), {cpus:.0f} CPUs, {memory:.0f} GiB",
        f"{release['cluster_nodes']} nodes, {release['cluster_cpus']} CPUs, {release['cluster_memory_gb']} GB for {release['cluster_users']} daily users",
        "vendor prerequisites, sizing table",
        "Add nodes, correct circleci_daily_users, or waive cluster_size with a reason.",
    )


def check_secrets(facts: ClusterFacts, wanted: Mapping[str, Sequence[str]], namespace: str) -> list[Finding]:
    """Every Secret and key that *wanted* names must be in *namespace*."""
    if facts.error:
        return []
    missing = [
        f"{name} ({', '.join(sorted(set(keys) - set(facts.secrets.get(name, ()))))})"
        for name, keys in sorted(wanted.items())
        if set(keys) - set(facts.secrets.get(name, ()))
    ]
    return [
        _finding(
            "secrets",
            not missing,
            f"namespace {namespace}",
            f"missing {', '.join(missing)}" if missing else f"{len(wanted)} Secrets",
            "all Secrets of the release",
            "vendor Helm values, Secrets table",
            "Run the verb secrets once; install never makes a secret.",
        )
    ]


def check_registry(answer: Optional[HttpAnswer], host: str, *, ours_to_make: bool) -> Finding:
    """Whether the private registry answers and lets us in; one that this run would set up may be absent. None: it was not asked."""
    expected = "an answer to GET /v2/ with the given user and password"
    source = "OCI distribution specification"
    if answer is None:
        return Finding(
            "registry", WARNING, "circleci_registry_host", f"{host} was not asked: user or password is not given", expected, source,
            "Give circleci_registry_username and circleci_registry_password.",
        )  # fmt: skip
    if answer.status == 200:
        return Finding("registry", OK, "circleci_registry_host", f"{host} answers", expected, source)
    if answer.status in (401, 403):
        return Finding(
            "registry_credentials",
            PROBLEM,
            "circleci_registry_username, circleci_registry_password",
            f"{host} answers {answer.status}",
            expected,
            source,
            "Correct the user or the password of the private registry.",
        )
    if "certificate" in answer.error.lower():
        return Finding(
            "registry_certificate",
            PROBLEM,
            "circleci_ca_certificate",
            f"{host}: {answer.error}",
            "a certificate that the given authority signed and that names the host",
            source,
            "Give the PEM of the authority that signed the registry's certificate.",
        )
    found = answer.error or f"status {answer.status}"
    if ours_to_make:
        return Finding("registry", OK, "circleci_registry_host", f"{host}: {found}; this run sets it up", "nothing yet", source)
    return Finding(
        "registry",
        PROBLEM,
        "circleci_registry_host",
        f"{host}: {found}",
        expected,
        source,
        "Start the registry, correct the address, or put a host into circleci_registry so that install sets one up.",
    )


def ask_registry(host: str, username: str, password: str, ca_certificate: str) -> HttpAnswer:
    """Ask ``https://host/v2/`` with basic authentication."""
    token = base64.b64encode(f"{username}:{password}".encode()).decode()
    return _ask(urllib.request.Request(f"https://{host}/v2/", headers={"Authorization": f"Basic {token}"}), ca_certificate)


def ask_object_storage(endpoint: str, ca_certificate: str) -> HttpAnswer:
    """Ask the object store for nothing that needs a login: whatever it answers, it is there."""
    return _ask(urllib.request.Request(f"{endpoint.rstrip('/')}/"), ca_certificate)  # noqa: S310 - the gate lets http and https through only


def _ask(request: urllib.request.Request, ca_certificate: str) -> HttpAnswer:
    try:
        opener = token_opener(ca_certificate, proxy=False)
    except ValueError:
        return HttpAnswer(error="circleci_ca_certificate holds no certificate in PEM form")
    try:
        with opener.open(request, timeout=10) as answer:
            return HttpAnswer(status=answer.status)
    except urllib.error.HTTPError as error:
        return HttpAnswer(status=error.code)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return HttpAnswer(error=str(reason) or type(error).__name__)


def check_object_storage(answer: HttpAnswer, endpoint: str) -> Finding:
    """Whether a store that somebody else runs answers the control host, which fills it. Clients and pods are asked by verify."""
    expected, source = "an answer of the object store, with a certificate that the site trusts", "vendor prerequisites: object storage"
    if "certificate" in answer.error.lower():
        return Finding(
            "object_storage", PROBLEM, "circleci_object_storage_endpoint, circleci_ca_certificate", f"{endpoint}: {answer.error}", expected, source,
            "Give the PEM of the authority that signed its certificate, or the name that its certificate is for. Pods, clients and browsers must trust it too.",
        )  # fmt: skip
    if answer.error or answer.status >= 500:
        return Finding(
            "object_storage", PROBLEM, "circleci_object_storage_endpoint", f"{endpoint}: {answer.error or f'status {answer.status}'}", expected, source,
            "Start the store, correct its address, or let the control host reach it.",
        )  # fmt: skip
    return Finding("object_storage", OK, "circleci_object_storage_endpoint", f"{endpoint} answers {answer.status}", expected, source)


def check_step(facts: ClusterFacts, release: Mapping[str, Any]) -> Finding:
    """The release that is installed must be one that the wanted one may follow. ``upgrade_from`` lists those."""
    installed = facts.installed
    allowed = [str(version) for version in release.get("upgrade_from", [])]
    good = not installed or installed == release["version"] or installed in allowed
    return _finding(
        "upgrade_step",
        good,
        f"circleci_release {release['version']}",
        f"{installed} is installed" if installed else "nothing is installed",
        f"one of {', '.join(allowed)}, or nothing" if allowed else "nothing, or the same release",
        "vendor upgrade guide",
        f"Install {allowed[0]} first; steps cannot be left out."
        if allowed
        else f"Run the verb upgrade, which takes a restore point first, or set circleci_release to {installed}.",
    )


def check_support(release: Mapping[str, Any], today: date) -> Finding:
    """Whether the vendor still supports the release."""
    end = str(release.get("support_end") or "")
    good = not end or date.fromisoformat(end) >= today
    return _finding(
        "support_period",
        good,
        f"circleci_release {release['version']}",
        f"support ended on {end}" if not good else f"supported until {end or 'an unknown date'}",
        "a release that the vendor supports",
        "vendor version matrix",
        "Choose a newer release.",
        level=WARNING,
    )


def check_bundle(folder: str, *, present: bool, error: str) -> Finding:
    """Whether the bundle's parts are there and belong together."""
    return _finding(
        "bundle",
        present and not error,
        "circleci_bundle_dir",
        error or (f"{folder} with all parts" if present else f"no bundle in {folder}"),
        "all parts of one bundle, unchanged",
        "onprem.circleci_server bundle format",
        "Copy the missing or damaged part again from the connected side." if present else "Carry it there; the verb bundle makes it on the connected side.",
    )


def check_bundle_release(folder: str, charts: Sequence[str], release: str) -> Finding:
    """Whether a whole bundle was made for the release that is wanted."""
    return _finding(
        "bundle",
        release in charts,
        "circleci_bundle_dir",
        f"a bundle of release {', '.join(charts) or 'none'} in {folder}" if release not in charts else f"{folder} with all parts of {release}",
        f"a bundle of release {release}",
        "circleci_release",
        "Make a bundle of that release on the connected side and carry it here, or name the folder that holds it.",
    )
