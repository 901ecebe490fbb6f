# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes others pull from the private registry, as data, all from one mapping. The roles that own the files write them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...module_utils.mirror.oci import Reference
from ..catalog import Catalog

SOURCES = ("cciserver.azurecr.io", "docker.io", "ghcr.io", "quay.io", "registry.k8s.io")
"""Registries that images of a bundle come from when nobody says otherwise."""


@dataclass(frozen=True)
class Place:
    """Where images lie: in one registry, at their own path unless a rule replaces its start."""

    registry: str
    rules: Mapping[str, str] = field(default_factory=dict)
    plain_http: bool = False
    ca_file: str = ""

    @property
    def url(self) -> str:
        return f"{'http' if self.plain_http else 'https'}://{self.registry}"

    def path(self, repository: str) -> str:
        """The path of a repository (``kong``, ``quay.io/soketi/soketi``) in the private registry."""
        reference = Reference.parse(repository)
        source = f"{reference.registry}/{reference.repository}"
        for old in sorted(self.rules, key=len, reverse=True):
            start = old.rstrip("/")
            for name in (source, reference.repository):
                if name == start or name.startswith(f"{start}/"):
                    rest = name[len(start) :].lstrip("/")
                    return "/".join(part for part in (self.rules[old].strip("/"), rest) if part)
        return reference.repository

    def keeps_paths_of(self, source: str) -> bool:
        """Whether a mirror setting by host is enough for the images of a registry, as it keeps their paths."""
        return not any(old.split("/", 1)[0] == source or "." not in old.split("/", 1)[0] for old in self.rules)


def helm_values(catalog: Catalog, release: str, place: Place) -> dict[str, Any]:
    """The overlay that moves every image of the chart whose key is known, for those who run helm by hand."""
    overlay: dict[str, Any] = {}
    for image in catalog.images(release):
        keys = image.values_keys
        if keys is None or image.group not in ("chart", "nomad_client"):
            continue
        path = place.path(image.repository)
        if keys.org is not None and keys.registry is not None:
            folder = path.rpartition("/")[0]
            _put(overlay, keys.registry, place.registry)
            _put(overlay, keys.org, folder)
        elif keys.registry is not None:
            _put(overlay, keys.registry, place.registry)
            if keys.repository is not None:
                _put(overlay, keys.repository, path)
        elif keys.repository is not None:
            # The reaper's key is the place of an image that the product names itself.
            whole = f"{place.registry}/{path}"
            _put(overlay, keys.repository, whole.rpartition("/")[0] if keys.repository.endswith("ContainerRepository") else whole)
    return overlay


def _put(tree: dict[str, Any], key: str, value: str) -> None:
    *above, last = key.split(".")
    for part in above:
        tree = tree.setdefault(part, {})
    tree[last] = value


def containerd_hosts(place: Place, sources: Iterable[str]) -> dict[str, str]:
    """``certs.d/<host>/hosts.toml`` by host. The private registry is the server as well, so that nothing falls back to the internet."""
    files = {}
    for source in sorted({*sources, place.registry}):
        lines = [f"server = {json.dumps(place.url)}", "", f"[host.{json.dumps(place.url)}]", '  capabilities = ["pull", "resolve"]']
        if place.ca_file and not place.plain_http:
            lines.append(f"  ca = {json.dumps(place.ca_file)}")
        files[source] = "\n".join(lines) + "\n"
    return files


def k3s_registries(place: Place, sources: Iterable[str]) -> dict[str, Any]:
    """``registries.yaml`` of K3s and RKE2, without a login: roles that own the file add it from a secret."""
    settings: dict[str, Any] = {"mirrors": {source: {"endpoint": [place.url]} for source in sorted({*sources, place.registry})}}
    if place.ca_file and not place.plain_http:
        settings["configs"] = {place.registry: {"tls": {"ca_file": place.ca_file}}}
    return settings


def docker_daemon(place: Place) -> dict[str, Any]:
    """Keys of ``daemon.json``, to be joined with what is there. Docker mirrors Docker Hub only; all else is pulled by its new name."""
    settings: dict[str, Any] = {}
    if place.keeps_paths_of("docker.io"):
        settings["registry-mirrors"] = [place.url]
    if place.plain_http:
        settings["insecure-registries"] = [place.registry]
    return settings


def ca_files(place: Place) -> dict[str, str]:
    """Where programs look for the authority of the registry, by program."""
    if place.plain_http:
        return {}
    return {
        "docker": f"/etc/docker/certs.d/{place.registry}/ca.crt",
        "containerd": place.ca_file or f"/etc/containerd/certs.d/{place.registry}/ca.crt",
        "debian": "/usr/local/share/ca-certificates/onprem-circleci-registry.crt",
        "redhat": "/etc/pki/ca-trust/source/anchors/onprem-circleci-registry.crt",
    }


def mirror_outputs(
    registry: str,
    *,
    catalog: Catalog,
    release: str,
    sources: Iterable[str] = SOURCES,
    mapping: Mapping[str, str] | None = None,
    ca_file: str = "",
    plain_http: bool = False,
) -> dict[str, Any]:
    """All of them."""
    where = Place(registry, dict(mapping or {}), plain_http, ca_file)
    hosts = list(sources)
    result = {"helm_values": helm_values(catalog, release, where), "docker_daemon": docker_daemon(where), "ca_files": ca_files(where)}
    if all(where.keeps_paths_of(source) for source in hosts):
        return {**result, "containerd_hosts": containerd_hosts(where, hosts), "k3s_registries": k3s_registries(where, hosts)}
    # With paths that moved there is no truth in a setting by host; whoever asks for one gets none instead of a wrong one.
    return {**result, "containerd_hosts": {}, "k3s_registries": {}}
