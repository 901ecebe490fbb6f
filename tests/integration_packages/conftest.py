# SPDX-License-Identifier: GPL-3.0-or-later
"""Two publishers of RPM packages: real packages by rpmbuild, signed by rpmsign, repositories by createrepo_c."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

NEEDED = ("rpmbuild", "rpmsign", "rpmkeys", "createrepo_c", "dnf", "gpg")
# name, version, lines of its own, files. All of one repository are built from one description.
Description = tuple[str, str, Sequence[str], Sequence[str]]

BASE: Sequence[Description] = (
    ("shell", "5.1", ["Provides: /bin/sh"], []),
    ("libthing", "2.0", ["Provides: libthing.so.1()(64bit)"], []),
    ("libthing-minimal", "2.0", ["Provides: libthing.so.1()(64bit)", "Conflicts: libthing"], []),
    ("epochal", "0.5", ["Epoch: 1"], []),
    ("odd", "1", [], ["/opt/odd/path"]),
    ("one-feature", "1", ["Provides: feature(a)"], []),
    ("two-features", "1", ["Provides: feature(a)", "Provides: feature(b)"], []),
    ("iptables-like", "1.8", ["Requires: /bin/sh"], []),
    ("selinux-like", "38", [], []),
    ("unrelated", "1", ["Requires: nothing-has-it"], []),
)
EXTRA: Sequence[Description] = (
    (
        "engine",
        "27.1",
        [
            "Requires: libthing.so.1()(64bit)",
            "Requires: engine-cli >= 27",
            "Requires: (engine-policy if selinux-like)",
            "Requires: (engine-extra if something-that-nobody-has)",
            "Requires: (nft-like or iptables-like)",
            "Requires: (feature(a) with feature(b))",
            "Requires: /opt/odd/path",
            "Requires: epochal >= 1:0.4",
            "Requires: /usr/bin/env-like",
            "Recommends: unrelated",
        ],
        [],
    ),
    ("engine-cli", "27.1", ["Requires: shell"], ["/usr/bin/env-like"]),
    ("engine-policy", "2.2", ["Requires: selinux-like >= 38"], []),
)
EXTRA_OLD: Sequence[Description] = (("engine-cli", "26.0", [], []),)


def run(*argv: str, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, f"{argv}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def build(folder: Path, packages: Sequence[Description]) -> None:
    """Packages without programs, as noarch."""
    lines = ["Name: source-of-all", "Version: 1", "Release: 1", "Summary: all", "License: MIT", "BuildArch: noarch", "AutoReqProv: no", "%description", "all", "%install"]
    for _name, _version, _own, files in packages:
        lines += [f"install -D -m 0755 /dev/null %{{buildroot}}{path}" for path in files]
    for name, version, own, files in packages:
        lines += [f"%package -n {name}", f"Summary: {name}", f"Version: {version}", "Release: 1.el9", "AutoReqProv: no", *own, f"%description -n {name}", name]
        lines += [f"%files -n {name}", *files]
    spec = folder / "all.spec"
    spec.write_text("\n".join(lines) + "\n")
    # Two builds of the same packages are the same bytes.
    dates = ["--define", "use_source_date_epoch_as_buildtime 1", "--define", "clamp_mtime_to_source_date_epoch 1"]
    run("env", "SOURCE_DATE_EPOCH=1700000000", "rpmbuild", "-bb", "--quiet", "--define", f"_topdir {folder}/build", "--define", f"_rpmdir {folder}", *dates, str(spec))
    for path in (folder / "noarch").glob("*.rpm"):
        path.rename(folder / path.name)
    for name in ("build", "noarch"):
        shutil.rmtree(folder / name)
    spec.unlink()


@dataclass
class Publishers:
    """Where the repositories and the key are."""

    folder: Path
    key: Path

    def repo(self, *, base: str = "gpgcheck=0", extra: str = "") -> str:
        extra = extra or f"gpgcheck=1\ngpgkey={self.key.as_uri()}\nrepo_gpgcheck=1"
        return (
            f"[base]\nname=base of $releasever\nbaseurl=file://{self.folder}/base\n{base}\n\n"
            f"[extra]\nname=extra\nbaseurl=file://{self.folder}/extra/\n{extra}\n\n[off]\nname=off\nenabled=0\nmetalink=https://198.51.100.1/\n"
        )

    def index(self, name: str, *options: str) -> None:
        run("createrepo_c", "--quiet", *options, str(self.folder / name))


def make_key(folder: Path, name: str) -> Path:
    home = folder / f"gnupg-{name}"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    run(*gpg, "--quick-generate-key", f"{name} <{name}@example.com>", "rsa2048", "sign", "0")
    key = folder / f"{name}.asc"
    run(*gpg, "--armor", "--output", str(key), "--export", name)
    return key


@pytest.fixture(scope="session")
def publishers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publishers]:
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if lacking:
        pytest.skip(f"not on this machine: {', '.join(lacking)}")
    folder = tmp_path_factory.mktemp("publishers")
    key = make_key(folder, "publisher")
    made = Publishers(folder, key)
    for name, packages in (("base", BASE), ("extra", EXTRA), ("extra", EXTRA_OLD)):
        (folder / name).mkdir(exist_ok=True)
        build(folder / name, packages)
    home = folder / "gnupg-publisher"
    sign = ["rpmsign", "--addsign", "--define", f"__gpg {shutil.which('gpg')}", "--define", "_gpg_name publisher", "--define", f"_gpg_path {home}"]
    run(*sign, *(str(path) for path in sorted((folder / "extra").glob("*.rpm"))))
    made.index("base", "--compress-type=xz")
    made.index("extra")
    run("gpg", "--homedir", str(home), "--batch", "--quiet", "--armor", "--detach-sign", str(folder / "extra/repodata/repomd.xml"))
    yield made
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)
