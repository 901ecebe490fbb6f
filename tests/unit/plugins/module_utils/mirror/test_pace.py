# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast, how many at once, and how long to wait: with a clock of the test's own."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror import transport
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.errors import Broken
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.limits import (
    PARALLEL,
    Adaptive,
    TokenBucket,
    parallel_start,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.registry import RegistryClient
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.transport import (
    BUFFER,
    Connection,
    Headers,
    HttpOptions,
    Patience,
    retry_after,
    same_host,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_rate_is_kept_by_all_together() -> None:
    clock = Clock()
    bucket = TokenBucket(1_000_000, clock, clock.sleep)
    for _ in range(100):
        bucket.take(100_000)
    assert clock.now - 1000 == pytest.approx(10, abs=0.3)
    # Time in which nothing was sent is no credit for a burst.
    clock.now += 3600
    before = clock.now
    for _ in range(100):
        bucket.take(100_000)
    assert clock.now - before == pytest.approx(10, abs=0.3)


def work(adaptive: Adaptive, clock: Clock, rate: float) -> None:
    """A window of work at *rate* bytes a second."""
    for _ in range(2 * adaptive.limit):
        clock.now += 2.0 / adaptive.limit
        adaptive.done(int(rate * 2.0 / adaptive.limit))


def test_more_at_once_while_that_is_faster() -> None:
    clock = Clock()
    adaptive = Adaptive(start=4, ceiling=8, clock=clock)
    for step in range(4):
        work(adaptive, clock, 1e6 * 2**step)
    assert adaptive.limit == 8
    work(adaptive, clock, 1e9)
    assert adaptive.limit == 8


def test_a_step_that_brings_nothing_is_taken_back() -> None:
    clock = Clock()
    adaptive = Adaptive(start=4, clock=clock)
    work(adaptive, clock, 1e6)
    assert adaptive.limit == 5
    work(adaptive, clock, 1e6)
    assert adaptive.limit == 4


def test_complaints_halve_once_a_second_and_never_to_nothing() -> None:
    clock = Clock()
    adaptive = Adaptive(start=8, clock=clock)
    for _ in range(5):
        adaptive.back_off()
    assert adaptive.limit == 4
    for _ in range(5):
        clock.now += 1.5
        adaptive.back_off()
    assert adaptive.limit == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("120", 120.0), ("0", 0.0), (formatdate(1_000_090, usegmt=True), 90.0), (formatdate(999_000, usegmt=True), 0.0), ("soon", None), ("-5", None), ("", None)],
)
def test_retry_after_in_seconds_or_as_a_date(text: str, seconds: float | None) -> None:
    assert retry_after(Headers([("retry-after", text)] if text else []), now=1_000_000.0) == seconds


def test_what_was_asked_for_is_honoured_in_full() -> None:
    patience = Patience(first_wait=0.5, longest_wait=30.0)
    assert patience.wait(0, 120.0) == 120.0
    assert [patience.wait(attempt, None) for attempt in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("https://r.example/v2/", "https://r.example:443/x", True),
        ("https://r.example/v2/", "http://r.example/x", False),
        ("https://r.example/v2/", "https://r.example:8443/x", False),
        ("https://r.example/v2/", "https://r.example.evil.test/x", False),
    ],
)
def test_credentials_stay_with_scheme_host_and_port(one: str, two: str, same: bool) -> None:
    assert same_host(one, two) is same


class Records:
    """A socket without timeouts of the kernel as it reads: 16 KiB at most, then what is wrong."""

    def __init__(self, count: int, end: OSError | None) -> None:
        self.left, self.end, self.reads = count, end, 0

    def settimeout(self, _seconds: float) -> None:
        return

    def recv_into(self, view: memoryview) -> int:
        self.reads += 1
        if not self.left:
            if self.end:
                raise self.end
            return 0
        self.left -= 1
        return min(len(view), 1 << 14)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operating system that cannot be asked to wait for all bytes."""
    monkeypatch.setattr(transport, "_KERNEL_TIMEOUTS", False)


@pytest.mark.usefixtures("elsewhere")
def test_small_reads_are_joined_before_they_are_hashed_and_written() -> None:
    records = Records(32, None)
    connection = Connection(records, None, False, "", HttpOptions())  # type: ignore[arg-type]
    assert [connection.receive_into(memoryview(bytearray(BUFFER))) for _ in range(3)] == [BUFFER, BUFFER, 0]
    assert BUFFER == 16 << 14


@pytest.mark.usefixtures("elsewhere")
def test_what_came_before_a_line_broke_is_kept() -> None:
    for end in (TimeoutError(), ConnectionResetError("reset")):
        connection = Connection(Records(3, end), None, False, "", HttpOptions())  # type: ignore[arg-type]
        assert connection.receive_into(memoryview(bytearray(BUFFER))) == 3 << 14
        with pytest.raises(Broken):
            connection.receive_into(memoryview(bytearray(BUFFER)))


def test_over_tls_no_more_requests_start_at_once_than_the_processors_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    for processors, over_tls in ((1, 2), (2, 3), (64, PARALLEL), (None, 2)):
        monkeypatch.setattr("os.cpu_count", lambda found=processors: found)
        assert (parallel_start(True), parallel_start(False)) == (over_tls, PARALLEL)
        assert RegistryClient("registry.example.com").adaptive.limit == over_tls
        assert RegistryClient("registry.example.com", plain_http=True).adaptive.limit == PARALLEL
        assert RegistryClient("registry.example.com", parallel=9).adaptive.limit == 9
