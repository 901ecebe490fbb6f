# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What fetch, load and verify share. A module of its own, so that nobody who loads a bundle has to read the code that fetches one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, TypeVar

from .errors import MirrorError, NetworkError, Stopped

_THREADS = 8
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Change:
    """One name that a run adds, changes or removes."""

    name: str
    before: Optional[str]
    after: Optional[str]
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "before": self.before, "after": self.after, "bytes": self.bytes}


def map_together(items: Sequence[_T], work: Callable[[_T], _R]) -> list[_R]:
    """Do *work* on all items at once; all problems are told together.

    Threads of our own, as ``concurrent.futures`` reads ``logging`` and more at each start.
    """
    results: dict[int, _R] = {}
    problems: dict[int, Exception] = {}
    left = iter(enumerate(items))
    taking = threading.Lock()

    def lane() -> None:
        while True:
            with taking:
                taken = next(left, None)
            if taken is None:
                return
            number, item = taken
            try:
                results[number] = work(item)
            except Exception as error:
                # Raised below, in the thread that asked.
                problems[number] = error

    lanes = [threading.Thread(target=lane, daemon=True) for _number in range(min(_THREADS, len(items)))]
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()
    told: list[MirrorError] = []
    for number in sorted(problems):
        problem = problems[number]
        if not isinstance(problem, MirrorError):
            raise problem
        told.append(problem)
    raise_together(told)
    return [results[number] for number in range(len(items))]


def raise_together(problems: Sequence[MirrorError]) -> None:
    """Raise all problems as one error, of the kind of the first that is not "again"."""
    if not problems:
        return
    lasting = [problem for problem in problems if not isinstance(problem, (Stopped, NetworkError))] or list(problems)
    texts = list(dict.fromkeys(str(problem) for problem in lasting))
    shown = texts[:20] + ([f"… and {len(texts) - 20} more."] if len(texts) > 20 else [])
    if len(texts) == 1:
        raise lasting[0]
    raise type(lasting[0])("\n".join(shown)) from lasting[0]
