# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What was seen in a real chart, laid over the catalog's facts of one release. The verb chart_check writes the file."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import model
from .codec import check
from .errors import CatalogDataError, CatalogOverlayError

FORMAT = "onprem.circleci_server/catalog-overlay/1"
OBSERVED: model.Certainty = "observed"

# The tables that a chart can speak about, each with the class of its rows.
SECTIONS: Mapping[str, type[Any]] = {
    "values_keys": model.ValuesKey,
    "retired_values_keys": model.RetiredValuesKey,
    "images": model.Image,
    "services": model.Service,
    "internal_ports": model.InternalPort,
    "secrets": model.SecretSpec,
}
_SORTED = ("values_keys", "retired_values_keys")
AGAIN = "Make it again with the verb chart_check."


def row_id(section: str, row: Mapping[str, Any]) -> str:
    """What tells the rows of a table apart."""
    if section == "internal_ports":
        return f"{row['kubernetes_service']}:{row['port']}/{row['protocol']}"
    field = {"images": "repository", "services": "name", "secrets": "name"}.get(section, "key")
    return str(row[field])


@dataclass(frozen=True)
class ChartSeen:
    """The chart that was looked into. ``digest`` is that of its files, the same for a folder and an archive."""

    name: str
    version: str
    digest: str
    stand_in: bool

    @property
    def title(self) -> str:
        return f"{self.name}-{self.version}, {self.digest}"


@dataclass(frozen=True)
class CatalogOverlay:
    """Rows that replace, join or leave the tables of one release."""

    release: str
    chart: ChartSeen
    sections: Mapping[str, Mapping[str, Sequence[Any]]]

    def apply(self, section: str, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The rows of a table as this chart has them."""
        change = self.sections.get(section)
        if change is None:
            return list(rows)
        put = {row_id(section, row): row for row in change.get("set", ())}
        gone = set(change.get("remove", ()))
        result: list[Mapping[str, Any]] = []
        for row in rows:
            name = row_id(section, row)
            if name in put:
                result.append(put.pop(name))
            elif name not in gone:
                result.append(row)
        result += put.values()
        return sorted(result, key=lambda row: str(row["key"])) if section in _SORTED else result


def parse_overlay(content: Any, where: str) -> CatalogOverlay:
    """An overlay out of a document. Every row is held against the class of its table."""
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, Mapping) else type(content).__name__
        raise CatalogOverlayError(f"{where} is no catalog overlay: its format is {found!r}, this release of the collection reads {FORMAT!r}. {AGAIN}")
    chart = content.get("chart")
    sections = content.get("sections")
    if not isinstance(chart, Mapping) or not isinstance(sections, Mapping) or not isinstance(content.get("release"), str):
        raise CatalogOverlayError(f"{where} is no whole catalog overlay: release, chart and sections are needed. {AGAIN}")
    for name, change in sections.items():
        if name not in SECTIONS or not isinstance(change, Mapping):
            raise CatalogOverlayError(f"{where}: {name} is no section of an overlay; known: {', '.join(SECTIONS)}. {AGAIN}")
        for row in change.get("set", ()):
            try:
                check(SECTIONS[name], row, f"{name} {row.get('key') or row.get('name') or ''}".strip())
            except CatalogDataError as error:
                raise CatalogOverlayError(f"{where}: {error} {AGAIN}") from error
    seen = ChartSeen(str(chart.get("name")), str(chart.get("version")), str(chart.get("digest")), bool(chart.get("stand_in")))
    return CatalogOverlay(content["release"], seen, sections)


def read_overlay(path: str) -> CatalogOverlay:
    """The overlay in a file on the controller. A file that has not changed is read once."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise CatalogOverlayError(f"{path} cannot be read ({error.strerror}): give the path on the controller of a file that chart_check wrote.") from error
    return _read(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=32)
def _read(path: str, _changed: int, _size: int) -> CatalogOverlay:
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except (OSError, ValueError) as error:
        raise CatalogOverlayError(f"{path} is no JSON ({error}). {AGAIN}") from error
    return parse_overlay(content, path)
