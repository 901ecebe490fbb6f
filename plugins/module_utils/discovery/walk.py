# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking for images in rendered Kubernetes objects and in trees of Helm values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from .references import in_text, parse_or_none, says_version

CONTAINER_LISTS = {
    "containers": "container",
    "initContainers": "init container",
    "ephemeralContainers": "ephemeral container",
}


@dataclass(frozen=True)
class Hit:
    """A text that names an image, before it is joined with the same found elsewhere.

    ``sure`` is false where a text only looks like an image; such a one may be missing at its registry without failing the plan.
    """

    written: str
    path: str
    rule: str
    sure: bool = True


def in_object(document: Any, known: Iterable[str]) -> Iterator[Hit]:
    """Images of one rendered object: pods wherever they are nested, custom resources, then texts."""
    if not isinstance(document, Mapping):
        return
    metadata = document.get("metadata")
    name = metadata.get("name", "?") if isinstance(metadata, Mapping) else "?"
    yield from _walk(document, f"{document.get('kind', '?')}/{name} ", set(known))


def _walk(node: Any, path: str, known: set[str]) -> Iterator[Hit]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            here = f"{path}.{key}" if not path.endswith(" ") else f"{path}{key}"
            if key in CONTAINER_LISTS and isinstance(value, list):
                for index, container in enumerate(value):
                    yield from _container(container, f"{here}[{index}]", CONTAINER_LISTS[key], known)
            elif key == "image" and isinstance(value, str) and value:
                yield Hit(value, here, "image of a custom resource")
            elif _names_image(key) and isinstance(value, Mapping):
                yield from _image_map(value, here, "image of a custom resource")
                yield from _walk(value, here, known)
            else:
                yield from _walk(value, here, known)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _walk(value, f"{path}[{index}]", known)
    elif isinstance(node, str):
        for written, rule in in_text(node, known):
            yield Hit(written, path, rule, sure=False)


def _container(container: Any, path: str, kind: str, known: set[str]) -> Iterator[Hit]:
    if not isinstance(container, Mapping):
        return
    image = container.get("image")
    if isinstance(image, str) and image:
        yield Hit(image, f"{path}.image", kind)
    for item in container.get("env") or []:
        if isinstance(item, Mapping) and isinstance(item.get("value"), str):
            yield from _setting(str(item.get("name")), item["value"], f"{path}.env[{item.get('name')}]", known)
    rest = {key: value for key, value in container.items() if key not in ("image", "env", "name")}
    yield from _walk(rest, path, known)


def _setting(name: str, value: str, path: str, known: set[str]) -> Iterator[Hit]:
    """A named text: a name that says image makes a bare ``pause:3.6`` an image."""
    reference = parse_or_none(value) if _names_image(name) and "://" not in value else None
    if reference is not None and says_version(value):
        yield Hit(value, path, "setting whose name says image", sure=False)
        return
    for written, rule in in_text(value, known):
        yield Hit(written, path, rule, sure=False)


def _names_image(name: object) -> bool:
    return isinstance(name, str) and name.lower().replace("_", "").endswith(("image", "imageref", "imagename", "containerimage"))


def in_values(node: Any, prefix: str, tags: Mapping[str, str]) -> Iterator[Hit]:
    """Images of a tree of values: maps with repository and tag, and settings whose name says image.

    *tags* is ``images.yaml`` of the chart: a setting without a tag gets the one that is written there.
    """
    if isinstance(node, Mapping):
        yield from _image_map(node, prefix, "map of values with repository and tag")
        for key, value in node.items():
            here = f"{prefix}.{key}" if prefix else str(key)
            if isinstance(value, str) and _names_image(key):
                yield from _value(value, here, tags)
            else:
                yield from in_values(value, here, tags)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from in_values(value, f"{prefix}[{index}]", tags)


def _value(value: str, path: str, tags: Mapping[str, str]) -> Iterator[Hit]:
    reference = parse_or_none(value) if value and "://" not in value else None
    if reference is None:
        return
    if says_version(value):
        yield Hit(value, path, "value whose key says image", sure=False)
    elif value in tags:
        yield Hit(f"{value}:{tags[value]}", path, "value whose key says image, tag from images.yaml")


def _image_map(node: Mapping[str, Any], path: str, rule: str) -> Iterator[Hit]:
    repository = _text(node.get("repository"))
    if not repository:
        return
    registry, tag, digest = _text(node.get("registry")), _text(node.get("tag")), _text(node.get("digest"))
    if not tag and not digest:
        return
    written = (f"{registry.rstrip('/')}/" if registry else "") + repository + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    if parse_or_none(written) is not None:
        yield Hit(written, path, rule, sure=False)


def _text(value: Any) -> Optional[str]:
    return value.strip() if isinstance(value, str) and value.strip() else None


SWITCHES = ("enabled", "isEnabled")


def switches(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all keys of a tree of values that switch something on."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            if key in SWITCHES and not isinstance(value, (Mapping, list)):
                yield (*path, str(key))
            else:
                yield from switches(value, (*path, str(key)))


def with_path(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set one value in a tree, making what is missing on the way."""
    for key in path[:-1]:
        below = tree.get(key)
        if not isinstance(below, dict):
            below = tree[key] = {}
        tree = below
    tree[path[-1]] = value


def without_path(tree: Any, path: tuple[str, ...]) -> None:
    """Take one value out of a tree when it is there."""
    for key in path[:-1]:
        tree = tree.get(key) if isinstance(tree, dict) else None
    if isinstance(tree, dict):
        tree.pop(path[-1], None)


def merged(base: Any, overlay: Any) -> Any:
    """Helm's way: maps are joined, anything else is replaced, null takes away."""
    if not isinstance(base, Mapping) or not isinstance(overlay, Mapping):
        return overlay
    result = dict(base)
    for key, value in overlay.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result[key], value) if key in result else value
    return result
