# SPDX-License-Identifier: GPL-3.0-or-later
"""An ordinary, signed APT mirror of the Debian packages that a site needs, for the stand-in internet."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from . import images
from .common import SandboxError, cache_dir, lock, run, say, sha256_file, short_hash, step, write_atomic

SUITE = images.SUITE
ARCHITECTURE = "amd64"
# With all they depend on, down to libc: a mirror that leaves out what a host already has would not be one.
PACKAGES = (
    "apache2-utils", "apt-utils", "busybox-static", "ca-certificates", "chrony", "conntrack", "containerd", "curl", "docker-registry", "docker.io",
    "firewalld", "gnupg", "haproxy", "iptables", "jq", "minisign", "nftables", "nginx-light", "openssl", "python3-firewall", "runc", "skopeo",
    "socat", "sysstat", "ufw", "unzip",
)  # fmt: skip


def folder() -> Path:
    return cache_dir() / "apt" / short_hash({"packages": PACKAGES, "suite": SUITE, "format": 1})


def ensure() -> Path:
    """The folder of the mirror: `debian/` to be served, `key.gpg` that its Release is signed with."""
    target = folder()
    if (target / "key.gpg").is_file():
        return target
    with lock(cache_dir() / "locks" / "apt.lock", "making the APT mirror", wait=True):
        if not (target / "key.gpg").is_file():
            _make(target)
    return target


def _make(target: Path) -> None:
    sources = images.apt_sources()
    work = target.with_name(f".{target.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    for name in ("state/lists/partial", "cache/archives/partial", "parts", "debian"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    for source in sources:
        shutil.copy(source, work / "parts" / Path(source).name)
    options = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": f"{work}/parts",
        "Dir::State": f"{work}/state",
        "Dir::State::status": f"{work}/status",
        "Dir::Cache": f"{work}/cache",
        "APT::Architecture": ARCHITECTURE,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "APT::Install-Recommends": "false",
    }
    apt = ["apt-get", "-q", "-y", *(part for key, value in options.items() for part in ("-o", f"{key}={value}"))]
    with step(f"making an APT mirror of {len(PACKAGES)} packages and all they depend on", 40):
        run([*apt, "update"])
        run([*apt, "install", "--download-only", *PACKAGES])
        pool = work / "debian" / "pool" / "main"
        entries = []
        for deb in sorted((work / "cache" / "archives").glob("*.deb")):
            control = run(["dpkg-deb", "--field", str(deb)]).stdout.rstrip("\n")
            fields = dict(line.split(": ", 1) for line in control.splitlines() if ": " in line and not line.startswith(" "))
            source = fields.get("Source", fields["Package"]).split()[0]
            place = pool / (source[:4] if source.startswith("lib") else source[:1]) / source
            place.mkdir(parents=True, exist_ok=True)
            final = place / deb.name.replace("%3a", ":").split("_")[0].__add__(f"_{fields['Version'].split(':', 1)[-1]}_{fields['Architecture']}.deb")
            deb.rename(final)
            entries.append(
                f"{control}\nFilename: {final.relative_to(work / 'debian')}\nSize: {final.stat().st_size}\nSHA256: {sha256_file(final)}\n"
            )
        _index(work, "\n".join(entries))
        for name in ("state", "cache", "parts"):
            shutil.rmtree(work / name)
        (work / "status").unlink()
        (work / ".gnupg.done").touch()
    say(f"APT mirror: {len(entries)} packages, {sum(path.stat().st_size for path in work.rglob('*.deb')) >> 20} MiB")
    work.rename(target)


def _index(work: Path, packages: str) -> None:
    dist = work / "debian" / "dists" / SUITE
    binary = dist / "main" / f"binary-{ARCHITECTURE}"
    binary.mkdir(parents=True)
    (binary / "Packages").write_text(packages, encoding="utf-8")
    (binary / "Packages.gz").write_bytes(gzip.compress(packages.encode(), mtime=0))
    lines = [
        "Origin: Debian (stand-in mirror of the sandbox)",
        "Label: Debian",
        f"Suite: {SUITE}",
        f"Codename: {SUITE}",
        f"Architectures: {ARCHITECTURE}",
        "Components: main",
        f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S UTC', time.gmtime())}",
        "SHA256:",
    ]
    for path in sorted(binary.iterdir()):
        data = path.read_bytes()
        lines.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {path.relative_to(dist)}")
    (dist / "Release").write_text("\n".join(lines) + "\n", encoding="utf-8")
    # The key dies with this folder: it signs one stand-in mirror and is of no worth to anybody.
    with tempfile.TemporaryDirectory(prefix="ocs-gpg-") as home:
        env = {**os.environ, "GNUPGHOME": home}
        gpg = ["gpg", "--batch", "--quiet", "--no-tty"]
        run([*gpg, "--passphrase", "", "--quick-generate-key", "Sandbox APT mirror (stand-in)", "ed25519", "sign", "never"], env=env)
        run([*gpg, "--yes", "--clearsign", "--output", str(dist / "InRelease"), str(dist / "Release")], env=env)
        run([*gpg, "--yes", "--armor", "--detach-sign", "--output", str(dist / "Release.gpg"), str(dist / "Release")], env=env)
        run([*gpg, "--yes", "--export", "--output", str(work / "key.gpg")], env=env)
        run(["gpgconf", "--kill", "all"], env=env, check=False)
    if not (work / "key.gpg").stat().st_size:
        raise SandboxError("gpg made no key for the APT mirror")


def unpack(package: str, member: str) -> bytes:
    """One file out of a package of the mirror."""
    found = sorted((ensure() / "debian").rglob(f"{package}_*.deb"))
    if not found:
        raise SandboxError(f"package {package} is not in the APT mirror")
    with tempfile.TemporaryDirectory(prefix="ocs-deb-") as place:
        run(["dpkg-deb", "--extract", str(found[-1]), place])
        return (Path(place) / member).read_bytes()


def write_key(path: Path) -> None:
    """Copy the public key of the mirror."""
    write_atomic(path, (ensure() / "key.gpg").read_bytes())
