# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one loader of the catalog. Reads the generated JSON beside it, a release at a time, when first asked."""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from .codec import decode
from .errors import (
    CatalogDataError,
    KnownBadReleaseError,
    NoUpgradePathError,
    UnknownNameError,
    UnknownPlatformError,
    UnknownReleaseError,
    UnknownServiceError,
    UnknownValuesKeyError,
)
from .model import (
    ExternalDatabase,
    Fact,
    FailureMode,
    FileSpec,
    HostGroup,
    Image,
    InternalPort,
    NomadLayout,
    ObjectStorageOption,
    Platform,
    PortRule,
    Release,
    Requirement,
    RetiredValuesKey,
    SecretSpec,
    Service,
    Sizing,
    UpgradeStep,
    ValuesKey,
)
from .overlay import CatalogOverlay, read_overlay
from .versions import KubernetesRange, minor_of, parse_release

FORMAT = "onprem.circleci_server/catalog/1"
GENERATED = Path(__file__).resolve().parent / "generated"

R = TypeVar("R")


class Catalog:
    """The vendor's facts. Every method that takes a release wants three parts: ``"4.10.0"``."""

    def __init__(self, directory: Path, overlay: CatalogOverlay | None = None) -> None:
        self.directory = directory
        self._overlay = overlay
        self._index: dict[str, Any] | None = None
        self._raw: dict[str, dict[str, Any]] = {}
        self._rows: dict[tuple[str, str, bool], tuple[Any, ...]] = {}
        self._releases: dict[str, Release] = {}

    @classmethod
    def load(cls, directory: Path | None = None, overlay: str = "") -> Catalog:
        """The catalog of this collection, or one that was generated elsewhere, with what a real chart showed laid over it.

        *overlay* is the path of a file that the verb chart_check wrote.
        """
        return _shared(directory or GENERATED, read_overlay(overlay) if overlay else None)

    def comparison(self, release: str) -> dict[str, Any]:
        """Whether the facts of a release were compared with the vendor's chart, and with which: a report says it as it is."""
        if self._overlay is None:
            return {"compared": False, "chart": "", "digest": "", "detail": "no circleci_catalog_overlay is given; the verb chart_check makes one"}
        chart = self._overlay.chart
        found = {"compared": False, "chart": chart.title, "digest": chart.digest}
        if self._overlay.release != release:
            return {**found, "digest": "", "detail": f"circleci_catalog_overlay was made for release {self._overlay.release}, from {chart.title}"}
        if chart.stand_in:
            return {**found, "detail": f"it was compared with a stand-in only: {chart.title}"}
        return {**found, "compared": True, "detail": f"Compared with {chart.title}."}

    # -- releases ---------------------------------------------------------------------------------------------

    def releases(self) -> tuple[str, ...]:
        """All known releases, oldest first, the unusable ones too."""
        return tuple(self._section("releases"))

    def minors(self) -> tuple[str, ...]:
        """``("4.0", … "4.10")``."""
        return tuple(self._section("last_patches"))

    def last_patches(self) -> tuple[str, ...]:
        """The last documented patch of each minor, oldest first."""
        return tuple(self._section("last_patches").values())

    def latest(self) -> str:
        """The newest release of the catalog."""
        return self.last_patches()[-1]

    def last_patch(self, minor: str) -> str:
        """The last documented patch of a minor."""
        last: Mapping[str, str] = self._section("last_patches")
        if minor not in last:
            raise UnknownNameError("minor", minor, tuple(last))
        return last[minor]

    def release(self, version: str, *, allow_bad: bool = False) -> Release:
        """The facts of a release. A release that must not be used is refused unless ``allow_bad``."""
        entry = self._entry(version)
        if entry["status"] == "known_bad" and not allow_bad:
            raise KnownBadReleaseError(version, entry["reason"], self.last_patch(entry["minor"]))
        if version not in self._releases:
            raw = self._release_raw(entry["data_of"])["release"]
            base = decode(Release, raw)
            self._releases[version] = dataclasses.replace(
                base, version=version, status=entry["status"], status_reason=entry.get("reason")
            )
        return self._releases[version]

    # -- what a release consists of -----------------------------------------------------------------------------

    def services(self, release: str) -> tuple[Service, ...]:
        """All services of a release, the vendor's order."""
        return self._table(release, "services", Service)

    def service(self, release: str, name: str) -> Service:
        """A service by its name, another spelling of it, or the name of one of its workloads."""
        services = self.services(release)
        for service in services:
            if name == service.name or name in service.aka:
                return service
        for service in services:
            if any(name == workload.name for workload in service.workloads):
                return service
        raise UnknownServiceError(name, [service.name for service in services], release)

    def ports(self, release: str, *, group: str | None = None) -> tuple[PortRule, ...]:
        """Port rules, of one host group or of all."""
        rules = self._table(release, "ports", PortRule)
        if group is None:
            return rules
        self.host_group(group)
        return tuple(rule for rule in rules if rule.group == group)

    def port(self, release: str, rule_id: str) -> PortRule:
        """One port rule by its id."""
        return _named(self.ports(release), "id", rule_id, "port rule", release)

    def internal_ports(self, release: str) -> tuple[InternalPort, ...]:
        """Ports between pods."""
        return self._table(release, "internal_ports", InternalPort)

    def host_groups(self) -> tuple[HostGroup, ...]:
        """The host groups that port rules name."""
        return self._index_table("host_groups", HostGroup)

    def host_group(self, name: str) -> HostGroup:
        """One host group."""
        return _named(self.host_groups(), "id", name, "host group", None)

    def peers(self) -> dict[str, str]:
        """Every peer a port rule may name, with what it means."""
        return dict(self._section("peers"))

    def infrastructure_services(self) -> dict[str, str]:
        """What listens on a port and is not a service of the product (ssh, dns, registry, …)."""
        return dict(self._section("infrastructure_services"))

    def port_conditions(self) -> dict[str, str]:
        """Every condition a port rule may name, with what it means."""
        return dict(self._section("port_conditions"))

    def named_ports(self) -> dict[str, dict[str, str]]:
        """Ports that a rule names by a word because the site chooses the number, with the usual one."""
        return {name: dict(entry) for name, entry in self._section("named_ports").items()}

    def seed_ports(self) -> dict[str, Any]:
        """The two port tables of the 4.0 overview, as printed."""
        return dict(self._section("seed_ports"))

    def images(self, release: str, *, group: str | None = None) -> tuple[Image, ...]:
        """Images of a release, of one group (``chart``, ``nomad_client``, ``runner``, …) or of all."""
        images = self._table(release, "images", Image)
        return images if group is None else tuple(image for image in images if image.group == group)

    def image(self, release: str, name: str) -> Image:
        """The first image of that name (``frontend``) or repository."""
        for image in self.images(release):
            if name in (image.name, image.repository):
                return image
        raise UnknownNameError(
            "image", name, sorted({image.name for image in self.images(release)}), where=f"CircleCI Server {release}"
        )

    def values_keys(self, release: str) -> tuple[ValuesKey, ...]:
        """Documented Helm values keys, in alphabetical order."""
        return self._table(release, "values_keys", ValuesKey)

    def values_key(self, release: str, key: str) -> ValuesKey:
        """One values key."""
        keys = {entry.key: entry for entry in self.values_keys(release)}
        if key not in keys:
            raise UnknownValuesKeyError(key, tuple(keys), release)
        return keys[key]

    def retired_values_keys(self, release: str) -> tuple[RetiredValuesKey, ...]:
        """Keys of earlier releases that this one no longer documents, with what took their place."""
        return self._table(release, "retired_values_keys", RetiredValuesKey)

    def files(self, release: str) -> tuple[FileSpec, ...]:
        """Files that a site needs besides images."""
        return self._table(release, "files", FileSpec)

    def file(self, release: str, name: str) -> FileSpec:
        """One file by its name."""
        return _named(self.files(release), "name", name, "file", release)

    def secrets(self, release: str) -> tuple[SecretSpec, ...]:
        """Kubernetes Secrets that the product reads or makes."""
        return self._table(release, "secrets", SecretSpec)

    def secret(self, release: str, name: str) -> SecretSpec:
        """One Secret by its name or another name that is in use for it."""
        for secret in self.secrets(release):
            if name == secret.name or name in secret.aliases:
                return secret
        raise UnknownNameError(
            "secret", name, [secret.name for secret in self.secrets(release)], where=f"CircleCI Server {release}"
        )

    def helm_metadata(self) -> dict[str, dict[str, str]]:
        """Annotations and labels that let Helm adopt an operator's Secret; ``{release}`` and ``{namespace}`` are open."""
        return {kind: dict(entries) for kind, entries in self._section("helm_metadata").items()}

    def requirements(self, release: str) -> tuple[Requirement, ...]:
        """What the vendor demands or advises."""
        return self._table(release, "requirements", Requirement)

    def requirement(self, release: str, requirement_id: str) -> Requirement:
        """One requirement by its id."""
        return _named(self.requirements(release), "id", requirement_id, "requirement", release)

    def sizing(self, release: str) -> tuple[Sizing, ...]:
        """The vendor's sizing table."""
        return self._table(release, "sizing", Sizing)

    def databases(self, release: str) -> tuple[ExternalDatabase, ...]:
        """What databases outside the cluster must be."""
        return self._table(release, "databases", ExternalDatabase)

    def failure_modes(self, release: str) -> tuple[FailureMode, ...]:
        """Known ways to fail, with the check that shows each."""
        return self._table(release, "failure_modes", FailureMode)

    def nomad_layouts(self, release: str) -> tuple[NomadLayout, ...]:
        """Where the vendor's descriptions put the files of a Nomad client."""
        return self._table(release, "nomad_layouts", NomadLayout)

    # -- platforms and storage ----------------------------------------------------------------------------------

    def platforms(self) -> tuple[Platform, ...]:
        """All platforms."""
        return self._index_table("platforms", Platform)

    def platform(self, name: str) -> Platform:
        """A platform by its id or another name of it (``aks`` is ``azure``, ``k3s`` is ``rancher``)."""
        for platform in self.platforms():
            if name == platform.id or name in platform.aliases:
                return platform
        raise UnknownPlatformError(name, [platform.id for platform in self.platforms()])

    def object_storage_options(self) -> tuple[ObjectStorageOption, ...]:
        """All ways to give the product a store."""
        return self._index_table("object_storage", ObjectStorageOption)

    def object_storage_option(self, name: str) -> ObjectStorageOption:
        """One of them by id or alias."""
        for option in self.object_storage_options():
            if name == option.id or name in option.aliases:
                return option
        raise UnknownNameError("object storage", name, [option.id for option in self.object_storage_options()])

    # -- upgrades -----------------------------------------------------------------------------------------------

    def upgrade_steps(self, release: str) -> tuple[UpgradeStep, ...]:
        """What the upgrade *to* the minor of this release takes, in order."""
        return self._table(release, "upgrade_steps", UpgradeStep)

    def upgrade_path(self, current: str, target: str) -> tuple[str, ...]:
        """The releases to pass through, both ends included.

        Always by the last patch of a minor that is left, by the fewest steps the vendor validated.
        """
        self._entry(current)
        self.release(target)
        if parse_release(current) > parse_release(target):
            raise NoUpgradePathError(f"CircleCI Server cannot go back from {current} to {target} by an upgrade.")
        start, goal = minor_of(current), minor_of(target)
        minors = self._minor_path(start, goal)
        path = [current]
        for minor in minors[:-1]:
            path.append(self.last_patch(minor))
        path.append(target)
        return tuple(version for position, version in enumerate(path) if position == 0 or version != path[position - 1])

    def kubernetes_overlap(self, first: str, second: str) -> KubernetesRange | None:
        """Kubernetes versions that both releases allow, or None."""
        return self.release(first, allow_bad=True).kubernetes.overlap(self.release(second, allow_bad=True).kubernetes)

    def _minor_path(self, start: str, goal: str) -> list[str]:
        predecessors: Mapping[str, list[str]] = self._section("upgrade_from")
        came_by: dict[str, str | None] = {start: None}
        queue = deque([start])
        while queue:
            minor = queue.popleft()
            if minor == goal:
                break
            for following, allowed in predecessors.items():
                if minor in allowed and following not in came_by:
                    came_by[following] = minor
                    queue.append(following)
        if goal not in came_by:
            raise NoUpgradePathError(f"No documented upgrade path from CircleCI Server {start} to {goal}.")
        path: list[str] = []
        step: str | None = goal
        while step is not None:
            path.append(step)
            step = came_by[step]
        return path[::-1]

    # -- reading ------------------------------------------------------------------------------------------------

    def _entry(self, version: object) -> dict[str, Any]:
        releases: dict[str, dict[str, Any]] = self._section("releases")
        if isinstance(version, str) and version in releases:
            return releases[version]
        patches: tuple[str, ...] = ()
        try:
            minor = minor_of(str(version))
        except ValueError:
            pass
        else:
            patches = tuple(
                known for known, entry in releases.items() if entry["minor"] == minor and entry["status"] != "known_bad"
            )
        raise UnknownReleaseError(version, self.last_patches(), patches_of_minor=patches)

    def _section(self, name: str) -> Any:
        if self._index is None:
            self._index = self._read("index.json")
        return self._index[name]

    def _release_raw(self, data_of: str) -> dict[str, Any]:
        if data_of not in self._raw:
            self._raw[data_of] = self._read(f"{data_of}.json")
        return self._raw[data_of]

    def _read(self, name: str) -> dict[str, Any]:
        path = self.directory / name
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise CatalogDataError(f"Cannot read the catalog file {path}: {error}.") from error
        if content.get("format") != FORMAT:
            raise CatalogDataError(f"{path} has format {content.get('format')!r}; this code reads {FORMAT!r}.")
        return content

    def _table(self, release: str, section: str, cls: type[R]) -> tuple[R, ...]:
        entry = self._entry(release)
        if entry["status"] == "known_bad":
            self.release(release)
        # An overlay speaks of one release, the other patches of its minor stay as they are documented.
        overlay = self._overlay if self._overlay is not None and self._overlay.release == release else None
        key = (release if overlay else entry["data_of"], section, overlay is not None)
        if key not in self._rows:
            rows = self._release_raw(entry["data_of"])[section]
            self._rows[key] = tuple(decode(cls, row) for row in (overlay.apply(section, rows) if overlay else rows))
        return self._rows[key]

    def _index_table(self, section: str, cls: type[R]) -> tuple[R, ...]:
        key = ("index", section, False)
        if key not in self._rows:
            self._rows[key] = tuple(decode(cls, row) for row in self._section(section))
        return self._rows[key]


# Overlays are told apart by identity: read_overlay gives the same one as long as its file stays the same.
_catalogs: dict[tuple[Path, int], Catalog] = {}


def _shared(directory: Path, overlay: CatalogOverlay | None) -> Catalog:
    key = (directory, id(overlay))
    if key not in _catalogs:
        # A catalog keeps its overlay alive, so that no other one can get the same id.
        _catalogs[key] = Catalog(directory, overlay)
    return _catalogs[key]


def _named(rows: Iterable[R], attribute: str, name: str, kind: str, release: str | None) -> R:
    by_name = {getattr(row, attribute): row for row in rows}
    if name not in by_name:
        raise UnknownNameError(
            kind, name, tuple(by_name), where=f"CircleCI Server {release}" if release is not None else ""
        )
    return by_name[name]


__all__ = ["FORMAT", "GENERATED", "Catalog", "Fact"]
