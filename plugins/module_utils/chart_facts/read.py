# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A chart as plain facts: read from its files, and seen in what helm renders with everything on and with the values of a site."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Optional

from ..discovery.collect import DUMMY_VALUES
from ..discovery.errors import DiscoveryError
from ..discovery.render import Chart, find_helm, render
from ..discovery.walk import merged, switches, with_path
from ..helm.proof import Proof, pod_spec
from .images import images_of, moved_by
from .keys import read_keys
from .unpack import content_digest, unpacked

STAND_IN = "onprem.circleci_server/stand-in"
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")
_LABELS = ("app", "layer", "app.kubernetes.io/name", "app.kubernetes.io/component")
Objects = list[tuple[str, Any]]


class _Renderer:
    """Renders one chart, and remembers what would not go."""

    def __init__(self, helm: str, chart: Chart) -> None:
        self.helm = helm
        self.chart = chart
        self.problems: list[str] = []

    def __call__(self, values: Mapping[str, Any]) -> Objects:
        return list(render(self.helm, self.chart, values))

    def tried(self, what: str, values: Mapping[str, Any]) -> Objects:
        """What is rendered, or nothing and a problem."""
        try:
            return self(values)
        except DiscoveryError as error:
            self.problems.append(f"{what}: {error}")
            return []

    def everything(self, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Values with every switch on that the chart can be rendered with."""
        base: dict[str, Any] = copy.deepcopy(dict(given))
        for path, value in DUMMY_VALUES:
            with_path(base, path, value)
        return self._grow(base, sorted(set(switches(merged(defaults, base)))))

    def _grow(self, base: dict[str, Any], paths: list[tuple[str, ...]]) -> dict[str, Any]:
        if not paths:
            return base
        tree = copy.deepcopy(base)
        for path in paths:
            with_path(tree, path, True)
        try:
            self(tree)
        except DiscoveryError as error:
            if len(paths) == 1:
                self.problems.append(f"{'.'.join(paths[0])} cannot be switched on for the comparison: {error}")
                return base
            half = len(paths) // 2
            return self._grow(self._grow(base, paths[:half]), paths[half:])
        return tree


def read_chart(
    path: Path, *, helm: str = "helm", values: Optional[Mapping[str, Any]] = None, registry: str = "", image_keys: Iterable[str] = ()
) -> dict[str, Any]:
    """The facts of a chart.

    *values* are those of a site whose private registry is *registry*; *image_keys* are dotted keys that are said to move images, which are
    tried although the chart's values.yaml may not name them.
    """
    program = find_helm(helm)
    with tempfile.TemporaryDirectory(prefix="onprem-circleci-chart-") as work:
        folder = unpacked(path, Path(work))
        chart = Chart(folder)
        defaults = chart.values()
        schema_file = folder / "values.schema.json"
        renderer = _Renderer(program, chart)
        everything = renderer.everything(defaults, {})
        # With everything on, one thing may put another aside (Tink the Vault): what comes by itself is looked at too.
        bases = [(tree, found) for what, tree in (("with everything on", everything), ("as it comes", {})) if (found := renderer.tried(what, tree))]
        whole = [item for _tree, found in bases for item in found]
        images = images_of(whole)
        stubborn = {text for tree, _found in bases for text in moved_by(defaults, tree, images, renderer, image_keys)}
        site = renderer.tried("with the values of a site", values or {})
        annotations = chart.metadata.get("annotations")
        return {
            "name": chart.name,
            "version": chart.version,
            "app_version": str(chart.metadata.get("appVersion") or ""),
            "digest": content_digest(path),
            "stand_in": bool(isinstance(annotations, Mapping) and annotations.get(STAND_IN)),
            "values": defaults,
            "schema": _schema(schema_file),
            "reads": sorted([list(item) for item in read_keys(chart)]),
            "images": [seen.plain() for _name, seen in sorted(images.items())],
            "build_images": dict(sorted(chart.image_tags().items())),
            "workloads": _workloads([*whole, *site]),
            "services": _services([*whole, *site]),
            "secrets": _secrets(whole, site),
            "outside": _outside(site, registry, merged(defaults, values or {})),
            "problems": [*renderer.problems, *(f"no mark could be set at {text}" for text in sorted(stubborn))],
        }


def prove_chart(path: Path, *, helm: str = "helm", values: Mapping[str, Any], registry: str) -> dict[str, Any]:
    """What is left of a chart outside *registry* with these values."""
    program = find_helm(helm)
    with tempfile.TemporaryDirectory(prefix="onprem-circleci-chart-") as work:
        chart = Chart(unpacked(path, Path(work)))
        renderer = _Renderer(program, chart)
        site = renderer.tried("with the values of a site", values)
        return {"outside": _outside(site, registry, merged(chart.values(), values)), "problems": renderer.problems}


def _schema(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    except ValueError as error:
        raise DiscoveryError(f"values.schema.json of the chart is no JSON: {error}") from error
    return document if isinstance(document, dict) else {}


def _outside(objects: Objects, registry: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Images and addresses that the values of the site leave where the vendor has them, as the proof before an install finds them."""
    if not registry:
        return []
    proof = Proof(_documents(objects), namespace="default", registry=registry, values=values)
    proof.check_prefixes()
    return [item.plain() for item in proof.findings.items]


def _documents(objects: Objects) -> list[dict[str, Any]]:
    return [document for _file, document in objects if isinstance(document, dict) and document.get("kind")]


def _metadata(document: Any) -> dict[str, Any]:
    found = document.get("metadata") if isinstance(document, dict) else None
    return found if isinstance(found, dict) else {}


def _kept(labels: Any) -> dict[str, str]:
    return {key: str(labels[key]) for key in _LABELS if isinstance(labels, dict) and key in labels}


def _workloads(objects: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for _file, document in objects:
        kind = document.get("kind") if isinstance(document, dict) else None
        if kind not in _WORKLOADS:
            continue
        spec = pod_spec(document) or {}
        template = ((document.get("spec") or {}).get("template") or {}).get("metadata") or {}
        name = str(_metadata(document).get("name"))
        found.setdefault(
            (kind, name),
            {
                "kind": kind,
                "name": name,
                "labels": {**_kept(template.get("labels")), **_kept(_metadata(document).get("labels"))},
                "containers": [str(item.get("name")) for item in spec.get("containers") or []],
                "init_containers": [str(item.get("name")) for item in spec.get("initContainers") or []],
                "images": sorted({str(item.get("image")) for group in ("containers", "initContainers") for item in spec.get(group) or []}),
            },
        )
    return [found[key] for key in sorted(found)]


def _services(objects: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for _file, document in objects:
        if not isinstance(document, dict) or document.get("kind") != "Service":
            continue
        spec = document.get("spec") or {}
        name = str(_metadata(document).get("name"))
        ports = [
            {"port": str(item.get("port")), "protocol": str(item.get("protocol") or "TCP").lower(), "name": str(item.get("name") or "")}
            for item in spec.get("ports") or []
        ]
        app = str((spec.get("selector") or {}).get("app") or "")
        entry = found.setdefault(name, {"name": name, "type": str(spec.get("type") or "ClusterIP"), "app": app, "ports": []})
        entry["ports"] += [port for port in ports if port not in entry["ports"]]
    return [found[key] for key in sorted(found)]


def _secrets(whole: Objects, site: Objects) -> list[dict[str, Any]]:
    """Secrets that the chart makes or that its pods name. Those of the site's values count first: they name what the site has."""
    found: dict[str, dict[str, Any]] = {}

    def entry(name: str) -> dict[str, Any]:
        return found.setdefault(name, {"name": name, "made": False, "keys": set(), "used_by": set(), "with_site_values": False})

    for objects, of_site in ((site, True), (whole, False)):
        documents = _documents(objects)
        for document in documents:
            if document["kind"] == "Secret":
                made = entry(str(_metadata(document).get("name")))
                made["made"] = made["made"] or of_site or not site
                made["keys"] |= {*(document.get("data") or {}), *(document.get("stringData") or {})}
        proof = Proof(documents, namespace="default", registry="", values={})
        for (name, key), places in proof.secret_references.items():
            used = entry(name)
            used["keys"] |= {key} - {""}
            used["used_by"] |= places
            used["with_site_values"] = used["with_site_values"] or of_site
    return [{**found[name], "keys": sorted(found[name]["keys"]), "used_by": sorted(found[name]["used_by"])} for name in sorted(found)]
