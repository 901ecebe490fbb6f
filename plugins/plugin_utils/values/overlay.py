# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The operator's own values: they win, and they are checked first."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from .changes import UNRELEASED, change_of
from .knowledge import KeyBook, KeyFact
from .model import Path, dotted
from .schema import Schema


@dataclasses.dataclass
class Findings:
    errors: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)


def leaves(value: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    """Every leaf with its path. An empty mapping or list is a leaf."""
    if isinstance(value, dict) and value:
        found: list[tuple[Path, Any]] = []
        for key, item in value.items():
            found += leaves(item, (*path, str(key)))
        return found
    return [(path, value)] if path else []


def _index_free(path: Path) -> Path:
    return tuple("[]" if part.startswith("[") else part for part in path)


def _list_leaves(path: Path, value: list[Any]) -> list[tuple[Path, Any]]:
    found: list[tuple[Path, Any]] = []
    for item in value:
        below = (*path, "[]")
        if isinstance(item, dict):
            found += leaves(item, below)
        elif isinstance(item, list):
            found += _list_leaves(below, item)
        else:
            found.append((below, item))
    return found


def _type_problem(fact: KeyFact, value: Any) -> str:
    """What is wrong with the type of a value; scalars are judged by what a template would make of them."""
    if value is None or fact.type == "any":
        return ""
    shape = "mapping" if isinstance(value, dict) else "list" if isinstance(value, list) else "scalar"
    wanted = {"object": "mapping", "list": "list"}.get(fact.type, "scalar")
    if shape != wanted:
        if fact.default == {} and fact.type == "object" and shape == "list":
            return ""  # tolerations are documented as an object and are a list in Kubernetes
        return f"must be a {wanted}, found a {shape}"
    if fact.type == "bool" and str(value).lower() not in ("true", "false", "0", "1", ""):
        return f"must be true or false, found {value!r}"
    if fact.type in ("int", "float"):
        # Quantities and versions are documented as numbers here and there.
        text = str(value)
        number = text[:-1] if fact.type == "float" else text
        try:
            float(text)
        except ValueError:
            if not number.replace(".", "", 1).isdigit():
                return f"must be a number, found {value!r}"
        if isinstance(value, bool):
            return f"must be a number, found {value!r}"
    return ""


def check(overlay: dict[str, Any], book: KeyBook, release: str, schema: Schema | None = None) -> Findings:
    """The schema of the chart at hand speaks first, then the catalog: unknown warns, removed or renamed fails."""
    result = Findings()
    from_schema: set[Path] = set()
    if schema is not None:
        for path, text in schema.check(overlay):
            if text == "is missing":
                continue  # the overlay is a part; what is required is judged on the whole
            from_schema.add(path)
            result.errors.append(f"circleci_values: {dotted(path)} {text} (schema of the chart).")
    reported: set[Path] = set()
    for path, value in leaves(overlay):
        if any(path[: len(bad)] == bad for bad in from_schema):
            continue
        _check_leaf(path, value, book, release, schema, result, reported)
    return result


def _check_leaf(
    path: Path, value: Any, book: KeyBook, release: str, schema: Schema | None, result: Findings, reported: set[Path]
) -> None:
    if path in (("global", "imagePullSecrets"),):
        _pull_secrets(value, book.minor, release, result)
        return
    for unreleased in UNRELEASED:
        if path[: len(unreleased)] == unreleased and not (unreleased[-1] == "internal" and value is True):
            result.errors.append(
                f"circleci_values: {dotted(path)} is in no release of CircleCI Server: an external Redis cannot be used. "
                "Take it out; the Redis of the chart stays."
            )
            return
    if schema is not None and schema.knows(path):
        return
    change = change_of(path)
    if change is not None:
        if change.path not in reported:
            reported.add(change.path)
            result.errors.append(f"circleci_values: {dotted(change.path)} {change.sentence()} Source: {change.source}.")
        return
    known, fact, stray = book.look_up(path)
    if not known:
        if not _retired(path, book, release, result, reported):
            _unknown(path, stray, book, release, result)
        return
    if fact is None:
        if not isinstance(value, dict) and book.has_children(path) and not isinstance(value, list) and value is not None:
            result.errors.append(
                f"circleci_values: {dotted(path)} must be a mapping, found {type(value).__name__}. Known below it: "
                f"{', '.join(book.siblings(path)[:12])}."
            )
        return
    problem = _type_problem(fact, value)
    if problem:
        result.errors.append(f"circleci_values: {dotted(path)} {problem}.")
    if path == ("docker_provisioner", "enabled") and str(value).lower() in ("false", "0"):
        result.warnings.append(
            "circleci_values: docker_provisioner.enabled is false. The vendor's air-gap example says so too, yet Docker "
            "jobs reach Nomad through docker-provisioner: every Docker job will stay queued. Leave it true."
        )
    if path == ("serveUnsafeArtifacts",) and str(value).lower() in ("true", "1"):
        result.warnings.append(
            "circleci_values: serveUnsafeArtifacts serves HTML artifacts inline, which lets a build take over accounts."
        )


def _retired(path: Path, book: KeyBook, release: str, result: Findings, reported: set[Path]) -> bool:
    """Whether earlier releases had the key; then it is an error with the successor."""
    entry = book.retired_at(_index_free(path))
    if entry is not None and entry.fate == "unlisted":
        return False
    if entry is not None:
        if entry.path not in reported:
            reported.add(entry.path)
            result.errors.append(
                f"circleci_values: {dotted(entry.path)} {entry.sentence()} Release {release}, source: {entry.source}."
            )
        return True
    block = book.retired_block(path)
    if block is None:
        return False
    if block[0] not in reported:
        reported.add(block[0])
        result.errors.append(
            f"circleci_values: {dotted(path)} belongs to {dotted(block[0])}, which is gone since {block[1]}: take it out. "
            f"Release {release}."
        )
    return True


def _pull_secrets(value: Any, minor: tuple[int, int], release: str, result: Findings) -> None:
    texts = minor >= (4, 7)
    good = isinstance(value, list) and all(
        isinstance(item, str) if texts else (isinstance(item, dict) and set(item) == {"name"}) for item in value
    )
    if not good:
        form = '["regcred"]' if texts else "[{name: regcred}]"
        result.errors.append(
            f"circleci_values: global.imagePullSecrets has the wrong form for {release}. From 4.7 on it is a list of texts, "
            f"before that a list of mappings with name; write {form}."
        )


def _unknown(path: Path, stray: str, book: KeyBook, release: str, result: Findings) -> None:
    place = path[: path.index(stray)] if stray in path else path[:-1]
    close = difflib.get_close_matches(stray, book.siblings(place), n=1, cutoff=0.75)
    hint = f" Did you mean {dotted((*place, close[0]))}?" if close else ""
    if path == ("nomad", "serverHostname"):
        hint = " The documented key is nomad.server.serverHostname."
    result.warnings.append(
        f"circleci_values: {dotted(path)} is in no values table of {release}; the chart may ignore it.{hint}"
    )


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged, everything else is replaced, as Helm does with several values files."""
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        result[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result
