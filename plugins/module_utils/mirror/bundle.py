# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bundle: tar-shaped parts with an OCI layout inside, at offsets that bundle.json records.

A part is a plain tar: ``oci-layout`` and a small header, then the blobs as ``blobs/sha256/<hex>``, then a closing section (``index.json``,
``bundle.json``, signatures, the engine itself, a trailer). A blob too large for a part is cut into ``blobs/sha256/<hex>.<k>``.
Nothing is compressed, so a blob is read, hashed or sent straight from its offset and nobody unpacks anything.

``bundle.json`` names each blob's place and each part's digest. As a copy of it lies in every part, a part's digest covers the region before the
closing section. It is the sha256 over one line ``<offset> <size> <sha256> <name>`` for each member of that region; as the tar headers and
the padding between members follow from these lines, every byte of the region is covered, and no second pass over the data is needed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

from .errors import Again, BundleError, UsageError
from .oci import Manifest, canonical_json, digest_of, is_digest
from .transport import Slice

FORMAT = "onprem.circleci_server/bundle/1"
ENGINE = "onprem-circleci-mirror 1"
MANIFEST_NAME = "bundle.json"
PYZ_NAME = "circleci-mirror.pyz"
LAYOUT_BODY = b'{"imageLayoutVersion":"1.0.0"}'
SIGNATURE_SUFFIXES = (".minisig", ".sig", ".asc")
SIGNATURE_RESERVE = 16 << 10
TRAILER_SIZE = 512
TAIL_SIZE = 512 + TRAILER_SIZE + 1024
ALIGN = 4096
ALIGN_FROM = 64 << 10
SMALLEST_PIECE = 1 << 20
MANIFEST_JSON_LIMIT = 256 << 20
BLOCK = 512
READ = 1 << 20


def padded(size: int) -> int:
    """*size* rounded up to the blocks of tar."""
    return (size + BLOCK - 1) // BLOCK * BLOCK


def tar_header(name: str, size: int) -> bytes:
    """The header of a member: always the same bytes for the same name and size."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def filler(size: int) -> bytes:
    """A pax comment of *size* bytes (at least two blocks) that moves the next member's data to an aligned place."""
    body_size = size - BLOCK
    info = tarfile.TarInfo("./PaxHeaders/align")
    info.type, info.size, info.mode = tarfile.XHDTYPE, body_size, 0o644
    prefix = f"{body_size} comment="
    body = prefix.encode("ascii") + b"-" * (body_size - len(prefix) - 1) + b"\n"
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict") + body


def align_gap(offset: int, size: int) -> int:
    """How many bytes of filler go before a member at *offset*."""
    if size < ALIGN_FROM:
        return 0
    gap = -(offset + BLOCK) % ALIGN
    return gap + ALIGN if gap == BLOCK else gap


def part_name(bundle_id: str, number: int) -> str:
    """The file name of a part; it follows from the id, so no name is ever read from a bundle."""
    return f"bundle-{bundle_id[:12]}-{number:03d}.tar"


@dataclass(frozen=True)
class Piece:
    """Where (a piece of) a blob lies: the data's offset in a part."""

    part: int
    offset: int
    size: int
    sha256: str = ""  # only for pieces of a cut blob; whole blobs have their digest


@dataclass(frozen=True)
class Member:
    """A member of a part's covered region; *offset* is that of its data."""

    name: str
    offset: int
    size: int
    sha256: str
    body: Optional[bytes] = None


@dataclass
class PartPlan:
    """A part while it is planned."""

    number: int
    end: int
    members: list[tuple[str, int, int]] = field(default_factory=list)  # name, header offset (after filler), size


def preamble(bundle_id: str, number: int, parts: int) -> list[tuple[str, bytes]]:
    """The members every part starts with; their sizes do not depend on the content."""
    head = json.dumps({"bundle": bundle_id, "format": FORMAT, "part": f"{number:06d}", "parts": f"{parts:06d}"}, sort_keys=True).encode("ascii")
    return [("oci-layout", LAYOUT_BODY), ("onprem-part.json", head)]


PREAMBLE_SIZE = sum(BLOCK + padded(len(body)) for _name, body in preamble("0" * 64, 1, 1))


def plan_layout(blobs: Sequence[tuple[str, int]], part_size: Optional[int], closing: int) -> tuple[dict[str, list[Piece]], list[int]]:
    """Give each blob (digest, size) its place, in order; returns the places and the end of each part's covered region.

    A blob that does not fit into what is left of a part waits for the next one while smaller ones fill the gap; only a blob larger than a whole part is cut.
    """
    places: dict[str, list[Piece]] = {}
    ends: list[int] = []
    capacity = None if part_size is None else part_size - closing
    if capacity is not None and capacity < PREAMBLE_SIZE + SMALLEST_PIECE:
        raise UsageError(
            f"Parts of {part_size} bytes are too small: {closing} bytes are needed for the manifest, "
            f"signatures and the engine. Take at least {closing + PREAMBLE_SIZE + 4 * SMALLEST_PIECE} bytes."
        )
    waiting = list(blobs)
    while waiting or not ends:
        number, position = len(ends) + 1, PREAMBLE_SIZE
        left: list[tuple[str, int]] = []
        full = False
        for index, (digest, size) in enumerate(waiting):
            gap = align_gap(position, size)
            end = position + gap + BLOCK + padded(size)
            done = sum(piece.size for piece in places.get(digest, ()))
            if capacity is None or (done == 0 and end <= capacity):
                places[digest] = [Piece(number, position + gap + BLOCK, size)]
                position = end
                continue
            rest = size - done
            cut = done > 0 or PREAMBLE_SIZE + ALIGN + BLOCK + padded(size) > capacity
            if cut and not full:
                gap = align_gap(position, rest)
                room = (capacity - position - gap - BLOCK) // BLOCK * BLOCK
                take = min(rest, room)
                if take == rest or take >= SMALLEST_PIECE:
                    places.setdefault(digest, []).append(Piece(number, position + gap + BLOCK, take))
                    position += gap + BLOCK + padded(take)
                    if take < rest:
                        full = True
                        left.append((digest, size))
                    continue
            left.append((digest, size))
            if capacity - position < SMALLEST_PIECE // 256:
                left.extend(waiting[index + 1 :])
                break
        ends.append(position)
        # What was cut goes on at the start of the next part, so that media are needed one after the other.
        waiting = [item for item in left if item[0] in places] + [item for item in left if item[0] not in places]
    return places, ends


def part_members(bundle_id: str, number: int, parts: int, blobs: Mapping[str, Sequence[Piece]]) -> list[Member]:
    """All members of a part's covered region by offset."""
    members = []
    offset = 0
    for name, body in preamble(bundle_id, number, parts):
        members.append(Member(name, offset + BLOCK, len(body), hashlib.sha256(body).hexdigest(), body))
        offset += BLOCK + padded(len(body))
    for digest, pieces in blobs.items():
        for index, piece in enumerate(pieces):
            if piece.part == number:
                members.append(Member(member_name(digest, index, len(pieces)), piece.offset, piece.size, piece.sha256 or digest[7:]))
    members.sort(key=lambda member: member.offset)
    return members


def member_name(digest: str, index: int, pieces: int) -> str:
    """The name of a blob inside a part."""
    return f"blobs/sha256/{digest[7:]}" + (f".{index}" if pieces > 1 else "")


def part_digest(members: Iterable[Member]) -> str:
    """The digest of a part's covered region, see the module's text."""
    hasher = hashlib.sha256()
    for member in members:
        hasher.update(f"{member.offset} {member.size} {member.sha256} {member.name}\n".encode("ascii"))
    return "sha256:" + hasher.hexdigest()


def between(members: Sequence[Member]) -> Iterator[tuple[int, bytes, Member]]:
    """For each member, the bytes that stand before its data: padding of the one before, filler, header."""
    position = 0
    for member in members:
        header = member.offset - BLOCK
        gap = header - position
        if gap < 0 or gap == BLOCK:
            raise BundleError(f"bundle.json: {member.name} overlaps what stands before it.")
        yield position, (filler(gap) if gap else b"") + tar_header(member.name, member.size), member
        position = member.offset + padded(member.size)


def bundle_identity(data: Mapping[str, Any]) -> str:
    """The id: what is inside and how it is cut, but not signatures, dates or part digests."""
    kept = {key: data[key] for key in ("format", "refs", "requires", "part_size") if key in data}
    kept["blobs"] = [[blob["d"], blob["s"]] for blob in data["blobs"]]
    return hashlib.sha256(canonical_json(kept)).hexdigest()


def closing_members(manifest: bytes, index: bytes, pyz: bytes, signatures: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    """What comes after the covered region, without the trailer."""
    members = [("index.json", index), (MANIFEST_NAME, manifest)]
    members += [(MANIFEST_NAME + suffix, signatures[suffix]) for suffix in SIGNATURE_SUFFIXES if suffix in signatures]
    if pyz:
        members.append((PYZ_NAME, pyz))
    return members


def closing_size(manifest_size: int, index_size: int, pyz_size: int) -> int:
    """The most that the closing section takes, signatures included."""
    return sum(BLOCK + padded(size) for size in (manifest_size, index_size, pyz_size)) + SIGNATURE_RESERVE + 3 * BLOCK + TAIL_SIZE


def write_closing(
    fd: int, bundle_id: str, number: int, parts: int, extents: int, manifest: bytes, index: bytes, pyz: bytes, signatures: Mapping[str, bytes]
) -> int:
    """Write the closing section after *extents*, cut the file there; returns its size."""
    position = extents
    manifest_offset = 0
    for name, body in closing_members(manifest, index, pyz, signatures):
        pwrite_all(fd, tar_header(name, len(body)) + body + bytes(padded(len(body)) - len(body)), position)
        if name == MANIFEST_NAME:
            manifest_offset = position + BLOCK
        position += BLOCK + padded(len(body))
    trailer = json.dumps(
        {
            "bundle": bundle_id,
            "extents": extents,
            "format": FORMAT,
            "manifest_offset": manifest_offset,
            "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
            "manifest_size": len(manifest),
            "part": number,
            "parts": parts,
        },
        sort_keys=True,
    ).encode("ascii")
    pwrite_all(fd, tar_header("onprem-trailer.json", TRAILER_SIZE) + trailer.ljust(TRAILER_SIZE - 1) + b"\n" + bytes(1024), position)
    position += TAIL_SIZE
    os.ftruncate(fd, position)
    return position


def pwrite_all(fd: int, data: Any, offset: int) -> None:
    """Write all of *data* at *offset*."""
    view = memoryview(data)
    while len(view):
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def pread_all(fd: int, size: int, offset: int) -> bytes:
    """Read *size* bytes at *offset*, or as many as there are."""
    pieces = []
    while size > 0:
        data = os.pread(fd, min(size, READ), offset)
        if not data:
            break
        pieces.append(data)
        size, offset = size - len(data), offset + len(data)
    return b"".join(pieces)


def read_trailer(fd: int, where: str) -> dict[str, Any]:
    """The trailer of a part, checked for shape."""
    size = os.fstat(fd).st_size
    raw = pread_all(fd, TRAILER_SIZE, size - 1024 - TRAILER_SIZE) if size >= TAIL_SIZE else b""
    try:
        data = json.loads(raw)
    except ValueError:
        data = None
    numbers = ("extents", "manifest_offset", "manifest_size", "part", "parts")
    if not isinstance(data, dict) or data.get("format") != FORMAT or not all(isinstance(data.get(key), int) and data[key] >= 0 for key in numbers):
        raise BundleError(f"{where}: does not end with the trailer of a bundle part: it is cut off, damaged, or no part of a bundle. Copy it again.")
    if data["manifest_offset"] + data["manifest_size"] > size or data["extents"] > size or data["manifest_size"] > MANIFEST_JSON_LIMIT:
        raise BundleError(f"{where}: the trailer points outside the file. Copy it again.")
    return data


@dataclass(frozen=True)
class BundleRef:
    """One name in a bundle."""

    name: str
    kind: str  # image, chart, file, packages
    target: str
    digest: str
    platforms: tuple[str, ...]
    missing: tuple[str, ...]  # children of the index that were not wanted and are not in the bundle
    chosen: str  # the manifest that stands in for an index whose children are not all there
    why: tuple[Mapping[str, Any], ...] = field(compare=False)

    def as_data(self) -> dict[str, Any]:
        """As in bundle.json."""
        data: dict[str, Any] = {"digest": self.digest, "kind": self.kind, "name": self.name, "target": self.target}
        if self.platforms:
            data["platforms"] = list(self.platforms)
        if self.missing:
            data["missing"], data["chosen"] = list(self.missing), self.chosen
        if self.why:
            data["why"] = [dict(reason) for reason in self.why]
        return data

    @property
    def target_repository(self) -> str:
        return self.target.partition(":")[0]

    @property
    def target_tag(self) -> Optional[str]:
        return self.target.partition(":")[2] or None


def _bad(what: str) -> BundleError:
    return BundleError(f"bundle.json: {what}. It is damaged or was not written by this engine.")


def parse_manifest(raw: bytes) -> tuple[dict[str, Any], list[BundleRef], dict[str, list[Piece]], dict[str, int], dict[str, str]]:
    """Read bundle.json and believe nothing: shapes, sizes, places and the id are checked."""
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise _bad(f"is not JSON ({error})") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise _bad(f"has the format {data.get('format') if isinstance(data, dict) else None!r}, this engine reads {FORMAT!r}")
    try:
        parts = [(part["n"], part["extents"], part["digest"]) for part in data["parts"]]
        if [number for number, _extents, _digest in parts] != list(range(1, len(parts) + 1)) or not parts or len(parts) > 9999:
            raise _bad("its parts are not numbered 1, 2, 3 …")
        if not all(isinstance(extents, int) and extents >= PREAMBLE_SIZE and is_digest(digest) for _number, extents, digest in parts):
            raise _bad("a part has an impossible size or digest")
        places: dict[str, list[Piece]] = {}
        sizes: dict[str, int] = {}
        media: dict[str, str] = {}
        for blob in data["blobs"]:
            digest, size = blob["d"], blob["s"]
            if not isinstance(digest, str) or not is_digest(digest) or not isinstance(size, int) or isinstance(size, bool) or size < 0 or digest in sizes:
                raise _bad("a blob has an impossible digest or size")
            sizes[digest] = size
            if blob.get("m"):
                media[digest] = str(blob["m"])
            pieces = [Piece(*at) for at in blob["at"]]
            for piece in pieces:
                if not all(isinstance(number, int) and number >= 0 for number in (piece.part, piece.offset, piece.size)) or not 1 <= piece.part <= len(parts):
                    raise _bad(f"{digest} has an impossible place")
                if piece.offset + piece.size > parts[piece.part - 1][1]:
                    raise _bad(f"{digest} lies outside part {piece.part}")
                if (len(pieces) > 1) != bool(piece.sha256) or (piece.sha256 and not is_digest("sha256:" + str(piece.sha256))):
                    raise _bad(f"{digest} has pieces without digests")
            if sum(piece.size for piece in pieces) != size:
                raise _bad(f"the pieces of {digest} do not make up its {size} bytes")
            places[digest] = pieces
        refs = []
        for ref in data["refs"]:
            entry = BundleRef(
                str(ref["name"]), str(ref["kind"]), str(ref["target"]), str(ref["digest"]), tuple(ref.get("platforms") or ()), tuple(ref.get("missing") or ()),
                str(ref.get("chosen") or ""), tuple(ref.get("why") or ()),
            )
            if not is_digest(entry.digest) or not all(is_digest(digest) for digest in entry.missing) or (entry.chosen and not is_digest(entry.chosen)):
                raise _bad(f"{entry.name} has no valid digest")
            if entry.digest not in sizes:
                raise _bad(f"{entry.name}: its manifest is not among the blobs")
            refs.append(entry)
        for number, extents, digest in parts:
            members = part_members(str(data["id"]), number, len(parts), places)
            for _position, _head, _member in between(members):
                pass
            if members[-1].offset + padded(members[-1].size) != extents:
                raise _bad(f"part {number} does not end where its last member does")
            if part_digest(members) != digest:
                raise _bad(f"the digest of part {number} does not follow from its members")
    except (KeyError, TypeError, AttributeError) as error:
        raise _bad(f"has not the right shape ({type(error).__name__}: {error})") from error
    if data.get("id") != bundle_identity(data):
        raise _bad("its id does not follow from its content")
    if raw != canonical_json(data):
        raise _bad("is not in canonical form")
    return data, refs, places, sizes, media


class Bundle:
    """A bundle to read from: any number of folders, parts may come one after the other."""

    def __init__(self, directories: Sequence[Path], raw: bytes) -> None:
        self.directories = list(directories)
        self.raw = raw
        self.manifest, self.refs, self.places, self.sizes, self.media = parse_manifest(raw)
        self.id = str(self.manifest["id"])
        self.parts = len(self.manifest["parts"])
        self._fds: dict[int, int] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, directories: Sequence[Path]) -> Bundle:
        """Find bundle.json in the folders, or the copy in a part."""
        folders = [Path(directory) for directory in directories]
        for folder in folders:
            if not folder.is_dir():
                raise UsageError(f"{folder}: there is no such folder.")
        for folder in folders:
            path = folder / MANIFEST_NAME
            if path.is_file():
                if path.stat().st_size > MANIFEST_JSON_LIMIT:
                    raise _bad("is larger than 256 MiB")
                return cls(folders, path.read_bytes())
        for folder in folders:
            for path in sorted(folder.glob("bundle-*-*.tar")):
                with open(path, "rb") as stream:
                    trailer = read_trailer(stream.fileno(), str(path))
                    raw = pread_all(stream.fileno(), trailer["manifest_size"], trailer["manifest_offset"])
                    if hashlib.sha256(raw).hexdigest() != trailer["manifest_sha256"]:
                        raise BundleError(f"{path}: the copy of bundle.json in it is damaged. Copy the part again.")
                    return cls(folders, raw)
        raise UsageError(f"{', '.join(map(str, folders))}: no bundle here: neither bundle.json nor a file bundle-*.tar.")

    def close(self) -> None:
        with self._lock:
            fds, self._fds = self._fds, {}
        for fd in fds.values():
            os.close(fd)

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # --- parts ------------------------------------------------------------------------------------------------------

    def part_path(self, number: int) -> Optional[Path]:
        """Where part *number* lies, when it is there."""
        name = part_name(self.id, number)
        for folder in self.directories:
            path = folder / name
            if path.is_file():
                return path
        return None

    def present_parts(self) -> list[int]:
        """The numbers of the parts that are there."""
        return [number for number in range(1, self.parts + 1) if self.part_path(number)]

    def missing_part(self, number: int) -> Again:
        """What to say when a part is not there."""
        places = ", ".join(map(str, self.directories))
        return Again(
            f"Part {number} of {self.parts} ({part_name(self.id, number)}) is not in "
            f"{places}. Insert the medium with part {number} and run the same command again."
        )

    def part_fd(self, number: int) -> int:
        """The open file of a part, checked to be that part of this bundle and long enough."""
        with self._lock:
            if number in self._fds:
                return self._fds[number]
            path = self.part_path(number)
            if path is None:
                raise self.missing_part(number)
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            try:
                self.check_part(fd, number, str(path))
            except BaseException:
                os.close(fd)
                raise
            self._fds[number] = fd
            return fd

    def check_part(self, fd: int, number: int, where: str) -> dict[str, Any]:
        """Compare a part's trailer with what bundle.json says."""
        trailer = read_trailer(fd, where)
        if trailer.get("bundle") != self.id or trailer["manifest_sha256"] != hashlib.sha256(self.raw).hexdigest():
            raise BundleError(f"{where}: belongs to another bundle ({str(trailer.get('bundle'))[:12]}), wanted is {self.id[:12]}.")
        if trailer["part"] != number or trailer["parts"] != self.parts:
            raise BundleError(f"{where}: is part {trailer['part']} of {trailer['parts']}, wanted is part {number} of {self.parts}.")
        if trailer["extents"] != self.manifest["parts"][number - 1]["extents"]:
            raise BundleError(
                f"{where}: has {trailer['extents']} bytes of content, bundle.json says {self.manifest['parts'][number - 1]['extents']}. Copy it again."
            )
        return trailer

    # --- blobs ------------------------------------------------------------------------------------------------------

    def has(self, digest: str) -> bool:
        """Whether the bundle holds a blob."""
        return digest in self.places

    def slices(self, digest: str, offset: int = 0, size: Optional[int] = None) -> list[Slice]:
        """A range of a blob as pieces of open files."""
        left = self.sizes[digest] - offset if size is None else size
        found = []
        for piece in self.places[digest]:
            if left <= 0:
                break
            if offset >= piece.size:
                offset -= piece.size
                continue
            take = min(piece.size - offset, left)
            found.append(Slice(self.part_fd(piece.part), piece.offset + offset, take))
            offset, left = 0, left - take
        return found

    def available(self, digest: str, start: int = 0) -> tuple[int, Optional[int]]:
        """How far a blob can be read on from *start* with the parts that are there, and the part that is wanted next."""
        total = 0
        for piece in self.places[digest]:
            if total + piece.size > start and self.part_path(piece.part) is None:
                return max(start, total), piece.part
            total += piece.size
        return total, None

    def stream(self, digest: str, sink: Callable[[bytes], object]) -> None:
        """Send a blob to *sink*, then check its digest."""
        hasher = hashlib.sha256()
        for piece in self.slices(digest):
            offset, end = piece.offset, piece.offset + piece.size
            while offset < end:
                data = os.pread(piece.fd, min(READ, end - offset), offset)
                if not data:
                    raise BundleError(f"{digest}: the part that holds it is cut off. Copy the part again.")
                hasher.update(data)
                sink(data)
                offset += len(data)
        if "sha256:" + hasher.hexdigest() != digest:
            raise BundleError(f"{digest}: the content in {self.where(digest)} is damaged (digest sha256:{hasher.hexdigest()}). Copy the part again.")

    def where(self, digest: str) -> str:
        """The parts that hold a blob, for messages."""
        return ", ".join(part_name(self.id, piece.part) for piece in self.places[digest])

    def read_blob(self, digest: str, limit: int = 16 << 20) -> bytes:
        """A small blob in memory, checked."""
        if digest not in self.sizes:
            raise BundleError(f"{digest} is not in the bundle.")
        if self.sizes[digest] > limit:
            raise BundleError(f"{digest} has {self.sizes[digest]} bytes; only {limit} were expected.")
        data = bytearray()
        self.stream(digest, data.extend)
        return bytes(data)

    def read_manifest(self, digest: str) -> Manifest:
        """A manifest of the bundle."""
        return Manifest.from_body(self.read_blob(digest), self.media.get(digest, ""))

    def find(self, text: str) -> list[BundleRef]:
        """The names that *text* may mean: whole, without the registry, or a part of it."""
        exact = [ref for ref in self.refs if text in (ref.name, ref.target, ref.digest)]
        return exact or [ref for ref in self.refs if text in ref.name or text in ref.target]

    def explain(self, text: str) -> list[dict[str, Any]]:
        """Where names come from and where they go."""
        return [
            {"name": ref.name, "kind": ref.kind, "target": ref.target, "digest": ref.digest, "why": [dict(reason) for reason in ref.why]}
            for ref in self.find(text)
        ]

    @property
    def required(self) -> dict[str, dict[str, Any]]:
        """What a delta builds on: digest -> {size, repos}."""
        requires = self.manifest.get("requires") or {}
        return {str(blob["d"]): {"size": blob["s"], "repos": [str(name) for name in blob.get("repos") or ()]} for blob in requires.get("blobs") or ()}

    def signature_files(self) -> dict[str, bytes]:
        """Detached signatures beside bundle.json."""
        found = {}
        for folder in self.directories:
            for suffix in SIGNATURE_SUFFIXES:
                path = folder / (MANIFEST_NAME + suffix)
                if suffix not in found and path.is_file() and path.stat().st_size <= SIGNATURE_RESERVE:
                    found[suffix] = path.read_bytes()
        if not found:
            for number in self.present_parts():
                found = self._signatures_in_part(number)
                if found:
                    break
        return found

    def _signatures_in_part(self, number: int) -> dict[str, bytes]:
        fd = self.part_fd(number)
        position, found = int(self.manifest["parts"][number - 1]["extents"]), {}
        end = os.fstat(fd).st_size
        while position + BLOCK <= end:
            try:
                info = tarfile.TarInfo.frombuf(pread_all(fd, BLOCK, position), "ascii", "strict")
            except (tarfile.HeaderError, UnicodeDecodeError):
                break
            for suffix in SIGNATURE_SUFFIXES:
                if info.name == MANIFEST_NAME + suffix and info.size <= SIGNATURE_RESERVE:
                    found[suffix] = pread_all(fd, info.size, position + BLOCK)
            position += BLOCK + padded(info.size)
        return found


def oci_index(refs: Sequence[BundleRef], sizes: Mapping[str, int], media: Mapping[str, str]) -> bytes:
    """index.json of the layout inside each part: one entry per name, sorted."""
    entries = []
    for ref in sorted(refs, key=lambda item: (item.name, item.target)):
        notes = {"org.opencontainers.image.ref.name": ref.name, "io.onprem.kind": ref.kind, "io.onprem.target": ref.target}
        if ref.why:
            notes["io.onprem.why"] = canonical_json([dict(reason) for reason in ref.why]).decode("utf-8").strip()
        entries.append({"annotations": notes, "digest": ref.digest, "mediaType": media.get(ref.digest, ""), "size": sizes[ref.digest]})
    return canonical_json({"manifests": entries, "mediaType": "application/vnd.oci.image.index.v1+json", "schemaVersion": 2})


def is_no_space(error: OSError) -> bool:
    """Whether a write failed because the disk or the quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


__all__ = ["Bundle", "BundleRef", "Member", "Piece", "digest_of", "oci_index", "part_name", "plan_layout", "read_trailer", "write_closing"]
