# SPDX-License-Identifier: GPL-3.0-or-later
"""Work on many items at once."""

from __future__ import annotations

import threading

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.errors import RegistryError, UsageError
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.together import map_together


def test_results_come_in_the_order_of_the_items_and_work_is_done_at_once() -> None:
    first_waits = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert first_waits.wait(60)
        if item == 20:
            first_waits.set()
        return item * item

    assert map_together(range(40), work) == [item * item for item in range(40)]
    assert map_together([], work) == []


def test_all_problems_are_told_and_a_mistake_of_ours_is_raised_as_it_is() -> None:
    def refuse(item: int) -> int:
        if item % 2:
            raise RegistryError(f"image {item} is refused")
        return item

    with pytest.raises(RegistryError) as refused:
        map_together(range(6), refuse)
    assert str(refused.value).splitlines() == ["image 1 is refused", "image 3 is refused", "image 5 is refused"]

    def mistaken(item: int) -> float:
        if item == 2:
            raise UsageError("told only when nothing worse happened")
        return 1 / (item - 3)

    with pytest.raises(ZeroDivisionError):
        map_together(range(6), mistaken)
