# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the catalog says when it is asked for something it does not have."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

_TWO_PARTS = re.compile(r"^\d+\.\d+$")
_LONG_LIST = 40


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return `` Did you mean "x"?`` or an empty string."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=cutoff)
    return f' Did you mean "{by_lower[close[0]]}"?' if close else ""


def _listing(known: Sequence[str]) -> str:
    if len(known) <= _LONG_LIST:
        return ", ".join(known)
    return ", ".join(known[:_LONG_LIST]) + f" and {len(known) - _LONG_LIST} more"


class CatalogError(Exception):
    """Anything the catalog refuses. The text is one sentence or two, ready to be shown to an operator."""


class CatalogDataError(CatalogError):
    """The catalog's own files are missing, of another format, or contradict each other."""


class CatalogOverlayError(CatalogError):
    """A file that cannot be laid over the catalog."""


class UnknownNameError(CatalogError):
    """A name that the catalog does not have, with the ones it has."""

    def __init__(self, kind: str, name: object, known: Sequence[str], *, where: str = "", sentence: str = "") -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(known)
        text = f'Unknown {kind} "{name}"{" in " + where if where else ""}.'
        text += did_you_mean(str(name), known)
        super().__init__(sentence or f"{text} Known: {_listing(known)}.")


class UnknownServiceError(UnknownNameError):
    """A service that this release does not have."""

    def __init__(self, name: object, known: Sequence[str], release: str) -> None:
        super().__init__("service", name, known, where=f"CircleCI Server {release}")


class UnknownPlatformError(UnknownNameError):
    """A platform without a row."""

    def __init__(self, name: object, known: Sequence[str]) -> None:
        super().__init__("platform", name, known)


class UnknownValuesKeyError(UnknownNameError):
    """A Helm values key that this release does not document."""

    def __init__(self, name: object, known: Sequence[str], release: str) -> None:
        # Hundreds of keys would drown the sentence: the release and the nearest one are enough.
        sentence = f'Unknown values key "{name}" in CircleCI Server {release}.{did_you_mean(str(name), known)}'
        super().__init__("values key", name, known, sentence=sentence)


class UnknownReleaseError(UnknownNameError):
    """A release that is not in the catalog."""

    def __init__(self, name: object, last_patches: Sequence[str], *, patches_of_minor: Sequence[str] = ()) -> None:
        super().__init__("release", name, last_patches, sentence=self._text(name, last_patches, patches_of_minor))

    @staticmethod
    def _text(name: object, last_patches: Sequence[str], patches_of_minor: Sequence[str]) -> str:
        listing = ", ".join(f'"{version}"' for version in last_patches)
        if isinstance(name, (int, float)) and not isinstance(name, bool):
            return (
                f"Unknown CircleCI Server release {name}: YAML read it as a number, and 4.10 and 4.1 are the same number. "
                f'Write three parts, quoted, for example "4.10.0". Known: {listing}.'
            )
        text = str(name)
        if _TWO_PARTS.match(text):
            example = next((version for version in last_patches if version.startswith(text + ".")), "4.10.0")
            return (
                f'Unknown CircleCI Server release "{text}": write three parts, quoted, for example "{example}" '
                f"(unquoted, YAML reads 4.10 as the number 4.1). Known: {listing}."
            )
        if patches_of_minor:
            patches = ", ".join(patches_of_minor)
            return (
                f'Unknown CircleCI Server release "{text}". The documented patches of this minor are {patches}; '
                f'use "{patches_of_minor[-1]}".'
            )
        return f'Unknown CircleCI Server release "{text}".{did_you_mean(text, last_patches, cutoff=0.8)} Known: {listing}.'


class KnownBadReleaseError(CatalogError):
    """A release that exists and must not be used."""

    def __init__(self, version: str, reason: str, use_instead: str) -> None:
        self.version = version
        self.reason = reason
        self.use_instead = use_instead
        super().__init__(f'CircleCI Server release "{version}" must not be used: {reason} Use "{use_instead}".')


class NoUpgradePathError(CatalogError):
    """There is no documented way from one release to another."""
