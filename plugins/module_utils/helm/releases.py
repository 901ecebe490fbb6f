# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Helm has stored about a release, read straight from its Secrets: one request instead of several commands."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from .kube import KubeApi, core

PENDING = ("pending-install", "pending-upgrade", "pending-rollback")


@dataclass(frozen=True)
class StoredRelease:
    """One revision."""

    name: str
    revision: int
    status: str
    chart_name: str
    chart_version: str
    values: dict[str, Any]
    manifest: str
    description: str
    modified: str
    secret: str
    chart_values: dict[str, Any] = field(default_factory=dict)

    @property
    def pending(self) -> bool:
        return self.status in PENDING

    @property
    def chart_digest(self) -> str:
        """The digest that our description carries; empty when someone else wrote it."""
        _before, mark, rest = self.description.partition("chart sha256:")
        return rest.partition(")")[0].strip() if mark else ""


def encode(document: Mapping[str, Any]) -> str:
    """The form in which Helm keeps a release in a Secret's data."""
    packed = base64.b64encode(gzip.compress(json.dumps(document).encode()))
    return base64.b64encode(packed).decode()


def decode(data: str) -> dict[str, Any]:
    raw = base64.b64decode(base64.b64decode(data))
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    document = json.loads(raw)
    return document if isinstance(document, dict) else {}


def stored(secret: Mapping[str, Any]) -> StoredRelease:
    """The revision that a Secret of Helm holds."""
    metadata = secret.get("metadata") or {}
    document = decode((secret.get("data") or {})["release"])
    info = document.get("info") or {}
    chart = document.get("chart") or {}
    chart_metadata = chart.get("metadata") or {}
    return StoredRelease(
        name=str(document.get("name")),
        revision=int(document.get("version") or 0),
        status=str((metadata.get("labels") or {}).get("status") or info.get("status")),
        chart_name=str(chart_metadata.get("name") or ""),
        chart_version=str(chart_metadata.get("version") or ""),
        values=document.get("config") or {},
        manifest=str(document.get("manifest") or ""),
        description=str(info.get("description") or ""),
        modified=str((metadata.get("labels") or {}).get("modifiedAt") or ""),
        secret=str(metadata.get("name")),
        chart_values=chart.get("values") or {},
    )


def history(api: KubeApi, namespace: str, name: str) -> list[StoredRelease]:
    """All kept revisions, oldest first."""
    listed = api.request("GET", core(namespace, "secrets"), {"labelSelector": f"owner=helm,name={name}"})
    return sorted((stored(item) for item in listed.get("items", [])), key=lambda item: item.revision)


def others(api: KubeApi, namespace: str, name: str, chart_name: str) -> list[str]:
    """Other releases of the same chart in the namespace: workloads carry no release name, so there is room for one."""
    listed = api.request("GET", core(namespace, "secrets"), {"labelSelector": "owner=helm"})
    found = set()
    for item in listed.get("items", []):
        labels = (item.get("metadata") or {}).get("labels") or {}
        if labels.get("name") != name and labels.get("status") == "deployed":
            release = stored(item)
            if release.chart_name == chart_name:
                found.add(release.name)
    return sorted(found)


def current(revisions: list[StoredRelease]) -> Optional[StoredRelease]:
    return revisions[-1] if revisions else None


def installed_version(api: KubeApi, namespace: str, chart: str = "circleci-server") -> str:
    """Version of *chart* in the newest revision that Helm keeps in the namespace, whether it became ready or not; empty when there is none."""
    listed = api.request("GET", core(namespace, "secrets"), {"labelSelector": "owner=helm"}).get("items") or []
    newest: dict[str, tuple[int, str]] = {}
    for item in listed:
        labels, packed = item["metadata"].get("labels") or {}, (item.get("data") or {}).get("release")
        name, revision = str(labels.get("name") or ""), int(labels.get("version") or 0)
        if packed and revision > newest.get(name, (-1, ""))[0]:
            newest[name] = revision, packed
    # Releases of other charts may lie in the namespace, too.
    for _revision, packed in newest.values():
        metadata = (decode(packed).get("chart") or {}).get("metadata") or {}
        if metadata.get("name") == chart:
            return str(metadata.get("version") or "")
    return ""


def differing_keys(have: Any, want: Any, path: str = "") -> list[str]:
    """The keys at which two sets of values differ. Names only: the values may be secret."""
    if isinstance(have, dict) and isinstance(want, dict):
        found = []
        for key in sorted(set(have) | set(want)):
            name = f'{path}."{key}"' if "." in key else f"{path}.{key}"
            found += differing_keys(have.get(key), want.get(key), name.lstrip("."))
        return found
    if have == want or (have in (None, {}) and want in (None, {})):
        return []
    return [path]
