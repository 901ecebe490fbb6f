# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a chart, values and lists to the images of a bundle, each with its reasons."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ..mirror.errors import UsageError
from ..mirror.oci import Reference
from .errors import DiscoveryError
from .references import basename, place
from .render import Chart, find_helm, render
from .walk import Hit, in_object, in_values, merged, switches, with_path, without_path

# The vendor's own script gives this dummy, since the templates fail without the key once everything is enabled.
DUMMY_VALUES: tuple[tuple[tuple[str, ...], Any], ...] = ((("oidc_service", "json_web_keys"), "ZHVtbXk="),)
AGENT_LISTS = ("circleci/docker-agent", "circleci/machine-agent")
"""Entries of ``images.yaml`` that are versions of programs, not images."""


@dataclass(frozen=True)
class Why:
    """One place that asks for an image."""

    file: str
    path: str
    rule: str

    def as_dict(self) -> dict[str, str]:
        return {"file": self.file, "path": self.path, "rule": self.rule}


@dataclass
class FoundRef:
    """An image with all its reasons. ``sure`` is false when only texts and values that look like it were found."""

    ref: Reference
    why: list[Why] = field(default_factory=list)
    sure: bool = False


@dataclass
class DiscoveryResult:
    """What discovery found, and what it could not look at."""

    refs: list[FoundRef]
    chart: str
    chart_version: str
    tags: dict[str, str]
    skipped_switches: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)


class _Collection:
    def __init__(self) -> None:
        self.found: dict[str, FoundRef] = {}
        self.ignored: dict[str, str] = {}

    def add(self, hit: Hit, file: str) -> None:
        try:
            reference = Reference.parse(hit.written)
        except UsageError as error:
            if hit.sure:
                raise DiscoveryError(f"{file}: {hit.path}: {error}") from error
            self.ignored[hit.written] = f"{file}: {hit.path}"
            return
        entry = self.found.setdefault(reference.name, FoundRef(reference))
        why = Why(file, hit.path, hit.rule)
        if why not in entry.why:
            entry.why.append(why)
        entry.sure = entry.sure or hit.sure

    def names(self) -> set[str]:
        return {place(entry.ref) for entry in self.found.values()}


def discover(
    chart_dir: Path,
    values: Optional[Mapping[str, Any]] = None,
    *,
    helm: str = "helm",
    listed: Sequence[Mapping[str, Any]] = (),
    known: Iterable[str] = (),
    relocation_keys: Iterable[str] = (),
    private_registries: Iterable[str] = (),
    extras: Iterable[str] = (),
) -> DiscoveryResult:
    """All images that a site with these values can need.

    *listed* are the catalog's images that no chart names, each with ``ref`` and ``why``; *known* are repositories that are
    known to be images, for texts. *relocation_keys* are values keys that only move images to the site's registry: on the
    connected side they are taken out, so that the render names the vendor's places. *private_registries* must not remain.
    """
    program = find_helm(helm)
    chart = Chart(chart_dir)
    defaults = chart.values()
    tags = chart.image_tags()
    configured = copy.deepcopy(dict(values or {}))
    for key in relocation_keys:
        without_path(configured, tuple(key.split(".")))
    known_names = {place(Reference.parse(name)) for name in known}
    collection = _Collection()

    for name, tag in tags.items():
        if name not in AGENT_LISTS:
            collection.add(Hit(f"{name}:{tag}", name, "list of the chart"), "images.yaml")
    known_names |= collection.names()

    for file, document in render(program, chart, configured):
        for hit in in_object(document, known_names):
            collection.add(hit, file)
    skipped = _everything(program, chart, defaults, configured, collection, known_names)

    rendered = [entry.ref for entry in collection.found.values()]
    for hit in in_values(merged(defaults, configured), "", tags):
        collection.add(_as_rendered(hit, rendered, known_names), "values.yaml")

    for item in listed:
        collection.add(Hit(str(item["ref"]), str(item.get("path", "images")), str(item["why"])), "catalog")
    for extra in extras:
        collection.add(Hit(extra, "extra images", "asked for by you"), "your variables")

    private = tuple(f"{host}/" for host in private_registries if host)
    for text in [text for text in collection.found if private and text.startswith(private)]:
        entry = collection.found[text]
        if entry.sure:
            first = entry.why[0]
            raise DiscoveryError(
                f"{text} lies in the private registry of the site already, so it cannot be fetched here "
                f"({first.file}: {first.path}); take the value that names the private registry out of circleci_values"
            )
        del collection.found[text]
    refs = sorted(collection.found.values(), key=lambda entry: entry.ref.name)
    for entry in refs:
        entry.why.sort(key=lambda why: (why.file, why.path, why.rule))
    return DiscoveryResult(refs, chart.name, chart.version, tags, skipped, collection.ignored)


def _everything(
    helm: str, chart: Chart, defaults: Mapping[str, Any], configured: Mapping[str, Any], collection: _Collection, known: set[str]
) -> dict[str, str]:
    """Render once more with every switch on, as the vendor's script does; returns the switches that cannot be on."""
    paths = sorted(set(switches(merged(defaults, configured))))

    def overlay(chosen: Iterable[tuple[str, ...]]) -> dict[str, Any]:
        tree = copy.deepcopy(dict(configured))
        for path, value in DUMMY_VALUES:
            with_path(tree, path, value)
        for path in chosen:
            with_path(tree, path, True)
        return tree

    def look(chosen: Iterable[tuple[str, ...]]) -> None:
        for file, document in list(render(helm, chart, overlay(chosen))):
            for hit in in_object(document, known):
                collection.add(hit, file)

    try:
        look(paths)
        return {}
    except DiscoveryError:
        pass
    # Some charts refuse two switches together. Then each one goes on alone: what it brings is found all the same.
    skipped: dict[str, str] = {}
    for path in paths:
        try:
            look([path])
        except DiscoveryError as error:
            skipped[".".join(path)] = str(error)
    return skipped


def _as_rendered(hit: Hit, rendered: Sequence[Reference], known: set[str]) -> Hit:
    """Values often hold ``repository: frontend`` and leave the registry to a global key; the render knows the whole name."""
    reference = Reference.parse(hit.written)
    if reference.registry != "docker.io" or hit.sure:
        return hit
    short = reference.repository.removeprefix("library/")
    same = [
        other
        for other in rendered
        if other.tag == reference.tag and short in (other.repository, basename(other))
    ]
    if same:
        return Hit(same[0].name, hit.path, hit.rule, hit.sure)
    return hit
