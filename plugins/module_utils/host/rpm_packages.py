# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RPM packages out of the repository that travelled with the bundle: what is missing on this host, whose they are, and installing them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..os_packages.rpm import Capability, Closure, Pool, RpmPackage, parse_version
from .units import HostError, Runner, run_command

_PROVIDES = "[%{PROVIDENAME}\\t%{PROVIDEFLAGS:depflags}\\t%{PROVIDEVERSION}\\n]"
_REQUIRES = "[%{=NAME}\\t%{REQUIRENAME}\\t%{REQUIREFLAGS:depflags}\\t%{REQUIREVERSION}\\n]"


def _rpm(run: Runner, *arguments: str) -> str:
    done = run(["rpm", *arguments])
    if done.returncode == 127:
        raise HostError("This host has no rpm. The target of its packages names a distribution with RPM packages; name that of this host instead.")
    return done.stdout


class Installed:
    """What the host has; the whole of it is only read when a version or something else than a name is asked for."""

    def __init__(self, run: Runner = run_command, root: str = "/") -> None:
        self._run = run
        self._root = [] if root == "/" else [f"--root={root}"]
        self._provides: dict[str, list[Capability]] = {}
        self._files: dict[str, bool] = {}

    def has_name(self, name: str) -> bool:
        """Whether a package of that name, or one that provides it, is installed."""
        return self.has(Capability(name))

    def has(self, wanted: Capability) -> bool:
        """Whether something installed provides it."""
        if any(provided.meets(wanted) for provided in self._all().get(wanted.name, ())):
            return True
        if not wanted.name.startswith("/"):
            return False
        if wanted.name not in self._files:
            self._files[wanted.name] = self._run(["rpm", *self._root, "-q", "--quiet", "--whatprovides", wanted.name]).returncode == 0
        return self._files[wanted.name]

    def _all(self) -> Mapping[str, list[Capability]]:
        if not self._provides:
            for line in _rpm(self._run, *self._root, "-qa", "--qf", _PROVIDES).splitlines():
                capability = _capability(*line.split("\t"))
                self._provides.setdefault(capability.name, []).append(capability)
        return self._provides

    def broken_by(self, chosen: Iterable[RpmPackage]) -> list[str]:
        """Installed packages that need the very version of something that is replaced."""
        provided: dict[str, list[Capability]] = {}
        for package in chosen:
            for capability in package.provides:
                provided.setdefault(capability.name, []).append(capability)
        if not any(name in self._all() for name in provided):
            return []
        broken: dict[str, None] = {}
        for line in _rpm(self._run, *self._root, "-qa", "--qf", _REQUIRES).splitlines():
            name, *words = line.split("\t")
            need = _capability(*words)
            if need.sense and need.name in provided and not any(item.meets(need) for item in provided[need.name]):
                broken[name] = None
        return list(broken)


def _capability(name: str, sense: str = "", version: str = "") -> Capability:
    return Capability(name, sense.strip(), parse_version(version)) if sense.strip() else Capability(name)


def closure(wanted: Sequence[str], packages: Iterable[RpmPackage], installed: Installed) -> list[RpmPackage]:
    """What must be installed for *wanted*; raises when the repository lacks something."""
    found = Closure(Pool(packages), carry=False, installed=installed.has).names(wanted)
    # What needs the old version of a package that is replaced is replaced with it, where the bundle can; of the rest dnf complains.
    while any(found.replacing(name) for name in installed.broken_by(found.chosen)):
        continue
    if found.problems:
        raise HostError(
            f"The packages of the bundle do not fit this host: {'; '.join(sorted(found.problems))}. Add what is missing "
            "to circleci_bundle_packages on the connected side and make the bundle anew."
        )
    return list(found.chosen)


def check_signatures(files: Sequence[Path], keys: Sequence[Path], work: Path, run: Runner = run_command) -> None:
    """Refuse files that none of the publishers' keys has signed. The host itself comes to trust nobody by that."""
    if not files:
        return
    database = f"--dbpath={work / 'rpmdb'}"
    if not keys:
        raise HostError("The packages of the bundle came without the keys of their publishers; make the bundle anew.")
    done = run(["rpmkeys", database, "--import", *(str(key) for key in keys)])
    if done.returncode:
        raise HostError(f"rpmkeys cannot read the keys of the bundle: {' '.join((done.stdout + done.stderr).split())[:300]}")
    done = run(["rpmkeys", database, "--define=_pkgverify_level all", "--checksig", *(str(path) for path in files)])
    # A file without a signature counts as good to older versions of rpm, which only say of it that digests are.
    wrong = [line.strip() for line in done.stdout.splitlines() if line.strip() and not line.rstrip().endswith("signatures OK")]
    if done.returncode or wrong or not done.stdout.strip():
        shown = "; ".join(line.rsplit("/", 1)[-1] for line in wrong) or " ".join(done.stderr.split())
        raise HostError(f"Packages of the bundle are not signed by a key of their publishers: {shown[:500]}. Nothing was installed.")


def install(files: Sequence[Path], run: Runner = run_command, options: Sequence[str] = ()) -> None:
    """Install local package files with dnf, which then knows no other source."""
    done = run(
        [
            "dnf", "install", "--assumeyes", "--quiet", "--disablerepo=*", "--setopt=install_weak_deps=False", "--setopt=localpkg_gpgcheck=False",
            *options, *(str(path) for path in files),
        ]
    )  # fmt: skip
    if done.returncode:
        if done.returncode == 127:
            raise HostError("This host has no dnf, which installs the packages of the bundle.")
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise HostError("dnf could not install the packages of the bundle: " + " / ".join(lines[-6:])[:1000])
