# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan an upgrade from the catalog. One run goes one step of the way, since each step has a bundle of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..catalog import Catalog, CatalogError
from ..catalog.model import UpgradeStep
from ..catalog.versions import minor_of, parse_minor, parse_release

HELM_STEP = "helm-upgrade"
POSTGRES_STEP, POSTGRES_TO = "postgres-14", 14
CLIENTS_FIRST = "nomad-clients-first"
# From this minor on the vendor wants Vault gone; until then it advises so.
TINK_ONLY_FROM = (4, 9)


@dataclass(frozen=True)
class Situation:
    """What has to be known of a site. The verb reads it from Helm, the cluster and the site variables."""

    target: str
    installed: str = ""
    status: str = ""
    platform: str = "generic"
    kubernetes: str = ""
    mongodb: str = ""
    """Tag of the image of the MongoDB of the chart; empty when it lies outside the cluster."""
    postgresql: str = ""
    """Tag of the image of the PostgreSQL of the chart; empty when it lies outside the cluster."""
    postgresql_unfinished: str = ""
    """Restore point that its data are on their way from into another version."""
    postgresql_version: str = ""
    """Major version that the site wants; empty leaves the one that the release brings."""
    vault: bool = False
    machine_service: bool = False
    accepted: tuple[str, ...] = ()
    """Ids of irreversible steps that the operator said yes to."""


@dataclass(frozen=True)
class PlannedStep:
    """A step of the catalog, judged for this site. C(applies): yes, no, or ask when only a person knows."""

    id: str
    title: str
    action: str
    phase: str
    done_by: str
    applies: str
    irreversible: bool
    downtime: bool
    condition: str
    source: str
    certainty: str


@dataclass(frozen=True)
class DatabaseStep:
    """One version on the way of a database, and the image that brings it."""

    version: str
    repository: str
    tag: str


@dataclass(frozen=True)
class UpgradePlan:
    """The way as a whole, and the step that this run goes."""

    installed: str
    target: str
    path: tuple[str, ...]
    steps: tuple[PlannedStep, ...]
    mongodb: tuple[DatabaseStep, ...]
    clients_first: bool
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    gate: str
    """What a person must do to the cluster before the run can go on; empty when nothing."""
    consent: str = ""
    """The yes that is missing for what cannot be undone; empty when it was given or nothing needs it."""
    new_secrets: tuple[str, ...] = ()
    """Secrets of the next release that the one before it does not have."""
    postgresql: tuple[DatabaseStep, ...] = ()
    """The major version that the data of PostgreSQL are brought into; none or one."""

    @property
    def needed(self) -> bool:
        return bool(self.installed) and (self.installed != self.target or bool(self.postgresql))

    @property
    def irreversible(self) -> tuple[PlannedStep, ...]:
        return tuple(step for step in self.steps if step.irreversible and step.done_by == "collection" and step.applies == "yes")

    def lines(self) -> list[str]:
        """The plan for people."""
        if not self.needed:
            return [f"CircleCI Server {self.target} is installed already: there is nothing to upgrade."] if self.installed else []
        found = [f"Upgrade of CircleCI Server: {' → '.join(self.path)}" if len(self.path) > 1 else f"PostgreSQL of CircleCI Server {self.installed}"]
        for phase, title in (("before", "Before"), ("during", "The switch"), ("after", "Afterwards, by you")):
            rows = [step for step in self.steps if step.phase == phase and step.applies != "no"]
            if rows:
                found.append(f"{title}:")
                found += [f"- {_row(step)}" for step in rows]
        if self.new_secrets:
            found.append(f"New Secrets: {', '.join(self.new_secrets)}. Run the verb secrets with circleci_release \"{self.path[1]}\" first; it makes them.")
        if self.mongodb:
            found.append(f"MongoDB goes by {', '.join(step.version for step in self.mongodb)}.")
        if self.postgresql:
            found.append(f"PostgreSQL goes to {self.postgresql[0].version}.")
        named = [step.id for step in self.irreversible]
        if named:
            found.append(f"No way back but a restore from the restore point: {', '.join(named)}.")
        found += [f"Warning: {text}" for text in self.warnings]
        return found


def _row(step: PlannedStep) -> str:
    marks = ["cannot be undone"] if step.irreversible else []
    marks += ["CircleCI is down meanwhile"] if step.downtime else []
    marks += [f"only if: {step.condition}"] if step.applies == "ask" else []
    marks += ["by you"] if step.done_by == "operator" else []
    return f"{step.id}: {step.title}. {step.action}" + (f" ({'; '.join(marks)})" if marks else "")


def version_number(text: str) -> tuple[int, int]:
    """``4.4.15-debian-10-r8`` and ``4.4`` are ``(4, 4)``."""
    match = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def plan_upgrade(situation: Situation, catalog: Catalog | None = None) -> UpgradePlan:
    """The plan, with every reason against it at once. Nothing is raised for a site that is not in order."""
    catalog = catalog or Catalog.load()
    problems: list[str] = []
    path = _path(situation, catalog, problems)
    if problems or not path:
        return UpgradePlan(situation.installed, situation.target, path, (), (), True, tuple(problems), (), "")
    postgresql = _postgresql_steps(situation, catalog, path, problems)
    if len(path) == 1:
        return _postgresql_alone(situation, catalog, postgresql, problems)
    hop = (path[0], path[1])
    mongodb = _mongo_steps(situation, catalog, hop[1], problems)
    steps = tuple(_judged(step, situation, bool(mongodb), bool(postgresql)) for step in catalog.upgrade_steps(hop[1]))
    plan = UpgradePlan(
        installed=situation.installed,
        target=situation.target,
        path=path,
        steps=steps,
        mongodb=mongodb,
        clients_first=any(step.id == CLIENTS_FIRST for step in steps),
        problems=(),
        warnings=tuple(_warnings(situation, catalog, hop)),
        gate=_kubernetes_gate(situation, catalog, hop),
        new_secrets=_new_secrets(catalog, hop),
        postgresql=postgresql,
    )
    if len(path) > 2:
        problems.append(
            f"circleci_release: {situation.target} cannot follow {path[0]} in one step; the way is {' → '.join(path)}. "
            f"Set circleci_release to {path[1]}, carry its bundle into the site and run the verb upgrade; then go on with {path[2]}."
        )
    _vault(situation, hop[1], problems)
    return replace(plan, problems=tuple(problems), consent=_consent(plan.irreversible, situation.accepted))


def _postgresql_alone(situation: Situation, catalog: Catalog, postgresql: tuple[DatabaseStep, ...], problems: list[str]) -> UpgradePlan:
    """The release stays. Without a step there is nothing to do."""
    found = [_judged(step, situation, False, True) for step in catalog.upgrade_steps(situation.target) if postgresql and step.id.startswith(POSTGRES_STEP)]
    steps = tuple(replace(step, phase="before") for step in found)
    plan = UpgradePlan(
        situation.installed, situation.target, (situation.target,), steps, (), True, tuple(problems), (), "", postgresql=postgresql
    )
    return replace(plan, consent=_consent(plan.irreversible, situation.accepted))


def _path(situation: Situation, catalog: Catalog, problems: list[str]) -> tuple[str, ...]:
    target = situation.target
    try:
        release = catalog.release(target)
    except CatalogError as error:
        problems.append(f"circleci_release: {error}")
        return ()
    if not situation.installed:
        problems.append(f"circleci_release: nothing is installed that could be upgraded to {target}. Run the verb install.")
        return ()
    if situation.installed == target:
        return (target,)
    try:
        path = catalog.upgrade_path(situation.installed, target)
    except CatalogError as error:
        back = parse_release(situation.installed) > parse_release(target) if _is_release(situation.installed) else False
        remedy = " The verb rollback goes back to a restore point." if back else ""
        problems.append(f"circleci_release: {error}{remedy}")
        return ()
    for version in path[1:]:
        problems += _platform(situation.platform, version, catalog)
    if situation.status and situation.status not in ("deployed", "superseded") and not situation.status.startswith("pending"):
        problems.append(
            f"circleci_release_name: the last revision of {situation.installed} is {situation.status}. Run the verb install with circleci_release "
            f'"{situation.installed}" until it ends well, or the verb rollback; then upgrade to {release.version}.'
        )
    return path


def _is_release(text: str) -> bool:
    try:
        parse_release(text)
    except ValueError:
        return False
    return True


def _platform(name: str, version: str, catalog: Catalog) -> list[str]:
    platform = catalog.platform(name)
    verdict = platform.verdict(minor_of(version))
    # What the vendor's own pages contradict each other about is no place to take a working site to.
    if verdict.status != "known_not_to_work" and verdict.certainty != "disputed":
        return []
    return [f"circleci_platform: {platform.name} is not to be taken to {version} ({verdict.source}. {verdict.note or 'No reason given.'})"]


def _kubernetes_gate(situation: Situation, catalog: Catalog, hop: tuple[str, str]) -> str:
    """The cluster is upgraded between two Helm upgrades, never across them."""
    wanted = catalog.release(hop[1]).kubernetes
    if not situation.kubernetes or situation.kubernetes in wanted:
        return ""
    common = catalog.kubernetes_overlap(*hop)
    if common is None:
        return (
            f"No Kubernetes version is in the ranges of both {hop[0]} and {hop[1]}. Upgrade the cluster from {situation.kubernetes} to {wanted} right before "
            "the next run, since the vendor's range of the installed release ends before it. Then run the same command again."
        )
    return (
        f"Upgrade the cluster from {situation.kubernetes} to {common}, which {hop[0]} and {hop[1]} both allow. CircleCI Server {hop[0]} stays as it is "
        "meanwhile. Then run the same command again."
    )


def _warnings(situation: Situation, catalog: Catalog, hop: tuple[str, str]) -> list[str]:
    found = []
    release = catalog.release(hop[1])
    if release.composition != "full":
        found.append(f"{hop[1]} is past the vendor's support: its values are composed from data.")
    installed = catalog.release(hop[0], allow_bad=True)
    if situation.kubernetes and situation.kubernetes not in installed.kubernetes:
        found.append(f"Kubernetes {situation.kubernetes} is outside the range {installed.kubernetes} of {hop[0]}.")
    disputed = [step.title for step in catalog.upgrade_steps(hop[1]) if step.certainty == "disputed"]
    if disputed:
        found.append(f"the vendor's pages contradict each other about: {'; '.join(disputed)}. Read the upgrade page of {hop[1]} first.")
    return found


def _new_secrets(catalog: Catalog, hop: tuple[str, str]) -> tuple[str, ...]:
    # A release that must not be used may be left.
    before = {secret.name for secret in catalog.secrets(catalog.last_patch(minor_of(hop[0])))}
    return tuple(secret.name for secret in catalog.secrets(hop[1]) if secret.name not in before and secret.made_by != "chart" and not secret.condition)


def _postgresql_steps(situation: Situation, catalog: Catalog, path: Sequence[str], problems: list[str]) -> tuple[DatabaseStep, ...]:
    """The version of PostgreSQL that the site wants, where it is not the one that runs."""
    wanted, target = situation.postgresql_version, path[min(1, len(path) - 1)]
    if not situation.postgresql or not wanted:
        return ()
    if not wanted.isdecimal():
        problems.append(f"circleci_postgresql_version is {wanted!r}: allowed is a major version such as \"14\", or nothing.")
        return ()
    have = version_number(f"{situation.postgresql}.0")[0]
    if have == int(wanted) and not situation.postgresql_unfinished:
        return ()
    variable = f"circleci_postgresql_version: {wanted} is wanted and {have} runs"
    images = [image for image in catalog.images(target, group="database_upgrade") if image.name.endswith("server-postgres")]
    chosen = next((image for image in images if (image.tag or "").startswith(f"{wanted}.")), None)
    if have > int(wanted):
        problems.append(f"{variable}, whose data do not open with {wanted}. Set it to \"{have}\".")
    elif chosen is None:
        problems.append(f"{variable}; the catalog knows no image of it for {target}. Leave it empty.")
    elif catalog.release(situation.installed, allow_bad=True).postgresql_alternative.value is None:
        problems.append(
            f"{variable}, and {situation.installed} works with {have} only. Leave it empty for this step; when {target} runs, set it and run the verb "
            "upgrade once more."
        )
    else:
        return (DatabaseStep(wanted, chosen.repository, chosen.tag or ""),)
    return ()


def _mongo_steps(situation: Situation, catalog: Catalog, target: str, problems: list[str]) -> tuple[DatabaseStep, ...]:
    """The versions of MongoDB between the one that runs and the one that the release wants to find."""
    wanted = catalog.release(target).mongodb_required_before.value
    if not situation.mongodb or wanted is None:
        return ()
    have, need = version_number(situation.mongodb), version_number(wanted)
    images = [image for image in catalog.images(target, group="database_upgrade") if image.name.endswith("mongodb") and image.tag]
    steps = sorted((version_number(image.tag or ""), image.repository, image.tag or "") for image in images)
    chosen = tuple(DatabaseStep(f"{number[0]}.{number[1]}", repository, tag) for number, repository, tag in steps if have < number <= need)
    if have < need and (not chosen or version_number(chosen[-1].version) != need):
        problems.append(f"circleci_release: {target} wants MongoDB {wanted}, {situation.mongodb} runs, and the catalog knows no images for the way.")
    return chosen


def _judged(step: UpgradeStep, situation: Situation, mongodb: bool, postgresql: bool) -> PlannedStep:
    applies = "yes"
    condition = step.condition or ""
    if step.id.startswith("mongodb-"):
        applies = "yes" if mongodb else "no"
    elif step.id.startswith(POSTGRES_STEP):
        # One that is not done is a person's choice while the older version runs.
        older = bool(situation.postgresql) and version_number(f"{situation.postgresql}.0")[0] < POSTGRES_TO
        applies = "yes" if postgresql else "ask" if older else "no"
    elif condition == "Vault is in use":
        applies = "yes" if situation.vault else "no"
    elif condition == "vm_service_enabled":
        applies = "yes" if situation.machine_service else "no"
    elif condition and condition not in ("air_gap", "private_registry"):
        applies = "ask"
    return PlannedStep(
        step.id, step.title, step.action, step.phase, step.done_by, applies, step.irreversible, step.downtime, condition, step.source, step.certainty
    )


def _vault(situation: Situation, target: str, problems: list[str]) -> None:
    if situation.vault and parse_minor(minor_of(target)) >= TINK_ONLY_FROM:
        problems.append(
            f"circleci_values: Vault is in use, and {target} wants Tink. Move with the vendor's script vault-to-tink before the upgrade; a backup of Vault "
            "does not come back whole."
        )


def _consent(irreversible: Sequence[PlannedStep], accepted: Sequence[str]) -> str:
    missing = [step for step in irreversible if step.id not in accepted]
    if not missing:
        return ""
    wanted = ", ".join(step.id for step in irreversible)
    reasons = "; ".join(f"{step.id} ({step.title})" for step in missing)
    return (
        f"circleci_upgrade_irreversible: these steps cannot be undone, and nobody said yes to them: {reasons}. From the first of them on the only way back "
        f"is the restore point, without what was done since. Set circleci_upgrade_irreversible to [{wanted}]."
    )
