# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Release numbers, ranges of minors, ranges of Kubernetes versions, paths of values keys."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RELEASE = re.compile(r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$")
_MINOR = re.compile(r"^(0|[1-9]\d*)\.(0|[1-9]\d*)$")
_KEY_STEP = re.compile(r'"(?P<quoted>[^"]+)"|(?P<plain>[^.\[\]"]+)|\[(?P<index>\d+)\]')

MinorTuple = tuple[int, int]


def parse_release(text: str) -> tuple[int, int, int]:
    """``"4.10.0"`` → ``(4, 10, 0)``; ValueError for anything else."""
    match = _RELEASE.match(text)
    if match is None:
        raise ValueError(f"not a three-part release: {text!r}")
    return int(match[1]), int(match[2]), int(match[3])


def parse_minor(text: str) -> MinorTuple:
    """``"4.10"`` → ``(4, 10)``; ValueError for anything else."""
    match = _MINOR.match(text)
    if match is None:
        raise ValueError(f"not a two-part version: {text!r}")
    return int(match[1]), int(match[2])


def minor_of(release: str) -> str:
    """``"4.10.0"`` → ``"4.10"``."""
    major, minor, _patch = parse_release(release)
    return f"{major}.{minor}"


@dataclass(frozen=True)
class MinorRange:
    """A set of minors written as ``4.0-4.2``, ``4.10`` or ``4.1, 4.3-4.9``."""

    spans: tuple[tuple[MinorTuple, MinorTuple], ...]

    @classmethod
    def parse(cls, text: str) -> MinorRange:
        spans: list[tuple[MinorTuple, MinorTuple]] = []
        for part in text.split(","):
            first_text, dash, last_text = part.strip().partition("-")
            first = parse_minor(first_text)
            last = parse_minor(last_text) if dash else first
            if last < first:
                raise ValueError(f"range ends before it begins: {part.strip()!r}")
            if spans and first <= spans[-1][1]:
                raise ValueError(f"spans overlap or are out of order: {text!r}")
            spans.append((first, last))
        return cls(tuple(spans))

    def __contains__(self, minor: object) -> bool:
        if not isinstance(minor, str):
            return False
        number = parse_minor(minor)
        return any(first <= number <= last for first, last in self.spans)

    @property
    def first(self) -> str:
        return "{}.{}".format(*self.spans[0][0])

    @property
    def last(self) -> str:
        return "{}.{}".format(*self.spans[-1][1])


@dataclass(frozen=True, order=True)
class KubernetesRange:
    """Two Kubernetes minors, both included."""

    first: MinorTuple
    last: MinorTuple

    @classmethod
    def parse(cls, first: str, last: str) -> KubernetesRange:
        result = cls(parse_minor(first), parse_minor(last))
        if result.last < result.first:
            raise ValueError(f"Kubernetes range ends before it begins: {first}-{last}")
        return result

    def overlap(self, other: KubernetesRange) -> KubernetesRange | None:
        first, last = max(self.first, other.first), min(self.last, other.last)
        return KubernetesRange(first, last) if first <= last else None

    def __contains__(self, version: object) -> bool:
        """Accepts ``1.33``, ``1.33.0`` and ``v1.33.4+k3s1``."""
        if not isinstance(version, str):
            return False
        match = re.match(r"^v?(\d+)\.(\d+)(?:[.+-]|$)", version)
        return match is not None and self.first <= (int(match[1]), int(match[2])) <= self.last

    @property
    def minimum(self) -> str:
        return "{}.{}".format(*self.first)

    @property
    def maximum(self) -> str:
        return "{}.{}".format(*self.last)

    def __str__(self) -> str:
        return self.minimum if self.first == self.last else f"{self.minimum}-{self.maximum}"


def key_path(key: str) -> tuple[str | int, ...]:
    """Split a dotted values key: ``a."b.c/d".e[0]`` → ``("a", "b.c/d", "e", 0)``."""
    steps: list[str | int] = []
    position = 0
    while position < len(key):
        if steps and key[position] == ".":
            position += 1
        match = _KEY_STEP.match(key, position)
        if match is None:
            raise ValueError(f"not a values key: {key!r}")
        index = match["index"]
        steps.append(int(index) if index is not None else match["quoted"] or match["plain"])
        position = match.end()
    if not steps:
        raise ValueError("not a values key: empty")
    return tuple(steps)
