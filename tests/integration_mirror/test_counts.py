# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests and bytes on the wire: what must not rot."""

from __future__ import annotations

import json
from pathlib import Path

import images
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.bundle import Bundle
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.delta import Base
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.registry import RegistryClient
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.verify import verify_bundle, verify_registry
from conftest import Registry, access, do_fetch, do_load, lock_for
from wire import Wire

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
