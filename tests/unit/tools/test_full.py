# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import full

ROOT = Path(__file__).resolve().parents[3]


def test_every_suite_is_a_target_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {suite.words[0] for suite in full.suites()} <= targets


def test_no_folder_of_long_tests_is_forgotten() -> None:
    """A new folder beside these must be part of `make test`, of `make test-full`, or of neither on purpose."""
    makefile = (ROOT / "Makefile").read_text()
    here = {path.parent.name for path in (ROOT / "tests").rglob("*.py") if path.parent.parent == ROOT / "tests"}
    assert {name for name in here if f"tests/{name}" not in makefile} == set()


@pytest.mark.parametrize("number", [1, 2, 3, 7, 20])
def test_shares_are_disjoint_and_hold_everything(number: int) -> None:
    found = full.suites()
    shared = [suite for n in range(1, number + 1) for suite in full.share(found, f"{n}/{number}")]
    assert sorted(suite.name for suite in shared) == sorted(suite.name for suite in found)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/2/3", ""])
def test_wrong_share_is_refused(shard: str) -> None:
    with pytest.raises(SystemExit, match="write n/m"):
        full.share(full.suites(), shard)


def test_unknown_suite_lists_the_known_ones() -> None:
    with pytest.raises(SystemExit, match=r"ONLY=test-moon: no such suite; there are test-mirror, .*molecule/default"):
        full.pick(full.suites(), ["test-mirror", "test-moon"])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A tree whose targets pass, but for one."""
    (tmp_path / "molecule" / "default").mkdir(parents=True)
    (tmp_path / "molecule" / "default" / "molecule.yml").touch()
    suites = ("test-mirror", "test-store", "test-nomad", "test-postgres", "test-databases", "test-upgrade", "test-gateway", "test-ports", "test-cut", "test-browser", "test-cloud", "test-bootstrap", "test-packages", "test-runner")
    lines = "".join(f"{name}:\n\t@echo {name} ran\n" for name in suites)
    (tmp_path / "Makefile").write_text(f"{lines}test-firewall:\n\t@false\ntest-molecule:\n\t@echo $(SCENARIO) ran\n")
    return tmp_path


def test_failed_suite_stops_no_other_and_fails_the_whole(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert full.main([], root=place) == 1
    said = capfd.readouterr().out
    for line in ("test-mirror ran", "test-cut ran", "default ran"):
        assert line in said
    assert re.search(r"^FAILED   test-firewall +0 s$", said, re.MULTILINE)
    assert re.search(r"^passed   molecule/default +0 s$", said, re.MULTILINE)


def test_share_says_what_it_leaves_out(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert full.main(["--shard", "1/2"], root=place) == 0
    said = capfd.readouterr().out
    assert "test-nomad ran" not in said
    assert said.endswith("left out test-firewall, test-nomad, test-databases, test-gateway, test-cut, test-cloud, test-packages, test-gateway/azure\n")


def test_list_runs_nothing(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert full.main(["--list", "--only", "test-cut"], root=place) == 0
    said = capfd.readouterr().out
    assert "runs      test-cut" in said
    assert "ran" not in said
