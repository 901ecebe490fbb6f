# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects that shall lie in a bucket: compared by digest, uploaded in an order that never shows half a set."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Optional, Protocol, Union

from .client import Response, S3Error

DIGEST_HEADER = "x-amz-meta-sha256"
_SUM_LINE = re.compile(r"^(?P<digest>[0-9a-f]{64})\s+\*?(?P<path>\S+)$")


class Store(Protocol):
    """What is needed of a place that keeps objects."""

    def head(self, bucket: str, key: str) -> Optional[Response]:
        """Headers of an object, None when it is not there."""

    def put(
        self,
        bucket: str,
        key: str,
        body: Union[bytes, BinaryIO],
        *,
        length: Optional[int] = None,
        sha256: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> Response:
        """Write an object."""


@dataclass(frozen=True)
class Source:
    """One object with its content: a digest that is known before, and a way to bring the bytes into a file."""

    key: str
    sha256: str
    size: int
    bring: Callable[[Path], None]
    content: Optional[bytes] = None


@dataclass(frozen=True)
class Change:
    """An object that differs."""

    source: Source
    before: str

    @property
    def after(self) -> str:
        return f"sha256:{self.source.sha256} ({self.source.size} bytes)"


def text_source(key: str, text: str) -> Source:
    """An object whose content is written here."""
    data = text.encode()
    return Source(key, hashlib.sha256(data).hexdigest(), len(data), lambda path: _write(path, data), data)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while data := stream.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


def path_source(key: str, path: Path) -> Source:
    """An object that lies in a file of the control host."""
    return Source(key, file_sha256(path), path.stat().st_size, lambda target: _write(target, path.read_bytes()))


def upload_order(key: str) -> tuple[int, str]:
    """Programs, then their checksums, then the files that switch clients over to them."""
    name = key.rsplit("/", 1)[-1]
    if name in ("release.txt", "canary.txt", "candidate.txt"):
        return (2, key)
    return (1, key) if name == "checksums.txt" else (0, key)


def compare(client: Store, bucket: str, sources: Iterable[Source]) -> list[Change]:
    """What differs, in the order of the upload."""
    changes = []
    for source in sorted(sources, key=lambda item: upload_order(item.key)):
        found = client.head(bucket, source.key)
        if found is None:
            changes.append(Change(source, ""))
            continue
        known = found.header(DIGEST_HEADER)
        etag = found.header("etag").strip('"')
        same_content = source.content is not None and etag == hashlib.md5(source.content, usedforsecurity=False).hexdigest()
        encoded = found.header("content-encoding") in ("gzip", "deflate", "br")
        if encoded or not (known == source.sha256 or (not known and same_content)):
            before = f"sha256:{known}" if known else f"etag {etag}"
            changes.append(
                Change(source, f"{before}{', ' + found.header('content-encoding') + '-encoded' if encoded else ''} ({found.header('content-length')} bytes)")
            )
    return changes


def apply(client: Store, bucket: str, changes: Iterable[Change], work: Path) -> int:
    """Upload what differs; returns the bytes that moved. A kill in between leaves the old switch files in place."""
    moved = 0
    for number, change in enumerate(changes):
        path = work / f"object-{number}"
        change.source.bring(path)
        digest = file_sha256(path)
        if digest != change.source.sha256:
            raise S3Error(f"{change.source.key}: what was brought has sha256 {digest}, {change.source.sha256} was announced; nothing was uploaded for it")
        with path.open("rb") as stream:
            start = stream.read(2)
            stream.seek(0)
            if start == b"\x1f\x8b" and not change.source.key.endswith((".gz", ".tgz")):
                raise S3Error(
                    f"{change.source.key} is gzip-encoded in the bundle; clients would get "
                    "unreadable programs. Make the bundle again, which undoes the encoding"
                )
            client.put(
                bucket,
                change.source.key,
                stream,
                length=change.source.size,
                sha256=digest,
                headers={DIGEST_HEADER: digest, "content-type": "text/plain" if change.source.key.endswith(".txt") else "application/octet-stream"},
            )
        moved += change.source.size
        path.unlink()
    return moved


def checksum_problems(texts: Mapping[str, str], digests: Mapping[str, str]) -> list[str]:
    """Contradictions between ``checksums.txt`` files (key to text) and the digests of the programs beside them (key to sha256).

    The vendor writes paths relative to some folder above; the last parts of a path decide which program is meant.
    """
    found = []
    for key, text in texts.items():
        folder = key.rsplit("/", 1)[0]
        named = {match["path"].lstrip("./"): match["digest"] for line in text.splitlines() if (match := _SUM_LINE.match(line.strip()))}
        for program, digest in digests.items():
            if not program.startswith(f"{folder}/") or program.endswith(".txt"):
                continue
            tail = program[len(folder) + 1 :]
            listed = {path: value for path, value in named.items() if path == tail or path.endswith(f"/{tail}")}
            if not listed:
                found.append(f"{key} does not list {tail}; clients would refuse the program")
            elif digest not in listed.values():
                found.append(f"{key} lists {tail} with sha256 {next(iter(listed.values()))}, but the program has {digest}")
    return found
