# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Orbs and the orbs that they import, from CircleCI's registry. Runs on the connected side, with PyYAML."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Optional

from ..discovery.errors import DiscoveryError
from ..discovery.render import load_yaml
from .graphql import Api, OrbError, Unreachable
from .index import OrbVersion, parse_exact

_IMPORT = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9_-]+(@(?P<version>\S+))?")
_TRAVELS = re.compile(r"\d+(\.\d+){0,2}|volatile")
ASKED = "circleci_orbs"
_PARAMETER = re.compile(r"<<\s*(?:parameters\.)?([A-Za-z0-9_-]+)\s*>>")


@dataclass(frozen=True)
class Known:
    """What an earlier lock says: sources by exact version, and what imports were resolved to."""

    digests: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    resolved: Mapping[str, str] = field(default_factory=dict)


def sha256_of(text: str) -> str:
    """Digest of a source as it travels."""
    return hashlib.sha256(text.encode()).hexdigest()


def _document(source: str, ref: str) -> Any:
    try:
        return load_yaml(source, f"the source of {ref}")
    except DiscoveryError as error:
        raise OrbError(str(error)) from error


def imports_of(source: str, ref: str) -> list[str]:
    """References to other orbs in a source, those of orbs that are written inside it too, each once."""
    found: dict[str, None] = {}

    def walk(orb: Any) -> None:
        orbs = orb.get("orbs") if isinstance(orb, dict) else None
        for value in orbs.values() if isinstance(orbs, dict) else ():
            if isinstance(value, str):
                found[value.strip()] = None
            else:
                walk(value)

    walk(_document(source, ref))
    return list(found)


def _default(defaults: Mapping[str, Any], match: re.Match[str]) -> str:
    return str(defaults.get(match[1]) or match[0])


def images_of(source: str, ref: str) -> list[str]:
    """Images that executors and jobs of an orb run in, with the defaults of their parameters filled in."""
    document = _document(source, ref)
    found: dict[str, None] = {}
    for section in ("executors", "jobs"):
        for item in (document.get(section) or {}).values() if isinstance(document, dict) else ():
            if not isinstance(item, dict) or not isinstance(item.get("docker"), list):
                continue
            defaults = {name: spec.get("default") for name, spec in (item.get("parameters") or {}).items() if isinstance(spec, dict)}
            for entry in item["docker"]:
                image = str(entry.get("image") or "") if isinstance(entry, dict) else ""
                filled = _PARAMETER.sub(partial(_default, defaults), image)
                # What only the job that uses it decides is for the operator to name.
                if filled and "<<" not in filled and "$" not in filled:
                    found[filled] = None
    return list(found)


class _Closure:
    def __init__(self, api: Api, known: Known) -> None:
        self.api, self.known = api, known
        self.sources: dict[str, str] = {}
        self.imports: dict[str, tuple[tuple[str, str], ...]] = {}
        self.why: dict[str, list[str]] = {}
        self.problems: list[str] = []
        self._resolved: dict[str, Optional[str]] = {}

    def take(self, ref: str, why: str) -> Optional[str]:
        """Bring *ref* and all it imports; returns its exact version, None when there is a problem with it."""
        if ref not in self._resolved:
            try:
                exact = self._fetch(ref)
                self._resolved[ref] = exact
                if exact not in self.imports:
                    self.imports[exact] = ()
                    self.imports[exact] = self._imports(exact)
            except Unreachable:
                raise
            except OrbError as error:
                self._resolved.setdefault(ref, None)
                self.problems.append(f"{error} ({why})")
        exact_ref = self._resolved[ref]
        if exact_ref is not None and why not in self.why.setdefault(exact_ref, []):
            self.why[exact_ref].append(why)
        return exact_ref

    def _imports(self, exact: str) -> tuple[tuple[str, str], ...]:
        found = []
        for ref in imports_of(self.sources[exact], exact):
            match = _IMPORT.fullmatch(ref)
            if match is None:
                raise OrbError(f"{exact} imports {ref!r}, which names no orb")
            if not _TRAVELS.fullmatch(match["version"] or "volatile"):
                raise OrbError(f"{exact} imports {ref}: a development version cannot be published elsewhere")
            resolved = self.take(ref if match["version"] else f"{ref}@volatile", f"imported by {exact}")
            if resolved:
                found.append((ref, resolved))
        return tuple(found)

    def _fetch(self, ref: str) -> str:
        """The exact version behind a reference; its source is then known."""
        exact = self.known.resolved.get(ref, ref)
        if exact in self.sources:
            return exact
        if exact in self.known.sources:
            self.sources[exact] = self.known.sources[exact]
            return exact
        answer = self.api.version(exact)
        if answer is None:
            raise OrbError(f"{exact} is not in the registry of CircleCI; look at {self.api.url.rpartition('/')[0]}/developer/orbs for its name and versions")
        name, wanted = exact.split("@")
        version, source = answer
        found = f"{name}@{version}"
        parse_exact(found)
        if _is_exact(wanted) and version != wanted:
            raise OrbError(f"{exact}: the registry of CircleCI answers with version {version}")
        digest = sha256_of(source)
        if self.known.digests.get(found, digest) != digest:
            raise OrbError(
                f"{found} has the sha256 {digest}, the lock pins {self.known.digests[found]}; a published version never changes, so one of both is wrong. "
                "Compare them; to take the new one, move the lock away"
            )
        self.sources[found] = source
        return found


def _is_exact(version: str) -> bool:
    return version.count(".") == 2


def collect(refs: Sequence[str], api: Api, known: Known) -> tuple[list[OrbVersion], dict[str, str], list[str]]:
    """The orbs in the order in which they can be published, their sources by exact version, and all problems."""
    closure = _Closure(api, known)
    for ref in refs:
        try:
            parse_exact(ref)
            closure.take(ref, ASKED)
        except Unreachable as error:
            # The others would wait for the same API, each as long as this one.
            closure.problems.append(f"{error}. Can the connected host reach it?")
            break
        except OrbError as error:
            closure.problems.append(str(error))
    orbs = {
        exact: OrbVersion(*parse_exact(exact), sha256_of(closure.sources[exact]), imports, tuple(closure.why.get(exact, ())))
        for exact, imports in closure.imports.items()
    }
    ordered, problems = _in_order(orbs)
    return ordered, closure.sources, [f"{ASKED}: {problem}" for problem in (*closure.problems, *problems)]


def _in_order(orbs: Mapping[str, OrbVersion]) -> tuple[list[OrbVersion], list[str]]:
    """What is imported comes before what imports it, else by name."""
    ordered: dict[str, OrbVersion] = {}
    problems: list[str] = []

    def visit(exact: str, path: tuple[str, ...]) -> None:
        if exact in path:
            problems.append(f"these orbs import each other, so that none can be published first: {' → '.join((*path[path.index(exact):], exact))}")
            return
        if exact not in ordered:
            for _ref, resolved in orbs[exact].imports:
                if resolved in orbs:
                    visit(resolved, (*path, exact))
            ordered.setdefault(exact, replace(orbs[exact], why=tuple(sorted(orbs[exact].why))))

    for exact in sorted(orbs):
        visit(exact, ())
    return list(ordered.values()), list(dict.fromkeys(problems))
