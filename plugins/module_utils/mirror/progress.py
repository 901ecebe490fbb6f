# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a long run is: bytes done of all bytes, rate, time left; as a JSON file for whoever polls it and as a call for whoever shows it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Callable, Optional

FORMAT = "onprem.circleci_server/progress/1"


class Progress:
    """Counts for all threads; writes at most twice a second."""

    def __init__(
        self,
        path: Optional[Path] = None,
        callback: Optional[Callable[[dict[str, Any]], None]] = None,
        interval: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.callback, self.interval, self._clock = path, callback, interval, clock
        self._lock = threading.Lock()
        self._phase = "start"
        self._done = self._total = self._items_done = self._items_total = 0
        self._started = clock()
        self._told = -1e9
        self._recent: deque[tuple[float, int]] = deque(maxlen=64)

    def begin(self, phase: str, total: int = 0, items: int = 0) -> None:
        """A new phase with *total* bytes and *items* pieces of work before it."""
        with self._lock:
            self._phase, self._total, self._items_total = phase, total, items
            self._done = self._items_done = 0
            self._started = self._clock()
            self._recent.clear()
        self._tell(force=True)

    def add(self, count: int) -> None:
        """*count* more bytes are done (less than nothing when a blob starts again)."""
        with self._lock:
            self._done += count
        self._tell()

    def item(self, count: int = 1) -> None:
        """Another piece of work is done."""
        with self._lock:
            self._items_done += count
        self._tell()

    def end(self, phase: str = "done") -> None:
        """Say the last word."""
        with self._lock:
            self._phase = phase
        self._tell(force=True)

    def snapshot(self) -> dict[str, Any]:
        """Where things stand."""
        with self._lock:
            return self._state(self._clock())

    def _state(self, now: float) -> dict[str, Any]:
        done = min(self._done, self._total) if self._total else self._done
        since, before = self._recent[0] if self._recent else (self._started, 0)
        rate = max(0.0, (done - before) / (now - since)) if now > since else 0.0
        eta = (self._total - done) / rate if rate > 0 and self._total else None
        return {
            "format": FORMAT,
            "phase": self._phase,
            "bytes_done": done,
            "bytes_total": self._total,
            "items_done": self._items_done,
            "items_total": self._items_total,
            "rate": int(rate),
            "eta": None if eta is None else round(eta, 1),
            "elapsed": round(now - self._started, 2),
            "pid": os.getpid(),
        }

    def _tell(self, force: bool = False) -> None:
        now = self._clock()
        if not force and now - self._told < self.interval:
            return
        with self._lock:
            if not force and now - self._told < self.interval:
                return
            self._told = now
            state = self._state(now)
            while self._recent and now - self._recent[0][0] > 10.0 and len(self._recent) > 1:
                self._recent.popleft()
            self._recent.append((now, state["bytes_done"]))
            if self.path is not None:
                replace_json(self.path, state)
        if self.callback is not None:
            self.callback(state)


def replace_json(path: Path, data: Any, mode: int = 0o644) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), mode)
        json.dump(data, stream, sort_keys=True)
        stream.write("\n")
    os.replace(temporary, path)


def read_progress(path: Path) -> Optional[dict[str, Any]]:
    """The last state that a run wrote, None when there is none yet."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and data.get("format") == FORMAT else None


def human_bytes(count: float) -> str:
    """``1.26 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def human_line(state: dict[str, Any]) -> str:
    """One line for people."""
    total = state["bytes_total"]
    line = f"{state['phase']}: {human_bytes(state['bytes_done'])}"
    if total:
        line += f" of {human_bytes(total)} ({100 * state['bytes_done'] // total} %), {human_bytes(state['rate'])}/s"
    if state["eta"] is not None:
        line += f", {int(state['eta']) // 60}:{int(state['eta']) % 60:02d} left"
    return line
