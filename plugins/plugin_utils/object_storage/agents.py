# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which agents a release needs, and where they lie in their bucket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ..catalog import Catalog
from ..catalog.model import FileSpec


class AgentsError(Exception):
    """One sentence for the operator."""


def agent_objects(catalog: Catalog, release: str, files: Mapping[str, str]) -> dict[str, Any]:
    """``objects`` and ``texts`` as the module object_storage_agents takes them.

    *files* is what the private registry has, name to version: the chart decides the versions of agents, so that only the
    bundle knows them. Agents with a condition are brought when the bundle has them.
    """
    specs = [spec for spec in catalog.files(release) if spec.kind == "agent"]
    versions: dict[str, str] = {}
    missing = []
    for spec in specs:
        if spec.made_on_site or not spec.url:
            continue
        if spec.name in files:
            if spec.version_from:
                versions[spec.version_from] = files[spec.name]
        elif spec.condition is None:
            missing.append(spec.name)
    if missing:
        raise AgentsError(
            f"the private registry lacks {', '.join(missing)}, which jobs of release {release} load; make the bundle again, its log says why they were "
            "left out, and load it"
        )
    objects = [
        {"key": _path(spec, files[spec.name]), "name": spec.name, "version": files[spec.name]}
        for spec in specs
        if spec.name in files and spec.url and not spec.made_on_site and spec.object_path
    ]
    texts = {str(spec.object_path): versions[spec.version_from] for spec in specs if spec.made_on_site and spec.version_from in versions}
    return {"objects": objects, "texts": texts}


def agent_trees(catalog: Catalog, release: str) -> list[dict[str, Any]]:
    """Where jobs look for agents, by the file that names their version: what only the bundle knows, a running site tells by itself."""
    specs = [spec for spec in catalog.files(release) if spec.kind == "agent" and spec.object_path]
    trees: list[dict[str, Any]] = [
        {
            "release": str(switch.object_path),
            "objects": [str(spec.object_path) for spec in specs if spec.version_from == switch.version_from and not spec.made_on_site],
            "optional": switch.condition is not None,
        }
        for switch in specs if switch.made_on_site
    ]  # fmt: skip
    plain = [str(spec.object_path) for spec in specs if spec.version_from is None and spec.condition is None]
    return [*trees, *([{"release": "", "objects": plain, "optional": False}] if plain else [])]


def agents_url(endpoint: str, port: int) -> str:
    """Where the hosts of the store serve the agents, by its scheme and name; empty when they do not."""
    parts = urlsplit(endpoint)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{port}" if port else ""


def _path(spec: FileSpec, version: str) -> str:
    return str(spec.object_path).format(version=version)
