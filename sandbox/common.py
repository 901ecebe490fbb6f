# SPDX-License-Identifier: GPL-3.0-or-later
"""What all parts of the sandbox share: errors, progress lines, running commands, locks, the cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


class SandboxError(Exception):
    """One clear sentence for the person at the terminal."""


def cache_dir() -> Path:
    """The one folder that keeps everything worth keeping."""
    override = os.environ.get("ONPREM_CIRCLECI_CACHE")
    return Path(override) if override else Path.home() / ".cache" / "onprem-circleci-server"


_STARTED = time.monotonic()


def say(text: str) -> None:
    """One progress line, with the seconds since the start."""
    sys.stderr.write(f"[{time.monotonic() - _STARTED:6.1f}s] {text}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def step(text: str, usual: float | None = None) -> Iterator[None]:
    """Say what is being done, how long it usually takes, and how long it took."""
    say(f"{text}{f' (usually {usual:.0f} s)' if usual else ''} ...")
    begin = time.monotonic()
    yield
    took = time.monotonic() - begin
    if took >= 1:
        say(f"{text}: done in {took:.1f} s")


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    check: bool = True,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command, keep what it says, and put the end of it into the error when it fails."""
    args = [os.fspath(part) for part in argv]
    try:
        done = subprocess.run(
            args, input=stdin, capture_output=True, env=dict(env) if env is not None else None, cwd=cwd, timeout=timeout, check=False
        )
    except FileNotFoundError as exc:
        raise SandboxError(f"{args[0]} is not installed") from exc
    except subprocess.TimeoutExpired as exc:
        raise SandboxError(f"{' '.join(args[:6])} did not end within {timeout} s") from exc
    result = subprocess.CompletedProcess(
        args, done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    )
    if check and result.returncode != 0:
        tail = (result.stderr or result.stdout).strip()[-1500:]
        raise SandboxError(f"{' '.join(args[:8])} failed with {result.returncode}: {tail}")
    return result


def sha256_file(path: Path) -> str:
    """Checksum of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def short_hash(value: Any) -> str:
    """Twelve hex digits that change when the value does."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]


def write_atomic(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Replace a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data.encode() if isinstance(data, str) else data)
    temporary.chmod(mode)
    temporary.replace(path)


@contextlib.contextmanager
def lock(path: Path, what: str, *, wait: bool) -> Iterator[None]:
    """Hold a lock; say who holds it. A killed holder frees it, because the kernel does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            if not wait:
                raise SandboxError(f"the sandbox is in use: {holder}. Wait until it has ended, then run the same command again") from exc
            say(f"waiting for {holder}")
            fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        stream.truncate()
        stream.write(f"process {os.getpid()} ({what}) since {time.strftime('%H:%M:%S')}")
        stream.flush()
        try:
            yield
        finally:
            stream.seek(0)
            stream.truncate()
            stream.flush()
