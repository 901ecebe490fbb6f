# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load: from a bundle into a registry, straight from the parts.

One HEAD per reference tells what is there already. Of the rest, each blob goes up once, into its home repository, and is mounted from there into the others.
Children go before their index, a tag goes last: whoever sees a tag can pull all of it.

The POST that opens an upload always asks to mount the blob from the repository itself: a registry that has it answers 201, one that does not opens
the upload as asked, so the question is free and a second run after a kill skips what is there without a HEAD for each blob.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

from .access import Access
from .bundle import Bundle, BundleRef
from .delta import RECEIPT_FORMAT
from .errors import BaseMissing, Broken, BundleError, MirrorError, NetworkError, RegistryError, Stopped, UsageError
from .oci import Manifest, check_repository, digest_of
from .progress import Progress, replace_json
from .registry import RegistryClient, TooLarge, Upload, UploadLost
from .sign import Trust, check_trust
from .together import Change, map_together, raise_together
from .transport import sleep_or_stop

CHUNK = 16 << 20
SMALLEST_CHUNK = 64 << 10
LARGE = 256 << 20
LARGE_AT_ONCE = 2
_BLOB_UNKNOWN = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNVERIFIED"})


@dataclass
class LoadOptions:
    """What to load, where to, and how."""

    directories: Sequence[Path]
    registry: str
    access: Access = field(default_factory=Access)
    trust: Trust = field(default_factory=Trust)
    state: Optional[Path] = None
    receipt: Optional[Path] = None
    mapping: Mapping[str, str] = field(default_factory=dict)
    chunk_size: int = CHUNK
    dry_run: bool = False


@dataclass
class LoadResult:
    """What a load did, or would do."""

    bundle_id: str
    registry: str
    changed: bool
    changes: list[Change]
    bytes_moved: int = 0
    blobs_uploaded: int = 0
    blobs_mounted: int = 0
    blobs_present: int = 0
    manifests_put: int = 0
    requests: int = 0
    retries: int = 0
    warnings: list[str] = field(default_factory=list)
    receipt: Optional[dict[str, Any]] = None

    def as_dict(self) -> dict[str, Any]:
        data = dict(self.__dict__)
        data["changes"] = [change.as_dict() for change in self.changes]
        return data


def map_target(ref: BundleRef, mapping: Mapping[str, str]) -> tuple[str, Optional[str]]:
    """Where a name goes: its own path and tag, unless a rule (longest first) replaces the start of its full name or of its path."""
    repository, tag = ref.target_repository, ref.target_tag
    source = ref.name.partition("@")[0]
    source = source[: source.rindex(":")] if re.search(r":[^/]*$", source) else source
    for old in sorted(mapping, key=len, reverse=True):
        for name in (source, repository):
            start = old.rstrip("/")
            if name == start or name.startswith(start + "/"):
                rest = name[len(start) :].lstrip("/")
                new = mapping[old].strip("/")
                return check_repository("/".join(part for part in (new, rest) if part), f"{ref.name} mapped by {old}={mapping[old]}"), tag
    return repository, tag


class _Journal:
    """What an earlier run of this load proved or left open. Holds no credentials and no cookies."""

    def __init__(self, folder: Optional[Path], name: str) -> None:
        self.present: set[tuple[str, str]] = set()
        self.uploads: dict[tuple[str, str], Upload] = {}
        self.path: Optional[Path] = None
        self._fd = -1
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.journal"
        try:
            for line in self.path.read_text(encoding="utf-8").splitlines():
                self._read(line)
        except FileNotFoundError:
            pass
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            key = (str(entry["r"]), str(entry["d"]))
            if "l" in entry:
                self.uploads[key] = Upload(str(entry["l"]), "", int(entry["o"]))
            else:
                self.present.add(key)
                self.uploads.pop(key, None)
        except (ValueError, KeyError, TypeError):
            return  # the last line of a killed run may be cut

    def _append(self, entry: Mapping[str, Any]) -> None:
        if self._fd >= 0:
            os.write(self._fd, json.dumps(entry, separators=(",", ":")).encode("utf-8") + b"\n")

    def done(self, repository: str, digest: str) -> None:
        self._append({"r": repository, "d": digest})

    def upload(self, repository: str, digest: str, upload: Upload) -> None:
        self._append({"r": repository, "d": digest, "l": upload.location, "o": upload.offset})

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def forget(self) -> None:
        """The work is done, or what was noted is no longer true."""
        self.close()
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
        self.present.clear()
        self.uploads.clear()


class _Stale(Exception):
    """The registry lost what the journal says it has."""


@dataclass
class _Node:
    """A manifest to put: by its digest, or under a tag."""

    repository: str
    digest: str
    tag: Optional[str]
    ref: Optional[BundleRef] = None
    waits: int = 0
    parents: list[_Node] = field(default_factory=list)
    blocked: bool = False


class _Loader:
    def __init__(self, options: LoadOptions, bundle: Bundle, client: RegistryClient, progress: Progress, journal: _Journal) -> None:
        self.options, self.bundle, self.client, self.progress, self.journal = options, bundle, client, progress, journal
        self.stop = options.access.stop
        self.result = LoadResult(bundle.id, options.registry, False, [])
        self.targets = {ref: map_target(ref, options.mapping) for ref in bundle.refs}
        self.chunk = max(SMALLEST_CHUNK, options.chunk_size)
        self.reduced = False  # something on the way takes only smaller bodies
        self.mounts = True
        self.sparse_refused = False
        self.condition = threading.Condition()
        self.heap: list[tuple[int, int, int, Callable[[], None], bool]] = []
        self.counter = self.open_tasks = self.large_running = 0
        self.halt = threading.Event()
        self.problems: list[MirrorError] = []
        self.crashes: list[BaseException] = []
        self.in_repository: dict[tuple[str, str], bool] = {}
        self.waiters: dict[tuple[str, str], list[_Node]] = {}
        self.users: dict[str, list[str]] = {}
        self.wanted_parts: set[int] = set()
        self.manifests: dict[str, Manifest] = {}

    # --- what is there ----------------------------------------------------------------------------------------------

    def compare(self) -> list[BundleRef]:
        """One HEAD for each name; returns the names that are not there as they should be."""
        unique: dict[tuple[str, str], BundleRef] = {}
        for ref in self.bundle.refs:
            repository, tag = self.targets[ref]
            other = unique.setdefault((repository, tag or ref.digest), ref)
            if other.digest != ref.digest:
                raise UsageError(
                    f"{ref.name} and {other.name} would both be {self.options.registry}/{repository}:{tag}. Give one of them another place with a mapping."
                )
        self.progress.begin("compare", 0, len(unique))

        def ask(item: tuple[tuple[str, str], BundleRef]) -> Optional[str]:
            found = self.client.head_manifest(*item[0])
            self.progress.item()
            return found

        items = list(unique.items())
        pending = []
        for ((repository, reference), ref), found in zip(items, map_together(items, ask)):
            if found == ref.digest or (ref.chosen and found == ref.chosen):
                continue
            pending.append(ref)
            tag = self.targets[ref][1]
            name = f"{self.options.registry}/{repository}" + (f":{tag}" if tag else f"@{reference}")
            self.result.changes.append(Change(name, found, ref.digest, 0))
        return pending

    def _read_manifest(self, digest: str) -> Manifest:
        """A manifest from the bundle; kept in the state folder, as it may lie on a medium that is out again."""
        if digest not in self.manifests:
            folder = self.options.state / "manifests" if self.options.state is not None and self.bundle.parts > 1 else None
            path = folder / digest[7:] if folder is not None else None
            if path is not None and path.is_file():
                body = path.read_bytes()
                if digest_of(body) == digest:
                    self.manifests[digest] = Manifest.from_body(body, self.bundle.media.get(digest, ""))
                    return self.manifests[digest]
            self.manifests[digest] = self.bundle.read_manifest(digest)
            if path is not None and folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(".tmp")
                temporary.write_bytes(self.manifests[digest].body)
                os.replace(temporary, path)
        return self.manifests[digest]

    # --- the plan ---------------------------------------------------------------------------------------------------

    def plan(self, pending: Sequence[BundleRef]) -> list[_Node]:
        """All manifests to put with what each waits for."""
        nodes: dict[tuple[str, str, Optional[str]], _Node] = {}
        for ref in pending:
            repository, tag = self.targets[ref]
            root = self._read_manifest(ref.digest)
            node = nodes.setdefault((repository, ref.digest, tag), _Node(repository, ref.digest, tag))
            node.ref = ref
            if root.is_index:
                missing = set(ref.missing)
                for child in root.children():
                    if child.digest in missing:
                        continue
                    key = (repository, child.digest, None)
                    new = key not in nodes
                    below = nodes.setdefault(key, _Node(repository, child.digest, None))
                    if new:
                        self._wait_for_blobs(below, self._read_manifest(child.digest))
                    below.parents.append(node)
                    node.waits += 1
            else:
                self._wait_for_blobs(node, root)
        return list(nodes.values())

    def _wait_for_blobs(self, node: _Node, manifest: Manifest) -> None:
        for blob in manifest.blobs():
            key = (node.repository, blob.digest)
            if self.bundle.has(blob.digest) and self.bundle.sizes[blob.digest] != blob.size:
                raise BundleError(
                    f"{manifest.digest}: says {blob.digest} has {blob.size} bytes, bundle.json says {self.bundle.sizes[blob.digest]}. The bundle is not whole."
                )
            repositories = self.users.setdefault(blob.digest, [])
            if node.repository not in repositories:
                repositories.append(node.repository)
            self.waiters.setdefault(key, []).append(node)
            node.waits += 1

    def check_base(self) -> dict[str, str]:
        """Before the first byte: has the registry what a delta builds on? Returns a repository for each such blob."""
        required = self.bundle.required
        wanted = [digest for digest in self.users if not self.bundle.has(digest)]
        foreign = [digest for digest in wanted if digest not in required]
        if foreign:
            raise BundleError(
                f"The bundle lacks {len(foreign)} blobs that its manifests name ({', '.join(foreign[:3])} "
                "…) and does not say that it builds on another. It is not whole."
            )
        renamed: dict[str, list[str]] = {}
        for ref, (repository, _tag) in self.targets.items():
            renamed.setdefault(ref.target_repository, []).append(repository)

        def find(digest: str) -> Optional[str]:
            names: list[str] = [name for old in required[digest]["repos"] for name in renamed.get(old, [old])] + self.users[digest]
            for name in dict.fromkeys(names):
                if self.client.head_blob(name, digest) is not None:
                    return name
            return None

        self.progress.begin("base", 0, len(wanted))
        found: dict[str, Optional[str]] = dict(zip(wanted, map_together(wanted, find)))
        missing = [digest for digest in wanted if found[digest] is None]
        if missing:
            total = sum(required[digest]["size"] for digest in missing)
            requires = self.bundle.manifest.get("requires") or {}
            raise BaseMissing(
                f"{self.options.registry} lacks {len(missing)} of {len(wanted)} blobs ({total} bytes) that this delta builds on, for example {missing[0]}. "
                f"Load the {requires.get('kind')} base {str(requires.get('base'))[:12]} first, or carry a full bundle. Nothing was loaded."
            )
        return {digest: name for digest, name in found.items() if name is not None}

    # --- work -------------------------------------------------------------------------------------------------------

    def run(self, nodes: Sequence[_Node], held: Mapping[str, str]) -> None:
        """Do it all."""
        total = sum(self.bundle.sizes[digest] for digest in self.users if self.bundle.has(digest))
        self.progress.begin("load", total, len(nodes))
        # Taken before blobs of an earlier run are counted as arrived: that puts what waited for them, and twice would be once too often.
        ready = [node for node in nodes if node.waits == 0 and not node.blocked]
        known: dict[str, list[str]] = {}
        for name, digest in sorted(self.journal.present):
            known.setdefault(digest, []).append(name)
        for digest, repositories in sorted(self.users.items()):
            # Also repositories that are complete by now lend their blobs: the medium that held them may be out again.
            here = known.get(digest, [])
            if here:
                self.progress.add(self.bundle.sizes.get(digest, 0))
            if digest in held or here:
                source = here[0] if here else held[digest]
                for name in repositories:
                    if name in here or name == source:
                        self._arrived(name, digest)
                    else:
                        self._mount_later(name, digest, source)
            else:
                self._upload_later(repositories[0], digest)
        for node in ready:
            self._put_later(node)
        most = min(self.client.adaptive.ceiling, max(1, self.open_tasks))
        threads = [threading.Thread(target=self._lane, name=f"load-{number}", daemon=True) for number in range(most)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.crashes:
            raise self.crashes[0]
        if self.stop.is_set():
            raise Stopped("Stopped at the end of a chunk; what is loaded is kept. Run the same command again to go on.")
        raise_together(self.problems)
        if self.wanted_parts:
            raise self.bundle.missing_part(min(self.wanted_parts))

    def _push(self, rank: int, size: int, work: Callable[[], None], large: bool = False) -> None:
        with self.condition:
            self.counter += 1
            self.open_tasks += 1
            heapq.heappush(self.heap, (rank, -size, self.counter, work, large))
            self.condition.notify()

    def _next(self) -> Optional[tuple[Callable[[], None], bool]]:
        with self.condition:
            while True:
                if self.halt.is_set() or self.stop.is_set() or self.open_tasks == 0:
                    self.condition.notify_all()
                    return None
                if self.heap and self.running < self.client.adaptive.limit:
                    postponed = []
                    found = None
                    while self.heap:
                        entry = heapq.heappop(self.heap)
                        if entry[4] and self.large_running >= LARGE_AT_ONCE:
                            postponed.append(entry)
                            continue
                        found = entry
                        break
                    for entry in postponed:
                        heapq.heappush(self.heap, entry)
                    if found is not None:
                        self.running += 1
                        self.large_running += found[4]
                        return found[3], found[4]
                self.condition.wait(0.2)

    running = 0

    def _lane(self) -> None:
        while True:
            job = self._next()
            if job is None:
                return
            work, large = job
            try:
                work()
            except (Stopped, NetworkError) as error:
                self.problems.append(error)
                self.halt.set()
            except MirrorError as error:
                self.problems.append(error)
                if len(self.problems) >= 20 or isinstance(error, BundleError):
                    self.halt.set()
            except BaseException as error:  # handed on to the caller's thread
                self.crashes.append(error)
                self.halt.set()
            finally:
                with self.condition:
                    self.running -= 1
                    self.open_tasks -= 1
                    self.large_running -= large
                    self.condition.notify_all()

    def _arrived(self, repository: str, digest: str) -> None:
        """A blob is in a repository: whoever waited for it may go on."""
        ready = []
        with self.condition:
            for node in self.waiters.get((repository, digest), ()):
                node.waits -= 1
                if node.waits == 0:
                    ready.append(node)
        for node in ready:
            self._put_later(node)

    def _upload_later(self, repository: str, digest: str) -> None:
        size = self.bundle.sizes[digest]
        begun = self.journal.uploads.get((repository, digest))
        start = begun.offset if begun is not None else 0
        there, wanted = self.bundle.available(digest, start)
        if wanted is not None and there == start:
            # It lies on another medium.
            self.wanted_parts.add(wanted)
            return
        self._push(2, size, lambda: self._upload(repository, digest), size > LARGE)

    def _mount_later(self, repository: str, digest: str, source: str) -> None:
        self._push(1, 0, lambda: self._mount(repository, digest, source))

    def _put_later(self, node: _Node) -> None:
        self._push(0, 0, lambda: self._put(node))

    def _start(self, repository: str, digest: str, source: str) -> Optional[Upload]:
        if self.mounts:
            try:
                return self.client.start_upload(repository, digest, source)
            except RegistryError as error:
                if error.status not in (400, 404, 405, 415, 422):
                    raise
                # Not the upload is refused but the question: ask without.
                upload = self.client.start_upload(repository)
                self.mounts = False
                return upload
        return self.client.start_upload(repository)

    def _mount(self, repository: str, digest: str, source: str) -> None:
        upload = self._start(repository, digest, source)
        if upload is None:
            with self.condition:
                self.result.blobs_mounted += 1
        elif self.bundle.has(digest):
            self._send(repository, digest, upload)
        else:
            self.client.cancel_upload(repository, upload)
            if self.client.head_blob(repository, digest) is None:
                raise RegistryError(
                    f"{self.options.registry} has {digest} in {source} but does not lend it to {repository} "
                    "(no cross-repository mount), and the delta does not carry it. Carry a full bundle."
                )
        self.journal.done(repository, digest)
        self._arrived(repository, digest)

    def _upload(self, repository: str, digest: str) -> None:
        if not self._send(repository, digest, None):
            return
        self.journal.done(repository, digest)
        self._arrived(repository, digest)
        for other in self.users[digest]:
            if other != repository:
                self._mount_later(other, digest, repository)

    def _tick(self, count: int) -> None:
        with self.condition:
            self.result.bytes_moved += count

    def _single(self) -> int:
        """The most that goes up in one request."""
        return self.chunk if self.reduced else self.chunk * 3 // 2

    def _piece(self, size: int) -> int:
        """Chunks grow with the blob, up to four times: a stop waits for the end of a chunk, and each chunk is a request."""
        return self.chunk if self.reduced else min(4 * self.chunk, max(self.chunk, -(-size // 8)))

    def _send(self, repository: str, digest: str, upload: Optional[Upload]) -> bool:
        """Bring a blob into a repository; False when only a part of it is at hand and went up."""
        size = self.bundle.sizes[digest]
        fruitless = lost = 0
        if upload is None:
            upload = self._resumed(repository, digest)
        shown = 0

        def show(position: int) -> None:
            nonlocal shown
            self.progress.add(position - shown)
            shown = position

        while True:
            try:
                if upload is None:
                    upload = self._start(repository, digest, repository)
                    if upload is None:
                        with self.condition:
                            self.result.blobs_present += 1
                        show(size)
                        return True
                there, wanted = self.bundle.available(digest, upload.offset)
                before = upload.offset
                show(before)
                while upload.offset < there and (size - upload.offset > self._single() or wanted is not None):
                    take = min(self._piece(size), there - upload.offset)
                    upload = self.client.patch_upload(repository, upload, self.bundle.slices(digest, upload.offset, take), self._tick)
                    self.journal.upload(repository, digest, upload)
                    show(upload.offset)
                    fruitless = 0
                    if self.stop.is_set() or self.halt.is_set():
                        raise Stopped("Stopped at the end of a chunk; what is loaded is kept. Run the same command again to go on.")
                if wanted is not None:
                    with self.condition:
                        self.wanted_parts.add(wanted)
                    return False
                self.client.finish_upload(repository, upload, digest, self.bundle.slices(digest, upload.offset), self._tick)
                show(size)
                with self.condition:
                    self.result.blobs_uploaded += 1
                self.client.adaptive.done(size - before)
                return True
            except TooLarge:
                if self.chunk <= SMALLEST_CHUNK:
                    raise RegistryError(
                        f"{self.options.registry}: refuses even {SMALLEST_CHUNK} bytes in one request (413). Raise the body size limit of the proxy before it.",
                        413,
                    ) from None
                with self.condition:
                    self.chunk, self.reduced = max(SMALLEST_CHUNK, min(self._piece(size), size) // 2), True
                upload = None
            except UploadLost as error:
                lost += 1
                upload = None
                if lost >= self.client.patience.tries:
                    raise NetworkError(f"{error}, {lost} times. What is loaded is kept; run the same command again.") from error
                sleep_or_stop(self.stop, min(2.0, self.client.patience.wait(lost, None)))
            except Broken as error:
                fruitless += 1
                self.client.retries += 1
                if fruitless >= self.client.patience.tries:
                    raise NetworkError(
                        f"{self.options.registry}/{repository}@{digest}: {error}. What is loaded is kept; run the same command again."
                    ) from error
                sleep_or_stop(self.stop, self.client.patience.wait(fruitless - 1, None))
                # Some registries keep what came; distribution forgets an upload that was cut in the middle of a body.
                upload = self.client.upload_status(repository, upload) if upload is not None and size > self._single() else None
                if upload is not None and upload.offset > size:
                    upload = None
            except RegistryError as error:
                if error.code == "DIGEST_INVALID":
                    self.bundle.stream(digest, lambda data: None)
                raise

    def _resumed(self, repository: str, digest: str) -> Optional[Upload]:
        known = self.journal.uploads.get((repository, digest))
        if known is None:
            return None
        upload = self.client.upload_status(repository, known)
        return upload if upload is not None and 0 < upload.offset <= self.bundle.sizes[digest] else None

    def _put(self, node: _Node) -> None:
        manifest = self._read_manifest(node.digest)
        ref = node.ref
        try:
            if ref is not None and ref.missing:
                self._put_sparse(node, ref, manifest)
            else:
                self.client.put_manifest(node.repository, node.tag or node.digest, manifest)
        except RegistryError as error:
            if error.status in (400, 404) and error.code in _BLOB_UNKNOWN and self.journal.present:
                raise _Stale from error
            raise
        with self.condition:
            self.result.manifests_put += 1
        self.progress.item()
        ready = []
        with self.condition:
            for parent in node.parents:
                parent.waits -= 1
                if parent.waits == 0:
                    ready.append(parent)
        for parent in ready:
            self._put_later(parent)

    def _put_sparse(self, node: _Node, ref: BundleRef, index: Manifest) -> None:
        """An index some of whose platforms were not fetched: whole under its own digest where the registry takes that, else the tag gets the first platform."""
        if not self.sparse_refused:
            try:
                self.client.put_manifest(node.repository, node.tag or node.digest, index)
                return
            except RegistryError as error:
                if error.status not in (400, 404, 422):
                    raise
                self.sparse_refused = True
        name = f"{self.options.registry}/{node.repository}"
        if node.tag is None:
            self._warn(
                f"{name}: the registry refuses the index {ref.digest}, as not all its platforms are in the bundle; pulls by that digest will fail. "
                f"Fetch all platforms of {ref.name}, or use {ref.chosen}."
            )
            return
        self.client.put_manifest(node.repository, node.tag, self._read_manifest(ref.chosen))
        self._warn(f"{name}:{node.tag}: the registry refuses an index without all its platforms, so the tag is {ref.chosen}, not the index {ref.digest}.")

    def _warn(self, text: str) -> None:
        with self.condition:
            self.result.warnings.append(text)

    # --- receipt ----------------------------------------------------------------------------------------------------

    def receipt(self) -> dict[str, Any]:
        """What is now proven to be in the registry."""
        names = [str(name) for name in self.bundle.manifest.get("repositories") or ()]
        renamed: dict[str, set[str]] = {}
        for ref, (repository, _tag) in self.targets.items():
            renamed.setdefault(ref.target_repository, set()).add(repository)
        blobs: dict[str, dict[str, Any]] = {}
        for blob in self.bundle.manifest["blobs"]:
            repositories = sorted({new for index in blob.get("r") or () for new in renamed.get(names[index], {names[index]})})
            blobs[blob["d"]] = {"size": blob["s"], "repos": repositories}
        for digest, entry in self.bundle.required.items():
            blobs.setdefault(digest, {"size": entry["size"], "repos": sorted({new for name in entry["repos"] for new in renamed.get(name, {name})})})
        refs = []
        for ref in self.bundle.refs:
            repository, tag = self.targets[ref]
            refs.append({"name": ref.name, "kind": ref.kind, "repository": repository, "tag": tag, "digest": ref.digest})
        return {
            "format": RECEIPT_FORMAT,
            "registry": self.options.registry,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "bundle": self.bundle.id,
            "bundle_manifest": digest_of(self.bundle.raw),
            "refs": sorted(refs, key=lambda entry: (str(entry["repository"]), str(entry["tag"]), str(entry["digest"]))),
            "blobs": blobs,
            "bytes": sum(int(entry["size"]) for entry in blobs.values()),
            "warnings": sorted(self.result.warnings),
        }


def load(options: LoadOptions, progress: Optional[Progress] = None) -> LoadResult:
    """Bring the registry to what the bundle holds."""
    progress = progress or Progress()
    requests = options.access.requests
    with Bundle.open(options.directories) as bundle:
        check_trust(bundle.raw, bundle.signature_files(), options.trust)
        client = options.access.client(options.registry)
        client.push = True
        name = re.sub(r"[^A-Za-z0-9.-]", "_", options.registry) + "-" + bundle.id[:12]
        journal = _Journal(None if options.dry_run else options.state, name)
        try:
            while True:
                loader = _Loader(options, bundle, client, progress, journal)
                try:
                    result = _run(loader, options)
                    break
                except _Stale:
                    # Somebody emptied the registry since the last run: what the journal says counts for nothing.
                    journal.forget()
                    journal = _Journal(options.state, name)
            result.requests = options.access.requests - requests
            result.retries = client.retries
            if not options.dry_run:
                result.receipt = loader.receipt()
                if options.receipt is not None:
                    options.receipt.parent.mkdir(parents=True, exist_ok=True)
                    kept = _read_receipt(options.receipt)
                    # A run that changes nothing leaves the receipt, with its time, as it is.
                    if kept is None or result.changed or {**kept, "time": ""} != {**result.receipt, "time": ""}:
                        replace_json(options.receipt, result.receipt)
                    else:
                        result.receipt = kept
                journal.forget()
            progress.end("done" if result.changed else "unchanged")
            return result
        finally:
            journal.close()


def _read_receipt(path: Path) -> Optional[dict[str, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _run(loader: _Loader, options: LoadOptions) -> LoadResult:
    result = loader.result
    pending = loader.compare()
    result.changed = bool(pending)
    if pending:
        nodes = loader.plan(pending)
        loader_sizes = _sizes_of(loader, pending)
        result.changes = [Change(change.name, change.before, change.after, loader_sizes.get(change.after or "", 0)) for change in result.changes]
        held = loader.check_base()
        if not options.dry_run:
            loader.run(nodes, held)
    return result


def _sizes_of(loader: _Loader, pending: Sequence[BundleRef]) -> dict[str, int]:
    """The logical size of each name: all bytes that a pull of it moves."""
    sizes = {}
    for ref in pending:
        root = loader._read_manifest(ref.digest)
        missing = set(ref.missing)
        images = [loader._read_manifest(child.digest) for child in root.children() if child.digest not in missing] if root.is_index else [root]
        sizes[ref.digest] = sum({blob.digest: blob.size for image in images for blob in image.blobs()}.values())
    return sizes


__all__ = ["LoadOptions", "LoadResult", "load", "map_target"]
