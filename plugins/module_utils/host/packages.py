# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian packages out of the index that travelled with the bundle: what is missing on this host, and in which closure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .units import HostError, Runner, run_command


@dataclass(frozen=True)
class Candidate:
    """One package of the index."""

    name: str
    version: str
    filename: str
    needs: tuple[tuple[str, ...], ...]
    """Each need is a tuple of alternatives, names without versions."""
    provides: tuple[str, ...]


def _names(text: str) -> tuple[tuple[str, ...], ...]:
    groups = []
    for group in text.split(","):
        names = tuple(re.split(r"[\s:(\[<]", alternative.strip(), maxsplit=1)[0] for alternative in group.split("|") if alternative.strip())
        if names:
            groups.append(names)
    return tuple(groups)


def parse_index(text: str) -> dict[str, Candidate]:
    """Packages of an APT ``Packages`` file by name."""
    found: dict[str, Candidate] = {}
    for stanza in re.split(r"\n\s*\n", text.strip()):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t"):
                fields[key] = fields.get(key, "") + line
            elif ":" in line:
                key, _colon, value = line.partition(":")
                fields[key] = value.strip()
        if "Package" in fields and "Filename" in fields:
            found[fields["Package"]] = Candidate(
                fields["Package"],
                fields.get("Version", ""),
                Path(fields["Filename"]).name,
                _names(fields.get("Pre-Depends", "") + "," + fields.get("Depends", "")),
                tuple(name for group in _names(fields.get("Provides", "")) for name in group),
            )
    return found


def installed_packages(run: Runner = run_command) -> set[str]:
    """Names of installed packages and of what they provide."""
    done = run(["dpkg-query", "--show", "--showformat=${db:Status-Status}\t${Package}\t${Provides}\n"])
    if done.returncode == 127:
        raise HostError("This host has no dpkg. Packages of the bundle are supported on Debian and Ubuntu; install the wanted packages yourself elsewhere.")
    found: set[str] = set()
    for line in done.stdout.splitlines():
        status, name, provides = [*line.split("\t"), "", ""][:3]
        if status == "installed":
            found.add(name)
            found.update(alternative for group in _names(provides) for alternative in group)
    return found


def closure(wanted: Sequence[str], index: Mapping[str, Candidate], installed: set[str]) -> list[Candidate]:
    """What must be installed for *wanted*, the wanted ones first; raises when the index lacks something."""
    providers: dict[str, str] = {}
    for candidate in index.values():
        for name in candidate.provides:
            providers.setdefault(name, candidate.name)
    chosen: dict[str, Candidate] = {}
    missing: list[str] = []
    queue: list[tuple[tuple[str, ...], str]] = [((name,), "") for name in wanted]
    while queue:
        alternatives, asker = queue.pop(0)
        if any(name in installed or name in chosen or providers.get(name) in chosen for name in alternatives):
            continue
        name = next((index_name for name in alternatives for index_name in (name, providers.get(name, "")) if index_name in index), "")
        if not name:
            missing.append(" | ".join(alternatives) + (f" (needed by {asker})" if asker else ""))
            continue
        chosen[name] = index[name]
        queue.extend((need, name) for need in index[name].needs)
    if missing:
        raise HostError(
            f"The packages of the bundle lack {', '.join(sorted(set(missing)))}. Add them "
            "to circleci_bundle_packages on the connected side and make the bundle anew."
        )
    return list(chosen.values())


def install(files: Sequence[Path], run: Runner = run_command) -> None:
    """Install local package files with apt, which then knows no other source."""
    done = run(
        [
            "apt-get", "install", "--yes", "--quiet", "--no-install-recommends",
            "-o", "Dir::Etc::sourcelist=/dev/null", "-o", "Dir::Etc::sourceparts=/dev/null", "-o", "Dir::State::lists=/nonexistent",
            "-o", "APT::Sandbox::User=root", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Options::=--force-confold",
            *(str(path) for path in files),
        ]
    )  # fmt: skip
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise HostError("apt-get could not install the packages of the bundle: " + " / ".join(lines[-6:]))
