# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Kubernetes runs a gateway: the objects of the workload. A gateway keeps nothing, so that any replica answers any request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..catalog import Catalog
from .kinds import IN_CLUSTER, fixed_address
from .running import CONFIG_DIR, ServiceError, process

NAME = "onprem-circleci-object-storage"
"""Deployment, Service, Secret and the rest are called alike."""
TLS_SECRET = f"{NAME}-tls"
CREDENTIALS = "onprem.circleci-server/credentials"
"""Annotation of pods that differs when a value of the Secrets does, so that new values roll the pods."""
PORT = 7070
USER = 1000
_SECRET_VARIABLES = (
    "ROOT_SECRET_ACCESS_KEY", "VGW_S3_SECRET_KEY", "AZ_ACCESS_KEY", "MINIO_ROOT_PASSWORD", "AWS_SECRET_ACCESS_KEY",
)  # fmt: skip
_ACCESS_VARIABLES = ("ROOT_ACCESS_KEY_ID", "VGW_S3_ACCESS_KEY", "AZ_ACCOUNT_NAME", "MINIO_ROOT_USER", "AWS_ACCESS_KEY_ID")
_ROUNDS = 200_000
_CERTS = f"{CONFIG_DIR}/certs"


def workload(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """``objects`` and ``secrets`` as the module cluster_addon takes them. No credentials are in ``objects``."""
    if kind not in IN_CLUSTER:
        raise ServiceError(
            f"circleci_object_storage_placement: found cluster with circleci_object_storage_kind {kind!r}, which is not run in the cluster; allowed are "
            f"{', '.join(IN_CLUSTER)}."
        )
    family, arguments, environment, _folders = process(kind, {**options, "address": "", "port": PORT})
    more = {name: str(value) for name, value in (options.get("environment") or {}).items()}
    own = {name: str(value) for name, value in environment.items() if name not in more}
    secret = {name: own.pop(name) for name in _SECRET_VARIABLES if name in own} | more
    access = {name: own.pop(name) for name in _ACCESS_VARIABLES if name in own}
    secrets = [{"name": NAME, "namespace": options["namespace"], "type": "Opaque", "plain": access, "data": secret}]
    if options.get("tls"):
        secrets.append(
            {
                "name": TLS_SECRET,
                "namespace": options["namespace"],
                "type": "kubernetes.io/tls",
                "plain": {"tls.crt": options["certificate"]},
                "data": {"tls.key": options["private_key"]},
            }
        )
    return {"objects": _objects(family, arguments, own, secrets, options), "secrets": secrets}


def service_annotations(catalog: Catalog, platform: str, balancer: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, str]:
    """Annotations of the Service: those that the platform wants, as for the Service of the product, and the site's *own*, which win.

    *balancer* has ``kind`` and ``internal`` of the site's load balancer, and the ``address`` that the gateway is to get.
    """
    found: dict[str, str] = {}
    name = fixed_address(catalog, platform, str(balancer["kind"]))
    if balancer.get("address") and name:
        found[name] = str(balancer["address"])
    if balancer.get("internal") and balancer["kind"] != "metallb":
        internal = dict(catalog.platform(platform).load_balancer.value or {}).get("internal_annotation")
        if not internal and not own:
            raise ServiceError(
                f"circleci_load_balancer_internal: found true, but no annotation is known that keeps the Service of the object store inside the network on "
                f"platform {platform}; give it by circleci_object_storage_service_annotations."
            )
        found |= internal or {}
    return {**found, **own}


def _digest(secrets: list[dict[str, Any]], namespace: str) -> str:
    """Whoever may see pods learns of a change and nothing else: guessing costs more than asking the gateway itself."""
    return hashlib.pbkdf2_hmac("sha256", json.dumps(secrets, sort_keys=True).encode(), namespace.encode(), _ROUNDS).hex()[:32]


def _objects(
    family: str, arguments: list[str], environment: Mapping[str, str], secrets: list[dict[str, Any]], options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    labels = {"app.kubernetes.io/name": NAME}
    place = {"name": NAME, "namespace": options["namespace"]}
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": options["namespace"], "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": dict(place),
            "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}},
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": {**place, **_annotated(options)}, "spec": _service(labels, options)},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": dict(place),
            "spec": {
                "replicas": int(options["replicas"]),
                "selector": {"matchLabels": labels},
                # A pod that does not see the store behind it never takes the place of one that does.
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {
                    "metadata": {"labels": labels, "annotations": {CREDENTIALS: _digest(secrets, str(options["namespace"]))}},
                    "spec": _pod(family, arguments, environment, labels, options),
                },
            },
        },
    ]


def _annotated(options: Mapping[str, Any]) -> dict[str, Any]:
    annotations = dict(options.get("service_annotations") or {})
    return {"annotations": annotations} if annotations else {}


def _service(labels: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "LoadBalancer",
        "selector": dict(labels),
        "publishNotReadyAddresses": False,
        "ports": [{"name": "s3", "protocol": "TCP", "port": int(options["port"]), "targetPort": "s3"}],
    }


def _pod(family: str, arguments: list[str], environment: Mapping[str, str], labels: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = [{"name": "scratch", "mountPath": "/tmp"}]  # noqa: S108 - of the container, whose own files cannot be written
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": {}}]
    if options.get("tls"):
        mounts.append({"name": "certificate", "mountPath": _CERTS, "readOnly": True})
        # Names are those that the program looks for on a host, too.
        items = [{"key": "tls.crt", "path": "public.crt"}, {"key": "tls.key", "path": "private.key"}]
        volumes.append({"name": "certificate", "secret": {"secretName": TLS_SECRET, "items": items, "defaultMode": 0o440}})
    container = {
        "name": "gateway",
        "image": options["image"],
        "imagePullPolicy": "IfNotPresent",
        # By name: upstream has moved the program from folder to folder of the image, and has it on its path.
        "command": [family, *arguments],
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())],
        "envFrom": [{"secretRef": {"name": NAME}}],
        "ports": [{"name": "s3", "containerPort": PORT, "protocol": "TCP"}],
        # A gateway answers on its port when the store behind is down, too: an object is read through it.
        "readinessProbe": {
            "httpGet": {"path": options["health_path"], "port": "s3", "scheme": "HTTPS" if options.get("tls") else "HTTP"},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        # A restart mends no store that is down.
        "livenessProbe": {"tcpSocket": {"port": "s3"}, "periodSeconds": 10, "failureThreshold": 6},
        # Nodes go on to send connections for a moment after a pod was told to end.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "10"]}}},
        "resources": dict(options["resources"]),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 100,
                        "podAffinityTerm": {"labelSelector": {"matchLabels": dict(labels)}, "topologyKey": "kubernetes.io/hostname"},
                    }
                ]
            }
        },
        "containers": [container],
        "volumes": volumes,
    }
