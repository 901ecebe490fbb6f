# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""The host that the engine works on: files and commands, replaceable in tests."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from .errors import FirewallError


@dataclass(frozen=True)
class Result:
    """Outcome of a command."""

    code: int
    out: str
    err: str


class System:
    """Files below ``root`` and commands of the running host."""

    def __init__(self, root: str = "", environment: Optional[Mapping[str, str]] = None, timeout: int = 60) -> None:
        self.root = root.rstrip("/")
        self.environment = dict(os.environ if environment is None else environment)
        # Messages are compared, so they must not be translated; sbin is not on every module's path.
        self.environment.update({"LC_ALL": "C", "LANG": "C"})
        self.environment["PATH"] = self.environment.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
        self.timeout = timeout
        self.calls = 0
        self.kernel = platform.system()

    def path(self, name: str) -> str:
        """Where a file of the host really lies."""
        return self.root + name

    def which(self, program: str) -> Optional[str]:
        """Full path of a program, or None."""
        return shutil.which(program, path=self.environment["PATH"])

    def run(self, argv: Sequence[str], stdin: str = "", check: bool = False, env: Optional[Mapping[str, str]] = None) -> Result:
        """Run a command; with ``check`` a failure is an error that quotes the command's last words."""
        self.calls += 1
        program = self.which(argv[0])
        if program is None:
            if check:
                raise FirewallError(f"command {argv[0]} is not installed on this host")
            return Result(127, "", f"{argv[0]}: not found")
        try:
            done = subprocess.run(
                [program, *argv[1:]],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=self.timeout,
                env={**self.environment, **(env or {})},
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise FirewallError(f"{argv[0]} did not answer within {self.timeout} seconds") from error
        if check and done.returncode:
            words = (done.stderr or done.stdout).strip()[-600:]
            raise FirewallError(f"{' '.join(argv[:4])} failed with {done.returncode}: {words}")
        return Result(done.returncode, done.stdout, done.stderr)

    def spawn(self, argv: Sequence[str]) -> None:
        """Start a process that outlives this one."""
        subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environment,
            start_new_session=True,
            close_fds=True,
        )

    def exists(self, name: str) -> bool:
        """Whether a file or folder is there."""
        return os.path.lexists(self.path(name))

    def read(self, name: str) -> Optional[str]:
        """Content of a file, None when it is not there."""
        try:
            with open(self.path(name), encoding="utf-8", errors="surrogateescape") as handle:
                return handle.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, content: str, mode: int = 0o600) -> None:
        """Replace a file as a whole; owner and mode of one that exists stay."""
        target = self.path(name)
        folder = os.path.dirname(target)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".onprem-", dir=folder)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            try:
                before = os.stat(target)
                os.chmod(temporary, before.st_mode & 0o7777)
                os.chown(temporary, before.st_uid, before.st_gid)
            except FileNotFoundError:
                os.chmod(temporary, mode)
            os.replace(temporary, target)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(name))

    def systemd(self) -> bool:
        """Whether systemd runs this host."""
        return self.root == "" and os.path.isdir("/run/systemd/system") and self.which("systemctl") is not None
