# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .lab import Lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A bare host; the tests build on each other."""
    if os.geteuid() != 0:
        pytest.skip("a systemd of its own needs root")
    found = Lab(tmp_path_factory.mktemp("runner"))
    try:
        found.start()
        yield found
    finally:
        found.stop()
