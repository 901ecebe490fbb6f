# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the user of the kubeconfig may do what the verbs do. Kubernetes answers by itself, to anybody and for the asker alone; nothing is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..helm.kube import KubeApi, KubeError, get_or_none
from .findings import OK, PROBLEM, WARNING, Finding

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_SOURCE = "vendor prerequisites: at least administrator of the namespace"
BRINGS_ADDONS = "this run brings add-ons of the cluster"
_VERBS = ("create", "patch", "delete")
# What Helm makes of the chart, and the verb secrets; the ClusterRole admin of Kubernetes holds all of it.
_IN_NAMESPACE = (
    ("", "configmaps"), ("", "persistentvolumeclaims"), ("", "secrets"), ("", "serviceaccounts"), ("", "services"), ("apps", "deployments"),
    ("apps", "statefulsets"), ("batch", "jobs"), ("rbac.authorization.k8s.io", "rolebindings"), ("rbac.authorization.k8s.io", "roles"),
)  # fmt: skip


@dataclass(frozen=True)
class Rights:
    """What is not allowed, or why nobody knows."""

    missing: Sequence[str] = ()
    unknown: str = ""


def ask_rights(api: KubeApi, namespace: str, *, whole_cluster: bool) -> Rights:
    """Ask for the rights that are used, and no others; *whole_cluster* when what belongs to all of it is made, such as definitions and roles of the cluster."""
    try:
        if whole_cluster:
            return Rights(() if _may(api, "*", "*", "*") else ("everything in the whole cluster",))
        missing = []
        if get_or_none(api, f"/api/v1/namespaces/{namespace}") is None and not _may(api, "create", "", "namespaces"):
            missing.append("create namespaces")
        for group, resource in _IN_NAMESPACE:
            refused = [verb for verb in _VERBS if not _may(api, verb, group, resource, namespace)]
            if refused:
                missing.append(f"{'/'.join(refused)} {resource}")
        return Rights(missing)
    except KubeError as error:
        return Rights(unknown=error.sentence)


def _may(api: KubeApi, verb: str, group: str, resource: str, namespace: str = "") -> bool:
    wanted = {"verb": verb, "group": group, "resource": resource, **({"namespace": namespace} if namespace else {})}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": wanted}}
    return bool((api.request("POST", _REVIEWS, body=review).get("status") or {}).get("allowed"))


def check_rights(rights: Rights, namespace: str, why_whole_cluster: str) -> Finding:
    """The finding about them; *why_whole_cluster* is empty where those of the namespace are enough."""
    expected = f"the rights of cluster-admin, since {why_whole_cluster}" if why_whole_cluster else f"the rights of admin in namespace {namespace}"
    if rights.unknown:
        return Finding("installer_rights", WARNING, "circleci_kubeconfig", rights.unknown, expected, _SOURCE, "Its rights were not looked at.")
    if not rights.missing:
        return Finding("installer_rights", OK, "circleci_kubeconfig", "them", expected, _SOURCE)
    if why_whole_cluster:
        otherwise = ", or bring the add-ons by yourself: circleci_storage_class and circleci_load_balancer provided"
        remedy = f"Bind its user to the ClusterRole cluster-admin{otherwise if why_whole_cluster == BRINGS_ADDONS else ''}."
    else:
        remedy = f"Bind its user to the ClusterRole admin: kubectl create rolebinding circleci-installer -n {namespace} --clusterrole=admin --user=<user>"
        remedy += "; and make the namespace." if "create namespaces" in rights.missing else "."
    return Finding("installer_rights", PROBLEM, "circleci_kubeconfig", f"it may not {'; '.join(rights.missing)}", expected, _SOURCE, remedy)
