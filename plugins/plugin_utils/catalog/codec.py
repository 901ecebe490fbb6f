# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""JSON rows to dataclasses and back. Rows leave out every field that has its default value."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, Union

from .errors import CatalogDataError
from .model import CERTAINTIES, Fact

R = TypeVar("R")
Converter = Callable[[Any], Any]


_hints: dict[type[Any], dict[str, Any]] = {}
_plans: dict[type[Any], tuple[tuple[str, Converter], ...]] = {}


def _hints_of(cls: type[Any]) -> dict[str, Any]:
    """The types of a class's fields; working them out is slow."""
    if cls not in _hints:
        _hints[cls] = typing.get_type_hints(cls)
    return _hints[cls]


def _plan(cls: type[Any]) -> tuple[tuple[str, Converter], ...]:
    """Which fields of a class are not plain JSON values, and how to convert them."""
    if cls not in _plans:
        hints = _hints_of(cls)
        converters = ((field.name, _converter(hints[field.name])) for field in dataclasses.fields(cls))
        _plans[cls] = tuple((name, converter) for name, converter in converters if converter is not None)
    return _plans[cls]


def _converter(hint: Any) -> Converter | None:
    origin = typing.get_origin(hint)
    if origin is Fact:
        (inner,) = typing.get_args(hint)
        return functools.partial(_fact, inner=_converter(inner))
    if origin is tuple:
        item = _converter(typing.get_args(hint)[0])
        return tuple if item is None else functools.partial(_tuple, item=item)
    if origin in (Union, types.UnionType):
        kinds = [part for part in typing.get_args(hint) if part is not type(None)]
        inner = _converter(kinds[0]) if len(kinds) == 1 else None
        return None if inner is None else functools.partial(_optional, inner=inner)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return functools.partial(decode, hint)
    return None


def _fact(raw: Mapping[str, Any], inner: Converter | None) -> Fact[Any]:
    value = raw["value"]
    return Fact(
        value if inner is None or value is None else inner(value), raw["source"], raw["certainty"], raw.get("note")
    )


def _tuple(raw: list[Any], item: Converter) -> tuple[Any, ...]:
    return tuple(item(element) for element in raw)


def _optional(raw: Any, inner: Converter) -> Any:
    return None if raw is None else inner(raw)


def decode(cls: type[R], raw: Mapping[str, Any]) -> R:
    """Make a dataclass of a row that ``check`` has seen."""
    values = dict(raw)
    for name, convert in _plan(cls):
        if name in values:
            values[name] = convert(values[name])
    return cls(**values)


def check(cls: type[Any], raw: Mapping[str, Any], where: str) -> None:
    """Refuse a row that has unknown fields, lacks mandatory ones, or has values that the class does not allow."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(raw) - set(fields))
    if unknown:
        raise CatalogDataError(f"{where}: unknown field {', '.join(unknown)}; known: {', '.join(fields)}.")
    missing = sorted(
        name
        for name, field in fields.items()
        if name not in raw and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    )
    if missing:
        raise CatalogDataError(f"{where}: missing field {', '.join(missing)}.")
    hints = _hints_of(cls)
    for name, value in raw.items():
        _check_value(hints[name], value, f"{where}.{name}")
    if "source" in raw and not raw["source"]:
        raise CatalogDataError(f"{where}: the source is empty.")


def _check_value(hint: Any, value: Any, where: str) -> None:
    origin = typing.get_origin(hint)
    if hint is Any:
        return
    if origin is Fact:
        if not isinstance(value, Mapping) or set(value) - {"value", "source", "certainty", "note"}:
            raise CatalogDataError(f"{where}: a fact has value, source, certainty and note only.")
        for name in ("value", "source", "certainty"):
            if name not in value:
                raise CatalogDataError(f"{where}: the fact lacks {name}.")
        if not value["source"] or value["certainty"] not in CERTAINTIES:
            raise CatalogDataError(f"{where}: source is empty or certainty {value['certainty']!r} is unknown.")
        _check_value(typing.get_args(hint)[0], value["value"], f"{where}.value")
        return
    if origin is tuple:
        if not isinstance(value, list):
            raise CatalogDataError(f"{where}: expected a list, found {value!r}.")
        for position, element in enumerate(value):
            _check_value(typing.get_args(hint)[0], element, f"{where}[{position}]")
        return
    if origin in (Union, types.UnionType):
        if value is None:
            return
        kinds = [part for part in typing.get_args(hint) if part is not type(None)]
        _check_value(kinds[0], value, where)
        return
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise CatalogDataError(f"{where}: {value!r} is none of {', '.join(map(str, typing.get_args(hint)))}.")
        return
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise CatalogDataError(f"{where}: expected a mapping, found {value!r}.")
        check(hint, value, where)
        return
    kind = Mapping if origin is not None and issubclass(origin, Mapping) else hint
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise CatalogDataError(f"{where}: expected {getattr(kind, '__name__', kind)}, found {value!r}.")


def shorten(cls: type[Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """A row without the fields that have their default value, in the order of the class."""
    result: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name not in raw:
            continue
        value = raw[field.name]
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        if field.default is not dataclasses.MISSING and type(value) is type(default) and value == default:
            continue
        result[field.name] = value
    return result
