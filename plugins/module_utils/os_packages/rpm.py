# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RPM packages as repository metadata describe them, and which of them are needed for some names.

The same code runs on the connected host, where everything that a host could come to need is carried, and on a host, where
what is installed counts. What is then installed dnf decides anew, with only these packages at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cmp_to_key
from typing import Any, Callable, Optional, Union
from xml.etree import ElementTree

COMMON = "{http://linux.duke.edu/metadata/common}"
RPM = "{http://linux.duke.edu/metadata/rpm}"

PRIMARY = "repodata/primary.xml"
KEYS = "keys/"
"""Keys that packages must be signed with."""
UNSIGNED = "unsigned"
"""Names of packages whose publisher does not sign them, one a line."""

_SENSES = {"EQ": "=", "LT": "<", "GT": ">", "LE": "<=", "GE": ">="}
_SEGMENT = re.compile(r"(~|\^|\d+|[A-Za-z]+)")
Version = tuple[str, str, str]
"""Epoch, version and release, each perhaps empty."""


class DependencyError(ValueError):
    """A dependency that cannot be read."""


def compare_text(one: str, two: str) -> int:
    """Versions or releases, as rpm compares them: segment by segment, a tilde before and a caret after everything else."""
    left, right = _SEGMENT.findall(one), _SEGMENT.findall(two)
    for index in range(max(len(left), len(right))):
        first = left[index] if index < len(left) else ""
        second = right[index] if index < len(right) else ""
        if first == second:
            continue
        if "~" in (first, second):
            return -1 if first == "~" else 1
        if "^" in (first, second):
            # A caret is later than the end and earlier than anything else.
            return (1 if not second else -1) if first == "^" else (-1 if not first else 1)
        if not first or not second:
            return 1 if first else -1
        if first.isdigit() != second.isdigit():
            return 1 if first.isdigit() else -1
        if first.isdigit():
            if int(first) != int(second):
                return 1 if int(first) > int(second) else -1
        else:
            return 1 if first > second else -1
    return 0


def compare(one: Version, two: Version) -> int:
    """Whole versions; a release counts only where both have one."""
    epochs = int(one[0] or 0) - int(two[0] or 0)
    if epochs:
        return 1 if epochs > 0 else -1
    found = compare_text(one[1], two[1])
    return found or (compare_text(one[2], two[2]) if one[2] and two[2] else 0)


def parse_version(text: str) -> Version:
    """``1:2.3-4.el9`` in its parts."""
    epoch, colon, rest = text.rpartition(":")
    version, _dash, release = rest.partition("-")
    return (epoch if colon else "", version, release)


@dataclass(frozen=True)
class Capability:
    """A name, perhaps with a sense and a version, that a package provides or requires."""

    name: str
    sense: str = ""
    version: Version = ("", "", "")

    def __str__(self) -> str:
        epoch, version, release = self.version
        shown = f"{f'{epoch}:' if epoch not in ('', '0') else ''}{version}{f'-{release}' if release else ''}"
        return f"{self.name} {self.sense} {shown}" if self.sense else self.name

    def meets(self, wanted: Capability) -> bool:
        """Whether this, which is provided, is what is *wanted*."""
        if self.name != wanted.name:
            return False
        if not self.sense or not wanted.sense:
            return True
        found = compare(self.version, wanted.version)
        if found < 0:
            return ">" in self.sense or "<" in wanted.sense
        if found > 0:
            return "<" in self.sense or ">" in wanted.sense
        return any(sign in self.sense and sign in wanted.sense for sign in "=<>")


@dataclass(frozen=True)
class Rich:
    """A dependency with words in it: ``(a if b else c)``."""

    word: str
    parts: tuple[Need, ...]
    text: str

    def __str__(self) -> str:
        return self.text


Need = Union[Capability, Rich]
_WORDS = ("and", "or", "if", "unless", "with", "without")


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def word(self) -> str:
        """Up to white space or the bracket that closes the group; names such as ``libc.so.6()(64bit)`` have brackets of their own."""
        start, depth = self.at, 0
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter.isspace() or (letter == ")" and depth == 0):
                break
            depth += (letter == "(") - (letter == ")")
            self.at += 1
        if start == self.at:
            raise DependencyError(f"{self.text!r} cannot be read as a dependency")
        return self.text[start : self.at]

    def need(self) -> Need:
        self.space()
        if self.text[self.at : self.at + 1] == "(":
            return self.group()
        name = self.word()
        mark = self.at
        self.space()
        if self.text[self.at : self.at + 1] in ("<", ">", "="):
            sense = self.word()
            self.space()
            return Capability(name, sense, parse_version(self.word()))
        self.at = mark
        return Capability(name)

    def group(self) -> Need:
        start = self.at
        self.at += 1
        parts = [self.need()]
        first = ""
        while True:
            self.space()
            if self.text[self.at : self.at + 1] == ")":
                self.at += 1
                return Rich(first, tuple(parts), self.text[start : self.at]) if first else parts[0]
            word = self.word()
            again = word == first and first in ("and", "or", "with")
            otherwise = word == "else" and first in ("if", "unless") and len(parts) == 2
            if not (again or otherwise or (not first and word in _WORDS)):
                raise DependencyError(f"{self.text!r} cannot be read as a dependency")
            first = first or word
            parts.append(self.need())


def parse_need(text: str) -> Need:
    """A rich dependency; any other text is a name."""
    if not text.startswith("("):
        return Capability(text)
    reader = _Reader(text)
    found = reader.group()
    if reader.at != len(text):
        raise DependencyError(f"{text!r} cannot be read as a dependency")
    return found


@dataclass(frozen=True)
class RpmPackage:
    """What matters of one package. ``where`` says which repository it is of."""

    name: str
    version: Version
    architecture: str
    href: str
    size: int
    sha256: str
    provides: tuple[Capability, ...] = field(default=(), compare=False, repr=False)
    requires: tuple[Need, ...] = field(default=(), compare=False, repr=False)
    files: tuple[str, ...] = field(default=(), compare=False, repr=False)
    where: str = ""
    priority: int = 99
    built: int = 0

    @property
    def filename(self) -> str:
        return self.href.rsplit("/", 1)[-1]

    @property
    def evr(self) -> str:
        """As dnf writes it, without an epoch of 0."""
        return f"{f'{self.version[0]}:' if self.version[0] not in ('', '0') else ''}{self.version[1]}-{self.version[2]}"

    @property
    def nevra(self) -> str:
        """As modules name it, always with an epoch."""
        return f"{self.name}-{self.version[0] or 0}:{self.version[1]}-{self.version[2]}.{self.architecture}"


def _entries(parent: Optional[ElementTree.Element], kind: str) -> Iterator[ElementTree.Element]:
    found = parent.find(f"{RPM}{kind}") if parent is not None else None
    return iter(found if found is not None else ())


def _capability(entry: ElementTree.Element) -> Capability:
    sense = _SENSES.get(entry.get("flags", ""), "")
    version = (entry.get("epoch", ""), entry.get("ver", ""), entry.get("rel", "")) if sense else ("", "", "")
    return Capability(entry.get("name", ""), sense, version)


def package_of(element: ElementTree.Element, where: str = "", priority: int = 99) -> RpmPackage:
    """A package out of primary.xml."""
    version, checksum, size, place, time = (element.find(f"{COMMON}{tag}") for tag in ("version", "checksum", "size", "location", "time"))
    name, architecture = element.findtext(f"{COMMON}name"), element.findtext(f"{COMMON}arch")
    if version is None or checksum is None or size is None or place is None or not name or not architecture:
        raise DependencyError("a package without name, version, checksum, size or location")
    form = element.find(f"{COMMON}format")
    requires: list[Need] = []
    for entry in _entries(form, "requires"):
        text = entry.get("name", "")
        if not text.startswith("rpmlib("):
            requires.append(parse_need(text) if text.startswith("(") else _capability(entry))
    return RpmPackage(
        name=name,
        version=(version.get("epoch", ""), version.get("ver", ""), version.get("rel", "")),
        architecture=architecture,
        href=place.get("href", ""),
        size=int(size.get("package", "0")),
        sha256=(checksum.text or "").strip().lower() if checksum.get("type") == "sha256" else "",
        provides=tuple(_capability(entry) for entry in _entries(form, "provides")),
        requires=tuple(requires),
        files=tuple(entry.text or "" for entry in (form.findall(f"{COMMON}file") if form is not None else ())),
        where=where,
        priority=priority,
        built=int(time.get("build", "0")) if time is not None else 0,
    )


def packages_of(source: Any) -> Iterator[tuple[RpmPackage, ElementTree.Element]]:
    """Packages of a primary.xml with their elements, one after the other; the element is only whole until the next one."""
    root: Optional[ElementTree.Element] = None
    # The parser of every supported Python refuses entity bombs.
    for event, element in ElementTree.iterparse(source, events=("start", "end")):  # noqa: S314
        root = element if root is None else root
        if event == "end" and element.tag == f"{COMMON}package":
            yield package_of(element), element
            root.clear()


class Pool:
    """Packages by what they provide."""

    def __init__(self, packages: Iterable[RpmPackage] = ()) -> None:
        self.packages: list[RpmPackage] = []
        self._provides: dict[str, list[tuple[Capability, RpmPackage]]] = {}
        for package in packages:
            self.add(package)

    def add(self, package: RpmPackage) -> None:
        self.packages.append(package)
        for provided in package.provides:
            self._provides.setdefault(provided.name, []).append((provided, package))
        for path in package.files:
            self._provides.setdefault(path, []).append((Capability(path), package))

    def have(self, wanted: Capability) -> bool:
        return any(provided.meets(wanted) for provided, _package in self._provides.get(wanted.name, ()))

    def providers(self, wanted: Capability) -> dict[int, RpmPackage]:
        """Those that provide it."""
        return {id(package): package for provided, package in self._provides.get(wanted.name, ()) if provided.meets(wanted)}

    def candidates(self, wanted: Capability) -> list[RpmPackage]:
        """Those that provide it, the best first: the one of that name, of the preferred repository, the shorter name, the newer version."""
        found = self.providers(wanted)

        def order(one: RpmPackage, two: RpmPackage) -> int:
            keys = [(package.name != wanted.name, package.priority, len(package.name), package.name) for package in (one, two)]
            if keys[0] != keys[1]:
                return -1 if keys[0] < keys[1] else 1
            return -compare(one.version, two.version)

        return sorted(found.values(), key=cmp_to_key(order))

    def paths_without_package(self) -> set[str]:
        """Files that some package requires and that none is known to have."""
        found: set[str] = set()
        queue: list[Need] = [need for package in self.packages for need in package.requires]
        while queue:
            need = queue.pop()
            if isinstance(need, Rich):
                queue += need.parts
            elif need.name.startswith("/") and need.name not in self._provides:
                found.add(need.name)
        return found

    def living(self) -> Pool:
        """Without packages that can be installed nowhere, as something that they need, or what that needs, is in none of the repositories."""
        alive = {id(package): package for package in self.packages}

        def had(need: Need) -> bool:
            if isinstance(need, Capability):
                return any(key in alive for key in self.providers(need))
            if need.word == "and":
                return all(had(part) for part in need.parts)
            if need.word == "or":
                return any(had(part) for part in need.parts)
            # What a condition asks for may stay away, and which package has two things at once is found out later.
            return True

        while True:
            dead = [key for key, package in alive.items() if not all(had(need) for need in package.requires)]
            if not dead:
                return Pool(alive.values())
            for key in dead:
                del alive[key]


@dataclass
class Closure:
    """What is needed for some names, and what cannot be had.

    With *carry* everything counts that a host could come to need: the consequence of each condition, as nobody knows here
    what the host has. Without it conditions are taken at their word, against *installed*.
    """

    pool: Pool
    carry: bool
    installed: Callable[[Capability], bool] = lambda _wanted: False
    chosen: dict[RpmPackage, None] = field(default_factory=dict)
    problems: dict[str, None] = field(default_factory=dict)
    perhaps: dict[str, None] = field(default_factory=dict)
    """What cannot be had of that which only some hosts would need."""
    _have: Pool = field(default_factory=Pool)
    _later: list[tuple[Rich, str]] = field(default_factory=list)

    def names(self, names: Sequence[str]) -> Closure:
        """Need the packages of these names."""
        for name in names:
            self._need(Capability(name), "")
        return self._conditions()

    def replacing(self, name: str) -> bool:
        """Take the package of this name though another version of it is installed; False when there is none to take."""
        package = next((item for item in self.pool.candidates(Capability(name)) if item.name == name), None)
        if package is None or package in self.chosen:
            return False
        self._take(package)
        for need in package.requires:
            self._need(need, f"{package.name}-{package.evr}")
        self._conditions()
        return True

    def _conditions(self) -> Closure:
        while True:
            due = [(rich, who) for rich, who in self._later if self._consequence(rich) is not None]
            if not due:
                return self
            self._later = [item for item in self._later if item not in due]
            for rich, who in due:
                self._need(self._consequence(rich), who)

    def _consequence(self, rich: Rich) -> Optional[Need]:
        """What a condition asks for as things are; None when it asks for nothing."""
        when = self._met(rich.parts[1])
        if when == (rich.word == "if"):
            return None if self._met(rich.parts[0]) else rich.parts[0]
        return rich.parts[2] if len(rich.parts) > 2 and not self._met(rich.parts[2]) else None

    def _met(self, need: Need) -> bool:
        if isinstance(need, Capability):
            return self._have.have(need) or self.installed(need)
        if need.word == "and":
            return all(self._met(part) for part in need.parts)
        if need.word == "or":
            return any(self._met(part) for part in need.parts)
        if need.word in ("if", "unless"):
            return self._consequence(need) is None
        if need.word == "with":
            return all(self._met(part) for part in need.parts)
        return self._met(need.parts[0])

    def _need(self, need: Optional[Need], who: str) -> None:
        """Take what is needed, with all it needs itself, without recursion over long chains."""
        queue: list[tuple[Need, str]] = [(need, who)] if need is not None else []
        while queue:
            wanted, asker = queue.pop(0)
            if isinstance(wanted, Rich) and wanted.word in ("if", "unless"):
                for part in (wanted.parts[0], *wanted.parts[2:]) if self.carry else ():
                    self._perhaps(part, asker)
                self._later.append((wanted, asker))
                continue
            if self._met(wanted):
                continue
            if isinstance(wanted, Rich) and wanted.word == "and":
                queue.extend((part, asker) for part in wanted.parts)
                continue
            package = self._best(wanted)
            if package is None:
                self.problems[f"nothing provides {wanted}{f', which {asker} needs' if asker else ''}"] = None
                continue
            self._take(package)
            queue.extend((part, f"{package.name}-{package.evr}") for part in package.requires)

    def _take(self, package: RpmPackage) -> None:
        self.chosen[package] = None
        self._have.add(package)

    def _best(self, need: Need) -> Optional[RpmPackage]:
        if isinstance(need, Capability):
            return next(iter(self.pool.candidates(need)), None)
        if need.word == "or":
            return next((found for part in need.parts if (found := self._best(part)) is not None), None)
        first = self._all(need.parts[0])
        others = {id(package) for package in self._all(need.parts[1])}
        return next((package for package in first if (id(package) in others) == (need.word == "with")), None)

    def _all(self, need: Need) -> list[RpmPackage]:
        if isinstance(need, Capability):
            return self.pool.candidates(need)
        return [package for part in need.parts for package in self._all(part)]

    def _perhaps(self, need: Need, who: str) -> None:
        """Take it when it can be had whole; a host that has what the condition names may need it."""
        trial = Closure(self.pool, self.carry, self.installed, dict(self.chosen), _have=Pool(self.chosen))
        trial._need(need, who)
        self.perhaps.update(trial.problems)
        if not trial.problems:
            for package in trial.chosen:
                if package not in self.chosen:
                    self._take(package)


def by_name(packages: Iterable[RpmPackage]) -> list[RpmPackage]:
    """In an order that does not depend on where they were found."""
    return sorted(packages, key=lambda package: (package.name, package.architecture, package.evr, package.sha256))


def read_primary(path: Any) -> dict[str, RpmPackage]:
    """Packages of a primary.xml on a host by their file name."""
    return {package.filename: package for package, _element in packages_of(path)}
