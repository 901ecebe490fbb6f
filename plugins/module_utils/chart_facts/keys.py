# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which values keys the templates of a chart read, seen in their text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..discovery.render import Chart

KeyPath = tuple[str, ...]

_DOTTED = re.compile(r"\.Values((?:\.[A-Za-z_][A-Za-z0-9_]*)+)")
_INDEX = re.compile(r"\bindex\s+\$?(?:[A-Za-z_]\w*)?\.Values((?:\.[A-Za-z_][A-Za-z0-9_]*)*)((?:\s+\"[^\"]+\")+)")
_QUOTED = re.compile(r'"([^"]+)"')
_GLOBAL = "global"


def _prefix(chart: Chart, folder: Path) -> KeyPath:
    """Where the values of a sub-chart lie: below its alias, or its name."""
    dependencies = chart.metadata.get("dependencies") or []
    for entry in dependencies:
        if isinstance(entry, dict) and entry.get("name") == folder.name and entry.get("alias"):
            return (str(entry["alias"]),)
    return (folder.name,)


def read_keys(chart: Chart, prefix: KeyPath = ()) -> set[KeyPath]:
    """Paths of values that a template of the chart, or of a sub-chart, names."""
    found: set[KeyPath] = set()

    def note(parts: KeyPath) -> None:
        # What is global is global in every sub-chart.
        found.add(parts if parts[0] == _GLOBAL else (*prefix, *parts))

    templates = chart.directory / "templates"
    for path in sorted(templates.rglob("*")) if templates.is_dir() else ():
        if path.suffix not in (".yaml", ".yml", ".tpl", ".txt", ".json"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for match in _INDEX.finditer(text):
            dotted = tuple(part for part in match.group(1).split(".") if part)
            note((*dotted, *_QUOTED.findall(match.group(2))))
        for match in _DOTTED.finditer(text):
            note(tuple(match.group(1)[1:].split(".")))
    for manifest in sorted(chart.directory.glob("charts/*/Chart.yaml")):
        below = Chart(manifest.parent)
        found |= read_keys(below, (*prefix, *_prefix(chart, manifest.parent)))
    return found


def leaves(values: Any, path: KeyPath = ()) -> dict[KeyPath, Any]:
    """Every value that is no filled mapping, by its path."""
    if isinstance(values, dict) and (values or not path):
        found: dict[KeyPath, Any] = {}
        for key, item in values.items():
            found.update(leaves(item, (*path, str(key))))
        return found
    return {path: values}
