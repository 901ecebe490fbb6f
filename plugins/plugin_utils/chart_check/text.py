# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The comparison for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .compare import LEVELS, SECTIONS, Comparison


def proved(left: Sequence[str], outside: Sequence[Mapping[str, Any]], problems: Sequence[str]) -> list[str]:
    """What still stands in the way when the catalog is read with the overlay; nothing means that values compose and stay inside."""
    found = [f"composing: {text}" for text in left]
    found += [f"proof: {item['kind']} {item['what']} {item['problem']}" for item in outside]
    return found + [f"rendering {text}" for text in problems]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def markdown(comparison: Comparison, left: Sequence[str]) -> str:
    """The report as Markdown."""
    chart = comparison.chart
    counts = comparison.counts()
    lines = [
        f"# Catalog of CircleCI Server {comparison.release} against chart {chart['name']}-{chart['version']}",
        "",
        f"Digest of the files of the chart: `{chart['digest']}`" + (" – **a stand-in, not the vendor's chart**" if chart["stand_in"] else ""),
        "",
        "| level | count | meaning |",
        "|---|---|---|",
        *(f"| {level} | {counts[level]} | {meaning} |" for level, meaning in LEVELS.items()),
        "",
    ]
    if left:
        lines += ["**With the overlay this is left:**", "", *(f"* {_cell(text)}" for text in left), ""]
    else:
        lines += ["With the overlay the values of a plain site compose without an error, and every image comes from the private registry.", ""]
    for section, title in SECTIONS.items():
        rows = [item for item in comparison.differences if item.section == section]
        lines += [f"## {title}", ""]
        if not rows:
            lines += ["No difference.", ""]
            continue
        lines += ["| level | what | catalog | chart | note |", "|---|---|---|---|---|"]
        lines += [f"| {row.level} | {_cell(row.what)} | {_cell(row.catalog)} | {_cell(row.chart)} | {_cell(row.note)} |" for row in rows]
        lines.append("")
    return "\n".join(lines)
