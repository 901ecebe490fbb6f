# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch: from a lock to a bundle.

1. Resolve all references (manifests only), so that every byte is known before the first layer moves.
2. Give each blob its final place in a part; check the free space.
3. One queue over everything: each blob is received, hashed and written to its place in one pass. What is done is noted in a small state file
   by plain writes, which survive ``kill -9``; after a reboot everything noted is hashed again before it is believed.
4. Close the parts and give them their names. Nothing stands under a final name before it is whole and checked.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import shutil
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import urlsplit

from .access import Access
from .bundle import (
    ENGINE,
    FORMAT,
    MANIFEST_NAME,
    PYZ_NAME,
    SIGNATURE_SUFFIXES,
    Bundle,
    BundleRef,
    Piece,
    between,
    bundle_identity,
    closing_size,
    is_no_space,
    oci_index,
    part_digest,
    part_members,
    part_name,
    plan_layout,
    pwrite_all,
    write_closing,
)
from .errors import (
    Broken,
    BundleError,
    DigestMismatch,
    MirrorError,
    NetworkError,
    RegistryError,
    SpaceError,
    Stopped,
    UsageError,
)
from .lock import FileSource, Lock, RefItem
from .oci import OCI_MANIFEST, Descriptor, Manifest, canonical_json, platform_name, platform_wanted
from .progress import Progress, replace_json
from .pyz import build_pyz
from .registry import RegistryClient
from .together import Change, map_together, raise_together
from .transport import BUFFER, Response, shown_url, sleep_or_stop

if TYPE_CHECKING:
    from .delta import Base

WORK = ".incomplete"
PLAN_FORMAT = "onprem.circleci_server/fetch/1"
PIECE = 1 << 19
"""What a lane receives, hashes and writes at once. Larger saves a little more, and a killed run would lose more of what it had in hand."""
_DONE = 1 << 63


@dataclass
class FetchOptions:
    """What to fetch, where to, and how."""

    lock: Lock
    output: Path
    access: Access = field(default_factory=Access)
    part_size: Optional[int] = None
    base: Optional[Base] = None
    dry_run: bool = False


@dataclass
class FetchResult:
    """What a fetch did, or would do."""

    bundle_id: str
    changed: bool
    changes: list[Change]
    bytes_total: int
    bytes_moved: int = 0
    bytes_reused: int = 0
    requests: int = 0
    retries: int = 0
    parts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        data = dict(self.__dict__)
        data["changes"] = [change.as_dict() for change in self.changes]
        return data


@dataclass
class _Need:
    """A blob to get: where from."""

    size: int
    sources: list[tuple[str, str, str]] = field(default_factory=list)  # (kind, host or "", repository / url / path)
    repositories: list[str] = field(default_factory=list)  # target repositories that use it
    body: Optional[bytes] = None


def boot_id() -> str:
    """Changes with each start of the machine; what was written before that may never have reached the disk."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class _State:
    """Bytes done of each blob, 8 bytes each, written in place."""

    def __init__(self, path: Path, count: int) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        raw = os.pread(self.fd, 8 * count, 0).ljust(8 * count, b"\0")
        self.values = [int.from_bytes(raw[8 * index : 8 * index + 8], "little") for index in range(count)]

    def set(self, index: int, count: int, done: bool = False) -> None:
        value = count | (_DONE if done else 0)
        self.values[index] = value
        os.pwrite(self.fd, value.to_bytes(8, "little"), 8 * index)

    def done(self, index: int) -> bool:
        return bool(self.values[index] & _DONE)

    def count(self, index: int) -> int:
        return self.values[index] & ~_DONE

    def close(self) -> None:
        os.close(self.fd)


class _Fetcher:
    def __init__(self, options: FetchOptions, progress: Progress) -> None:
        self.options, self.progress, self.access = options, progress, options.access
        self.output = Path(options.output)
        self.work = self.output / WORK
        self.needs: dict[str, _Need] = {}
        self.media: dict[str, str] = {}
        self.refs: list[BundleRef] = []
        self.configs: set[str] = set()
        self.order: list[str] = []
        self.warnings: list[str] = []
        self.moved = self.reused = 0
        self._count_lock = threading.Lock()

    # --- 1. resolve -------------------------------------------------------------------------------------------------

    def source_key(self) -> str:
        """What was asked for: the same key goes on with an unfinished fetch."""
        options = self.options
        asked = {
            "refs": options.lock.ref_data(),
            "artifacts": [
                [item.target_name, item.artifact_type, item.config_type, item.config.decode("utf-8"), [list(source.__dict__.values()) for source in item.files]]
                for item in options.lock.artifacts
            ],
            "part_size": options.part_size,
            "base": options.base.identity if options.base else None,
        }
        return hashlib.sha256(canonical_json(asked)).hexdigest()

    def resolve(self) -> None:
        """Get all manifests; afterwards every blob's size and source is known."""
        self.progress.begin("resolve", 0, len(self.options.lock.refs))

        def root(item: RefItem) -> tuple[RefItem, Manifest]:
            client = self.access.client(item.ref.registry)
            found = client.get_manifest(item.ref.repository, item.digest or item.ref.lookup)
            self.progress.item()
            return item, found

        roots = map_together(self.options.lock.refs, root)
        wanted: dict[tuple[str, str, str], None] = {}
        for item, manifest in roots:
            for child in self._wanted_children(item, manifest):
                wanted[(item.ref.registry, item.ref.repository, child.digest)] = None
        children: dict[str, Manifest] = {manifest.digest: manifest for _item, manifest in roots}
        seen_digests = set(children)
        jobs = []
        for registry, repository, digest in wanted:
            if digest not in seen_digests:
                seen_digests.add(digest)
                jobs.append((registry, repository, digest))

        def child_of(job: tuple[str, str, str]) -> Manifest:
            registry, repository, digest = job
            try:
                return self.access.client(registry).get_manifest(repository, digest)
            except RegistryError as error:
                if error.status == 404:
                    raise MirrorError(
                        f"{registry}/{repository}: its index lists {digest}, which the registry does not "
                        "have. The image is broken there; name the platforms wanted, or push it anew."
                    ) from error
                raise

        for manifest in map_together(jobs, child_of):
            children[manifest.digest] = manifest
        for item, manifest in roots:
            self._add_ref(item, manifest, children)

    def _wanted_children(self, item: RefItem, manifest: Manifest) -> list[Descriptor]:
        children = manifest.children()
        found = [child for child in children if platform_wanted(child.platform, item.platforms)]
        if children and not found:
            names = ", ".join(sorted({platform_name(child.platform) for child in children}))
            raise UsageError(f"{item.name}: has none of the platforms {', '.join(item.platforms)}. It has {names}.")
        return found

    def _need(self, digest: str, size: int, where: str, source: tuple[str, str, str], repository: str) -> None:
        need = self.needs.setdefault(digest, _Need(size))
        if need.size != size:
            raise BundleError(f"{where}: names {digest} with {size} bytes, another manifest says {need.size}.")
        if source not in need.sources:
            need.sources.append(source)
        if repository not in need.repositories:
            need.repositories.append(repository)

    def _need_manifest(self, manifest: Manifest, item: RefItem, repository: str) -> None:
        self._need(manifest.digest, manifest.size, item.name, ("manifest", item.ref.registry, item.ref.repository), repository)
        self.needs[manifest.digest].body = manifest.body
        self.media[manifest.digest] = manifest.media_type

    def _add_ref(self, item: RefItem, root: Manifest, manifests: Mapping[str, Manifest]) -> None:
        repository = item.target_name.partition(":")[0]
        self._need_manifest(root, item, repository)
        images = [root]
        missing: list[str] = []
        chosen = ""
        if root.is_index:
            wanted = self._wanted_children(item, root)
            images = [manifests[child.digest] for child in wanted]
            kept = {child.digest for child in wanted}
            missing = [child.digest for child in root.children() if child.digest not in kept]
            chosen = wanted[0].digest if missing and wanted else ""
        for image in images:
            if image is not root:
                self._need_manifest(image, item, repository)
            if image.is_index:
                raise MirrorError(f"{item.name}: an index inside an index is not supported ({image.digest}).")
            config = image.data.get("config")
            if config:
                self.configs.add(str(config.get("digest")))
            for blob in image.blobs():
                self._need(blob.digest, blob.size, item.name, ("blob", item.ref.registry, item.ref.repository), repository)
        kind = "chart" if not root.is_index and '"application/vnd.cncf.helm.config' in root.body.decode("utf-8", "replace") else "image"
        self.refs.append(
            BundleRef(item.name, kind, item.target_name, root.digest, item.platforms, tuple(missing), chosen, item.why),
        )

    def add_artifacts(self) -> None:
        """Turn files into OCI artifacts; what is not known yet (size, digest) is fetched first."""
        for place, item in enumerate(self.options.lock.artifacts):
            layers = []
            for number, source in enumerate(item.files):
                origin = f"{place}:{number}" if source.url else source.origin
                if not source.known:
                    source = self._stage(source)
                    origin = source.origin
                digest = f"sha256:{source.sha256}"
                notes = {"org.opencontainers.image.title": source.filename, "io.onprem.mode": source.mode}
                layers.append({"annotations": notes, "digest": digest, "mediaType": source.media_type, "size": source.size})
                self._need(digest, source.size or 0, item.target_name, ("url" if source.url else "path", "", origin), item.repository)
            config = "sha256:" + hashlib.sha256(item.config).hexdigest()
            self._need(config, len(item.config), item.target_name, ("body", "", ""), item.repository)
            self.needs[config].body = item.config
            data: dict[str, Any] = {
                "config": {"digest": config, "mediaType": item.config_type, "size": len(item.config)},
                "layers": layers,
                "mediaType": OCI_MANIFEST,
                "schemaVersion": 2,
            }
            if item.artifact_type:
                data["artifactType"] = item.artifact_type
            if item.annotations:
                data["annotations"] = dict(item.annotations)
            manifest = Manifest.from_body(json.dumps(data, sort_keys=True, separators=(",", ":")).encode("utf-8"), OCI_MANIFEST)
            self._need(manifest.digest, manifest.size, item.target_name, ("body", "", ""), item.repository)
            self.needs[manifest.digest].body = manifest.body
            self.media[manifest.digest] = OCI_MANIFEST
            why = item.why or ({"file": shown_url(item.files[0].url) if item.files[0].url else "a local file", "rule": item.kind},)
            self.refs.append(BundleRef(item.target_name, item.kind, item.target_name, manifest.digest, (), (), "", why))

    def _stage(self, source: FileSource) -> FileSource:
        """Get a file whose size or digest is not known yet, so that it can be given a place."""
        hasher, size = hashlib.sha256(), 0
        if source.path is not None:
            try:
                with open(source.path, "rb") as stream:
                    for data in iter(lambda: stream.read(1 << 20), b""):
                        hasher.update(data)
                        size += len(data)
            except OSError as error:
                raise UsageError(f"{source.path}: cannot be read: {error.strerror}.") from error
            return self._known(source, hasher.hexdigest(), size, source.path)
        if self.options.dry_run:
            return FileSource(source.filename, source.url, None, source.sha256 or "0" * 64, source.size or 0, source.mode, source.media_type)
        folder = self.work / "files"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / hashlib.sha256(source.origin.encode("utf-8")).hexdigest()
        if not path.exists():
            temporary = path.with_suffix(".part")
            with open(temporary, "wb") as out:
                for attempt in range(self.access.patience.tries):
                    out.seek(0)
                    out.truncate()
                    try:
                        for view in self._url_stream(source.origin):
                            out.write(view)
                            self._moved(len(view))
                        break
                    except Broken as error:
                        if attempt + 1 >= self.access.patience.tries:
                            raise NetworkError(f"{shown_url(source.origin)}: {error}") from error
                        sleep_or_stop(self.access.stop, self.access.patience.wait(attempt, None))
            os.replace(temporary, path)
        with open(path, "rb") as stream:
            for data in iter(lambda: stream.read(1 << 20), b""):
                hasher.update(data)
                size += len(data)
        try:
            return self._known(source, hasher.hexdigest(), size, str(path))
        except MirrorError:
            path.unlink()
            raise

    @staticmethod
    def _known(source: FileSource, sha256: str, size: int, path: str) -> FileSource:
        if source.sha256 is not None and source.sha256 != sha256:
            raise DigestMismatch(
                f"{shown_url(source.url) if source.url else source.path}: has the sha256 {sha256}, the lock says {source.sha256}. Nothing was kept."
            )
        if source.size is not None and source.size != size:
            raise DigestMismatch(f"{shown_url(source.url) if source.url else source.path}: has {size} bytes, the lock says {source.size}. Nothing was kept.")
        return FileSource(source.filename, None, path, sha256, size, source.mode, source.media_type)

    def _url_client(self, url: str) -> RegistryClient:
        return self.access.client(urlsplit(url).netloc.rpartition("@")[2])

    def _url_stream(self, url: str) -> Iterator[memoryview]:
        with self._url_client(url).request("GET", url, scopes=frozenset(), what=shown_url(url)) as response:
            yield from _decoded(response)

    # --- 2. plan ----------------------------------------------------------------------------------------------------

    def plan(self) -> dict[str, Any]:
        """The manifest of the bundle as far as it is known before the data is there, plus sources."""
        base = self.options.base
        wanted = {digest: need.size for digest, need in self.needs.items()}
        spared = base.spared(wanted) if base else set()
        # Manifests and configs are small and make a delta explain itself; they always travel.
        spared = {digest for digest in spared if self.needs[digest].body is None and digest not in self.configs}
        names = sorted({name for need in self.needs.values() for name in need.repositories})
        number = {name: index for index, name in enumerate(names)}
        refs = sorted(self.refs, key=lambda ref: (ref.name, ref.target))
        # The order of loading: manifests and small things first, then image by image.
        self.order = [digest for digest in sorted(self.needs) if self.needs[digest].body is not None]
        kept = set(self.order)
        rest = [digest for digest in self.needs if digest not in kept and digest not in spared]
        small = sorted(digest for digest in rest if self.needs[digest].size <= 64 << 10)
        self.order += small + [digest for digest in rest if self.needs[digest].size > 64 << 10]
        seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or 0)
        data: dict[str, Any] = {
            "created": datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "format": FORMAT,
            "refs": [ref.as_data() for ref in refs],
            "repositories": names,
            "source": self.source_key(),
            "tools": [ENGINE],
        }
        if self.options.part_size:
            data["part_size"] = self.options.part_size
        if base:
            data["requires"] = {
                "base": base.identity,
                "kind": base.kind,
                "blobs": [{"d": digest, "s": self.needs[digest].size, "repos": sorted(set(base.repositories.get(digest) or ()))} for digest in sorted(spared)],
            }
        data["blobs"] = []
        for digest in self.order:
            entry: dict[str, Any] = {"d": digest, "s": self.needs[digest].size, "r": sorted(number[name] for name in self.needs[digest].repositories)}
            if digest in self.media:
                entry["m"] = self.media[digest]
            data["blobs"].append(entry)
        data["id"] = bundle_identity(data)
        index = oci_index(refs, wanted, self.media)
        pyz = build_pyz()
        bound = len(canonical_json(data)) + 64 * len(self.order) + 4096
        if self.options.part_size:
            bound += 160 * (sum(need.size for need in self.needs.values()) // self.options.part_size + 2) * 2
        closing = closing_size(bound, len(index), len(pyz))
        places, ends = plan_layout([(digest, wanted[digest]) for digest in self.order], self.options.part_size, closing)
        sources = {digest: [list(source) for source in self.needs[digest].sources] for digest in self.order if self.needs[digest].body is None}
        return {
            "format": PLAN_FORMAT,
            "key": data["source"],
            "manifest": data,
            "places": {digest: [[piece.part, piece.offset, piece.size] for piece in pieces] for digest, pieces in places.items()},
            "ends": ends,
            "closing": closing,
            "sources": sources,
            "spared": {digest: self.needs[digest].size for digest in spared},
            "warnings": self.warnings,
        }

    def check_space(self, plan: Mapping[str, Any]) -> None:
        """Is there room for everything, before the first byte."""
        need = sum(plan["ends"]) + plan["closing"] * len(plan["ends"])
        have = sum(path.stat().st_blocks * 512 for path in self.work.glob("*.tar"))
        free = shutil.disk_usage(self.output).free
        if need - have > free:
            raise SpaceError(
                f"{self.output}: the bundle needs {need} bytes, {have} are there from an earlier run, and "
                f"only {free} are free. Free {need - have - free} bytes or give another output folder."
            )

    # --- 3. transfer ------------------------------------------------------------------------------------------------

    def transfer(self, plan: dict[str, Any], old: Optional[Bundle]) -> None:
        """Get all blobs to their places."""
        manifest = plan["manifest"]
        parts = len(plan["ends"])
        digests = [blob["d"] for blob in manifest["blobs"]]
        self.places = {digest: [Piece(*at) for at in plan["places"][digest]] for digest in digests}
        self.sizes = {blob["d"]: blob["s"] for blob in manifest["blobs"]}
        self.index = {digest: number for number, digest in enumerate(digests)}
        self.sources: dict[str, list[list[str]]] = {digest: [self._real(*source) for source in found] for digest, found in plan["sources"].items()}
        self.fds = {number: os.open(self.work / part_name(manifest["id"], number), os.O_RDWR | os.O_CREAT, 0o644) for number in range(1, parts + 1)}
        self.state = _State(self.work / "state", len(digests))
        try:
            if plan.get("boot") != boot_id() or not boot_id():
                self._recheck(digests)
                plan["boot"] = boot_id()
                replace_json(self.work / "plan.json", plan)
            for number in range(1, parts + 1):
                self._write_frame(manifest["id"], number, parts, plan["ends"][number - 1])
            done = sum(self.state.count(self.index[digest]) for digest in digests)
            self.progress.begin("fetch", sum(self.sizes.values()), len(digests))
            self.progress.add(done)
            self.progress.item(sum(1 for digest in digests if self.state.done(self.index[digest])))
            for digest in digests:
                body = self.needs[digest].body if digest in self.needs else None
                if not self.state.done(self.index[digest]) and body is not None:
                    self._restart(digest)
                    self._write(digest, 0, memoryview(body))
                    self._finished(digest)
            if old is not None:
                self._reuse([digest for digest in digests if not self.state.done(self.index[digest]) and old.has(digest)], old)
            self._queue([digest for digest in digests if not self.state.done(self.index[digest])])
        except OSError as error:
            if is_no_space(error):
                raise SpaceError(f"{self.output}: the disk is full. What was fetched is kept; free some space and run the same command again.") from error
            raise

    def _real(self, kind: str, host: str, where: str) -> list[str]:
        """URLs are not written into the plan, as links may be signed: it holds their place in the lock."""
        if kind == "url":
            place, _colon, number = where.partition(":")
            where = self.options.lock.artifacts[int(place)].files[int(number)].origin
        return [kind, host, where]

    def _recheck(self, digests: Sequence[str]) -> None:
        """Another boot: believe only what the disk really holds."""
        for digest in digests:
            index = self.index[digest]
            if self.state.done(index):
                hasher = self._hash_prefix(digest, self.sizes[digest])
                if hasher is None or "sha256:" + hasher.hexdigest() != digest:
                    self.state.set(index, 0)

    def _write_frame(self, bundle_id: str, number: int, parts: int, end: int) -> None:
        """Headers and filler; padding is left to the file system's zeros."""
        fd = self.fds[number]
        os.ftruncate(fd, end)
        members = part_members(bundle_id, number, parts, self.places)
        for position, head, member in between(members):
            pwrite_all(fd, head, position)
            if member.body is not None:
                pwrite_all(fd, member.body, member.offset)

    def _write(self, digest: str, offset: int, view: memoryview) -> None:
        index, done = self.index[digest], offset
        for piece in self.places[digest]:
            if not len(view):
                break
            if offset >= piece.size:
                offset -= piece.size
                continue
            take = min(piece.size - offset, len(view))
            pwrite_all(self.fds[piece.part], view[:take], piece.offset + offset)
            view, done, offset = view[take:], done + take, 0
        self.state.set(index, done)

    def _hash_prefix(self, digest: str, count: int) -> Optional[Any]:
        """The hash over the first *count* bytes that are on disk."""
        hasher = hashlib.sha256()
        for piece in self.places[digest]:
            position, end = piece.offset, piece.offset + min(piece.size, count)
            count -= end - position
            while position < end:
                data = os.pread(self.fds[piece.part], min(BUFFER, end - position), position)
                if not data:
                    return None
                hasher.update(data)
                position += len(data)
        return hasher

    def _restart(self, digest: str) -> None:
        index = self.index[digest]
        self.progress.add(-self.state.count(index))
        self.state.set(index, 0)

    def _finished(self, digest: str) -> None:
        self.state.set(self.index[digest], self.sizes[digest], done=True)
        self.progress.item()

    def _moved(self, count: int) -> None:
        with self._count_lock:
            self.moved += count
        self.progress.add(count)

    def _reuse(self, digests: Sequence[str], old: Bundle) -> None:
        """Take from the bundle that lies in the folder what it has; checked like anything else."""
        for digest in digests:
            if self.access.stop.is_set():
                raise Stopped("Stopped; run the same command again to go on.")
            self._restart(digest)
            offset = 0

            def sink(data: bytes, digest: str = digest) -> None:
                nonlocal offset
                self._write(digest, offset, memoryview(data))
                offset += len(data)
                self.progress.add(len(data))

            try:
                old.stream(digest, sink)
            except (MirrorError, OSError) as error:
                if isinstance(error, OSError) and is_no_space(error):
                    raise
                self._restart(digest)
                continue
            self.reused += self.sizes[digest]
            self._finished(digest)

    def _queue(self, digests: Sequence[str]) -> None:
        """One queue over all blobs: the largest first, one lane for the smallest; each registry has its own limit."""
        waiting: dict[str, list[str]] = {}
        for digest in sorted(digests, key=lambda item: (self.sizes[item] - self.state.count(self.index[item]), item)):
            kind, host, where = self.sources[digest][0]
            key = host or (urlsplit(where).netloc.rpartition("@")[2] if kind == "url" else "")
            waiting.setdefault(key, []).append(digest)
        clients = {key: self.access.client(key) if key else None for key in waiting}
        condition = threading.Condition()
        running = dict.fromkeys(waiting, 0)
        small_lane: dict[str, bool] = dict.fromkeys(waiting, False)
        problems: list[MirrorError] = []
        crashes: list[BaseException] = []
        halt = threading.Event()

        def take() -> Optional[tuple[str, str, bool]]:
            with condition:
                while True:
                    if halt.is_set() or self.access.stop.is_set() or not any(waiting.values()):
                        return None
                    for key in sorted(waiting, key=lambda name: -sum(self.sizes[item] for item in waiting[name][-1:])):
                        client = clients[key]
                        if waiting[key] and running[key] < (client.adaptive.limit if client else 2):
                            running[key] += 1
                            small = not small_lane[key] and running[key] > 1
                            if small:
                                small_lane[key] = True
                                return key, waiting[key].pop(0), True
                            return key, waiting[key].pop(), False
                    condition.wait(0.2)

        def lane() -> None:
            buffer = memoryview(b"")
            while True:
                job = take()
                if job is None:
                    return
                # Most lanes never get anything to do.
                buffer = buffer or memoryview(bytearray(PIECE))
                key, digest, small = job
                try:
                    self._get(digest, buffer, halt)
                    client = clients[key]
                    if client:
                        client.adaptive.done(self.sizes[digest])
                except (Stopped, NetworkError) as error:
                    problems.append(error)
                    halt.set()
                except MirrorError as error:
                    problems.append(error)
                    if len(problems) >= 20:
                        halt.set()
                except BaseException as error:  # handed on to the caller's thread below
                    crashes.append(error)
                    halt.set()
                finally:
                    with condition:
                        running[key] -= 1
                        if small:
                            small_lane[key] = False
                        condition.notify_all()

        most = min(len(digests), sum(client.adaptive.ceiling if client else 2 for client in clients.values()), 32)
        threads = [threading.Thread(target=lane, name=f"fetch-{number}", daemon=True) for number in range(most)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if crashes:
            raise crashes[0]
        if self.access.stop.is_set():
            raise Stopped("Stopped; what was fetched is kept. Run the same command again to go on.")
        raise_together(problems)

    def _get(self, digest: str, buffer: memoryview, halt: threading.Event) -> None:
        """One blob: from wherever it can be had, to its place, checked."""
        problem = MirrorError(f"{digest}: there is no place to get it from.")
        for kind, host, where in self.sources[digest]:
            try:
                if kind == "path":
                    self._get_path(digest, where)
                else:
                    self._get_http(digest, kind, host, where, buffer, halt)
                return
            except RegistryError as error:
                problem = error
        raise problem

    def _get_path(self, digest: str, path: str) -> None:
        self._restart(digest)
        hasher, offset = hashlib.sha256(), 0
        try:
            with open(path, "rb") as stream:
                for data in iter(lambda: stream.read(1 << 20), b""):
                    hasher.update(data)
                    if offset + len(data) > self.sizes[digest]:
                        break
                    self._write(digest, offset, memoryview(data))
                    offset += len(data)
                    self.progress.add(len(data))
        except OSError as error:
            if is_no_space(error):
                raise
            raise UsageError(f"{path}: cannot be read: {error.strerror}.") from error
        if "sha256:" + hasher.hexdigest() != digest:
            self._restart(digest)
            raise DigestMismatch(f"{path}: has the digest sha256:{hasher.hexdigest()}, expected {digest}. It is not the file that the lock names.")
        self._finished(digest)

    def _get_http(self, digest: str, kind: str, host: str, where: str, buffer: memoryview, halt: threading.Event) -> None:
        size, index = self.sizes[digest], self.index[digest]
        client = self.access.client(host) if kind != "url" else self._url_client(where)
        what = shown_url(where) if kind == "url" else f"{host}/{where}@{digest}"
        offset = self.state.count(index)
        hasher: Any = None
        if offset:
            hasher = self._hash_prefix(digest, offset)
        if hasher is None:
            self._restart(digest)
            offset, hasher = 0, hashlib.sha256()
        fruitless = mismatches = 0
        furthest = offset  # only going further than ever counts as progress, or a server that lies keeps us busy for ever
        while True:
            try:
                if offset < size or size == 0:
                    if kind == "url":
                        headers = {"Range": f"bytes={offset}-"} if offset else {}
                        opened = client.request("GET", where, scopes=frozenset(), headers=headers, good=(200, 206, 416), what=what)
                    elif kind == "manifest":
                        opened = client.request("GET", client._manifest_url(where, digest), [where], good=(200,), what=what)
                    else:
                        opened = client.open_blob(where, digest, offset)
                    with opened as response:
                        resumed = response.status == 206 and response.headers.get("content-range").startswith(f"bytes {offset}-")
                        encoded = response.headers.get("content-encoding").lower() not in ("", "identity")
                        if offset and (not resumed or encoded):
                            # The server cannot go on in the middle: from the start.
                            self._restart(digest)
                            offset, hasher = 0, hashlib.sha256()
                            if response.status != 200:
                                fruitless += 1
                                mismatches += response.status == 416
                                if mismatches >= 2:
                                    raise DigestMismatch(f"{what}: is shorter than the {size} bytes that its manifest or lock names. Nothing was kept.")
                                if fruitless >= self.access.patience.tries:
                                    raise NetworkError(f"{what}: the server cannot go on in the middle of a file. Run the same command again.")
                                continue
                        for view in _decoded(response, buffer):
                            if offset + len(view) > size:
                                raise DigestMismatch(f"{what}: is larger than the {size} bytes that its manifest or lock names. Nothing was kept.")
                            hasher.update(view)
                            self._write(digest, offset, view)
                            offset += len(view)
                            self._moved(len(view))
                            if self.access.stop.is_set() or halt.is_set():
                                raise Stopped("Stopped; what was fetched is kept. Run the same command again to go on.")
                if offset < size:
                    mismatches += 1
                    if mismatches >= 2:
                        raise DigestMismatch(f"{what}: has {offset} bytes, its manifest or lock says {size}. Nothing was kept.")
                    raise Broken(f"the server gave {offset} of {size} bytes")
                if "sha256:" + hasher.hexdigest() == digest:
                    self._finished(digest)
                    return
                mismatches += 1
                if mismatches >= 2:
                    raise DigestMismatch(f"{what}: the content has the digest sha256:{hasher.hexdigest()}, twice. Nothing was kept.")
                # What an earlier run left may be damaged: once from the start.
                self._restart(digest)
                offset, hasher = 0, hashlib.sha256()
            except DigestMismatch:
                self._restart(digest)
                raise
            except Broken as error:
                fruitless = 0 if offset > furthest else fruitless + 1
                furthest = max(furthest, offset)
                client.retries += 1
                client.adaptive.back_off()
                if fruitless >= self.access.patience.tries:
                    raise NetworkError(f"{what}: {error}. What was fetched is kept; run the same command again.") from error
                sleep_or_stop(self.access.stop, self.access.patience.wait(fruitless, None))

    # --- 4. close ---------------------------------------------------------------------------------------------------

    def finish(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        """Write the closing sections and give the parts their names."""
        self.progress.begin("close")
        data = dict(plan["manifest"])
        parts = len(plan["ends"])
        for blob in data["blobs"]:
            pieces = self.places[blob["d"]]
            if len(pieces) > 1:
                pieces = [Piece(piece.part, piece.offset, piece.size, self._hash_piece(piece)) for piece in pieces]
                self.places[blob["d"]] = pieces
            blob["at"] = [[piece.part, piece.offset, piece.size, *([piece.sha256] if piece.sha256 else [])] for piece in pieces]
        data["parts"] = [
            {"digest": part_digest(part_members(data["id"], number, parts, self.places)), "extents": plan["ends"][number - 1], "n": number}
            for number in range(1, parts + 1)
        ]
        raw = canonical_json(data)
        refs = [
            BundleRef(ref["name"], ref["kind"], ref["target"], ref["digest"], (), tuple(ref.get("missing") or ()), "", tuple(ref.get("why") or ()))
            for ref in data["refs"]
        ]
        media = {blob["d"]: blob["m"] for blob in data["blobs"] if "m" in blob}
        index = oci_index(refs, self.sizes, media)
        pyz = build_pyz()
        try:
            for number, fd in self.fds.items():
                total = write_closing(fd, data["id"], number, parts, plan["ends"][number - 1], raw, index, pyz, {})
                if self.options.part_size and total > self.options.part_size:
                    raise MirrorError(
                        f"Part {number} has {total} bytes, more than {self.options.part_size}: the closing section was planned too small. Please report this."
                    )
                os.fsync(fd)
            publish_bytes(self.output / PYZ_NAME, pyz, 0o755)
            names = [part_name(data["id"], number) for number in self.fds]
            for name in names:
                os.replace(self.work / name, self.output / name)
            # A signature of what was there before must not stand beside what is new.
            for suffix in SIGNATURE_SUFFIXES:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.output / (MANIFEST_NAME + suffix))
            publish_bytes(self.output / MANIFEST_NAME, raw, 0o644)
        except OSError as error:
            if is_no_space(error):
                raise SpaceError(f"{self.output}: the disk is full. What was fetched is kept; free some space and run the same command again.") from error
            raise
        for path in self.output.glob("bundle-*-*.tar"):
            if path.name not in names:
                path.unlink()
        return data

    def _hash_piece(self, piece: Piece) -> str:
        hasher = hashlib.sha256()
        position, end = piece.offset, piece.offset + piece.size
        while position < end:
            data = os.pread(self.fds[piece.part], min(1 << 20, end - position), position)
            hasher.update(data)
            position += len(data)
        return hasher.hexdigest()

    def close(self) -> None:
        for fd in getattr(self, "fds", {}).values():
            os.close(fd)
        state = getattr(self, "state", None)
        if state is not None:
            state.close()


def publish_bytes(path: Path, body: bytes, mode: int) -> None:
    """A small file that is there whole or not at all, and on disk before it gets its name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(body)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def _decoded(response: Response, buffer: Optional[memoryview] = None) -> Iterator[memoryview]:
    """The body, with Content-Encoding: gzip undone (object stores send it whether it was asked for or not)."""
    if buffer is None:
        buffer = memoryview(bytearray(BUFFER))
    encoding = response.headers.get("content-encoding").lower()
    if encoding in ("", "identity"):
        while True:
            count = response.read_into(buffer)
            if not count:
                return
            yield buffer[:count]
    if encoding not in ("gzip", "x-gzip"):
        raise RegistryError(f"{shown_url(response.url)}: came with Content-Encoding {encoding[:40]!r}; only gzip can be unpacked.")
    unpacker = zlib.decompressobj(31)
    try:
        while True:
            count = response.read_into(buffer)
            if not count:
                break
            data = bytes(buffer[:count])
            while data:
                piece = unpacker.decompress(data, BUFFER)
                data = unpacker.unconsumed_tail
                if piece:
                    yield memoryview(piece)
                if unpacker.eof:
                    break
    except zlib.error as error:
        raise RegistryError(f"{shown_url(response.url)}: says it is gzip and is not ({error}).") from error
    if not unpacker.eof:
        raise Broken("the packed content ends too early")


def compare(old: Optional[Bundle], refs: Sequence[Mapping[str, Any]], sizes: Mapping[str, int]) -> list[Change]:
    """Names added, changed and removed against the bundle that is there."""
    before = {f"{ref.name} -> {ref.target}" if ref.kind == "image" else ref.name: ref.digest for ref in old.refs} if old else {}
    after = {f"{ref['name']} -> {ref['target']}" if ref["kind"] == "image" else str(ref["name"]): str(ref["digest"]) for ref in refs}
    changes = []
    for name in sorted({**before, **after}):
        if before.get(name) != after.get(name):
            changes.append(Change(name.split(" -> ")[0], before.get(name), after.get(name), sizes.get(after.get(name, ""), 0)))
    return changes


def existing_bundle(output: Path) -> Optional[Bundle]:
    """The whole bundle in a folder, None when there is none or it is not whole."""
    if not (output / MANIFEST_NAME).is_file():
        return None
    bundle = None
    try:
        bundle = Bundle.open([output])
        for number in range(1, bundle.parts + 1):
            bundle.part_fd(number)
    except MirrorError:
        if bundle is not None:
            bundle.close()
        return None
    return bundle


def _unchanged(old: Bundle, fetcher: _Fetcher) -> bool:
    """One request for each name that is not pinned tells whether anything is new."""
    lock = fetcher.options.lock
    if old.manifest.get("source") != fetcher.source_key() or not all(source.known for item in lock.artifacts for source in item.files):
        return False
    digests = {(ref.name, ref.target): ref.digest for ref in old.refs}

    def same(item: RefItem) -> bool:
        known = digests.get((item.name, item.target_name))
        if item.digest:
            return item.digest == known
        return known is not None and fetcher.access.client(item.ref.registry).head_manifest(item.ref.repository, item.ref.lookup) == known

    return all(map_together(lock.refs, same))


def fetch(options: FetchOptions, progress: Optional[Progress] = None) -> FetchResult:
    """Make the bundle that the lock describes, or bring the one in the folder up to date."""
    progress = progress or Progress()
    if not options.lock.refs and not options.lock.artifacts:
        raise UsageError("The lock is empty: there is nothing to fetch.")
    fetcher = _Fetcher(options, progress)
    requests = options.access.requests
    output = fetcher.output
    held: Optional[int] = None
    old: Optional[Bundle] = None
    try:
        if not options.dry_run:
            fetcher.work.mkdir(parents=True, exist_ok=True)
            held = os.open(fetcher.work / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(f"{output}: another fetch is writing there. Wait for it, or give another output folder.") from None
        old = existing_bundle(output)
        plan = _unfinished(fetcher)
        if plan is None and old is not None and _unchanged(old, fetcher):
            total = sum(old.sizes.values())
            if not options.dry_run:
                shutil.rmtree(fetcher.work, ignore_errors=True)
            progress.end("unchanged")
            return FetchResult(
                old.id, False, [], total, requests=options.access.requests - requests, parts=[part_name(old.id, n) for n in range(1, old.parts + 1)]
            )
        if plan is None:
            fetcher.resolve()
            fetcher.add_artifacts()
            plan = fetcher.plan()
            if not options.dry_run:
                _forget(fetcher, keep=("lock", "files"))
                fetcher.check_space(plan)
                replace_json(fetcher.work / "plan.json", dict(plan, boot=boot_id(), bodies=_bodies(fetcher)))
                plan = dict(plan, boot=boot_id(), bodies=_bodies(fetcher))
        elif not options.dry_run:
            fetcher.check_space(plan)
        manifest = plan["manifest"]
        image_sizes = {blob["d"]: blob["s"] for blob in manifest["blobs"]}
        changes = compare(old, manifest["refs"], _ref_sizes(manifest, image_sizes))
        changed = old is None or old.id != manifest["id"] or old.manifest.get("source") != manifest["source"]
        total = sum(image_sizes.values())
        names = [part_name(manifest["id"], number) for number in range(1, len(plan["ends"]) + 1)]
        if not options.dry_run and changed:
            _restore_bodies(fetcher, plan)
            fetcher.transfer(plan, old)
            fetcher.finish(plan)
        if not options.dry_run:
            shutil.rmtree(fetcher.work, ignore_errors=True)
        progress.end("done")
        return FetchResult(
            manifest["id"], changed, changes, total, fetcher.moved, fetcher.reused, options.access.requests - requests,
            sum(client.retries for client in options.access.clients()), names, list(plan.get("warnings") or ()),
        )
    finally:
        fetcher.close()
        if old is not None:
            old.close()
        if held is not None:
            os.close(held)


def _bodies(fetcher: _Fetcher) -> dict[str, str]:
    return {digest: need.body.decode("utf-8", "surrogateescape") for digest, need in fetcher.needs.items() if need.body is not None}


def _restore_bodies(fetcher: _Fetcher, plan: Mapping[str, Any]) -> None:
    for digest, text in plan["bodies"].items():
        body = text.encode("utf-8", "surrogateescape")
        fetcher.needs.setdefault(digest, _Need(len(body))).body = body


def _ref_sizes(manifest: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, int]:
    """Roughly what a name brings: the bytes in its repository, by the digest of its root."""
    by_repository: dict[int, int] = {}
    for blob in manifest["blobs"]:
        for number in blob.get("r") or ():
            by_repository[number] = by_repository.get(number, 0) + sizes[blob["d"]]
    numbers = {name: number for number, name in enumerate(manifest["repositories"])}
    return {ref["digest"]: by_repository.get(numbers.get(ref["target"].partition(":")[0], -1), 0) for ref in manifest["refs"]}


def _unfinished(fetcher: _Fetcher) -> Optional[dict[str, Any]]:
    """The plan of an interrupted run of the same lock."""
    try:
        plan = json.loads((fetcher.work / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(plan, dict) or plan.get("format") != PLAN_FORMAT or plan.get("key") != fetcher.source_key():
        return None
    if plan["manifest"].get("id") != bundle_identity(plan["manifest"]):
        return None
    return plan


def _forget(fetcher: _Fetcher, keep: Sequence[str]) -> None:
    """Remove what an unfinished fetch of something else left."""
    for path in fetcher.work.iterdir():
        if path.name not in keep:
            path.unlink()


__all__ = ["Change", "FetchOptions", "FetchResult", "fetch"]
