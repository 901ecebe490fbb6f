# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.runner.api import (
    Instance,
    RunnerApi,
    RunnerApiError,
)

NOW = datetime.datetime(2026, 8, 20, 10, 0, 0, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize(
    ("heard", "online"),
    [
        ("2026-08-20T09:59:00Z", True),
        ("2026-08-20T09:59:00.123456789Z", True),
        ("2026-08-20T09:59:00.5+00:00", True),
        ("2026-08-20T09:57:59Z", False),
        ("", False),
        ("yesterday", False),
        ("2026-08-20T09:59:00", False),
    ],
)
def test_online_is_who_was_heard_within_two_minutes(heard: str, online: bool) -> None:
    assert Instance("r1", "3.1.11", heard).online(NOW) is online


def test_wrong_authority_is_a_sentence() -> None:
    with pytest.raises(RunnerApiError, match="not given as PEM text"):
        RunnerApi("https://ci.example.com", "t", "-----BEGIN CERTIFICATE-----")
