# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests and bytes on the wire: what must not rot."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import images
import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.bundle import Bundle
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.delta import Base
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.registry import RegistryClient
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.verify import verify_bundle, verify_registry
from conftest import Registry, access, do_fetch, do_load, lock_for
from wire import TokenService, Wire

Source = tuple[Registry, list[str]]


def test_first_fetch_asks_once_for_each_blob_and_manifest(source: Source, wire: Wire, work: Path) -> None:
    result = do_fetch(lock_for(wire.host, source[1]), work / "bundle")
    assert result.changed and len(result.changes) == 43
    assert wire.kinds() == {"GET manifest": 53, "GET blob": 256}
    assert result.requests == 309 == wire.count


def test_second_fetch_is_one_request_for_each_reference(source: Source, wire: Wire, work: Path) -> None:
    lock = lock_for(wire.host, source[1])
    do_fetch(lock, work / "bundle")
    before = {path.name: path.stat().st_mtime_ns for path in (work / "bundle").iterdir()}
    wire.reset()
    result = do_fetch(lock, work / "bundle")
    assert not result.changed and result.changes == []
    assert wire.kinds() == {"HEAD manifest": 43}
    assert {path.name: path.stat().st_mtime_ns for path in (work / "bundle").iterdir()} == before


def test_pinned_lock_needs_no_request_when_nothing_is_new(source: Source, wire: Wire, work: Path) -> None:
    used = access()
    lock = lock_for(wire.host, source[1]).pinned(used)
    do_fetch(lock, work / "bundle")
    wire.reset()
    assert not do_fetch(lock, work / "bundle").changed
    assert wire.count == 0


def test_first_load_requests(source: Source, wire: Wire, target: Wire, work: Path) -> None:
    do_fetch(lock_for(wire.host, source[1]), work / "bundle")
    # The set is a sixtieth of set S, and so are the chunks: the same number of requests as at full size.
    result = do_load(work / "bundle", target.host, chunk_size=(16 << 20) // 60)
    kinds = target.kinds()
    assert kinds["HEAD manifest"] == 43 and kinds["PUT manifest"] == 53
    assert kinds["POST upload"] == 256 + 83
    assert result.blobs_uploaded == 256 and result.blobs_mounted == 83
    assert target.count == result.requests <= 720


def test_second_load_is_one_head_for_each_reference(source: Source, wire: Wire, target: Wire, work: Path) -> None:
    do_fetch(lock_for(wire.host, source[1]), work / "bundle")
    first = do_load(work / "bundle", target.host, receipt=work / "receipt.json")
    kept = (work / "receipt.json").read_bytes()
    target.reset()
    second = do_load(work / "bundle", target.host, receipt=work / "receipt.json")
    assert first.changed and not second.changed
    assert target.kinds() == {"HEAD manifest": 43}
    assert (work / "receipt.json").read_bytes() == kept


def test_registry_that_keeps_everything_below_a_path(source: Source, wire: Wire, target: Wire, work: Path) -> None:
    """As Artifact Registry does below project and repository: no more requests, rights asked for that path, and nothing beside it."""
    do_fetch(lock_for(wire.host, source[1]), work / "bundle")
    tokens = TokenService(target, "site", "word")
    below = f"{target.host}/example-project/circleci"
    login = {target.host: ("site", "word")}
    first = do_load(work / "bundle", below, receipt=work / "receipt.json", access=access(credentials=login))
    assert first.changed and first.blobs_mounted == 83 and {change.name.rpartition(":")[0].startswith(below) for change in first.changes} == {True}
    asked = {urllib.parse.unquote(scope) for scopes, _left in tokens.tokens.values() for scope in scopes}
    assert len(asked) > 40 and {scope.startswith("repository:example-project/circleci/") for scope in asked if scope.startswith("repository:")} == {True}
    target.handler = None
    inside = RegistryClient(below, plain_http=True)
    names = {ref.rpartition(":")[0] for ref in source[1]}
    assert set(inside.list_repositories()) == names
    assert set(RegistryClient(target.host, plain_http=True).list_repositories()) == {f"example-project/circleci/{name}" for name in names}
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_registry(bundle, inside, deep=True).problems == []
    target.reset()
    assert not do_load(work / "bundle", below, receipt=work / "receipt.json").changed
    assert target.kinds() == {"HEAD manifest": 43}


def test_dry_runs_write_nothing(source: Source, wire: Wire, target: Wire, work: Path) -> None:
    lock = lock_for(wire.host, source[1])
    plan = do_fetch(lock, work / "bundle", dry_run=True)
    assert plan.changed and len(plan.changes) == 43 and not (work / "bundle").exists()
    done = do_fetch(lock, work / "bundle")
    assert (plan.bundle_id, plan.changes, plan.bytes_total) == (done.bundle_id, done.changes, done.bytes_total)
    expected = do_load(work / "bundle", target.host, dry_run=True)
    assert target.kinds() == {"HEAD manifest": 43}
    assert expected.changes == do_load(work / "bundle", target.host).changes


def test_digests_and_names_are_kept(source: Source, wire: Wire, target: Wire, work: Path) -> None:
    do_fetch(lock_for(wire.host, source[1]), work / "bundle")
    do_load(work / "bundle", target.host, receipt=work / "receipt.json")
    near, far = RegistryClient(source[0].host, plain_http=True), RegistryClient(target.host, plain_http=True)
    for ref in source[1]:
        repository, tag = ref.split(":")
        assert near.head_manifest(repository, tag) == far.head_manifest(repository, tag) is not None
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_bundle(bundle, deep=True).problems == []
        assert verify_registry(bundle, far, deep=True).problems == []
    receipt = json.loads((work / "receipt.json").read_text())
    assert len(receipt["refs"]) == 43 and len(receipt["blobs"]) == 309


def test_same_lock_same_bytes(source: Source, work: Path) -> None:
    lock = lock_for(source[0].host, source[1][:6])
    do_fetch(lock, work / "one")
    do_fetch(lock, work / "two", access=access(parallel=2))
    one, two = ({path.name: path.read_bytes() for path in (work / name).iterdir()} for name in ("one", "two"))
    assert one == two


def test_changed_lock_moves_only_what_is_new(source: Source, wire: Wire, work: Path) -> None:
    do_fetch(lock_for(wire.host, source[1][:-1]), work / "bundle")
    wire.reset()
    result = do_fetch(lock_for(wire.host, source[1]), work / "bundle")
    assert [change.name for change in result.changes] == [f"{wire.host}/{source[1][-1]}"]
    assert wire.kinds()["GET blob"] == 2 and result.bytes_reused > 0
    assert len(list((work / "bundle").glob("*.tar"))) == 1
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_bundle(bundle, deep=True).ok


def test_delta_carries_only_new_blobs(source: Source, wire: Wire, target: Wire, work: Path, make_registry: object) -> None:
    do_fetch(lock_for(wire.host, source[1]), work / "full")
    do_load(work / "full", target.host, receipt=work / "receipt.json")
    made = images.make_set_s(work / "next", 1 / 60, rebuilt=4)
    registry = make_registry("next")  # type: ignore[operator]
    after = Wire(("127.0.0.1", registry.port))
    full = do_fetch(lock_for(after.host, made["refs"]), work / "next-full")
    for base in (work / "receipt.json", work / "full"):
        delta = work / f"delta-{base.name}"
        result = do_fetch(lock_for(after.host, made["refs"]), delta, base=Base.load(base))
        # At full size: 44.2 MB of 1,258; manifests and configs always travel.
        assert result.bytes_total <= full.bytes_total * 44.2 / 1257 + 309 * 1500
    target.reset()
    loaded = do_load(work / "delta-receipt.json", target.host)
    assert loaded.changed and target.kinds()["HEAD manifest"] == 43
    with Bundle.open([work / "next-full"]) as bundle:
        assert verify_registry(bundle, RegistryClient(target.host, plain_http=True), deep=True).problems == []
    after.close()


def test_delta_of_four_rebuilt_images_at_full_size(work: Path, make_registry: Callable[..., Registry]) -> None:
    """Planned against real registries with set S in its full size; manifests alone say what would be carried."""
    plans = {}
    base = None
    for name, rebuilt in (("now", 0), ("next", 4)):
        made = images.make_set_s(work / name, 1.0, rebuilt, thin=True)
        registry = make_registry(name)
        lock = lock_for(registry.host, made["refs"])
        plans[name] = do_fetch(lock, work / "bundle", dry_run=True, base=base).bytes_total
        if base is None:
            from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.delta import RECEIPT_FORMAT

            blobs = {}
            client = RegistryClient(registry.host, plain_http=True)
            for ref in made["refs"]:
                repository, tag = ref.split(":")
                root = client.get_manifest(repository, tag)
                for image in [client.get_manifest(repository, child.digest) for child in root.children()] or [root]:
                    blobs.update({blob.digest: {"size": blob.size, "repos": [repository]} for blob in image.blobs()})
            (work / "receipt.json").write_text(json.dumps({"format": RECEIPT_FORMAT, "registry": "far", "bundle": "0" * 64, "refs": [], "blobs": blobs}))
            base = Base.load(work / "receipt.json")
    assert plans["now"] > 1_250_000_000
    assert 10_000_000 < plans["next"] <= 44_200_000


@pytest.fixture
def tiny_disk(work: Path) -> Iterator[Path]:
    """A file system of 1 MB, where we may mount one."""
    folder = work / "tiny"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("part_size", [None, 4_000_000])
def test_load_needs_no_disk_beside_the_bundle(source: Source, target: Wire, work: Path, pyz: Path, tiny_disk: Path, part_size: int | None) -> None:
    """21 MB from read-only files, with one megabyte for state, receipt, home and temporary files."""
    do_fetch(lock_for(source[0].host, source[1]), work / "bundle", part_size=part_size)
    for path in (work / "bundle").iterdir():
        path.chmod(0o444)
    before = {path.name: path.stat() for path in (work / "bundle").iterdir()}
    where = {"HOME": str(tiny_disk), "TMPDIR": str(tiny_disk), "PATH": os.environ["PATH"]}
    files = ["--state", str(tiny_disk / "state"), "--receipt", str(tiny_disk / "receipt.json")]
    done = subprocess.run(
        [sys.executable, str(pyz), "load", str(work / "bundle"), "--registry", target.host, "--plain-http", "--allow-unsigned", *files],
        capture_output=True, text=True, check=False, cwd=tiny_disk, env=where,
    )
    assert done.returncode == 0, done.stderr
    after = {path.name: path.stat() for path in (work / "bundle").iterdir()}
    assert {name: (stat.st_size, stat.st_blocks, stat.st_mtime_ns) for name, stat in before.items()} == {name: (stat.st_size, stat.st_blocks, stat.st_mtime_ns) for name, stat in after.items()}
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_registry(bundle, RegistryClient(target.host, plain_http=True), deep=True).problems == []


def calls_of(work: Callable[[], object]) -> int:
    """How many function calls a piece of work takes, in all its threads: unlike seconds the same on a busy machine."""
    count = 0

    def tell(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    threading.setprofile(tell)
    sys.setprofile(tell)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return count


def test_many_small_images_cost_in_proportion(work: Path, make_registry: Callable[..., Registry]) -> None:
    """500 references with 2,000 blobs, and 2,000 with 8,000: four times as much of everything, and no more memory for each blob."""
    seen = []
    for references, blobs in ((500, 2000), (2000, 8000)):
        made = images.make_many(work / f"many{references}", references, blobs)
        near = Wire(("127.0.0.1", make_registry(f"many{references}").port))
        far = Wire(("127.0.0.1", make_registry(f"far{references}").port))
        folder = work / f"bundle{references}"
        lock = lock_for(near.host, made["refs"])
        calls = [calls_of(partial(do_fetch, lock, folder)), calls_of(partial(do_load, folder, far.host))]
        requests = [near.count, far.count]
        near.reset()
        far.reset()
        assert not do_fetch(lock, folder).changed and not do_load(folder, far.host).changed
        assert near.kinds() == far.kinds() == {"HEAD manifest": references}
        seen.append((made["blobs"], calls, requests))
        near.close()
        far.close()
        shutil.rmtree(folder)
    (few, few_calls, few_requests), (many, many_calls, many_requests) = seen
    assert few_requests[0] == few and many_requests[0] == many
    assert many_requests[1] / few_requests[1] <= 4.1
    for small, large in zip(few_calls, many_calls):
        assert large / small <= 4.4


# --- large layers ---------------------------------------------------------------------------------------------------

BLOCK = hashlib.sha512(b"block").digest() * 16384  # 1 MiB
LARGE = {"four": 4 * (1 << 30) + 12_345, "eight": 8 * (1 << 30) + 54_321}


def test_layers_of_4_and_8_gigabytes(work: Path, pyz: Path, tmp_path: Path) -> None:
    """From a source that makes its bytes into a sink that forgets them; no more memory than for small ones, and a break above 4 GiB goes on there."""
    if os.environ.get("MIRROR_LARGE") != "1":
        pytest.skip("writes 13 GB and hashes 40; MIRROR_LARGE=1 runs it")
    if shutil.disk_usage(tmp_path).free < 14 << 30:
        pytest.skip(f"needs 14 GB free below {tmp_path}")
    blobs: dict[str, int] = {}
    for size in LARGE.values():
        hasher = hashlib.sha256()
        for _ in range(size // len(BLOCK)):
            hasher.update(BLOCK)
        hasher.update(BLOCK[: size % len(BLOCK)])
        blobs["sha256:" + hasher.hexdigest()] = size
    config = b"{}"
    config_digest = images.digest_of(config)
    layers = [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size} for digest, size in blobs.items()]
    described = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": len(config)}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": images.OCI_MANIFEST, "config": described, "layers": layers}).encode()
    ranges: list[int] = []
    broken = threading.Event()

    class Source(BaseHTTPRequestHandler):
        """Makes the bytes of a blob from any offset on; breaks off once, above 4 GiB."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            digest = self.path.rpartition("/")[2]
            if "/manifests/" in self.path or digest == config_digest:
                body = manifest if "/manifests/" in self.path else config
                self.send_response(200)
                self.send_header("Content-Type", images.OCI_MANIFEST)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            size = blobs[digest]
            start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            if start:
                ranges.append(start)
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.send_header("Content-Length", str(size - start))
            self.end_headers()
            while start < size:
                at = start % len(BLOCK)
                piece = BLOCK[at : at + size - start] if at or size - start < len(BLOCK) else BLOCK
                if start > 5 << 30 and not broken.is_set():
                    broken.set()
                    self.close_connection = True
                    return
                self.wfile.write(piece)
                start += len(piece)

        def log_message(self, *_arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Source)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sink = Wire(None)
    offsets: dict[str, int] = {}

    def forget(request: object) -> tuple[int, dict[str, str], bytes]:
        method, path, length = request.method, request.path, request.length  # type: ignore[attr-defined]
        if method == "HEAD":
            return 404, {}, b""
        if "/manifests/" in path:
            return 201, {"Docker-Content-Digest": images.digest_of(manifest)}, b""
        if method == "POST":
            return 202, {"Location": f"/v2/large/blobs/uploads/{len(offsets)}-{sink.count}"}, b""
        place = path.partition("?")[0]
        offsets[place] = offsets.get(place, 0) + length
        if method == "PATCH":
            return 202, {"Location": place, "Range": f"0-{offsets[place] - 1}"}, b""
        return 201, {}, b""

    sink.handler = forget
    measure = "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024); raise SystemExit(code)"
    (work / "refs").write_text(f"127.0.0.1:{server.server_port}/large:1\n")
    try:
        for arguments in (
            ["fetch", "--refs", str(work / "refs"), "--output", str(tmp_path / "bundle"), "--part-size", "6000000000"],
            ["load", str(tmp_path / "bundle"), "--registry", sink.host, "--allow-unsigned", "--state", str(tmp_path / "state")],
        ):
            done = subprocess.run([sys.executable, "-c", measure, sys.executable, str(pyz), *arguments, "--plain-http"], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert int(done.stdout.strip().splitlines()[-1]) <= 64
        assert ranges and all(start > 1 << 32 for start in ranges)
        assert sorted(offsets.values()) == sorted([len(config), *blobs.values()])
    finally:
        server.shutdown()
        server.server_close()
        sink.close()
        shutil.rmtree(tmp_path / "bundle", ignore_errors=True)
