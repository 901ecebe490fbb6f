# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
from collections.abc import Sequence

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.runner.status import read_status, settled


class Systemd:
    """Answers with one state after the other; the last one stays."""

    def __init__(self, *answers: str, code: int = 0) -> None:
        self.answers, self.code = list(answers), code

    def __call__(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return subprocess.CompletedProcess(list(argv), self.code, answer.replace(" ", "\n"), "")


ACTIVE = "LoadState=loaded ActiveState=active SubState=running ActiveEnterTimestampMonotonic=90000000"


@pytest.mark.parametrize(
    ("answer", "state", "told"),
    [
        (ACTIVE, "running", "it runs"),
        ("LoadState=loaded ActiveState=deactivating SubState=stop-sigterm", "draining", "ends the one that it has"),
        (
            "LoadState=loaded ActiveState=activating SubState=auto-restart Result=exit-code ExecMainStatus=1 NRestarts=4",
            "restarting",
            "ended with status 1 (exit-code), 4 times so far",
        ),
        ("LoadState=loaded ActiveState=failed Result=timeout ExecMainStatus=9", "failed", "ended with status 9 (timeout)"),
        ("LoadState=loaded ActiveState=inactive SubState=dead", "stopped", "somebody stopped it"),
        ("LoadState=not-found ActiveState=inactive", "missing", "not installed"),
        ("", "missing", "not installed"),
    ],
)
def test_states_in_words(answer: str, state: str, told: str) -> None:
    status = read_status(Systemd(answer), lambda: 100.0)
    assert status.state == state and told in status.detail and status.well == (state in ("running", "draining"))


def test_a_host_without_systemd_has_no_runner() -> None:
    assert read_status(Systemd("", code=127)).state == "missing"


def test_one_that_has_been_up_for_long_is_not_waited_for() -> None:
    slept: list[float] = []
    assert settled(5, Systemd(ACTIVE), lambda: 100.0, slept.append).seconds == 10.0 and slept == []


def test_one_that_falls_right_after_its_start_is_not_called_well() -> None:
    clock = [90.0]
    gone = "LoadState=loaded ActiveState=activating Result=exit-code ExecMainStatus=1 NRestarts=1"
    status = settled(5, Systemd(ACTIVE, ACTIVE, gone), lambda: clock[0], lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    assert status.state == "restarting"
