# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.progress.lines import (
    Reporter,
    duration,
    line,
    size,
)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_900, "99.9 kB"), (120_000_000, "120 MB"), (1_257_000_000, "1.3 GB"), (5e13, "50.0 TB")]
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (49, "0:49"), (61, "1:01"), (3723, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_line_leaves_out_what_is_not_known() -> None:
    document = {"phase": "loading", "items_done": 3, "items_total": 43, "items": "images", "bytes_done": 5e8, "bytes_total": 1e9, "rate": 5e7, "eta": 10}
    assert line(document) == "loading: 3 of 43 images, 500 MB of 1.0 GB (50 %), 50.0 MB/s, 0:10 left"
    assert line({"phase": "verifying"}) == "verifying"
    assert line({"message": "3 of 70 pods are ready"}) == "working: 3 of 70 pods are ready"
    assert line({"phase": "x", "rate": None, "bytes_total": "?", "bytes_done": True}) == "x"
    assert line({"phase": "x", "bytes_done": 10, "bytes_total": 10, "eta": 5}) == "x: 10 B of 10 B (100 %)"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_speaks_at_another_phase_at_five_percent_and_after_ten_seconds() -> None:
    clock = Clock()
    said: list[str] = []
    reporter = Reporter(said.append, clock)

    def at(now: float, phase: str, done: int) -> int:
        clock.now = 100 + now
        reporter.update({"phase": phase, "bytes_done": done, "bytes_total": 100})
        return len(said)

    assert at(0, "fetching", 0) == 1
    assert at(2, "fetching", 4) == 1, "four percent in two seconds is no news"
    assert at(3, "fetching", 5) == 2
    assert at(3.5, "fetching", 90) == 2, "not twice in a second"
    assert at(5, "fetching", 90) == 3
    assert at(14, "fetching", 91) == 3
    assert at(15, "fetching", 91) == 4, "ten seconds are news"
    assert at(30, "fetching", 91) == 4, "the same line is never said twice"
    assert at(31, "signing", 91) == 5
    reporter.update({})
    assert len(said) == 5
