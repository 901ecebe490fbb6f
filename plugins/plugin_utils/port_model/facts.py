# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""The catalog's port rules as this package reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PortFact:
    """One rule of the vendor, or one that we derive from it; see the catalog's ports.yml."""

    id: str
    host_group: str
    direction: str
    protocols: tuple[str, ...]
    ports: tuple[str, ...]
    purpose: str
    status: str
    condition: str
    reference: str
    note: str


def _get(item: Any, *names: str) -> Any:
    for name in names:
        value = item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)
        if value is not None:
            return value
    return None


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, (str, int)):
        return (str(value),)
    return tuple(str(item) for item in value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(getattr(value, "value", value))


def _direction(item: Any) -> str:
    direction = _text(_get(item, "direction"))
    return "egress_from_containers" if _get(item, "scope") == "containers" and direction == "egress" else direction


def _status(item: Any) -> str:
    """The catalog keeps need and certainty apart; people read one word."""
    status = _text(_get(item, "status"))
    certainty = _text(_get(item, "certainty"))
    if status == "required":
        return certainty or "documented"
    return status


def port_facts(items: Iterable[Any]) -> tuple[PortFact, ...]:
    """Rules of one release as the catalog gives them (objects or mappings)."""
    return tuple(
        PortFact(
            id=_text(_get(item, "id")),
            host_group=_text(_get(item, "group", "host_group")),
            direction=_direction(item),
            protocols=_texts(_get(item, "protocols", "protocol")),
            ports=_texts(_get(item, "ports")),
            purpose=_text(_get(item, "purpose")),
            status=_status(item),
            condition=_text(_get(item, "condition")),
            reference=_text(_get(item, "ref", "reference", "source")),
            note=_text(_get(item, "note")),
        )
        for item in items
    )
