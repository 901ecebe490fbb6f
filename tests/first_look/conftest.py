# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the tarball, install it as an operator does, and give each test a world of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.tests.first_look.world import BIN, ROOT, World


def _galaxy(*words: str, home: Path) -> None:
    # The tree of these tests must not be taken for an installed collection.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"ANSIBLE_HOME": str(home), "ANSIBLE_COLLECTIONS_PATH": str(home / "collections")}
    done = subprocess.run([str(BIN / "ansible-galaxy"), "collection", *words], check=False, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("installed")
    _galaxy("build", "--output-path", str(home), ".", home=home)
    (tarball,) = home.glob("onprem-circleci_server-*.tar.gz")
    # The dependencies come with the tool chain; galaxy looks for them and refuses without.
    _galaxy("install", "--offline", "--collections-path", str(home / "collections"), str(tarball), home=home)
    assert (home / "collections/ansible_collections/onprem/circleci_server/playbooks/plan.yml").is_file()
    return home / "collections"


@pytest.fixture
def world(tmp_path: Path, collections: Path) -> Iterator[World]:
    home = tmp_path / "home"
    home.mkdir()
    yield World(home, collections)
