# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Images of a chart, and by experiment the values key that moves each: the keys get marks, and the marks show where they land."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from ..discovery.errors import DiscoveryError
from ..discovery.references import parse_or_none, place
from ..discovery.walk import in_object, merged, with_path
from .keys import KeyPath, leaves

_NAMES = {"registry", "org", "repository", "repo", "tag"}
_MARK = re.compile(r"m(\d{4})x")
Render = Callable[[Mapping[str, Any]], list[tuple[str, Any]]]


@dataclass
class ImageSeen:
    """One repository that the chart names."""

    repository: str
    tags: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    used_by: set[str] = field(default_factory=set)
    keys: dict[str, set[KeyPath]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        return {
            "repository": self.repository,
            "tags": sorted(self.tags),
            "used_by": sorted(self.used_by),
            "keys": {role: [list(path) for path in sorted(paths)] for role, paths in sorted(self.keys.items())},
        }


def _hits(objects: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """What is written for an image, by object and place."""
    found: dict[str, str] = {}
    for _file, document in objects:
        for hit in in_object(document, ()):
            if hit.sure:
                found[hit.path] = hit.written
    return found


def images_of(objects: Iterable[tuple[str, Any]]) -> dict[str, ImageSeen]:
    """Images by repository, with registry."""
    found: dict[str, ImageSeen] = {}
    for path, written in _hits(objects).items():
        reference = parse_or_none(written)
        if reference is None:
            continue
        seen = found.setdefault(place(reference), ImageSeen(place(reference)))
        seen.tags.add(reference.tag or "")
        seen.written.add(written)
        seen.used_by.add(path.split(" ", 1)[0])
    return found


def _candidates(defaults: Mapping[str, Any], images: Iterable[ImageSeen]) -> Iterator[KeyPath]:
    texts = {text.rpartition(":")[0] for seen in images for text in seen.written} | {text for seen in images for text in seen.written}
    for path, value in leaves(defaults).items():
        if not path or not isinstance(value, (str, int, float, type(None))) or isinstance(value, bool):
            continue
        name = path[-1].lower()
        if name in _NAMES or (isinstance(value, str) and value and (value in texts or (name.endswith("image") and "://" not in value))):
            yield path


def _role(written: str, mark: str) -> str:
    """Which part of a reference a mark stands for."""
    slash = written.rfind("/")
    colon = written.find(":", slash + 1)
    name = written if colon < 0 else written[:colon]
    if mark not in name:
        return "tag"
    parts = [mark in part for part in name.split("/")]
    if parts[-1]:
        return "repository"
    return "registry" if parts[0] else "org"


def moved_by(
    defaults: Mapping[str, Any], given: Mapping[str, Any], images: Mapping[str, ImageSeen], render: Render, said: Iterable[str] = ()
) -> list[str]:
    """Note the keys that move each image; returns the keys with which the chart could not be rendered."""
    before = _hits(render(given))
    paths = sorted({*_candidates(merged(defaults, given), images.values()), *(tuple(key.split(".")) for key in said)})
    trouble: list[str] = []

    def attempt(chosen: list[int]) -> None:
        tree: dict[str, Any] = merged({}, given)
        for index in chosen:
            with_path(tree, paths[index], f"m{index:04d}x")
        try:
            seen = _hits(render(tree))
        except DiscoveryError as error:
            if len(chosen) == 1:
                trouble.append(f"{'.'.join(paths[chosen[0]])}: {error}")
                return
            # Some charts judge a value, for instance a tag; then halves are tried until the stubborn key stands alone.
            attempt(chosen[: len(chosen) // 2])
            attempt(chosen[len(chosen) // 2 :])
            return
        for where, written in seen.items():
            _note(where, written, before, paths, images)

    if paths:
        attempt(list(range(len(paths))))
    return trouble


def _note(where: str, written: str, before: Mapping[str, str], paths: list[KeyPath], images: Mapping[str, ImageSeen]) -> None:
    reference = parse_or_none(before.get(where, ""))
    seen = images.get(place(reference)) if reference is not None else None
    if seen is None:
        return
    for match in _MARK.finditer(written):
        path = paths[int(match.group(1))]
        seen.keys.setdefault(_role(written, match.group(0)), set()).add(path)
