# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with a packet filter, one peer that the rules name and one that they do not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import FILTERS, Host, Lab, usable


@pytest.fixture(params=list(FILTERS))
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if usable():
        pytest.skip(usable())
    if shutil.which(FILTERS[name]) is None:
        pytest.skip(f"needs {FILTERS[name]}: apt-get install {name}")
    return name


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    if usable():
        pytest.skip(usable())
    made = Lab(tmp_path)
    yield made
    made.close()


@pytest.fixture
def host(lab: Lab, backend: str) -> Host:
    return lab.guarded("host", 1, backend)


@pytest.fixture
def friend(lab: Lab) -> Host:
    return lab.add("friend", 2)


@pytest.fixture
def stranger(lab: Lab) -> Host:
    return lab.add("stranger", 3)
