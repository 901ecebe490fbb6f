# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills, broken lines and odd registries: nothing is lost, nothing is half visible, the same command goes on."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import images
import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.bundle import Bundle
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.errors import (
    BaseMissing,
    BundleError,
    DigestMismatch,
    MirrorError,
    NetworkError,
    RegistryError,
    SpaceError,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.registry import RegistryClient
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.verify import verify_bundle, verify_registry
from conftest import Registry, access, do_fetch, do_load, lock_for
from wire import Fault, TokenService, Wire

Source = tuple[Registry, list[str]]


def large_set(folder: Path, size: int = 60_000_000) -> list[str]:
    """One image with one large layer among small ones."""
    storage = images.Storage(folder)
    layers = images.Layers(storage)
    images.image(storage, "big/image", "1", [layers.get("a", 300_000), layers.get("huge", size), layers.get("b", 200_000)])
    return ["big/image:1"]


def command(pyz: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(pyz), *arguments, "--quiet"]


def total_of(folder: Path) -> int:
    with Bundle.open([folder]) as bundle:
        return sum(bundle.sizes.values())


def final_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".incomplete") if folder.is_dir() else []


# --- kill -9 and SIGTERM --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [30, 60, 90])
@pytest.mark.parametrize("kind", ["many", "large"])
def test_fetch_goes_on_after_kill_9(source: Source, work: Path, pyz: Path, make_registry: Callable[..., Registry], percent: int, kind: str) -> None:
    if kind == "large":
        refs = large_set(work / "large")
        wire = Wire(("127.0.0.1", make_registry("large").port))
    else:
        refs = source[1]
        wire = Wire(("127.0.0.1", source[0].port))
    total = images_total(wire, refs, work)
    (work / "refs").write_text("".join(f"{wire.host}/{ref}\n" for ref in refs))
    arguments = command(pyz, "fetch", "--refs", str(work / "refs"), "--output", str(work / "bundle"), "--plain-http")
    wire.reset()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    wire.watch.append((total * percent // 100, lambda: os.kill(process.pid, signal.SIGKILL)))
    assert process.wait() == -signal.SIGKILL
    moved = wire.down
    assert final_names(work / "bundle") == []
    wire.watch.clear()
    wire.reset()
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # The proxy counts what it sent, the killed process may not have read all of it: socket buffers, 1 % and one read per lane.
    assert wire.down <= total - moved + total * 0.01 + 16 * (1 << 20)
    assert not [request for request in wire.requests if "/manifests/" in request.path]
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_bundle(bundle, deep=True).ok
    wire.close()


def images_total(wire: Wire, refs: list[str], work: Path) -> int:
    return int(do_fetch(lock_for(wire.host, refs), work / "plan", dry_run=True).bytes_total)


def test_second_fetch_moves_the_rest_and_one_percent(work: Path, pyz: Path, make_registry: Callable[..., Registry]) -> None:
    refs = large_set(work / "large", 200_000_000)
    wire = Wire(("127.0.0.1", make_registry("large").port))
    total = images_total(wire, refs, work)
    (work / "refs").write_text(f"{wire.host}/{refs[0]}\n")
    arguments = command(pyz, "fetch", "--refs", str(work / "refs"), "--output", str(work / "bundle"), "--plain-http", "--limit-rate", "120M")
    wire.reset()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    wire.watch.append((total // 2, lambda: os.kill(process.pid, signal.SIGKILL)))
    process.wait()
    # What the killed process had on disk, from its own note.
    state = (work / "bundle" / ".incomplete" / "state").read_bytes()
    on_disk = sum(int.from_bytes(state[at : at + 8], "little") & ~(1 << 63) for at in range(0, len(state), 8))
    wire.watch.clear()
    wire.reset()
    assert subprocess.run(arguments, check=False, stdout=subprocess.DEVNULL).returncode == 0
    assert wire.down <= total - on_disk + total * 0.001
    # With the rate limited, little is under way in the sockets at the moment of the kill, and 13 MB on a busy machine.
    assert wire.down <= total / 2 + total * 0.01 + 25_000_000
    wire.close()


def test_half_written_blob_that_rots_is_fetched_again(work: Path, make_registry: Callable[..., Registry]) -> None:
    refs = large_set(work / "large")
    wire = Wire(("127.0.0.1", make_registry("large").port))
    wire.faults.append(Fault("GET", "/blobs/", times=99, skip=2, cut_answer_at=30_000_000))
    wire.faults.append(Fault("GET", "/blobs/", times=99, cut_answer_at=30_000_000))
    stop = access()

    def stop_halfway() -> None:
        wait_for(lambda: wire.down > 28_000_000)
        stop.stop.set()

    threading.Thread(target=stop_halfway, daemon=True).start()
    with pytest.raises(MirrorError) as stopped:
        do_fetch(lock_for(wire.host, refs), work / "bundle", access=stop)
    assert stopped.value.exit_code == 75
    wire.faults.clear()
    part = next((work / "bundle" / ".incomplete").glob("*.tar"))
    with open(part, "r+b") as stream:
        stream.seek(10_000_000)
        byte = stream.read(1)
        stream.seek(10_000_000)
        stream.write(bytes([byte[0] ^ 0x55]))
    do_fetch(lock_for(wire.host, refs), work / "bundle")
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_bundle(bundle, deep=True).ok
    wire.close()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)


def settled(wire: Wire) -> None:
    """Wait until no more bytes move."""
    seen = -1
    while seen != wire.up + wire.down:
        seen = wire.up + wire.down
        time.sleep(0.2)


@pytest.mark.parametrize("percent", [30, 60, 90])
def test_load_goes_on_after_kill_9(source: Source, target: Wire, work: Path, pyz: Path, percent: int) -> None:
    do_fetch(lock_for(source[0].host, source[1]), work / "bundle")
    total = total_of(work / "bundle")
    arguments = command(pyz, "load", str(work / "bundle"), "--registry", target.host, "--plain-http", "--allow-unsigned", "--state", str(work / "state"))
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    target.watch.append((total * percent // 100, lambda: os.kill(process.pid, signal.SIGKILL)))
    assert process.wait() == -signal.SIGKILL
    target.watch.clear()
    # What the killed process had sent is still on its way through the proxy.
    settled(target)
    # Every tag that is visible can be pulled whole.
    client = RegistryClient(target.host, plain_http=True)
    for repository in client.list_repositories():
        for tag in client.list_tags(repository):
            manifest = client.get_manifest(repository, tag)
            for image in [client.get_manifest(repository, child.digest) for child in manifest.children()] or [manifest]:
                assert all(client.head_blob(repository, blob.digest) == blob.size for blob in image.blobs())
    moved = target.up
    target.reset()
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    largest = 6_000_000
    assert target.up <= total - moved + 5 * largest
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_registry(bundle, client, deep=True).problems == []
    assert not list((work / "state").glob("*.journal"))


def test_load_goes_on_in_the_middle_of_a_blob_after_sigterm(work: Path, pyz: Path, target: Wire, make_registry: Callable[..., Registry]) -> None:
    refs = large_set(work / "large")
    do_fetch(lock_for(make_registry("large").host, refs), work / "bundle")
    arguments = command(
        pyz, "load", str(work / "bundle"), "--registry", target.host, "--plain-http", "--allow-unsigned", "--state", str(work / "state"), "--chunk-size", "4M"
    )
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    target.watch.append((30_000_000, lambda: process.send_signal(signal.SIGTERM)))
    _out, said = process.communicate()
    assert process.returncode == 75 and b"same command" in said
    sent = target.up
    assert 30_000_000 <= sent < 55_000_000
    target.watch.clear()
    target.reset()
    assert subprocess.run(arguments, check=False, stdout=subprocess.DEVNULL).returncode == 0
    assert target.up <= total_of(work / "bundle") - sent + 3_000
    assert RegistryClient(target.host, plain_http=True).head_manifest("big/image", "1") is not None


# --- broken lines ---------------------------------------------------------------------------------------------------


def test_cut_in_the_middle_of_a_blob_goes_on_there(work: Path, make_registry: Callable[..., Registry]) -> None:
    refs = large_set(work / "large")
    wire = Wire(("127.0.0.1", make_registry("large").port))
    wire.faults += [Fault("GET", "/blobs/", times=1, skip=3, cut_answer_at=1_000), Fault("GET", "/blobs/", times=6, cut_answer_at=25_000_000)]
    result = do_fetch(lock_for(wire.host, refs), work / "bundle")
    assert result.retries > 0
    ranges = [request.headers["range"] for request in wire.requests if "range" in request.headers]
    assert ranges and all(not value.startswith("bytes=0-") for value in ranges)
    assert wire.down < total_of(work / "bundle") * 1.02
    wire.close()


def test_reset_in_the_middle_of_a_blob(work: Path, target: Wire, make_registry: Callable[..., Registry]) -> None:
    refs = large_set(work / "large", 20_000_000)
    wire = Wire(("127.0.0.1", make_registry("large").port))
    wire.faults.append(Fault("GET", "/blobs/", times=4, cut_answer_at=150_000, reset=True))
    assert do_fetch(lock_for(wire.host, refs), work / "bundle").retries >= 3
    target.faults.append(Fault("PUT|PATCH", "/uploads/", times=3, cut_request_at=100_000, longest_body=100_000, reset=True))
    assert do_load(work / "bundle", target.host).retries >= 3
    assert whole(work / "bundle", target) == []
    wire.close()


def test_upload_that_stalls(source: Source, target: Wire, work: Path, make_registry: Callable[..., Registry]) -> None:
    refs = large_set(work / "large", 20_000_000)
    do_fetch(lock_for(make_registry("large").host, refs), work / "bundle")
    target.faults.append(Fault("PATCH", "/uploads/", times=2, stall_request_at=1_000_000))
    result = do_load(work / "bundle", target.host, access=access(stall_timeout=0.4), chunk_size=8_000_000)
    assert result.retries >= 1
    assert whole(work / "bundle", target) == []


def whole(folder: Path, target: Wire) -> list[str]:
    """What the registry lacks of a bundle, every byte read back."""
    with Bundle.open([folder]) as bundle:
        return verify_registry(bundle, RegistryClient(target.host, plain_http=True), deep=True).problems


def test_server_without_ranges_starts_the_blob_again(work: Path, make_registry: Callable[..., Registry]) -> None:
    refs = large_set(work / "large", 5_000_000)
    wire = Wire(("127.0.0.1", make_registry("large").port))
    strip = wire._forward

    def forward(client: object, upstream: object, head: bytes, left: bytes, request: object, fault: object) -> bool:
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"range:")]
        return bool(strip(client, upstream, b"\r\n".join(lines), left, request, fault))  # type: ignore[arg-type]

    wire._forward = forward  # type: ignore[assignment,method-assign]
    wire.faults.append(Fault("GET", "/blobs/", times=3, cut_answer_at=3_000_000))
    do_fetch(lock_for(wire.host, refs), work / "bundle")
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_bundle(bundle, deep=True).ok
    wire.close()


def test_stall_is_noticed(work: Path, make_registry: Callable[..., Registry]) -> None:
    refs = large_set(work / "large", 5_000_000)
    wire = Wire(("127.0.0.1", make_registry("large").port))
    wire.faults.append(Fault("GET", "/blobs/", times=4, stall_answer_at=150_000))
    result = do_fetch(lock_for(wire.host, refs), work / "bundle", access=access(stall_timeout=0.4))
    assert result.retries >= 1
    wire.close()


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(source: Source, wire: Wire, work: Path, status: int) -> None:
    wire.faults.append(Fault("GET", "/blobs/", status=status, headers={"Retry-After": "1"}))
    wire.faults.append(Fault("GET", "/manifests/", status=status, headers={"Retry-After": "1"}))
    started = time.monotonic()
    result = do_fetch(lock_for(wire.host, source[1][:3]), work / "bundle")
    assert time.monotonic() - started >= 2.0 and result.retries == 2


@pytest.mark.parametrize("status", [429, 503])
def test_overload_without_retry_after(source: Source, wire: Wire, target: Wire, work: Path, status: int) -> None:
    wire.faults.append(Fault("GET", ".*", times=3, status=status))
    do_fetch(lock_for(wire.host, source[1][:3]), work / "bundle")
    for method in ("HEAD", "POST", "PUT", "PATCH"):
        target.faults.append(Fault(method, times=2, skip=1, status=status))
    do_load(work / "bundle", target.host)
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_registry(bundle, RegistryClient(target.host, plain_http=True), deep=True).problems == []


def test_one_percent_random_503(source: Source, wire: Wire, target: Wire, work: Path) -> None:
    chance = random.Random(7)
    wire.faults.append(Fault(times=-1, status=503, chance=lambda: chance.random() < 0.01))
    target.faults.append(Fault(times=-1, status=503, chance=lambda: chance.random() < 0.01))
    do_fetch(lock_for(wire.host, source[1]), work / "bundle")
    do_load(work / "bundle", target.host)
    target.faults.clear()
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_registry(bundle, RegistryClient(target.host, plain_http=True), deep=True).problems == []


def test_endless_overload_gives_up_with_75_and_keeps_what_it_has(source: Source, wire: Wire, work: Path) -> None:
    wire.faults.append(Fault("GET", "/blobs/", times=-1, skip=20, status=503))
    with pytest.raises(MirrorError) as error:
        do_fetch(lock_for(wire.host, source[1]), work / "bundle")
    assert error.value.exit_code == 75 and final_names(work / "bundle") == []
    wire.faults.clear()
    wire.reset()
    do_fetch(lock_for(wire.host, source[1]), work / "bundle")
    assert wire.kinds()["GET blob"] <= 256 - 15 and wire.kinds()["GET manifest"] == 0


def test_upload_cut_in_the_middle(source: Source, target: Wire, work: Path) -> None:
    do_fetch(lock_for(source[0].host, source[1][:4]), work / "bundle")
    target.faults.append(Fault("PUT", "/uploads/", times=3, cut_request_at=50_000))
    target.faults.append(Fault("PUT", "/uploads/", times=2, skip=2, drop=True))
    do_load(work / "bundle", target.host)
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_registry(bundle, RegistryClient(target.host, plain_http=True), deep=True).problems == []


def test_413_makes_smaller_chunks(work: Path, target: Wire, make_registry: Callable[..., Registry]) -> None:
    refs = large_set(work / "large", 20_000_000)
    do_fetch(lock_for(make_registry("large").host, refs), work / "bundle")
    target.faults.append(Fault("PUT|PATCH", "/uploads/", times=-1, status=413, longest_body=1_000_000))
    do_load(work / "bundle", target.host)
    assert max(request.length for request in target.requests if request.method == "PATCH") > 1_000_000
    assert RegistryClient(target.host, plain_http=True).head_manifest("big/image", "1") is not None


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_token_that_ends_in_the_middle(work: Path, target: Wire, make_registry: Callable[..., Registry]) -> None:
    refs = large_set(work / "large")
    wire = Wire(("127.0.0.1", make_registry("large").port))
    near, far = TokenService(wire, "user", "hunter2", uses=2), TokenService(target, "user", "hunter2", uses=3)
    credentials = {wire.host: ("user", "hunter2"), target.host: ("user", "hunter2")}
    do_fetch(lock_for(wire.host, refs), work / "bundle", access=access(credentials=credentials))
    do_load(work / "bundle", target.host, access=access(credentials=credentials), chunk_size=4_000_000, state=work / "state", receipt=work / "receipt.json")
    assert near.issued >= 2 and far.issued >= 4
    everything = b"".join(path.read_bytes() for path in work.rglob("*") if path.is_file() and path.suffix in (".json", ".journal") and "large" not in path.parts)
    assert b"hunter2" not in everything
    wire.close()


def test_wrong_password_is_told_and_not_repeated(source: Source, wire: Wire, work: Path) -> None:
    TokenService(wire, "user", "right")
    with pytest.raises(RegistryError) as error:
        do_fetch(lock_for(wire.host, source[1][:1]), work / "bundle", access=access(credentials={wire.host: ("user", "wrong-secret")}))
    assert "user and password" in str(error.value) and "wrong-secret" not in str(error.value)


def test_redirect_to_another_host_goes_without_credentials(source: Source, wire: Wire, work: Path) -> None:
    TokenService(wire, "user", "hunter2")
    store = Wire(("127.0.0.1", source[0].port))
    issue = wire.handler

    def handler(request: Any) -> Any:
        answer = issue(request)
        path = request.path
        if answer is None and "/blobs/sha256" in path:
            return 307, {"Location": f"http://{store.host}{path}?X-Amz-Signature=topsecret"}, b""
        return answer

    wire.handler = handler
    do_fetch(lock_for(wire.host, source[1][:2]), work / "bundle", access=access(credentials={wire.host: ("user", "hunter2")}))
    assert store.count > 0 and not [request for request in store.requests if "authorization" in request.headers]
    store.close()


# --- secrets --------------------------------------------------------------------------------------------------------


def test_secrets_are_in_no_output_and_no_file(work: Path, pyz: Path, source: Source, target: Wire, tmp_path: Path) -> None:
    """Through the command line, from a fetch that is refused to a load that is killed and goes on; everything it said and left is searched."""
    wire = Wire(("127.0.0.1", source[0].port))
    near, far = TokenService(wire, "near-user", "canary-near"), TokenService(target, "far-user", "canary-far")
    given = tmp_path / "given"  # what we hand in may hold secrets
    given.mkdir()
    config = given / "config.json"
    (given / "password").write_text("canary-far\n")
    (work / "refs").write_text("".join(f"{wire.host}/{ref}\n" for ref in source[1][:12]))
    said: list[str] = []

    def run(code: int, *arguments: str) -> None:
        done = subprocess.run([sys.executable, str(pyz), *arguments, "--plain-http", "--progress", str(work / "progress.json")], capture_output=True, text=True, check=False, cwd=work)
        said.append(done.stdout + done.stderr)
        assert done.returncode == code, done.stderr

    def login(password: str) -> None:
        auth = base64.b64encode(f"near-user:{password}".encode()).decode()
        config.write_text(json.dumps({"auths": {wire.host: {"auth": auth}}}))

    fetch = ["fetch", "--refs", str(work / "refs"), "--output", str(work / "bundle"), "--docker-config", str(config)]
    load = ["load", str(work / "bundle"), "--registry", target.host, "--state", str(work / "state"), "--receipt", str(work / "receipt.json"), "--username", "far-user"]
    login("canary-wrong")
    run(4, *fetch)
    login("canary-near")
    run(0, *fetch, "--json")
    (given / "wrong").write_text("canary-wrong")
    run(4, *load, "--password-file", str(given / "wrong"))
    arguments = [sys.executable, str(pyz), *load, "--plain-http", "--password-file", str(given / "password")]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    listed: list[bytes] = []

    def kill() -> None:
        listed.append(Path(f"/proc/{process.pid}/cmdline").read_bytes())
        process.kill()

    target.watch.append((1_000_000, kill))
    process.wait()
    assert listed and b"canary" not in listed[0]
    left = [path.name for path in (work / "state").iterdir()]
    assert any(name.endswith(".journal") for name in left)
    tokens = [*near.tokens, *far.tokens]
    secrets = [b"canary", base64.b64encode(b"near-user:canary-near"), base64.b64encode(b"far-user:canary-far"), *(token.encode() for token in tokens)]

    def search() -> list[str]:
        files = [path for folder in (work, Path(os.environ["HOME"])) for path in folder.rglob("*") if path.is_file() and given not in path.parents and "target" not in path.parts]
        assert any(path.name == "bundle.json" for path in files)
        return [str(path) for path in files if any(secret in path.read_bytes() for secret in secrets)]

    assert search() == []
    run(0, *load, "--password-file", str(given / "password"), "--json")
    assert search() == [] and (work / "receipt.json").is_file()
    assert not any(secret.decode() in text for secret in secrets for text in said)
    wire.close()


# --- content that lies ----------------------------------------------------------------------------------------------


def test_flipped_byte_on_the_line_is_never_kept(source: Source, wire: Wire, work: Path) -> None:
    wire.faults.append(Fault("GET", "/blobs/", times=1, flip=100))
    do_fetch(lock_for(wire.host, source[1][:2]), work / "bundle")
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_bundle(bundle, deep=True).ok
    wire.faults.append(Fault("GET", "/blobs/", times=-1, flip=100))
    with pytest.raises(DigestMismatch):
        do_fetch(lock_for(wire.host, source[1][:2]), work / "other")
    assert final_names(work / "other") == []


def test_manifest_that_is_not_what_was_asked_for(source: Source, wire: Wire, work: Path) -> None:
    wire.faults.append(Fault("GET", "/manifests/", times=-1, flip=30))
    with pytest.raises(MirrorError):
        do_fetch(lock_for(wire.host, source[1][:1]), work / "bundle")
    assert final_names(work / "bundle") == []


def test_blob_of_another_size_than_its_manifest_says(work: Path, make_registry: Callable[..., Registry]) -> None:
    storage = images.Storage(work / "odd")
    digest, size, inner = images.Layers(storage).get("x", 100_000)
    for name, lie in (("longer", size + 5), ("shorter", size - 5)):
        images.image(storage, f"odd/{name}", "1", [(digest, lie, inner)])
    host = make_registry("odd").host
    for name in ("longer", "shorter"):
        with pytest.raises(MirrorError):
            do_fetch(lock_for(host, [f"odd/{name}:1"]), work / name)
        assert final_names(work / name) == []


def test_index_whose_child_is_not_there(work: Path, make_registry: Callable[..., Registry]) -> None:
    storage = images.Storage(work / "odd")
    digest, size = images.image(storage, "odd/app", None, [images.Layers(storage).get("x", 1000)])
    images.index(storage, "odd/app", "1", [(digest, size, "amd64"), ("sha256:" + "0" * 64, 500, "arm64")])
    host = make_registry("odd").host
    with pytest.raises(MirrorError, match="index lists sha256:0000"):
        do_fetch(lock_for(host, ["odd/app:1"]), work / "bundle")
    result = do_fetch(lock_for(host, ["odd/app:1"], ("linux/amd64",)), work / "bundle")
    assert result.changed


def test_schema_1_is_refused_with_a_way_out(work: Path, make_registry: Callable[..., Registry]) -> None:
    storage = images.Storage(work / "odd")
    storage.manifest("odd/old", json.dumps({"schemaVersion": 1, "name": "odd/old", "tag": "1", "fsLayers": [], "history": [], "signatures": []}).encode(), "1")
    wire = Wire(("127.0.0.1", make_registry("odd").port))
    body = json.dumps({"schemaVersion": 1, "name": "odd/old"}).encode()
    wire.handler = lambda request: (200, {"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}, body)
    with pytest.raises(MirrorError, match=r"schema 1 manifest.*Push the image anew"):
        do_fetch(lock_for(wire.host, ["odd/old:1"]), work / "bundle")
    wire.close()


# --- odd registries -------------------------------------------------------------------------------------------------


def test_sparse_index(source: Source, target: Wire, work: Path) -> None:
    ref = next(ref for ref in source[1] if "app40" in ref)
    do_fetch(lock_for(source[0].host, [ref], ("linux/amd64",)), work / "bundle")
    result = do_load(work / "bundle", target.host)
    repository, tag = ref.split(":")
    client = RegistryClient(target.host, plain_http=True)
    near = RegistryClient(source[0].host, plain_http=True).get_manifest(repository, tag)
    # distribution refuses an index without all its children: the tag is the platform that is there, and this is said.
    assert client.head_manifest(repository, tag) == near.children()[0].digest
    assert "refuses an index" in result.warnings[0] and near.digest in result.warnings[0]
    target.reset()
    assert not do_load(work / "bundle", target.host).changed and target.count == 1


def test_registry_that_does_not_mount(source: Source, target: Wire, work: Path) -> None:
    do_fetch(lock_for(source[0].host, source[1][:12]), work / "bundle")
    target.handler = None
    forward = target._forward

    def plain(client: object, upstream: object, head: bytes, left: bytes, request: object, fault: object) -> bool:
        return bool(forward(client, upstream, head.replace(b"mount=", b"ignored="), left, request, fault))  # type: ignore[arg-type]

    target._forward = plain  # type: ignore[assignment,method-assign]
    result = do_load(work / "bundle", target.host)
    assert result.blobs_mounted == 0 and result.blobs_uploaded > 0
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_registry(bundle, RegistryClient(target.host, plain_http=True), deep=True).problems == []


def test_registry_that_is_upset_by_mounts(source: Source, target: Wire, work: Path) -> None:
    do_fetch(lock_for(source[0].host, source[1][:4]), work / "bundle")
    target.faults.append(Fault("POST", "mount=", times=-1, status=405))
    do_load(work / "bundle", target.host)
    assert sum("mount=" in request.path for request in target.requests) <= 16


def test_read_only_registry(source: Source, work: Path, make_registry: Callable[..., Registry]) -> None:
    do_fetch(lock_for(source[0].host, source[1][:2]), work / "bundle")
    registry = make_registry("readonly", readonly=True)
    with pytest.raises(RegistryError, match="405"):
        do_load(work / "bundle", registry.host)


def test_registry_emptied_between_two_runs(source: Source, work: Path, make_registry: Callable[..., Registry]) -> None:
    do_fetch(lock_for(source[0].host, source[1][:6]), work / "bundle")
    registry = make_registry("emptied")
    wire = Wire(("127.0.0.1", registry.port))
    stop = access()
    wire.watch.append((600_000, stop.stop.set))
    with pytest.raises(MirrorError) as stopped:
        do_load(work / "bundle", wire.host, state=work / "state", access=stop)
    assert stopped.value.exit_code == 75 and list((work / "state").glob("*.journal"))
    registry.stop()
    shutil.rmtree(registry.root)
    registry.root.mkdir()
    registry.start()
    do_load(work / "bundle", wire.host, state=work / "state")
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_registry(bundle, RegistryClient(wire.host, plain_http=True), deep=True).problems == []
    wire.close()


def test_delta_without_its_base_is_refused_before_the_first_byte(source: Source, target: Wire, work: Path) -> None:
    from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.delta import Base

    do_fetch(lock_for(source[0].host, source[1][:5]), work / "base")
    do_fetch(lock_for(source[0].host, source[1][:9]), work / "delta", base=Base.load(work / "base"))
    with pytest.raises(BaseMissing, match="Nothing was loaded") as error:
        do_load(work / "delta", target.host)
    assert error.value.exit_code == 6 and target.up == 0
    assert {request.method for request in target.requests} == {"HEAD"}


# --- disks ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(work: Path) -> object:
    """A file system of 8 MB, where we may mount one."""
    folder = work / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_too_small_a_disk_is_noticed_before_the_first_byte(source: Source, wire: Wire, small_disk: Path) -> None:
    with pytest.raises(SpaceError, match="are free"):
        do_fetch(lock_for(wire.host, source[1]), small_disk / "bundle")
    assert wire.kinds()["GET blob"] == 0


def test_disk_that_fills_up_on_the_way(source: Source, wire: Wire, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import collections

    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 40, 0, 1 << 40))
    refs = source[1][:16]
    with pytest.raises(SpaceError, match="the disk is full") as error:
        do_fetch(lock_for(wire.host, refs), small_disk / "bundle")
    assert error.value.exit_code == 5 and final_names(small_disk / "bundle") == []
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    wire.reset()
    do_fetch(lock_for(wire.host, refs), small_disk / "bundle")
    assert wire.kinds()["GET manifest"] == 0
    with Bundle.open([small_disk / "bundle"]) as bundle:
        assert verify_bundle(bundle, deep=True).ok


def test_two_fetches_into_one_folder(source: Source, wire: Wire, work: Path) -> None:
    wire.latency = 0.05
    first = threading.Thread(target=lambda: do_fetch(lock_for(wire.host, source[1][:8]), work / "bundle"))
    first.start()
    wait_for(lambda: (work / "bundle" / ".incomplete" / "lock").exists())
    with pytest.raises(MirrorError, match="another fetch"):
        do_fetch(lock_for(wire.host, source[1][:8]), work / "bundle")
    first.join()


__all__ = ["BundleError", "NetworkError"]
