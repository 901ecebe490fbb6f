# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any, Union, cast

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.client import S3Client, S3Error
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.health import wait_until_healthy


class Store:
    """Answers in turn, the last one for ever; time passes only in sleep."""

    def __init__(self, *answers: Union[bool, S3Error]) -> None:
        self.answers = list(answers)
        self.now = 0.0
        self.asked = 0

    def bucket_exists(self, _bucket: str) -> bool:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, S3Error):
            raise answer
        return answer

    def close(self) -> None:
        pass

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, seconds: float = 10) -> bool:
        client: Any = self
        return wait_until_healthy(cast("S3Client", client), "data", seconds, sleep=self.sleep, clock=lambda: self.now)


DOWN = S3Error("cannot be reached")
STARTING = S3Error("not initialized yet", 503)


@pytest.mark.parametrize("there", [True, False])
def test_either_answer_about_the_bucket_is_healthy(there: bool) -> None:
    assert Store(there).wait() is there


def test_store_that_is_starting_is_waited_for() -> None:
    store = Store(DOWN, DOWN, STARTING, True)
    assert store.wait() and store.asked == 4


@pytest.mark.parametrize("error", [DOWN, STARTING])
def test_store_that_stays_away_is_given_up_on(error: S3Error) -> None:
    store = Store(error)
    with pytest.raises(S3Error, match=str(error)):
        store.wait(3)
    assert 3 <= store.now < 5


def test_key_that_is_refused_is_not_waited_for() -> None:
    store = Store(S3Error("check circleci_object_storage_secret_key", 403, "SignatureDoesNotMatch"))
    with pytest.raises(S3Error, match="secret_key"):
        store.wait()
    assert store.asked == 1
