# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines about long work, from the JSON file that a module keeps about its progress."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Callable

STEP_SECONDS = 10.0
STEP_SHARE = 0.05
LEAST_SECONDS = 1.0


def size(count: float) -> str:
    """``1.2 GB``: powers of 1000, as disks and networks are sold."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """``0:49`` or ``1:02:03``."""
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def line(document: Mapping[str, Any], nouns: Mapping[str, str] | None = None) -> str:
    """One plain line; what is not known is left out. *nouns* say what is counted in each phase."""
    parts = []
    done, total = _number(document, "items_done"), _number(document, "items_total")
    if total:
        noun = str(document.get("items") or (nouns or {}).get(str(document.get("phase")), ""))
        parts.append(f"{done or 0:.0f} of {total:.0f}{' ' if noun else ''}{noun}")
    done, total = _number(document, "bytes_done"), _number(document, "bytes_total")
    if total:
        parts.append(f"{size(done or 0)} of {size(total)} ({100 * min(1.0, (done or 0) / total):.0f} %)")
    elif done:
        parts.append(size(done))
    rate, eta = _number(document, "rate"), _number(document, "eta")
    if rate:
        parts.append(f"{size(rate)}/s")
    if eta and total and (done or 0) < total:
        parts.append(f"{duration(eta)} left")
    if document.get("message"):
        parts.append(str(document["message"]))
    phase = str(document.get("phase") or "working")
    return f"{phase}: {', '.join(parts)}" if parts else phase


class Reporter:
    """Passes on a line when something worth saying has happened: another phase, five percent more, or ten seconds."""

    def __init__(self, show: Callable[[str], None], clock: Callable[[], float] = time.monotonic, nouns: Mapping[str, str] | None = None) -> None:
        self._show = show
        self._nouns = nouns or {}
        self._clock = clock
        self._started = clock()
        self._last_time = float("-inf")
        self._last_share = 0.0
        self._last_phase = ""
        self._last_line = ""

    def update(self, document: Mapping[str, Any]) -> None:
        """Look at the newest state of the file."""
        # The first and the last state of a run say nothing that ansible does not say itself.
        if not document or document.get("phase") in ("start", "done", "unchanged"):
            return
        now = self._clock()
        phase = str(document.get("phase") or "")
        share = self._share(document)
        text = line(document, self._nouns)
        if text == self._last_line or now - self._last_time < LEAST_SECONDS:
            return
        other_phase = phase != self._last_phase
        if not other_phase and share - self._last_share < STEP_SHARE and now - self._last_time < STEP_SECONDS:
            return
        self._show(text)
        self._last_time, self._last_share, self._last_phase, self._last_line = now, share, phase, text

    @staticmethod
    def _share(document: Mapping[str, Any]) -> float:
        for done_key, total_key in (("bytes_done", "bytes_total"), ("items_done", "items_total")):
            done, total = _number(document, done_key), _number(document, total_key)
            if total:
                return (done or 0) / total
        return 0.0


def _number(document: Mapping[str, Any], key: str) -> float | None:
    value = document.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
