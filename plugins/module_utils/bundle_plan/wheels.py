# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python libraries of a control host: worked out by pip for its Python, not for that of the connected host."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..mirror.lock import FILES_REPOSITORY
from .tools import PlanError, Web

WHEELS_TYPE = "application/vnd.onprem.wheels.v1"
REQUIREMENTS = "requirements.txt"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64")
"""glibc 2.28 and later: RHEL 8, Debian 10, Ubuntu 20.04 and what came after them."""


@dataclass(frozen=True)
class Wheel:
    """One wheel with what pins it."""

    name: str
    version: str
    url: str
    sha256: str

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[-1].partition("#")[0]


def artifact_of(python: str) -> str:
    """Where the wheels of a Python lie in the bundle; bootstrap.sh asks for the same name."""
    return f"{FILES_REPOSITORY}/wheels-{python}-amd64"


def resolve_wheels(python: str, requirements: Sequence[str], ca_certificate: str = "") -> list[Wheel]:
    """All wheels that the requirements need on Linux on amd64 with this Python. Nothing is installed."""
    if not re.fullmatch(r"3\.\d{1,2}", python):
        raise PlanError(f"circleci_bundle_python: {python!r} is no version of Python; write two parts in quotes, like \"3.11\"")
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [
        sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--no-input", "--disable-pip-version-check", "--report", "-",
        "--target", "wheels", "--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms, *requirements,
    ]  # fmt: skip
    with _authorities(ca_certificate) as trust:
        done = subprocess.run([*command, *trust], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        if "No module named pip" in done.stderr:
            raise PlanError(f"circleci_bundle_python: {sys.executable} of the connected host has no pip; install it (on Debian the package python3-pip)")
        reasons = [line.strip() for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()[-300:]]
        raise PlanError(f"circleci_bundle_python: pip finds no wheels for Python {python}: {'; '.join(dict.fromkeys(reasons))[:600]}")
    return _read_report(json.loads(done.stdout), python)


@contextmanager
def _authorities(ca_certificate: str) -> Iterator[list[str]]:
    """pip's options that let it trust a further authority: its ``--cert`` takes the place of all others, so those of the system stand beside it."""
    if not ca_certificate:
        yield []
        return
    system = ssl.get_default_verify_paths().cafile
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as stream:
        stream.write(f"{Path(system).read_text(encoding='utf-8') if system else ''}\n{ca_certificate}\n")
        stream.flush()
        yield ["--cert", stream.name]


def _read_report(report: Mapping[str, Any], python: str) -> list[Wheel]:
    wheels = []
    for item in report["install"]:
        name, version = str(item["metadata"]["name"]), str(item["metadata"]["version"])
        sha256 = ((item["download_info"].get("archive_info") or {}).get("hashes") or {}).get("sha256")
        if not sha256:
            raise PlanError(f"circleci_bundle_python: the package index has no sha256 for {name} {version} (Python {python}); use an index that has one")
        wheels.append(Wheel(name, version, str(item["download_info"]["url"]), str(sha256)))
    return sorted(wheels, key=lambda wheel: wheel.filename)


def requirements_text(wheels: Sequence[Wheel]) -> str:
    """What pip on the far side installs, and nothing else: each version with its hash. The same wheels give the same text."""
    return "".join(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in wheels)


def sizes(wheels: Sequence[Wheel], web: Web) -> list[int]:
    """Size of each, from its server."""

    def look(wheel: Wheel) -> int:
        size = web.size(wheel.url)
        return size if size is not None else web.measure(wheel.url)[1]

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(look, wheels))
