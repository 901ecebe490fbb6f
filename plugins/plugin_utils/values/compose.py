# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The composer: runs the rules, checks and merges the operator's own values, and judges the whole."""

from __future__ import annotations

import dataclasses
import weakref
from typing import Any

from ..catalog import Catalog, CatalogError
from . import overlay as overlays
from .changes import Retired
from .knowledge import KeyBook, KeyFact
from .model import Composition, Path, Setting, SiteFacts, dotted, parse_path, site_facts, with_variable
from .rules import RULES, Draft
from .schema import Schema

FULL_SUPPORT = (4, 7)
_BOOKS: weakref.WeakKeyDictionary[Catalog, dict[str, KeyBook]] = weakref.WeakKeyDictionary()


def key_book(catalog: Catalog, release: str) -> KeyBook:
    """The keys of a release; built once per catalog and release."""
    books = _BOOKS.setdefault(catalog, {})
    cached = books.get(release)
    if cached is None:
        minor = SiteFacts(release=release).minor
        facts = [
            KeyFact(parse_path(entry.key), entry.type, entry.default, entry.secret, entry.certainty)
            for entry in catalog.values_keys(release)
        ]
        retired = [
            Retired(
                parse_path(entry.key), entry.fate, entry.since, tuple(entry.renamed_to), entry.source, entry.note or "", entry.certainty == "observed"
            )
            for entry in catalog.retired_values_keys(release)
        ]
        cached = books[release] = KeyBook(minor, facts, retired)
    return cached


def _tree(settings: dict[Path, Setting]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path in sorted(settings):
        node = values
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = settings[path].value
    return values


def _apply_overlay(settings: dict[Path, Setting], overlay: dict[str, Any], book: KeyBook) -> list[Setting]:
    """The settings after the operator's own values, which win."""
    left = dict(settings)
    added: dict[Path, Setting] = {}
    for path, value in overlays.leaves(overlay):
        replaced = [old for old in left if old[: len(path)] == path or path[: len(old)] == old]
        note = ""
        for old in replaced:
            if old == path or old[: len(path)] == path:
                note = f"Replaces the value of rule {left[old].rule}."
                del left[old]
        secret = book.is_secret(path) or any(settings[old].secret for old in replaced)
        added[path] = Setting(path, value, "overlay", "circleci_values", "operator", secret, note)
    return [*left.values(), *added.values()]


def _follow_chart(draft: Draft, book: KeyBook) -> None:
    """Where the chart at hand was seen to have other keys than the vendor's pages, its keys are used."""
    for path, setting in list(draft.settings.items()):
        entry = book.retired_at(path)
        if entry is None or not entry.observed:
            continue
        if len(entry.renamed_to) == 1:
            target = (*parse_path(entry.renamed_to[0]), *path[len(entry.path) :])
            del draft.settings[path]
            note = f"{dotted(path)} in the vendor's pages. {entry.note}".rstrip()
            draft.settings[target] = dataclasses.replace(setting, path=target, source=entry.source, certainty="observed", note=note)
            if entry.note:
                draft.warnings.append(f"{dotted(path)} (rule {setting.rule}) is set as {dotted(target)}: {entry.note}")
        elif entry.fate == "removed":
            del draft.settings[path]
            draft.warnings.append(f"{dotted(path)} (rule {setting.rule}) is left out, the chart refuses it. Source: {entry.source}.")
        else:
            draft.warnings.append(f"{dotted(path)} (rule {setting.rule}) was not seen in the chart, which may ignore it. Source: {entry.source}.")


def compose(facts: SiteFacts, catalog: Catalog, chart_schema: dict[str, Any] | None = None) -> Composition:
    """All values of one site. Nothing is raised: every problem stands in C(errors)."""
    if facts.minor == (0, 0):
        return Composition({}, [], [], [_release_sentence(facts.release, catalog)])
    try:
        release = catalog.release(facts.release)
        book = key_book(catalog, facts.release)
        images = catalog.images(facts.release)
    except CatalogError as error:
        return Composition({}, [], [], [f"release: {error}"])
    balancer = next((dict(item.load_balancer.value or {}) for item in catalog.platforms() if item.id == facts.platform), {})
    registry_paths = {host: form for item in catalog.platforms() for host, form in item.registry_path.value.items()}
    draft = Draft(facts, book, images, balancer, registry_paths)
    if facts.minor < FULL_SUPPORT:
        draft.warnings.append(
            f"Release {facts.release} is past the vendor's support: its values are composed from data and were never tried."
        )
    if release.composition == "unreliable":
        draft.warnings.append(
            f"Release {facts.release} is unreliable: the vendor printed the values table of 4.4 and the image list of 4.2 for it."
        )
    for rule in RULES:
        rule(draft)
    _follow_chart(draft, book)
    schema = Schema(chart_schema) if chart_schema else None
    findings = overlays.check(facts.overlay, book, facts.release, schema)
    draft.errors += findings.errors
    draft.warnings += findings.warnings
    settings = _apply_overlay(draft.settings, facts.overlay, book)
    values = overlays.merge(_tree(draft.settings), facts.overlay)
    if schema is not None:
        draft.errors += _whole(values, settings, schema)
    return Composition(values, sorted(settings, key=lambda item: item.path), draft.warnings, draft.errors)


def _whole(values: dict[str, Any], settings: list[Setting], schema: Schema) -> list[str]:
    """What the schema of the chart says of the composed values: a difference between the catalog and the real chart."""
    errors = []
    for path, text in schema.check(values):
        if text == "is missing":
            errors.append(f"{dotted(path)} is missing (schema of the chart): set it in circleci_values.")
            continue
        owner = next((item for item in settings if path[: len(item.path)] == item.path or item.path[: len(path)] == path), None)
        if owner is None or owner.rule != "overlay":
            rule = f"rule {owner.rule}, {owner.source}" if owner else "composed"
            errors.append(
                f"{dotted(path)} {text} (schema of the chart), yet it was set by {rule}: override it in circleci_values or check "
                "the chart against the catalog."
            )
    return errors


def _release_sentence(release: str, catalog: Catalog) -> str:
    return f"release is {release!r}: allowed is a full release in three parts, such as {catalog.latest()}."


def compose_data(
    data: dict[str, Any], catalog: Catalog | None = None, chart_schema: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The composer for Ansible: plain data in, plain data out."""
    facts, problems = site_facts(data)
    result = compose(facts, catalog or Catalog.load(), chart_schema)
    return {
        "values": result.values,
        "explanations": result.explanations(),
        "secret_keys": result.secret_keys,
        "secret_texts": secret_texts(result),
        "warnings": [with_variable(text) for text in result.warnings],
        "errors": [with_variable(text) for text in (*problems, *result.errors)],
        "release": facts.release,
        "platform": facts.platform,
    }


def secret_texts(composition: Composition) -> list[str]:
    """The texts that must never be shown, to mask them in objects and logs."""
    found: list[str] = []
    for setting in composition.settings:
        if setting.secret:
            found += [text for _path, text in overlays.leaves({"value": setting.value}) if isinstance(text, str) and text]
    return sorted(set(found))
