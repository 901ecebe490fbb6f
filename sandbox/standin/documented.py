# SPDX-License-Identifier: GPL-3.0-or-later
"""The documented values of a release, from the collection's catalog: a tree of defaults and a schema of types."""

from __future__ import annotations

import copy
import importlib
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..common import SandboxError

_PART = re.compile(r'"([^"]*)"|([^."\[\]]+)|\[(\d+)\]')
# objects in which people used keys that no table has: the real schema is not strict there, nor at the top
TOLERANT = ("global", "nomad", "nomad.server", "telegraf", "opentelemetry-collector", "mongodb", "postgresql", "rabbitmq", "redis", "kong", "nginx")
# CircleCI's own blocks whose keys are all documented; a misspelt one is refused here
STRICT = ("github", "keyset", "object_storage", "object_storage.s3", "object_storage.gcs", "smtp", "tink", "tls")


@dataclass(frozen=True)
class Key:
    """One documented key."""

    key: str
    type: str
    default: Any
    # false for keys that people were seen to use and no table lists
    listed: bool = True

    @property
    def path(self) -> tuple[str | int, ...]:
        return parse(self.key)


def parse(key: str) -> tuple[str | int, ...]:
    """`a."b.c".d[0]` → ("a", "b.c", "d", 0)."""
    parts: list[str | int] = []
    place = 0
    while place < len(key):
        match = _PART.match(key, place)
        if not match:
            raise SandboxError(f"values key {key!r}: unexpected {key[place]!r}")
        quoted, plain, number = match.groups()
        parts.append(int(number) if number is not None else quoted if quoted is not None else plain)
        place = match.end()
        if place < len(key) and key[place] == ".":
            place += 1
    return tuple(parts)


@cache
def keys(release: str) -> tuple[Key, ...]:
    """All keys that the documentation of a release has."""
    catalog = importlib.import_module("plugins.plugin_utils.catalog").Catalog.load()
    return tuple(Key(entry.key, entry.type, entry.default, entry.certainty == "documented") for entry in catalog.values_keys(release))


def _put(tree: Any, path: tuple[str | int, ...], value: Any) -> None:
    for index, part in enumerate(path):
        last = index == len(path) - 1
        empty: Any = copy.deepcopy(value) if last else [] if isinstance(path[index + 1], int) else {}
        if isinstance(part, int):
            while len(tree) <= part:
                tree.append(empty if len(tree) == part else None)
            if last or tree[part] is None:
                tree[part] = empty
        elif last:
            # a key without a default of its own keeps what the object around it says
            if value is not None or part not in tree:
                tree[part] = empty
        elif not isinstance(tree.get(part), (dict, list)):
            tree[part] = empty
        tree = tree[part]


def defaults(entries: tuple[Key, ...]) -> dict[str, Any]:
    """values.yaml: objects first, then what is said about their parts."""
    tree: dict[str, Any] = {}
    for entry in sorted(entries, key=lambda one: len(one.path)):
        if entry.listed or entry.default is not None:
            _put(tree, entry.path, entry.default)
    return tree


def _types(entry: Key) -> dict[str, Any]:
    name = entry.path[-1]
    if entry.type == "bool":
        # the proxy page writes "1", the tables write false
        return {"enum": [True, False, None, "0", "1", "true", "false"]} if name == "enabled" and entry.key.startswith("proxy.") else {"type": ["boolean", "null"]}
    if entry.type in ("int", "float"):
        kinds = ["integer", "null"] if entry.type == "int" else ["number", "null"]
        if name in ("port", "tag", "cpu", "collector_port") or entry.key.endswith("_conns_per_client"):
            kinds.append("string")
        return {"type": kinds}
    if entry.type == "list":
        return {"type": ["array", "null"]}
    if entry.type == "object":
        # global.tolerations is called an object and is a list
        return {"type": ["object", "array", "null"]} if name == "tolerations" else {"type": ["object", "null"]}
    kinds = ["string", "null"]
    if name in ("tag", "cpu", "memory", "collector_port", "size") or entry.key.endswith("_conns_per_client"):
        kinds += ["integer", "number"]
    if name == "force_legacy_ui":
        kinds.append("boolean")
    return {"type": kinds}


def schema(entries: tuple[Key, ...], pull_secrets: str) -> dict[str, Any]:
    """values.schema.json: documented types, unknown keys tolerated where the real chart tolerates them."""
    root: dict[str, Any] = {"type": "object", "properties": {}}
    for entry in sorted(entries, key=lambda one: len(one.path)):
        if any(isinstance(part, int) for part in entry.path):
            # lists are replaced as a whole; only that they are lists is checked
            cut = next(index for index, part in enumerate(entry.path) if isinstance(part, int))
            path, kind = entry.path[:cut], {"type": ["array", "null"]}
        else:
            path, kind = entry.path, _types(entry)
        here = root
        for index, part in enumerate(path):
            properties = here.setdefault("properties", {})
            if index == len(path) - 1:
                properties[str(part)] = {**kind, **({"properties": properties[str(part)]["properties"]} if properties.get(str(part), {}).get("properties") else {})}
            else:
                here = properties.setdefault(str(part), {"type": ["object", "null"]})
                if "object" not in here.get("type", []):
                    here["type"] = ["object", "null"]
    for name in STRICT:
        here = root
        for part in name.split("."):
            here = here.get("properties", {}).get(part, {})
        if here.get("properties"):
            here["additionalProperties"] = False
    item = {"type": "string"} if pull_secrets == "strings" else {"type": "object", "required": ["name"]}
    root["properties"].setdefault("global", {"type": "object", "properties": {}})["properties"]["imagePullSecrets"] = {"type": ["array", "null"], "items": item}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "STAND-IN: documented types only", **root}
