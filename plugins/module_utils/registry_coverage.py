# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on a site against what its registry has: which images would fail to pull."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from .discovery.references import parse_or_none
from .discovery.walk import CONTAINER_LISTS
from .helm.kube import KubeApi
from .mirror.bundle import BundleRef
from .mirror.load import map_target
from .mirror.oci import Reference
from .nomad.client import NomadClient
from .nomad.transport import ClusterTransport, NomadError


@dataclass
class Used:
    """An image with everything that asks for it."""

    image: str
    by: list[str] = field(default_factory=list)


def from_cluster(api: KubeApi, namespaces: Iterable[str]) -> dict[str, Used]:
    """Images of pods and of everything that makes pods; an empty list looks into all namespaces."""
    found: dict[str, Used] = {}
    kinds = [("/api/v1", "pods"), ("/apis/batch/v1", "cronjobs")]
    kinds += [("/apis/apps/v1", kind) for kind in ("deployments", "statefulsets", "daemonsets")]
    for place in [f"/namespaces/{name}" for name in namespaces] or [""]:
        for group, kind in kinds:
            for item in api.request("GET", f"{group}{place}/{kind}").get("items") or []:
                metadata = item.get("metadata") or {}
                if kind == "pods" and (item.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
                    continue
                where = f"{kind.removesuffix('s')} {metadata.get('namespace')}/{metadata.get('name')}"
                for image in _containers(item):
                    found.setdefault(image, Used(image)).by.append(where)
    return found


def _containers(node: Any) -> Iterable[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in CONTAINER_LISTS and isinstance(value, list):
                yield from (str(item["image"]) for item in value if isinstance(item, Mapping) and item.get("image"))
            else:
                yield from _containers(value)
    elif isinstance(node, list):
        for item in node:
            yield from _containers(item)


def from_nomad(api: KubeApi, namespace: str, service: str) -> dict[str, Used]:
    """Images of the Docker tasks of all jobs that Nomad has, asked through the API server; nothing when there is no Nomad."""
    nomad = NomadClient(ClusterTransport(api, namespace, service))
    found: dict[str, Used] = {}
    try:
        jobs = nomad.jobs()
    except NomadError as error:
        if error.status in (404, 503):
            return found
        raise
    for name in jobs:
        for group in nomad.job(name).get("TaskGroups") or []:
            for task in group.get("Tasks") or []:
                image = (task.get("Config") or {}).get("image")
                if image:
                    found.setdefault(str(image), Used(str(image))).by.append(f"Nomad job {name} {group.get('Name')}/{task.get('Name')}")
    return found


def missing(
    used: Mapping[str, Used], registry: str, mapping: Mapping[str, str], head: Callable[[str, str], Optional[str]]
) -> list[dict[str, Any]]:
    """Those that the registry could not give, each with who uses it and why it would fail."""

    def look(item: Used) -> Optional[dict[str, Any]]:
        reference = parse_or_none(item.image)
        if reference is None:
            return {"image": item.image, "used_by": sorted(set(item.by)), "reason": "is no image reference"}
        name = f"{reference.registry}/{reference.repository}"
        repository = name[len(registry) + 1 :] if name.startswith(f"{registry}/") else target_of(reference, mapping)
        if head(repository, reference.lookup) is not None:
            return None
        return {"image": item.image, "used_by": sorted(set(item.by)), "reason": f"{registry}/{repository} has no {reference.lookup}"}

    with ThreadPoolExecutor(8) as pool:
        return [entry for entry in pool.map(look, [used[name] for name in sorted(used)]) if entry is not None]


def target_of(reference: Reference, mapping: Mapping[str, str]) -> str:
    """Where a load would have put an image."""
    stand_in = BundleRef(reference.name, "image", f"{reference.repository}:{reference.tag or 'latest'}", "", (), (), "", ())
    return map_target(stand_in, mapping)[0]


def joined(*parts: Mapping[str, Used]) -> dict[str, Used]:
    """One table of several."""
    result: dict[str, Used] = {}
    for part in parts:
        for image, used in part.items():
            result.setdefault(image, Used(image)).by.extend(used.by)
    return result
