# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What packages are for: a distribution, its release, and an architecture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_TARGET = re.compile(r"^(?P<distribution>[a-z][a-z0-9]*)-(?P<release>[0-9.]+)-(?P<architecture>[a-z0-9_]+)$")
_FAMILIES = {"apt": ("debian", "ubuntu"), "rpm": ("rhel", "rocky", "almalinux", "centos", "ol", "fedora", "amzn")}
_NOT_RPM = {"amd64": "x86_64", "arm64": "aarch64"}


class PackageError(Exception):
    """One sentence or two for the operator."""


@dataclass(frozen=True)
class Target:
    """A distribution that packages are for, written ``debian-12-amd64`` or ``rocky-9-x86_64``, with the name that its os-release has."""

    distribution: str
    release: str
    architecture: str

    @classmethod
    def parse(cls, text: str) -> Target:
        found = _TARGET.match(text)
        if found is None:
            raise PackageError(f"{text!r} names no distribution: it must look like debian-12-amd64, ubuntu-22.04-amd64 or rocky-9-x86_64")
        target = cls(found["distribution"], found["release"], found["architecture"])
        if not target.family:
            known = ", ".join(name for names in _FAMILIES.values() for name in names)
            raise PackageError(f"{text}: packages are collected for {known}; install the packages of {target.distribution} by its own means")
        if target.family == "rpm" and target.architecture in _NOT_RPM:
            raise PackageError(f"{text}: {target.distribution} calls that architecture {_NOT_RPM[target.architecture]}")
        return target

    @property
    def family(self) -> str:
        """``apt`` or ``rpm``, empty when neither."""
        return next((family for family, names in _FAMILIES.items() if self.distribution in names), "")

    def __str__(self) -> str:
        return f"{self.distribution}-{self.release}-{self.architecture}"


def host_is(target: Target, sources: str) -> None:
    """Refuse to take the *sources* of the connected host when it runs something else."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
            key, _equals, value = line.partition("=")
            fields[key] = value.strip().strip('"')
    except OSError:
        pass
    # Releases within a major are one distribution to rpm: rocky 9.4 is a rocky 9.
    version = fields.get("VERSION_ID", "?")
    here = f"{fields.get('ID', '?')}-{version.partition('.')[0] if target.family == 'rpm' else version}"
    if here != f"{target.distribution}-{target.release}":
        raise PackageError(
            f"circleci_bundle_packages asks for packages of {target}, but the connected host runs {here}: "
            f"give the {sources} of {target} in `sources` of that entry"
        )
