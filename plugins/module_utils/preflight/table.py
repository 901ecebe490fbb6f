# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings as a table for a terminal, the grave ones first."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .findings import OK, PROBLEM, WAIVED, WARNING

_GROUPS = (
    (PROBLEM, "PROBLEMS, which stop an installation"),
    (WARNING, "WARNINGS"),
    (WAIVED, "WAIVED by circleci_waivers"),
)
_NARROW, _WIDE = 80, 150
_SUBJECT = 34


def render_table(site: str, findings: Sequence[Mapping[str, Any]], width: int = 120) -> str:
    """All findings of one site, no line longer than *width* as long as that is 80 or more."""
    width = min(max(width, _NARROW), _WIDE)
    counts = {level: sum(item["level"] == level for item in findings) for level in (PROBLEM, WARNING, WAIVED, OK)}
    lines = [f"{site}: {counts[PROBLEM]} problem(s), {counts[WARNING]} warning(s), {counts[WAIVED]} waived, {counts[OK]} in order"]
    first = max((len(str(item["check"])) for item in findings), default=0)
    second = min(max((len(str(item["subject"])) for item in findings if item["level"] != OK), default=0), _SUBJECT, width // 4)
    rest = (width - first - second - 2 * 4) // 2
    for level, title in _GROUPS:
        if counts[level]:
            lines += ["", title, *_rows([item for item in findings if item["level"] == level], (first, second, rest, rest))]
    if counts[OK]:
        lines += ["", "IN ORDER", *_in_order([item for item in findings if item["level"] == OK], first, width)]
    return "\n".join(lines) + "\n"


def _rows(findings: Iterable[Mapping[str, Any]], widths: tuple[int, int, int, int]) -> Iterable[str]:
    yield _line(("check", "subject", "found", "expected, to do"), widths)
    yield _line(tuple("-" * size for size in widths), widths)
    for item in findings:
        more = f"Waived: {item['reason']}" if item.get("reason") else item.get("remedy") or ""
        cells = [
            _wrapped(str(item["check"]), widths[0]),
            _wrapped(str(item["subject"]), widths[1]),
            _wrapped(str(item["found"]), widths[2]),
            [*_wrapped(str(item["expected"]), widths[3]), *_wrapped(f"-> {more}" if more else "", widths[3])],
        ]
        for number in range(max(len(cell) for cell in cells)):
            yield _line(tuple(cell[number] if number < len(cell) else "" for cell in cells), widths)


def _in_order(findings: Iterable[Mapping[str, Any]], first: int, width: int) -> Iterable[str]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for item in findings:
        groups.setdefault(str(item["check"]), []).append(item)
    for check, items in groups.items():
        found = list(dict.fromkeys(str(item["found"]) for item in items))
        text = found[0] if len(items) == 1 else f"{len(items)} times: {', '.join(found)}"
        yield f"  {check:<{first}}  {textwrap.shorten(text, width - first - 4, placeholder=' ...')}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  " + "  ".join(cell.ljust(size) for cell, size in zip(cells, widths)).rstrip()


def _wrapped(text: str, size: int) -> list[str]:
    # Names are long words; they may break behind what joins them.
    return textwrap.wrap(text, size, break_on_hyphens=False) if text else []
