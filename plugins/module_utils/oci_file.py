# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file on a host and the artifact in the private registry that it comes from."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any

CHUNK = 1 << 20


class FileError(Exception):
    """One sentence for the operator."""


def sha256_of(path: Path) -> str | None:
    """The digest of a file, None when there is no file."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while data := stream.read(CHUNK):
                digest.update(data)
    except FileNotFoundError:
        return None
    except IsADirectoryError as error:
        raise FileError(f"dest: {path} is a folder; name the file itself") from error
    return digest.hexdigest()


def record_path(state_dir: Path, dest: Path) -> Path:
    """Where it is kept which artifact the file of an archive came from."""
    return state_dir / "files" / f"{hashlib.sha256(str(dest).encode()).hexdigest()[:16]}.json"


def _choose(names: list[str], member: str, archive: str) -> str:
    if member in names:
        return member
    found = [name for name in names if fnmatch.fnmatchcase(name, member)] or [name for name in names if name.rsplit("/", 1)[-1] == member]
    if len(found) == 1:
        return found[0]
    few = ", ".join(sorted(names)[:20])
    raise FileError(f"member: {archive} has {'several files' if found else 'no file'} {member!r}; it holds {few}")


def extract_member(archive: Path, member: str, shown: str, target: Path) -> str:
    """Write one file of a zip or tar archive to *target*, checked to be a plain file; returns its sha256."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as bundle:
            name = _choose([info.filename for info in bundle.infolist() if not info.is_dir()], member, shown)
            with bundle.open(name) as content:
                return _write(content, target)
    try:
        with tarfile.open(archive) as bundle:
            files = {item.name.removeprefix("./"): item for item in bundle.getmembers() if item.isfile()}
            stream = bundle.extractfile(files[_choose(list(files), member, shown)])
            if stream is None:
                raise FileError(f"member: {member!r} of {shown} is no plain file")
            with stream:
                return _write(stream, target)
    except tarfile.TarError as error:
        raise FileError(f"member: {shown} is neither a zip nor a tar archive ({error})") from error


def _write(stream: IO[bytes], target: Path) -> str:
    digest = hashlib.sha256()
    with target.open("wb") as output:
        while data := stream.read(CHUNK):
            digest.update(data)
            output.write(data)
    return digest.hexdigest()


class Workplace:
    """A hidden folder beside the destination: on the same file system, so that the last step is one rename."""

    def __init__(self, dest: Path, needed: int) -> None:
        if not dest.parent.is_dir():
            raise FileError(f"dest: the folder {dest.parent} does not exist on this host")
        free = shutil.disk_usage(dest.parent).free
        if free < needed:
            raise FileError(f"{dest.parent} has {free} bytes free, {needed} are needed for {dest.name}; make room, then run the same command again")
        self.path = Path(tempfile.mkdtemp(prefix=f".{dest.name}.", dir=dest.parent))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_exc: Any) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def replace_file(new: Path, dest: Path, mode: int) -> None:
    """Put *new* in the place of *dest*; a program that runs from it goes on with the old one."""
    new.chmod(mode)
    descriptor = os.open(new, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.replace(dest)
