# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seed: write a bundle straight into the storage folder of a distribution registry that we run ourselves.

Much faster than HTTP, and only for the file system driver. Not while its garbage collection runs. The registry may run: blobs come first, tags last.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from .bundle import Bundle
from .errors import BaseMissing, BundleError, UsageError
from .load import map_target
from .oci import Manifest
from .progress import Progress
from .view import _clone, _copy


@dataclass
class SeedResult:
    """What was written."""

    changed: bool = False
    blobs: int = 0
    bytes: int = 0
    links: int = 0

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


class _Tree:
    def __init__(self, root: Path) -> None:
        self.base = root / "docker" / "registry" / "v2"
        info = root.stat()
        self.owner = (info.st_uid, info.st_gid)
        self.change_owner = hasattr(os, "geteuid") and os.geteuid() == 0

    def _own(self, path: Path) -> None:
        if self.change_owner:
            os.chown(path, *self.owner)

    def folder(self, path: Path) -> None:
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o755)
                self._own(folder)

    def blob(self, digest: str) -> Path:
        return self.base / "blobs" / "sha256" / digest[7:9] / digest[7:] / "data"

    def repository(self, name: str) -> Path:
        return self.base / "repositories" / name

    def link(self, path: Path, digest: str) -> bool:
        """A link file; True when it was not there or said something else."""
        target = path / "link"
        with contextlib.suppress(FileNotFoundError):
            if target.read_bytes() == digest.encode("ascii"):
                return False
        self.folder(path)
        temporary = path / f".link.{os.getpid()}"
        temporary.write_bytes(digest.encode("ascii"))
        self._own(temporary)
        os.replace(temporary, target)
        return True

    def store(self, bundle: Bundle, digest: str) -> bool:
        """A blob into the store, hashed on the way; True when it was not there."""
        path = self.blob(digest)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size == bundle.sizes[digest]:
                return False
        self.folder(path.parent)
        temporary = path.with_name(f".data.{os.getpid()}")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            slices = bundle.slices(digest)
            if not (len(slices) == 1 and _clone(slices[0].fd, slices[0].offset, slices[0].size, fd)):
                for piece in slices:
                    _copy(piece.fd, piece.offset, piece.size, fd)
            hasher, offset = hashlib.sha256(), 0
            while True:
                data = os.pread(fd, 1 << 20, offset)
                if not data:
                    break
                hasher.update(data)
                offset += len(data)
            if "sha256:" + hasher.hexdigest() != digest:
                raise BundleError(f"{digest}: the content in {bundle.where(digest)} is damaged. Copy the part again.")
            os.fsync(fd)
            self._own(temporary)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(fd)
        return True


def seed_storage(
    bundle: Bundle, root: Path, mapping: Optional[Mapping[str, str]] = None, dry_run: bool = False, progress: Optional[Progress] = None
) -> SeedResult:
    """Put everything into the storage folder *root* (``storage.filesystem.rootdirectory``)."""
    progress = progress or Progress()
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder. Give storage.filesystem.rootdirectory of the registry.")
    tree, result = _Tree(root), SeedResult()
    placed: set[tuple[str, str]] = set()
    revisions: dict[tuple[str, str], None] = {}
    tags: dict[tuple[str, str], str] = {}

    def walk(repository: str, manifest: Manifest, missing: set[str]) -> None:
        for child in manifest.children():
            if child.digest not in missing:
                walk(repository, bundle.read_manifest(child.digest), set())
        for blob in manifest.blobs():
            if not bundle.has(blob.digest) and not tree.blob(blob.digest).is_file():
                raise BaseMissing(f"{root} lacks {blob.digest}, which this delta builds on. Seed its base first. Nothing was written.")
            placed.add((repository, blob.digest))
        revisions[(repository, manifest.digest)] = None

    for ref in bundle.refs:
        repository, tag = map_target(ref, mapping or {})
        # distribution serves an index whose children are absent only if it never checks; so the tag goes to the platform that is there.
        digest = ref.chosen if ref.missing else ref.digest
        walk(repository, bundle.read_manifest(ref.digest) if not ref.missing else bundle.read_manifest(ref.chosen), set())
        if ref.missing:
            walk(repository, bundle.read_manifest(ref.digest), set(ref.missing))
            del revisions[(repository, ref.digest)]
        if tag:
            tags[(repository, tag)] = digest
    needed = {digest for _repository, digest in placed} | {digest for _repository, digest in revisions}
    blobs = [digest for digest in bundle.sizes if digest in needed]
    progress.begin("seed", sum(bundle.sizes[digest] for digest in blobs), len(blobs))
    for digest in blobs:
        size = bundle.sizes[digest]
        path = tree.blob(digest)
        new = not (path.is_file() and path.stat().st_size == size) if dry_run else tree.store(bundle, digest)
        result.blobs += new
        result.bytes += size if new else 0
        progress.add(size)
        progress.item()
    links = [(tree.repository(repository) / "_layers" / "sha256" / digest[7:], digest) for repository, digest in sorted(placed)]
    links += [(tree.repository(repository) / "_manifests" / "revisions" / "sha256" / digest[7:], digest) for repository, digest in revisions]
    for (repository, tag), digest in sorted(tags.items()):
        folder = tree.repository(repository) / "_manifests" / "tags" / tag
        links += [(folder / "index" / "sha256" / digest[7:], digest), (folder / "current", digest)]
    for folder, digest in links:
        if dry_run:
            target = folder / "link"
            result.links += not (target.is_file() and target.read_bytes() == digest.encode("ascii"))
        else:
            result.links += tree.link(folder, digest)
    result.changed = bool(result.blobs or result.links)
    progress.end("done")
    return result
