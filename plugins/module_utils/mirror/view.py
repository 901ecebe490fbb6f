# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at a bundle with other eyes: as a plain OCI layout for other tools, or as files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from .bundle import ALIGN, LAYOUT_BODY, Bundle, BundleRef, oci_index
from .errors import BundleError, UsageError
from .lock import check_file_name
from .progress import Progress

_FICLONERANGE = 0x4020940D


@dataclass
class ViewResult:
    """How a view came about, in blobs and bytes."""

    path: str
    linked: int = 0
    cloned: int = 0
    copied: int = 0
    bytes_copied: int = 0

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


def _clone(source: int, offset: int, size: int, target: int) -> bool:
    """Share the bytes on file systems that can (XFS, Btrfs, ZFS …); blobs lie at block borders for that."""
    if not sys.platform.startswith("linux") or offset % ALIGN or size < ALIGN:
        return False
    whole = (size + ALIGN - 1) // ALIGN * ALIGN
    try:
        fcntl.ioctl(target, _FICLONERANGE, struct.pack("qQQQ", source, offset, whole, 0))
        os.ftruncate(target, size)
    except OSError:
        os.ftruncate(target, 0)
        return False
    return True


def _copy(source: int, offset: int, size: int, target: int) -> None:
    copy_range = getattr(os, "copy_file_range", None)
    done = 0
    while done < size and copy_range is not None:
        try:
            count = copy_range(source, target, size - done, offset + done)
        except OSError:
            break
        if not count:
            break
        done += count
    while done < size:
        data = os.pread(source, min(1 << 20, size - done), offset + done)
        if not data:
            raise BundleError("A part became shorter while it was read. Copy it again.")
        os.write(target, data)
        done += len(data)


def make_view(bundle: Bundle, target: Path, link_from: Optional[Path] = None, progress: Optional[Progress] = None) -> ViewResult:
    """A plain OCI layout in *target*: hard links from an earlier view (*link_from*), else shared bytes where the file system can, else copies."""
    progress = progress or Progress()
    target = Path(target)
    result = ViewResult(str(target))
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    progress.begin("view", sum(bundle.sizes.values()), len(bundle.sizes))
    for digest, size in bundle.sizes.items():
        path = blobs / digest[7:]
        if not (path.is_file() and path.stat().st_size == size) and not _linked(link_from, path, size, result):
            temporary = path.with_name(f".{path.name}.tmp")
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                slices = bundle.slices(digest)
                if len(slices) == 1 and _clone(slices[0].fd, slices[0].offset, size, fd):
                    result.cloned += 1
                else:
                    for piece in slices:
                        _copy(piece.fd, piece.offset, piece.size, fd)
                    result.copied += 1
                    result.bytes_copied += size
            finally:
                os.close(fd)
            os.replace(temporary, path)
        progress.add(size)
        progress.item()
    # Only what the bundle names belongs to the view.
    for path in blobs.iterdir():
        if "sha256:" + path.name not in bundle.sizes:
            path.unlink()
    (target / "oci-layout").write_bytes(LAYOUT_BODY)
    (target / "index.json").write_bytes(oci_index(bundle.refs, bundle.sizes, bundle.media))
    progress.end("done")
    return result


def _linked(link_from: Optional[Path], path: Path, size: int, result: ViewResult) -> bool:
    if link_from is None:
        return False
    source = Path(link_from) / "blobs" / "sha256" / path.name
    try:
        if source.stat().st_size != size:
            return False
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        os.link(source, path)
    except OSError:
        return False
    result.linked += 1
    return True


@dataclass(frozen=True)
class ExtractedFile:
    """A file taken out of a bundle."""

    name: str
    version: str
    path: str
    sha256: str
    mode: str
    changed: bool = field(default=True, compare=False)

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


def file_refs(bundle: Bundle, names: Optional[Sequence[str]] = None) -> list[BundleRef]:
    """The file, chart and package artifacts of a bundle, all or those named (``nomad``, ``nomad:1.10.5``, ``onprem/files/nomad:1.10.5``)."""
    refs = [ref for ref in bundle.refs if ref.kind in ("file", "packages", "chart")]
    if names is None:
        return refs
    chosen: list[BundleRef] = []
    for name in names:
        found = [ref for ref in refs if name in (ref.target, ref.target_repository, ref.target.rpartition("/")[2], ref.target_repository.rpartition("/")[2])]
        if not found:
            raise UsageError(f"{name!r} is not among the files of the bundle. There are: {', '.join(sorted(ref.target for ref in refs)) or 'none'}.")
        chosen.extend(ref for ref in found if ref not in chosen)
    return chosen


def extract_files(bundle: Bundle, target: Path, names: Optional[Sequence[str]] = None, flat: bool = True) -> list[ExtractedFile]:
    """Write files of the bundle into *target*; each is checked and replaced at once. Names that lead out of the folder are refused."""
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    root = target.resolve()
    extracted = []
    for ref in file_refs(bundle, names):
        manifest = bundle.read_manifest(ref.digest)
        for layer in manifest.data.get("layers") or ():
            notes = layer.get("annotations") or {}
            base = ref.target_repository.rpartition("/")[2]
            title = check_file_name(str(notes.get("org.opencontainers.image.title") or f"{base}-{ref.target_tag}.tgz"), ref.name)
            mode = str(notes.get("io.onprem.mode") or "0644")
            path = target / ("" if flat else base) / title
            path.parent.mkdir(parents=True, exist_ok=True)
            # A symbolic link that lies in the folder must not lead the file elsewhere.
            if root not in (path.parent.resolve() / "x").parents:
                raise BundleError(f"{ref.name}: {title!r} would be written outside of {target}.")
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
            try:
                with os.fdopen(fd, "wb") as stream:
                    bundle.stream(str(layer["digest"]), stream.write)
                    os.fchmod(stream.fileno(), int(mode, 8) & 0o777)
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
            extracted.append(ExtractedFile(base, ref.target_tag or "", str(path), str(layer["digest"])[7:], mode))
    return extracted
