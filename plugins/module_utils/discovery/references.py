# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where in a text something looks like an image. What a reference is, the engine says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..mirror.errors import UsageError
from ..mirror.oci import Reference

# Anything in a text that could be a reference. What stands before and after decides whether it is part of a URL or a path.
_CANDIDATE = re.compile(
    r"(?<![A-Za-z0-9_./:@%=-])(?P<ref>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?::[0-9]{1,5}(?=/))?"
    r"(?:/[a-z0-9][a-z0-9._-]*)*(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?)(?![A-Za-z0-9_/:@-])"
)


def place(reference: Reference) -> str:
    """Registry and repository, without tag and digest."""
    return f"{reference.registry}/{reference.repository}"


def basename(reference: Reference) -> str:
    """The last part of the repository."""
    return reference.repository.rsplit("/", 1)[-1]


def says_version(written: str) -> bool:
    """Whether a tag or a digest is written, instead of leaving it to ``latest``."""
    return "@" in written or ":" in written.rsplit("/", 1)[-1]


def parse_or_none(text: str) -> Reference | None:
    """The reference, or None."""
    try:
        return Reference.parse(text)
    except UsageError:
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
        if reference is None or not says_version(written):
            continue
        has_host = written.split("/", 1)[0] == reference.registry and "/" in written
        if reference.digest:
            yield written, "string with a digest"
        elif place(reference) in known_names and not _is_port(reference.tag):
            yield written, "string that names a known image"
        elif has_host and not _is_port(reference.tag):
            yield written, "string with a registry host"
        elif written == stripped and "/" in written and not _is_port(reference.tag):
            yield written, "string that is nothing but a reference"


def _is_port(tag: str | None) -> bool:
    return tag is not None and tag.isdigit() and 0 < int(tag) < 65536 and tag != "0"
