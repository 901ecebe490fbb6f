# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders, files and systemd units of one concern of a host: compare all of them in memory, then apply once."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Protocol

UNIT_FOLDER = Path("/etc/systemd/system")
# A run that ends between a change of a file and the restart of its unit leaves a mark here, and the next run restarts the unit. Not kept over a boot, after
# which each unit has read its files.
MARKS = Path("/run/onprem-circleci/restarts")
NOT_SHOWN = "(content is not shown)\n"


class HostError(Exception):
    """One sentence for the operator."""


Runner = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def run_command(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command; a missing program is an answer with code 127."""
    try:
        return subprocess.run(list(argv), check=False, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    except FileNotFoundError:
        return subprocess.CompletedProcess(list(argv), 127, "", f"{argv[0]}: not found")


@dataclass(frozen=True)
class User:
    """A system user with a group of the same name that nobody can log in as, or one that must not be there."""

    name: str
    absent: bool = False
    home: str = "/nonexistent"
    """Home of a user that is made; the folder itself is one of the folders."""


@dataclass(frozen=True)
class Folder:
    """A folder that must be there."""

    path: Path
    mode: int = 0o755
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True)
class File:
    """A file with its content, or one that must not be there (``content`` is None)."""

    path: Path
    content: Optional[bytes]
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    secret: bool = False


@dataclass(frozen=True)
class Unit:
    """A systemd unit. ``content`` None leaves the unit's file to whoever brought it; ``state`` is started, stopped or absent."""

    name: str
    content: Optional[str] = None
    enabled: bool = True
    state: str = "started"
    restart_on: Optional[Sequence[str]] = None
    """Paths whose change restarts the unit; None is every file of the call."""
    restart: bool = False
    """Restart it if it runs, since something changed that is no file of the call."""
    wait: bool = True
    """Whether a restart is waited for. Without it systemd restarts the unit when what it does has ended."""


class Around(Protocol):
    """What is to happen before a unit that runs is stopped or restarted, and after it runs again. Both say what was, or would be, done."""

    def due(self) -> bool:
        """Whether an earlier run was killed between both."""

    def before(self, check: bool) -> str: ...

    def after(self, check: bool, drained: bool) -> str: ...


@dataclass
class Outcome:
    """What was, or in check mode would be, done."""

    changes: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.changes)


def _ids(owner: str, group: str) -> tuple[Optional[int], Optional[int]]:
    """Numbers of user and group; None for one that does not exist yet, as in check mode on an empty host. An empty name is our own."""
    try:
        user: Optional[int] = pwd.getpwnam(owner).pw_uid if owner else os.geteuid()
    except KeyError:
        user = None
    try:
        number: Optional[int] = grp.getgrnam(group).gr_gid if group else os.getegid()
    except KeyError:
        number = None
    return user, number


def _attributes_differ(path: Path, mode: int, owner: str, group: str) -> bool:
    found = path.stat()
    return (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) != (mode, *_ids(owner, group))


def _shown(content: Optional[bytes], secret: bool) -> str:
    if content is None:
        return ""
    if secret:
        return NOT_SHOWN
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return f"({len(content)} bytes)\n"


def _chown(path: Path, mode: int, owner: str, group: str) -> None:
    user, number = _ids(owner, group)
    if user is None or number is None:
        raise HostError(f"{path}: user {owner} or group {group} does not exist on this host.")
    os.chown(path, user, number)
    path.chmod(mode)


def write_file(item: File, content: bytes) -> None:
    """Put the content at its path at once; nobody sees half of it, and a secret is never readable by others."""
    descriptor, temporary = tempfile.mkstemp(dir=item.path.parent, prefix=f".{item.path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        _chown(Path(temporary), item.mode, item.owner, item.group)
        Path(temporary).replace(item.path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def folder_is_left(path: Path) -> bool:
    """Whether something is to be removed. A disk that is mounted there stays, so of it only what lies on it counts."""
    return path.is_dir() and (not os.path.ismount(path) or any(name != "lost+found" for name in os.listdir(path)))


def remove_folder(path: Path) -> None:
    """Take a folder away with all that is in it. A link goes with what it leads to; of a disk that is mounted there, what lies on it goes."""
    target = path.resolve()
    if os.path.ismount(target):
        for item in target.iterdir():
            if item.is_dir() and not item.is_symlink():
                if item.name != "lost+found":
                    shutil.rmtree(item)
            else:
                item.unlink()
    else:
        shutil.rmtree(target)
    if path.is_symlink():
        path.unlink()


class HostUnits:
    """Desired folders, files and units against those of the host."""

    def __init__(
        self,
        folders: Sequence[Folder],
        files: Sequence[File],
        units: Sequence[Unit],
        *,
        users: Sequence[User] = (),
        absent_folders: Sequence[Path] = (),
        unit_folder: Path = UNIT_FOLDER,
        run: Runner = run_command,
        around: Optional[Mapping[str, Around]] = None,
    ) -> None:
        self._folders = folders
        self._files = [*files, *self._unit_files(units, unit_folder)]
        self._units = units
        self._users = users
        self._absent_folders = absent_folders
        self._unit_folder = unit_folder
        self._run = run
        self._around = dict(around or {})

    @staticmethod
    def _unit_files(units: Sequence[Unit], folder: Path) -> list[File]:
        found = []
        for unit in units:
            if unit.state == "absent":
                found.append(File(folder / unit.name, None))
            elif unit.content is not None:
                found.append(File(folder / unit.name, unit.content.encode()))
        return found

    def apply(self, *, check: bool) -> Outcome:
        """Bring the host into the desired state, or with *check* only say what that would change."""
        outcome = Outcome()
        cut_short = any((MARKS / unit.name).exists() for unit in self._units)
        self._stop_absent(outcome, check)
        for user in self._users:
            if not user.absent:
                self._user(user, outcome, check)
        for folder in self._folders:
            self._folder(folder, outcome, check)
        changed_paths = [str(item.path) for item in self._files if self._file(item, outcome, check)]
        for path in self._absent_folders:
            if folder_is_left(path):
                outcome.changes.append(f"remove {path}")
                outcome.diff.append({"before_header": str(path), "after_header": str(path), "before": "folder\n", "after": ""})
                if not check:
                    remove_folder(path)
        for user in self._users:
            if user.absent:
                self._user(user, outcome, check)
        if not check and (cut_short or any(Path(path).parent == self._unit_folder for path in changed_paths)):
            self._systemctl("daemon-reload")
        for unit in self._units:
            if unit.state != "absent":
                self._unit(unit, changed_paths, outcome, check)
        return outcome

    def _user(self, user: User, outcome: Outcome, check: bool) -> None:
        there = _ids(user.name, user.name)[0] is not None
        if there != user.absent:
            return
        outcome.changes.append(f"{'remove user' if user.absent else 'user'} {user.name}")
        outcome.diff.append(
            {"before_header": user.name, "after_header": user.name, "before": "system user\n" if there else "", "after": "" if there else "system user\n"}
        )
        if check:
            return
        add = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", user.home, "--shell", "/usr/sbin/nologin"]
        done = self._run([*(["userdel"] if user.absent else add), user.name])
        if done.returncode != 0:
            raise HostError(f"user {user.name}: {(done.stderr or done.stdout).strip()}")

    def _folder(self, item: Folder, outcome: Outcome, check: bool) -> None:
        if item.path.is_dir():
            if not _attributes_differ(item.path, item.mode, item.owner, item.group):
                return
        elif item.path.exists():
            raise HostError(f"{item.path}: is a file and must be a folder. Move it away.")
        outcome.changes.append(f"folder {item.path}")
        outcome.diff.append(
            {
                "before_header": str(item.path),
                "after_header": str(item.path),
                "before": "",
                "after": f"folder, mode {item.mode:04o}, {item.owner}:{item.group}\n",
            }
        )
        if not check:
            item.path.mkdir(parents=True, exist_ok=True)
            _chown(item.path, item.mode, item.owner, item.group)

    def _file(self, item: File, outcome: Outcome, check: bool) -> bool:
        try:
            before: Optional[bytes] = item.path.read_bytes()
        except FileNotFoundError:
            before = None
        except NotADirectoryError as error:
            raise HostError(f"{item.path}: a part of this path is a file. Move it away.") from error
        if before == item.content and (before is None or not _attributes_differ(item.path, item.mode, item.owner, item.group)):
            return False
        outcome.changes.append(f"{'remove' if item.content is None else 'file'} {item.path}")
        if before != item.content:
            before_text, after_text = _shown(before, item.secret), _shown(item.content, item.secret)
            if item.secret and before is not None and item.content is not None:
                after_text = NOT_SHOWN + "(it differs)\n"
            elif item.content is None and item.path.parent != self._unit_folder:
                # Nobody says of a file that goes whether it held a secret.
                before_text = NOT_SHOWN
        else:
            before_text, after_text = "other mode or owner\n", f"mode {item.mode:04o}, {item.owner}:{item.group}\n"
        outcome.diff.append({"before_header": str(item.path), "after_header": str(item.path), "before": before_text, "after": after_text})
        if check:
            return True
        self._mark(str(item.path))
        if item.content is None:
            item.path.unlink()
        else:
            item.path.parent.mkdir(parents=True, exist_ok=True)
            write_file(item, item.content)
        return True

    def _watches(self, unit: Unit, path: str) -> bool:
        return unit.restart_on is None or path in unit.restart_on or path == str(self._unit_folder / unit.name)

    def _mark(self, path: str) -> None:
        """Note which units have to be restarted, before the file changes."""
        for unit in self._units:
            if unit.state == "started" and self._watches(unit, path):
                MARKS.mkdir(parents=True, exist_ok=True)
                (MARKS / unit.name).touch()

    def _systemctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = self._run(["systemctl", *words])
        if done.returncode != 0:
            unit = words[-1]
            log = self._run(["journalctl", "--no-pager", "--lines=8", "--output=cat", f"--unit={unit}"]).stdout.strip() if len(words) > 1 else ""
            raise HostError(f"systemctl {' '.join(words)}: {(done.stderr or done.stdout).strip()}{' Last lines of its log: ' + log if log else ''}")
        return done

    def _show(self, unit: str) -> Mapping[str, str]:
        done = self._run(["systemctl", "show", "--property=LoadState,ActiveState,SubState,UnitFileState", unit])
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    def _restarts(self, unit: str) -> bool:
        """Whether systemd has the unit in its queue, to be started when it has stopped."""
        jobs = self._run(["systemctl", "list-jobs", "--plain", "--no-legend", "--no-pager"]).stdout
        return any(words[1:3] in ([unit, "restart"], [unit, "start"]) for words in map(str.split, jobs.splitlines()))

    def _stop_absent(self, outcome: Outcome, check: bool) -> None:
        for unit in self._units:
            if unit.state != "absent":
                continue
            found = self._show(unit.name)
            if found.get("ActiveState") in ("active", "activating", "failed", "reloading") or found.get("UnitFileState") == "enabled":
                if unit.name in self._around and found.get("ActiveState") == "active":
                    _note(outcome, self._around[unit.name].before(check))
                outcome.changes.append(f"stop {unit.name}")
                if not check:
                    self._systemctl("disable", "--now", unit.name)
                    self._run(["systemctl", "reset-failed", unit.name])

    def _unit(self, unit: Unit, changed_paths: Sequence[str], outcome: Outcome, check: bool) -> None:
        found = self._show(unit.name)
        if not check and found.get("LoadState") == "not-found":
            raise HostError(f"{unit.name}: this host has no such systemd unit. What brings it was not installed.")
        if unit.enabled != (found.get("UnitFileState") in ("enabled", "static", "alias", "generated")):
            outcome.changes.append(f"{'enable' if unit.enabled else 'disable'} {unit.name}")
            if not check:
                self._systemctl("enable" if unit.enabled else "disable", "--quiet", unit.name)
        active = found.get("ActiveState") in ("active", "reloading")
        if not unit.wait and unit.state == "started" and found.get("ActiveState") == "deactivating":
            # It ends what it does. With a restart in the queue it then reads the files that are there by then.
            if self._restarts(unit.name):
                self._unmark(unit, check)
                return
            active = True
        if unit.state == "stopped":
            if active or found.get("ActiveState") == "activating":
                outcome.changes.append(f"stop {unit.name}")
                if not check:
                    self._systemctl("stop", unit.name)
            return
        watched = [path for path in changed_paths if self._watches(unit, path)] or (MARKS / unit.name).exists()
        around = self._around.get(unit.name)
        ending = found.get("ActiveState") == "deactivating"
        if active and not ending and not watched and not unit.restart and not (around and around.due()):
            return
        drained = around.before(check) if around and active else ""
        _note(outcome, drained)
        outcome.changes.append(f"{'restart' if active else 'start'} {unit.name}")
        if active:
            outcome.restarted.append(unit.name)
        if not check:
            self._systemctl(*([] if unit.wait or not active else ["--no-block"]), "restart" if active else "start", unit.name)
        self._unmark(unit, check)
        if around:
            _note(outcome, around.after(check, bool(drained)))

    @staticmethod
    def _unmark(unit: Unit, check: bool) -> None:
        if not check:
            (MARKS / unit.name).unlink(missing_ok=True)


def _note(outcome: Outcome, change: str) -> None:
    if change:
        outcome.changes.append(change)


def folder_from(data: Mapping[str, Any]) -> Folder:
    """A folder out of a module's option."""
    return Folder(Path(data["path"]), int(data["mode"], 8), data["owner"], data["group"])


def file_from(data: Mapping[str, Any]) -> File:
    """A file out of a module's option; a secret content wins over an open one."""
    secret = data["secret_content"] is not None
    content = data["secret_content"] if secret else data["content"]
    if data["state"] == "absent":
        return File(Path(data["path"]), None)
    if content is None:
        raise HostError(f"{data['path']}: needs content or secret_content.")
    return File(Path(data["path"]), content.encode(), int(data["mode"], 8), data["owner"], data["group"], secret)


def user_from(data: Mapping[str, Any]) -> User:
    """A user out of a module's option."""
    return User(data["name"], data["state"] == "absent", data["home"])


def unit_from(data: Mapping[str, Any]) -> Unit:
    """A unit out of a module's option."""
    name = data["name"] if "." in data["name"] else f"{data['name']}.service"
    return Unit(name, data["content"], data["enabled"], data["state"], data["restart_on"], data["restart"], data["wait"])
