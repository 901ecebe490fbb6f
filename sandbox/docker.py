# SPDX-License-Identifier: GPL-3.0-or-later
"""The few docker commands that the sandbox uses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from .common import run


def call(args: Sequence[str], *, check: bool = True, stdin: bytes | None = None, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    return run(["docker", *args], check=check, stdin=stdin, timeout=timeout)


def image_exists(reference: str) -> bool:
    return call(["image", "inspect", "--format", "{{.Id}}", reference], check=False).returncode == 0


def inspect(kind: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What docker knows about these objects, by name; unknown ones are left out."""
    if not names:
        return {}
    done = call([kind, "inspect", *names], check=False)
    found = json.loads(done.stdout or "[]")
    return {str(item["Name"]).lstrip("/"): item for item in found}


def execute(container: str, argv: Sequence[str], *, check: bool = True, stdin: bytes | None = None, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a host."""
    flags = ["-i"] if stdin is not None else []
    return call(["exec", *flags, container, *argv], check=check, stdin=stdin, timeout=timeout)
