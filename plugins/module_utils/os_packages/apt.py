# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian packages: apt works the closure out in a root of its own, so that neither the host's packages nor its lists matter."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional
from urllib.parse import unquote, urlsplit

from .target import PackageError, Target, host_is

_URI = re.compile(r"^'(?P<url>[^']+)' (?P<file>\S+) (?P<size>\d+)(?: \S+)?$")
_LEFT_OUT = ("Filename", "Size", "MD5sum", "SHA1", "SHA256", "SHA512", "Description", "Description-md5", "Built-Using", "APT-Sources", "Tag", "Status")


@dataclass(frozen=True)
class Package:
    """One package file, with the fields that an index needs."""

    name: str
    version: str
    architecture: str
    url: str
    filename: str
    size: int
    sha256: str
    control: str

    @property
    def local_path(self) -> Optional[str]:
        """Where the file lies when the source of packages is a folder of the host."""
        parts = urlsplit(self.url)
        return unquote(parts.path) if parts.scheme in ("file", "copy") else None

    def stanza(self) -> str:
        """What the index of a flat repository says of it."""
        return f"{self.control}\nFilename: ./{self.filename}\nSize: {self.size}\nSHA256: {self.sha256}\n"


def index_text(packages: Sequence[Package]) -> str:
    """``Packages`` of a flat repository; the same packages give the same text."""
    return "\n".join(package.stanza() for package in sorted(packages, key=lambda package: (package.name, package.architecture)))


def resolve(names: Sequence[str], target: Target, *, sources: str = "", work: Optional[Path] = None) -> list[Package]:
    """The named packages and all they depend on, down to libc, in the versions that the sources have now.

    *sources* is the text of an apt source file (deb822 or one line each); empty takes those of the host, which must then
    run the distribution of the target.
    """
    if not names:
        return []
    if not sources:
        host_is(target, "apt sources (with Signed-By)")
    with tempfile.TemporaryDirectory(prefix="onprem-circleci-apt-", dir=work) as root:
        apt = _Apt(Path(root), target, sources)
        apt.run(["apt-get", "update"], "its package lists cannot be read")
        listing = apt.run(["apt-get", "install", "--print-uris", *names], "the packages cannot be put together")
        found = [match for line in listing.splitlines() if (match := _URI.match(line.strip()))]
        if not found:
            raise PackageError(f"{target}: apt names no file for {', '.join(names)}")
        wanted = [_name_and_version(match["file"]) for match in found]
        stanzas = _stanzas(apt.run(["apt-cache", "show", *(f"{name}={version}" for name, version in wanted)], "the package lists cannot be read"))
    return [_package(match, stanzas, target) for match in found]


class _Apt:
    def __init__(self, root: Path, target: Target, sources: str) -> None:
        self.target = target
        for name in ("state/lists/partial", "cache/archives/partial", "parts"):
            (root / name).mkdir(parents=True)
        (root / "status").touch()
        self.options = {
            "Dir::State": f"{root}/state",
            "Dir::State::status": f"{root}/status",
            "Dir::Cache": f"{root}/cache",
            "APT::Architecture": target.architecture,
            "APT::Architectures::": target.architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        }
        if sources:
            name = "bundle.sources" if re.search(r"^Types:", sources, re.MULTILINE) else "bundle.list"
            (root / "parts" / name).write_text(sources if sources.endswith("\n") else f"{sources}\n", encoding="utf-8")
            self.options["Dir::Etc::sourcelist"] = "/dev/null"
            self.options["Dir::Etc::sourceparts"] = f"{root}/parts"

    def run(self, argv: list[str], problem: str) -> str:
        options = [part for key, value in self.options.items() for part in ("-o", f"{key}={value}")]
        quiet = ["-qq", "-y"] if argv[0] == "apt-get" else ["-q"]
        try:
            result = subprocess.run(
                [argv[0], *quiet, *options, *argv[1:]],
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            )
        except FileNotFoundError as error:
            raise PackageError(f"{self.target}: {argv[0]} is not on the connected host; packages for {self.target} need a connected host with apt") from error
        if result.returncode:
            reasons = [line.strip() for line in (result.stderr + result.stdout).splitlines() if line.startswith(("E:", "W:")) or " : Depends: " in line]
            raise PackageError(f"{self.target}: {problem}: {'; '.join(dict.fromkeys(reasons))[:600] or 'apt gave no reason'}")
        return result.stdout


def _name_and_version(file: str) -> tuple[str, str]:
    name, version, _architecture = unquote(file).rsplit("_", 2)
    return name, version


def _stanzas(text: str) -> list[dict[str, Any]]:
    result = []
    for paragraph in re.split(r"\n\s*\n", text):
        fields: dict[str, Any] = {}
        lines: list[str] = []
        key = ""
        for line in paragraph.splitlines():
            if line[:1] in (" ", "\t"):
                if key and key not in _LEFT_OUT:
                    lines.append(line)
                continue
            key, colon, value = line.partition(":")
            if not colon:
                continue
            fields[key] = value.strip()
            if key not in _LEFT_OUT:
                lines.append(line)
        if fields.get("Package"):
            fields["control"] = "\n".join(lines)
            result.append(fields)
    return result


def _package(match: re.Match[str], stanzas: list[dict[str, Any]], target: Target) -> Package:
    name, version = _name_and_version(match["file"])
    path = unquote(match["url"])
    for fields in stanzas:
        if fields["Package"] == name and fields.get("Version") == version and path.endswith(str(fields.get("Filename", "?")).lstrip("./")):
            if not fields.get("SHA256"):
                break
            architecture = str(fields.get("Architecture", target.architecture))
            # A colon is no letter for a file name on FAT or in a URL, so the epoch stays out of it, as on every mirror.
            filename = f"{name}_{version.split(':', 1)[-1]}_{architecture}.deb"
            return Package(name, version, architecture, match["url"], filename, int(match["size"]), fields["SHA256"], fields["control"])
    raise PackageError(f"{target}: the index of the package source has no SHA256 for {name} {version} ({match['url']}); use a source whose index has one")
