# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers that many images share, from Debian packages and from the programs of the artifact catalogue."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..common import SandboxError, run, say, short_hash
from .oci import EPOCH, Entry, Layer, gzip_bytes, sha256, tar_bytes

SUITE = "bookworm"
# raise it when what is kept of a package changes
RECIPE = 3
BASE = ("python3", "ca-certificates", "curl", "openssl")
POSTGRES = (*BASE, "postgresql-15", "postgresql-client-15")
NGINX = (*BASE, "nginx-light", "libnginx-mod-stream")

_DROP = (
    "dev/",
    "proc/",
    "sys/",
    "run/",
    "tmp/",
    "var/cache/",
    "var/log/",
    "var/lib/apt/",
    "var/lib/postgresql/",
    "usr/share/man/",
    "usr/share/info/",
    "usr/share/locale/",
    "usr/share/zoneinfo/",
    "usr/share/lintian/",
    "usr/share/perl/",
    "usr/lib/python3.11/test/",
    "usr/lib/postgresql/15/lib/bitcode/",
    "usr/lib/llvm-14/",
    "etc/machine-id",
    "etc/hostname",
    "etc/resolv.conf",
)
_EMPTY = ("dev", "proc", "sys", "run", "tmp", "var/log", "var/cache", "var/lib/postgresql")

# the user that stand-ins run as; PostgreSQL insists on a name for it
_ACCOUNT = {"etc/passwd": b"standin:x:1001:1001:stand-in:/tmp:/usr/sbin/nologin\n", "etc/group": b"standin:x:1001:\n"}


def _dropped(name: str) -> bool:
    if name.startswith("usr/share/doc/"):
        return not name.endswith("/copyright")
    if "libLLVM-14" in name or name.endswith("/llvmjit.so"):
        # the just-in-time compiler of PostgreSQL is optional and by far its largest part
        return True
    return name.startswith(_DROP) or name.endswith(".pyc")


def _fingerprint(info: tarfile.TarInfo, data: bytes) -> tuple[object, ...]:
    return (info.type, info.mode, info.uid, info.gid, info.linkname, hashlib.sha256(data).hexdigest())


def _read(archive: Path) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    found: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    with tarfile.open(archive) as source:
        for info in source:
            name = info.name.removeprefix("./").strip("/")
            if not name or name == "." or info.ischr() or info.isblk() or info.isfifo():
                continue
            if _dropped(name + "/" if info.isdir() else name):
                continue
            stream = source.extractfile(info) if info.isreg() else None
            info.name = name
            info.linkname = info.linkname.removeprefix("./") if info.islnk() else info.linkname
            info.mtime, info.uname, info.gname, info.pax_headers = EPOCH, "", "", {}
            data = stream.read() if stream else b""
            if name in _ACCOUNT:
                data += _ACCOUNT[name]
                info.size = len(data)
            found[name] = (info, data)
    for name in _EMPTY:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755, EPOCH
        found[name] = (info, b"")
    return found


def _bootstrap(packages: Sequence[str], target: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise SandboxError("mmdebstrap is not installed: install it (Debian: apt-get install mmdebstrap)")
    argv = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={','.join(packages)}", "--aptopt=Apt::Install-Recommends false", SUITE]
    run([*argv, str(target)], env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "LC_ALL": "C.UTF-8"}, timeout=1200)


def _store(folder: Path, raw: Path) -> Layer:
    """Compress a tar into a folder that appears complete or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        diff = hashlib.sha256()
        path = work / "layer.tar.gz"
        with raw.open("rb") as source, path.open("wb") as output, gzip.GzipFile("", "wb", 6, output, 0) as stream:
            while block := source.read(1 << 20):
                diff.update(block)
                stream.write(block)
        with path.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        record = {"digest": f"sha256:{digest}", "size": path.stat().st_size, "diff_id": f"sha256:{diff.hexdigest()}"}
        (work / "layer.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        work.chmod(0o755)
        work.rename(folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return load(folder)


def load(folder: Path) -> Layer:
    record = json.loads((folder / "layer.json").read_text(encoding="utf-8"))
    return Layer(folder / "layer.tar.gz", record["digest"], record["size"], record["diff_id"])


def _folder(cache: Path, name: str, key: object) -> Path:
    return cache / "standin" / "layers" / f"{name}-{short_hash([RECIPE, SUITE, key])}"


def _write(entries: Mapping[str, tuple[tarfile.TarInfo, bytes]], skip: Mapping[str, tuple[object, ...]], target: Path) -> None:
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in sorted(entries):
            info, data = entries[name]
            if skip.get(name) != _fingerprint(info, data):
                archive.addfile(info, io.BytesIO(data))


def debian(cache: Path) -> dict[str, Layer]:
    """The layers made of Debian packages: `base`, and `postgres` and `nginx` on top of it."""
    wanted = {"base": BASE, "postgres": POSTGRES, "nginx": NGINX}
    folders = {name: _folder(cache, name, [list(BASE), list(packages)]) for name, packages in wanted.items()}
    if not all((folder / "layer.json").is_file() for folder in folders.values()):
        say("stand-in images: making Debian layers (usually 150 s on two cores, once)")
        # all three from the same hour's packages, so that the differences are differences of the package lists only
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="onprem-circleci-layers-") as temporary:
            place = Path(temporary)
            below: dict[str, tuple[object, ...]] = {}
            for name, packages in wanted.items():
                _bootstrap(packages, place / f"{name}.tar")
                entries = _read(place / f"{name}.tar")
                _write(entries, below, place / f"{name}.layer")
                if name == "base":
                    below = {key: _fingerprint(*value) for key, value in entries.items()}
                _store(folders[name], place / f"{name}.layer")
                (place / f"{name}.tar").unlink()
    return {name: load(folder) for name, folder in folders.items()}


def files(cache: Path, name: str, entries: Sequence[Entry]) -> Layer:
    """A layer of given files, kept by its content."""
    raw = tar_bytes(entries)
    folder = _folder(cache, name, sha256(raw))
    if not (folder / "layer.json").is_file():
        with tempfile.NamedTemporaryFile(prefix="onprem-circleci-layer-") as temporary:
            temporary.write(raw)
            temporary.flush()
            return _store(folder, Path(temporary.name))
    return load(folder)


def program(cache: Path, name: str, sources: Mapping[str, Path]) -> Layer:
    """A layer of programs; the key is their checksum, so that large files are not packed again for nothing."""
    digests = {}
    for target, path in sorted(sources.items()):
        with path.open("rb") as stream:
            digests[target] = hashlib.file_digest(stream, "sha256").hexdigest()
    folder = _folder(cache, name, digests)
    if (folder / "layer.json").is_file():
        return load(folder)
    raw = tar_bytes(Entry(target, path.read_bytes(), 0o755) for target, path in sources.items())
    with tempfile.NamedTemporaryFile(prefix="onprem-circleci-layer-") as temporary:
        temporary.write(raw)
        temporary.flush()
        return _store(folder, Path(temporary.name))


__all__ = ["debian", "files", "gzip_bytes", "program"]
