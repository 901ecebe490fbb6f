#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy what git tracks or would track from a checkout to another folder, and remove there what is gone here."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
from pathlib import Path


def main() -> int:
    source, target = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    listing = subprocess.run(
        ["git", "-C", str(source), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
    ).stdout.decode()
    wanted = {Path(name) for name in listing.split("\0") if name and (source / name).is_file()}
    for name in wanted:
        destination = target / name
        if destination.is_file() and filecmp.cmp(source / name, destination, shallow=True):
            continue
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, destination)
    kept_aside = {".mypy_cache", ".ansible", "__pycache__", ".ruff_cache"}
    for path in sorted(target.rglob("*"), reverse=True):
        relative = path.relative_to(target)
        if kept_aside & set(relative.parts) or relative.parts[:2] == ("tests", "output"):
            continue
        if path.is_file() and relative not in wanted:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    # ansible-test asks git which files there are; without a repository of its own it would find the one above.
    if not (target / ".git").exists():
        subprocess.run(["git", "init", "-q", str(target)], check=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
