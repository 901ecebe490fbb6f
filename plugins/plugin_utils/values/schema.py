# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A small checker for the JSON schema that a chart brings (the parts of draft 7 that Helm charts use)."""

from __future__ import annotations

import re
from typing import Any

from .model import Path, dotted

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
}


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if value is None:
        return "null"
    for name in ("object", "array", "string", "integer"):
        if isinstance(value, _TYPES[name]):
            return name
    return "number"


class Schema:
    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def _resolve(self, schema: Any) -> Any:
        seen = 0
        while isinstance(schema, dict) and isinstance(schema.get("$ref"), str) and seen < 20:
            seen += 1
            reference = schema["$ref"]
            if not reference.startswith("#"):
                return True
            target: Any = self.document
            for part in reference[1:].strip("/").split("/"):
                if not part:
                    continue
                name = part.replace("~1", "/").replace("~0", "~")
                target = target.get(name, True) if isinstance(target, dict) else True
            schema = target
        return schema

    def knows(self, path: Path) -> bool:
        """Whether the schema names every step of a path."""
        schema: Any = self._resolve(self.document)
        for part in path:
            if not isinstance(schema, dict):
                return False
            if part.startswith("["):
                schema = self._resolve(schema.get("items", True))
                if schema is True:
                    return True
                continue
            properties = schema.get("properties") or {}
            if part in properties:
                schema = self._resolve(properties[part])
                continue
            for pattern, below in (schema.get("patternProperties") or {}).items():
                if re.search(pattern, part):
                    schema = self._resolve(below)
                    break
            else:
                extra = schema.get("additionalProperties")
                if isinstance(extra, dict):
                    schema = self._resolve(extra)
                else:
                    # An object without any named member is free on purpose.
                    return not properties and schema.get("type") == "object" and extra is not False
        return True

    def leaves(self, schema: Any = None, path: Path = ()) -> dict[Path, Any]:
        """Every key that the schema names and that has no named keys below it, with its part of the schema."""
        here = self._resolve(self.document if schema is None else schema)
        properties = (here.get("properties") or {}) if isinstance(here, dict) and len(path) < 20 else {}
        if not properties:
            return {path: here} if path else {}
        found: dict[Path, Any] = {}
        for name, below in properties.items():
            found.update(self.leaves(below, (*path, str(name))))
        return found

    def check(self, value: Any, path: Path = (), schema: Any = None) -> list[tuple[Path, str]]:
        """All places that do not fit, with what is wrong."""
        schema = self._resolve(self.document if schema is None else schema)
        if schema is True or schema is None:
            return []
        if schema is False:
            return [(path, "is not allowed here")]
        found: list[tuple[Path, str]] = []
        kinds = schema.get("type")
        if kinds is not None:
            allowed = [kinds] if isinstance(kinds, str) else list(kinds)
            kind = _type_of(value)
            fits = kind in allowed or (kind == "integer" and "number" in allowed)
            fits = fits or (kind == "number" and "integer" in allowed and float(value).is_integer())
            if not fits:
                return [(path, f"must be {' or '.join(allowed)}, found {kind}")]
        if "const" in schema and value != schema["const"]:
            found.append((path, f"must be {schema['const']!r}"))
        if "enum" in schema and value not in schema["enum"]:
            found.append((path, f"must be one of {', '.join(map(repr, schema['enum']))}"))
        if isinstance(value, str):
            found += self._text(value, path, schema)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            if "minimum" in schema and value < schema["minimum"]:
                found.append((path, f"must be at least {schema['minimum']}"))
            if "maximum" in schema and value > schema["maximum"]:
                found.append((path, f"must be at most {schema['maximum']}"))
        elif isinstance(value, dict):
            found += self._mapping(value, path, schema)
        elif isinstance(value, list):
            if len(value) < schema.get("minItems", 0):
                found.append((path, f"needs at least {schema['minItems']} items"))
            for index, item in enumerate(value):
                found += self.check(item, (*path, f"[{index}]"), schema.get("items", True))
        for part in schema.get("allOf", []):
            found += self.check(value, path, part)
        for name in ("anyOf", "oneOf"):
            branches = schema.get(name)
            if branches and all(self.check(value, path, branch) for branch in branches):
                found.append((path, f"fits none of the {len(branches)} allowed forms"))
        if "if" in schema:
            branch = "else" if self.check(value, path, schema["if"]) else "then"
            found += self.check(value, path, schema.get(branch, True))
        if "not" in schema and not self.check(value, path, schema["not"]):
            found.append((path, "has a form that is not allowed"))
        return found

    @staticmethod
    def _text(value: str, path: Path, schema: dict[str, Any]) -> list[tuple[Path, str]]:
        found: list[tuple[Path, str]] = []
        if len(value) < schema.get("minLength", 0):
            found.append((path, f"needs at least {schema['minLength']} characters, has {len(value)}"))
        if "maxLength" in schema and len(value) > schema["maxLength"]:
            found.append((path, f"takes at most {schema['maxLength']} characters, has {len(value)}"))
        pattern = schema.get("pattern")
        if pattern and not re.search(pattern, value):
            found.append((path, f"does not fit the pattern {pattern}"))
        return found

    def _mapping(self, value: dict[str, Any], path: Path, schema: dict[str, Any]) -> list[tuple[Path, str]]:
        found: list[tuple[Path, str]] = [
            ((*path, name), "is missing") for name in schema.get("required", []) if name not in value
        ]
        properties = schema.get("properties") or {}
        patterns = schema.get("patternProperties") or {}
        extra = schema.get("additionalProperties", True)
        for name, item in value.items():
            below = (*path, str(name))
            matched = name in properties
            if matched:
                found += self.check(item, below, properties[name])
            for pattern, part in patterns.items():
                if re.search(pattern, str(name)):
                    matched = True
                    found += self.check(item, below, part)
            if matched:
                continue
            if extra is False:
                found.append((below, "is not a key of this chart"))
            elif isinstance(extra, dict):
                found += self.check(item, below, extra)
        return found


def sentences(problems: list[tuple[Path, str]]) -> list[str]:
    return [f"{dotted(path) or 'the values'} {text}" for path, text in problems]
