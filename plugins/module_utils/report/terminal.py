# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""The report on one screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .model import URGENCIES

WIDTH = 100
LINES = 24
_WORDS = {"ok": "healthy", "warning": "needs a look", "failed": "has problems"}


def _cut(text: str, width: int = WIDTH) -> str:
    text = text.replace("\n", " ").rstrip()
    return text if len(text) <= width else text[: width - 1] + "…"


def render_summary(report: Mapping[str, Any], page: str = "") -> str:
    """At most 24 lines of at most 100 characters."""
    summary = report["summary"]
    services, flows = summary["services"], summary["flows"]
    total = sum(count for name, count in services.items() if name != "not installed")
    lines = [
        _cut(f"Site {report['site']}: {_WORDS[summary['state']]}   CircleCI Server {report.get('release', '?')} on "
             f"{report.get('platform', '?')}   {report.get('domain', '')}"),
        _cut(f"  services     {services['healthy']} of {total} healthy, {services['degraded']} degraded, "
             f"{services['down'] + services['missing']} down"),
        _cut(f"  connections  {flows['proved']} proved, {flows['failed']} failed, {flows['unproved']} not provable"),
    ]  # fmt: skip
    for item in report["evidence"]:
        detail = item.get("detail") or ("missing: " + ", ".join(item.get("missing") or []) if item["state"] == "not run" else "")
        lines.append(_cut(f"  {item['level']:<21} {item['state']}" + (f" ({detail})" if detail else "")))
    waivers = ", ".join(str(item.get("name")) for item in report["waivers"])
    lines.append(_cut(f"  waivers      {waivers or 'none'}"))
    chart = report["chart"]
    which = f"{chart.get('chart') or 'the chart of the vendor'}" if chart.get("compared") else f"not compared: {chart.get('detail') or 'no chart was at hand'}"
    lines.append(_cut(f"  catalog      {'compared with ' if chart.get('compared') else ''}{which}"))
    if report.get("previous"):
        lines.append(_cut(f"  changes      {len(report['changes'])} since {report['previous']}"))
    room = LINES - len(lines) - 3
    # What was not proved is counted above and stands in the page; the screen is for what asks for somebody.
    pressing = [item for item in report["warnings"] if item["urgency"] < 4]
    if pressing:
        lines.append("")
    for item in pressing[:room]:
        lines.append(_cut(f"  [{URGENCIES[item['urgency']]:<4}] {item['text']}"))
    if len(pressing) > room:
        lines[-1] = f"  … and {len(pressing) - room + 1} more"
    if page:
        lines += ["", _cut(f"  report: {page}")]
    return "\n".join(lines) + "\n"
