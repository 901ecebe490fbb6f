# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much and how fast: a rate limit for all connections together, and parallelism that follows the registry."""

from __future__ import annotations

import os
import threading
import time
from typing import Callable

from .errors import UsageError

PARALLEL = 6
"""Requests at once that a registry gets to start with."""
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}


def parse_bytes(text: str) -> int:
    """``20M``, ``4294967295``, ``4.7G``, ``64Mi``; a trailing B is allowed."""
    raw = text.strip().lower()
    if raw.endswith("b"):
        raw = raw[:-1]
    number = raw.rstrip("kmgti")
    unit = raw[len(number) :]
    try:
        value = int(float(number) * _UNITS[unit]) if "." in number else int(number) * _UNITS[unit]
    except (KeyError, ValueError):
        raise UsageError(f"{text!r} is not a size in bytes. Allowed: a number, with k M G T (powers of 1000) or Ki Mi Gi Ti (of 1024).") from None
    if value <= 0:
        raise UsageError(f"{text!r} must be more than nothing.")
    return value


class TokenBucket:
    """One rate for all threads; ``take`` waits until the bytes may go."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self.rate = rate
        self.burst = max(1 << 14, min(rate // 4, 1 << 20))
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    @property
    def piece(self) -> int:
        """The most bytes to ask for at once."""
        return self.burst

    def take(self, count: int) -> None:
        """Wait for the turn of *count* bytes."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - self.burst / self.rate) + count / self.rate
            wait = self._free_at - now
        if wait > 0:
            self._sleep(wait)


def parallel_start(tls: bool) -> int:
    """With TLS no more than keep the processors busy, and one: more of them wait for each other here, and cost more than they bring."""
    return min(PARALLEL, 1 + (os.cpu_count() or 1)) if tls else PARALLEL


class Adaptive:
    """Additive increase, multiplicative decrease: how many requests one registry gets at a time.

    The limit rises while that makes things faster, and halves when the registry asks for less (429, 503) or breaks connections.
    """

    def __init__(self, start: int = PARALLEL, ceiling: int = 16, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = min(start, ceiling)
        self.ceiling = ceiling
        self._clock = clock
        self._condition = threading.Condition()
        self._running = 0
        self._window_start = clock()
        self._window_bytes = 0
        self._window_done = 0
        self._best = 0.0
        self._climbed = False
        self._halved_at = -1e9

    def __enter__(self) -> Adaptive:
        with self._condition:
            while self._running >= self.limit:
                self._condition.wait()
            self._running += 1
        return self

    def __exit__(self, *_exc: object) -> None:
        with self._condition:
            self._running -= 1
            self._condition.notify()

    def done(self, count: int) -> None:
        """A piece of work of *count* bytes ended well."""
        with self._condition:
            self._window_bytes += count
            self._window_done += 1
            span = self._clock() - self._window_start
            if self._window_done < 2 * self.limit or span < 1.0:
                return
            rate = self._window_bytes / span
            if rate > self._best * 1.1:
                # Faster than ever: one more may help.
                self._best, self._climbed = rate, self.limit < self.ceiling
                if self._climbed:
                    self.limit += 1
                    self._condition.notify()
            elif self._climbed:
                # The last step brought nothing: take it back and stay.
                self.limit, self._climbed = max(1, self.limit - 1), False
            self._window_start, self._window_bytes, self._window_done = self._clock(), 0, 0

    def back_off(self) -> None:
        """The registry is overloaded; many complaints at once count as one."""
        with self._condition:
            now = self._clock()
            if now - self._halved_at < 1.0:
                return
            self._halved_at = now
            self.limit = max(1, self.limit // 2)
            self._best = 0.0
            self._climbed = False
            self._window_start, self._window_bytes, self._window_done = now, 0, 0
