# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Image references: parsing, the one full spelling, and where in a text something looks like one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable, Iterator, Optional

DOCKER_HUB = "docker.io"

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"^{_COMPONENT}(?:/{_COMPONENT})*$")
_HOST = re.compile(r"^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*(?::[0-9]{1,5})?$")
_TAG = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
# Anything in a text that could be a reference. What stands before and after decides whether it is part of a URL or a path.
_CANDIDATE = re.compile(
    r"(?<![A-Za-z0-9_./:@%=-])(?P<ref>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?::[0-9]{1,5}(?=/))?"
    r"(?:/[a-z0-9][a-z0-9._-]*)*(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?)(?![A-Za-z0-9_/:@-])"
)


class ReferenceError(ValueError):
    """A text that is no image reference, with the reason."""


@dataclass(frozen=True)
class Reference:
    """A reference in parts. ``str()`` gives its one full spelling."""

    registry: str
    repository: str
    tag: Optional[str] = None
    digest: Optional[str] = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference as docker does: ``kong:3.4.2`` lies in ``docker.io/library``."""
        rest, _at, digest = text.partition("@")
        if _at and not _DIGEST.match(digest):
            raise ReferenceError(f"{text!r} is no image reference: its digest must be sha256: and 64 hexadecimal digits")
        first, slash, others = rest.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
            registry, remainder = first, others
        else:
            registry, remainder = DOCKER_HUB, rest
        name, colon, tag = remainder.partition(":")
        if colon and not _TAG.match(tag):
            raise ReferenceError(f"{text!r} is no image reference: {tag!r} is no tag")
        if not _HOST.match(registry):
            raise ReferenceError(f"{text!r} is no image reference: {registry!r} is no registry host")
        if name != name.lower():
            raise ReferenceError(f"{text!r} is no image reference: repository names have no upper-case letters")
        if not _PATH.match(name):
            raise ReferenceError(f"{text!r} is no image reference: {name!r} is no repository name")
        if registry in ("index.docker.io", "registry-1.docker.io"):
            registry = DOCKER_HUB
        if registry == DOCKER_HUB and "/" not in name:
            name = f"library/{name}"
        return cls(registry, name, tag or None, digest or None)

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def basename(self) -> str:
        """The last part of the repository."""
        return self.repository.rsplit("/", 1)[-1]

    def pinned(self) -> Reference:
        """The same with the tag that docker would take when neither tag nor digest is there."""
        return self if self.tag or self.digest else Reference(self.registry, self.repository, "latest")

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_or_none(text: str) -> Optional[Reference]:
    """The reference, or None."""
    try:
        return Reference.parse(text)
    except ReferenceError:
        return None


def in_text(text: str, known: Iterable[str]) -> Iterator[tuple[str, str]]:
    """``(written, rule)`` of what looks like an image in a free text.

    ``redis:6379`` is an address and ``12:30`` a time, so a text counts only when nothing else can be meant: a digest, a
    registry host in front of a tagged path, a repository that is known to be an image, or - when the whole text is
    nothing else - an organisation, a name and a tag that is not a port.
    """
    known_names = set(known)
    stripped = text.strip()
    for match in _CANDIDATE.finditer(text):
        written = match.group("ref")
        if ":" not in written:
            continue
        reference = parse_or_none(written)
        if reference is None or not (reference.tag or reference.digest):
            continue
        has_host = written.split("/", 1)[0] == reference.registry and "/" in written
        if reference.digest:
            yield written, "string with a digest"
        elif reference.name in known_names and not _is_port(reference.tag):
            yield written, "string that names a known image"
        elif has_host and not _is_port(reference.tag):
            yield written, "string with a registry host"
        elif written == stripped and "/" in written and not _is_port(reference.tag):
            yield written, "string that is nothing but a reference"


def _is_port(tag: Optional[str]) -> bool:
    return tag is not None and tag.isdigit() and 0 < int(tag) < 65536 and tag != "0"
