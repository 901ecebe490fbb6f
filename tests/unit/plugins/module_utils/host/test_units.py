# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.host import units
from ansible_collections.onprem.circleci_server.plugins.module_utils.host.units import (
    File,
    Folder,
    HostError,
    HostUnits,
    Unit,
    User,
)

NOBODY = "circleci-unit-test-nobody"


@pytest.fixture(autouse=True)
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a run that is killed leaves word for the next one."""
    monkeypatch.setattr(units, "MARKS", tmp_path / "marks")
    return tmp_path / "marks"


class Host:
    """Notes commands; the users of this machine are real and stay as they are."""

    def __init__(self, code: int = 0) -> None:
        self.commands: list[list[str]] = []
        self.code = code

    def __call__(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.commands.append(list(argv))
        return subprocess.CompletedProcess(list(argv), self.code, "", "no room for users")


def apply(host: Host, *users: User, check: bool = False, folders: Sequence[Folder] = ()) -> list[str]:
    return HostUnits(folders, [], [], users=users, run=host).apply(check=check).changes


def test_user_that_is_missing_is_made_without_a_login() -> None:
    host = Host()
    assert apply(host, User(NOBODY)) == [f"user {NOBODY}"]
    (command,) = host.commands
    assert command[0] == "useradd" and command[-1] == NOBODY and "/usr/sbin/nologin" in command and "--user-group" in command


def test_user_that_is_there_is_left_alone() -> None:
    host = Host()
    assert apply(host, User("root")) == [] and host.commands == []


def test_user_goes_when_nobody_needs_it() -> None:
    host = Host()
    assert apply(host, User(NOBODY, absent=True)) == [] and host.commands == []
    assert apply(host, User("daemon", absent=True)) == ["remove user daemon"] and host.commands == [["userdel", "daemon"]]


def test_check_mode_makes_no_user_and_knows_its_folders(tmp_path: Path) -> None:
    host = Host()
    folder = Folder(tmp_path / "data", 0o750, NOBODY, NOBODY)
    assert apply(host, User(NOBODY), check=True, folders=[folder]) == [f"user {NOBODY}", f"folder {tmp_path}/data"]
    assert host.commands == [] and not (tmp_path / "data").exists()


def test_user_that_cannot_be_made_is_a_sentence() -> None:
    with pytest.raises(HostError, match=f"user {NOBODY}: no room for users"):
        apply(Host(1), User(NOBODY))


def test_unit_that_is_to_be_absent_is_not_written_though_its_text_is_known(tmp_path: Path) -> None:
    unit = Unit("agents.service", content="[Unit]\n", state="absent")
    host = Host()
    assert HostUnits([], [], [unit], unit_folder=tmp_path, run=host).apply(check=False).changes == []
    (tmp_path / unit.name).write_text("[Unit]\n")
    assert HostUnits([], [], [unit], unit_folder=tmp_path, run=host).apply(check=False).changes == [f"remove {tmp_path}/agents.service"]
    assert not (tmp_path / unit.name).exists()


def test_a_file_that_goes_is_not_shown_since_nobody_says_whether_it_is_secret(tmp_path: Path) -> None:
    login = tmp_path / "config.json"
    login.write_text("canary")
    for check in (True, False):
        outcome = HostUnits([], [File(login, None)], [], run=Host()).apply(check=check)
        assert outcome.changes == [f"remove {login}"] and "canary" not in str(outcome.diff) and outcome.diff[0]["before"]
    assert not login.exists()


def test_a_disk_that_is_mounted_at_a_folder_stays_and_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "data"
    (disk / "bucket/object").mkdir(parents=True)
    (disk / "lost+found").mkdir()
    (disk / "file").write_text("x")
    monkeypatch.setattr("os.path.ismount", lambda path: str(path) == str(disk))
    removing = HostUnits([], [], [], absent_folders=[disk], run=Host())
    assert removing.apply(check=True).changes == removing.apply(check=False).changes == [f"remove {disk}"]
    assert [item.name for item in disk.iterdir()] == ["lost+found"]
    assert removing.apply(check=False).changes == []


def test_a_link_to_a_folder_goes_with_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "disk/data").mkdir(parents=True)
    link = tmp_path / "data"
    link.symlink_to(tmp_path / "disk/data")
    removing = HostUnits([], [], [], absent_folders=[link], run=Host())
    assert removing.apply(check=False).changes == [f"remove {link}"]
    assert not link.is_symlink() and list((tmp_path / "disk").iterdir()) == []
    assert removing.apply(check=False).changes == []


def test_home_of_a_user_that_is_made() -> None:
    host = Host()
    apply(host, User(NOBODY, home="/srv/home"))
    assert host.commands[0][host.commands[0].index("--home-dir") + 1] == "/srv/home"


class Systemd:
    """One unit in a state, with jobs in the queue of systemd."""

    def __init__(self, state: str, jobs: str = "") -> None:
        self.state, self.jobs = state, jobs
        self.done: list[list[str]] = []

    def __call__(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        if argv[1] == "show":
            out = f"LoadState=loaded\nActiveState={self.state}\nUnitFileState=enabled\n"
        elif argv[1] == "list-jobs":
            out = self.jobs
        else:
            self.done.append(list(argv[1:]))
            out = ""
        return subprocess.CompletedProcess(list(argv), 0, out, "")


@pytest.mark.parametrize(
    ("state", "jobs", "change", "command"),
    [
        ("active", "", False, []),
        ("active", "", True, ["--no-block", "restart", "x.service"]),
        ("inactive", "", False, ["start", "x.service"]),
        ("deactivating", "7 x.service restart running\n", True, []),
        ("deactivating", "7 x.service start waiting\n", False, []),
        ("deactivating", "7 x.service stop running\n", False, ["--no-block", "restart", "x.service"]),
        ("deactivating", "7 y.service restart running\n", False, ["--no-block", "restart", "x.service"]),
    ],
)
def test_a_unit_that_is_not_waited_for_restarts_when_it_has_ended(tmp_path: Path, state: str, jobs: str, change: bool, command: list[str]) -> None:
    (tmp_path / "x.service").write_text("old" if change else "new")
    (tmp_path / "x.service").chmod(0o644)
    systemd = Systemd(state, jobs)
    outcome = HostUnits([], [], [Unit("x.service", "new", wait=False)], unit_folder=tmp_path, run=systemd).apply(check=False)
    assert [words for words in systemd.done if words != ["daemon-reload"]] == ([command] if command else [])
    assert outcome.changed is bool(command or change)


class Killed(Systemd):
    """systemd that is not asked to restart anything before the run is killed, or that refuses."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("active", "")
        self.error: BaseException | None = error

    def __call__(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        if argv[1] == "restart" and self.error is not None:
            raise self.error
        return super().__call__(argv)


@pytest.mark.parametrize("content", [b"two", None], ids=["written", "removed"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), HostError("no")], ids=["killed", "refused"])
def test_a_unit_whose_restart_did_not_come_about_is_restarted_by_the_next_run(
    tmp_path: Path, marks: Path, content: bytes | None, error: BaseException
) -> None:
    path = tmp_path / "authority.crt"
    path.write_text("one")
    path.chmod(0o644)
    systemd = Killed(error)

    def run(check: bool = False) -> list[str]:
        unit = Unit("x.service", restart_on=[str(path)])
        other = Unit("y.service", restart_on=[str(tmp_path / "other")])
        return HostUnits([], [File(path, content, owner="", group="")], [unit, other], unit_folder=tmp_path, run=systemd).apply(check=check).changes

    with pytest.raises(type(error)):
        run()
    systemd.error = None
    assert [mark.name for mark in marks.iterdir()] == ["x.service"]
    assert run(check=True) == ["restart x.service"] and run() == ["restart x.service"]
    assert ["restart", "x.service"] in systemd.done and ["daemon-reload"] in systemd.done
    assert run() == [] and list(marks.iterdir()) == []
