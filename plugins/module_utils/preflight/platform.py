# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a cluster is the platform that its site says, what the vendor thinks of that, and what would be in the way of circleci-proxy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ..helm.kube import KubeApi, KubeError
from .findings import OK, PROBLEM, WARNING, Finding

WEB_PORTS = (80, 443)
FOLDERS = "rancher.io/local-path"
LOCAL_PROVISIONERS = (FOLDERS, "kubernetes.io/no-provisioner")
SAID = "circleci_platform"


@dataclass(frozen=True)
class Holder:
    """Something of the cluster that holds a port on every node, or on a load balancer."""

    name: str
    namespace: str
    ports: tuple[int, ...]
    on_nodes: bool


def read_holders(api: KubeApi) -> list[Holder]:
    """What holds 80 and 443: host ports of DaemonSets and pods' templates, and Services of type LoadBalancer. What may not be read is left out."""
    found = []
    for item in items_or_none(api, "/apis/apps/v1/daemonsets") or ():
        spec = ((item.get("spec") or {}).get("template") or {}).get("spec") or {}
        ports = {
            int(port.get("hostPort") or (port.get("containerPort") if spec.get("hostNetwork") else 0) or 0)
            for container in spec.get("containers") or ()
            for port in container.get("ports") or ()
        }
        found.append(_holder(item, ports, on_nodes=True))
    for item in items_or_none(api, "/api/v1/services") or ():
        spec = item.get("spec") or {}
        if spec.get("type") == "LoadBalancer":
            found.append(_holder(item, {int(port.get("port") or 0) for port in spec.get("ports") or ()}, on_nodes=False))
    return [holder for holder in found if holder.ports]


def items_or_none(api: KubeApi, path: str) -> Optional[Sequence[Mapping[str, Any]]]:
    """Objects of the whole cluster; None where they may not be read."""
    try:
        found: Sequence[Mapping[str, Any]] = api.request("GET", path).get("items") or ()
    except KubeError as error:
        if error.status in (403, 404):
            return None
        raise
    return found


def _holder(item: Mapping[str, Any], ports: Iterable[int], *, on_nodes: bool) -> Holder:
    metadata = item.get("metadata") or {}
    held = tuple(sorted(port for port in ports if port in WEB_PORTS))
    return Holder(str(metadata.get("name", "")), str(metadata.get("namespace", "")), held, on_nodes)


def detected(known: Mapping[str, Any], *, version: str, provider_ids: Sequence[str], api_groups: Sequence[str]) -> str:
    """The platform that the API shows; empty when it is none of those that can be told. OpenShift and Rancher come before the cloud that they run in."""

    def shows(sign: str) -> bool:
        kind, _colon, text = sign.partition(": ")
        if kind == "provider_id":
            return bool(provider_ids) and all(item.startswith(text) for item in provider_ids)
        return text in version if kind == "version" else text in api_groups

    found = [str(platform) for platform, signs in known["detect"].items() if any(shows(sign) for sign in signs)]
    first = [platform for platform in ("openshift", "rancher") if platform in found]
    return (first + found + [""])[0]


def check_said(known: Mapping[str, Any], seen: str) -> list[Finding]:
    """What is said against what is seen, and the vendor's verdict on what is said."""
    said = str(known["id"])
    source = "how platforms are told, catalog"
    if seen == "openshift":
        return []  # has a finding of its own, that nothing overrides
    if seen == said:
        findings = [Finding("platform", OK, SAID, f"{said}, and the cluster is one", said, source)]
    elif not seen and said == "generic":
        text = "a cluster that is none of the platforms that can be told: it is treated as generic, nothing of a cloud is counted on"
        findings = [Finding("platform", OK, SAID, text, "generic", source)]
    else:
        shown = seen or "none of those that can be told"
        findings = [
            Finding(
                "platform", WARNING, SAID, f"{said}, but the cluster looks like {shown}", "the platform that the cluster is", source,
                f"Annotations of the load balancer and rules of firewalls are those of {said}. Set circleci_platform to {seen or 'generic'} if that is wrong.",
            )
        ]  # fmt: skip
    verdict = str(known["verdict"]).replace("_", " ")
    text = f"{verdict}{': ' + known['note'] if known.get('note') else ''}"
    if known["verdict"] == "tested":
        findings.append(Finding("vendor_verdict", OK, f"{SAID} {said}", text, "what the vendor says of it", str(known["source"])))
    else:
        needs = " Runners are needed for machine jobs." if known.get("runner_needed") else ""
        remedy = f"Take it to the vendor's support before production.{needs}"
        findings.append(Finding("vendor_verdict", WARNING, f"{SAID} {said}", text, "a platform that the vendor tests", str(known["source"]), remedy))
    return findings


def check_storage(storage_classes: Sequence[Mapping[str, Any]], defaults: Sequence[str], *, brings: bool) -> list[Finding]:
    """A warning where the databases would lie on a disk of one node."""
    local = [str(item["name"]) for item in storage_classes if item["name"] in defaults and item.get("provisioner") in LOCAL_PROVISIONERS]
    if not brings and not local:
        return []
    found = "local-path, which this run brings" if brings else f"{', '.join(local)}, whose volumes are folders of nodes"
    return [
        Finding(
            "storage_class_local", WARNING, "circleci_storage_class", f"default StorageClass {found}", "volumes that outlive a node",
            "documentation of local-path-provisioner",
            "A node that is lost takes the databases along. Use a class whose volumes are on the network, or keep backups that you have restored once.",
        )
    ]  # fmt: skip


def check_growth(storage_classes: Sequence[Mapping[str, Any]], defaults: Sequence[str]) -> list[Finding]:
    """A warning where the volumes of databases can never be made larger. Folders of nodes have no size of their own: they end with the disk."""
    findings = []
    for item in storage_classes:
        if item["name"] not in defaults or item.get("provisioner") == FOLDERS:
            continue
        grows = bool(item.get("expands"))
        findings.append(
            Finding(
                "storage_class_growth", OK if grows else WARNING, f"StorageClass {item['name']}",
                f"allowVolumeExpansion is {'true' if grows else 'not true'}", "volumes that can be made larger", "vendor backup and volume guide",
                "" if grows else "A database whose volume is full stands still, and only a restore into a larger volume helps then. Set allowVolumeExpansion: "
                "true on the class, if its driver can, or make the volumes large enough from the beginning.",
            )
        )  # fmt: skip
    return findings


def check_driver(
    known: Mapping[str, Any], storage_classes: Sequence[Mapping[str, Any]], defaults: Sequence[str], drivers: Optional[Sequence[str]]
) -> list[Finding]:
    """Where a platform brings a StorageClass without the driver that makes its volumes. None of *drivers*: they were not seen."""
    volumes = known.get("volumes") or {}
    wanted = volumes.get("driver")
    users = [str(item["name"]) for item in storage_classes if item["name"] in defaults and item.get("provisioner") in (volumes.get("provisioners") or ())]
    if not wanted or not users or drivers is None or wanted in drivers:
        return []
    return [
        Finding(
            "storage_driver", PROBLEM, f"StorageClass {', '.join(users)}", f"no CSIDriver {wanted} in the cluster", f"the driver {wanted}",
            "vendor prerequisites: persistent volumes", f"Add the driver. Without it the claims of the databases stay pending on {known['name']}.",
        )
    ]  # fmt: skip


def check_ports(holders: Sequence[Holder], known: Mapping[str, Any], *, load_balancer: str, namespace: str) -> list[Finding]:
    """What holds 80 and 443 already, with the setting that frees them where it comes with the platform."""
    settings = {str(item["name"]): str(item["setting"]) for item in known.get("ingress") or ()}
    findings = []
    for holder in holders:
        if holder.namespace == namespace or not (holder.on_nodes or holder.name in settings):
            continue
        # MetalLB answers for an address of its own; whatever shares the nodes' addresses collides.
        level = WARNING if load_balancer == "metallb" else PROBLEM
        remedy = f"Set {settings[holder.name]}." if holder.name in settings else "Take it away, or give it other ports."
        ports = " and ".join(str(port) for port in holder.ports)
        where = "every node" if holder.on_nodes else "the load balancer"
        findings.append(
            Finding(
                "web_ports", level, f"{holder.namespace}/{holder.name}", f"holds {ports} on {where}",
                "80 and 443 free for circleci-proxy, which else stays pending" if level == PROBLEM else "nothing else on the addresses of users",
                "K3s and RKE2 documentation, networking", remedy,
            )
        )  # fmt: skip
    return findings
