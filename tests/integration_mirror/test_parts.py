# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts, media, signatures, files, other tools: what is carried arrives, what is damaged or foreign is refused."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import random
import shutil
import ssl
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.access import Access
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.artifact import (
    describe_file,
    list_files,
    pull_file,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.bundle import Bundle
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.errors import (
    BundleError,
    DigestMismatch,
    MirrorError,
    RegistryError,
    TrustError,
    UsageError,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.lock import FORMAT, Lock
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.oci import canonical_json
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.progress import Progress, read_progress
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.prune import plan_prune, prune
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.registry import RegistryClient
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.seed import seed_storage
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.sign import Trust, sign_bundle
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.transport import Patience
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.verify import verify_bundle, verify_registry
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.view import extract_files, make_view
from conftest import Registry, access, do_fetch, do_load, lock_for
from wire import Fault, Wire

Source = tuple[Registry, list[str]]
PART = 4_000_000


def parts_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("bundle-*.tar"))


@pytest.fixture
def split(source: Source, work: Path) -> Path:
    """A bundle in parts of 4 MB; the largest blob (5 MB) must span."""
    do_fetch(lock_for(source[0].host, source[1]), work / "bundle", part_size=PART)
    assert len(parts_of(work / "bundle")) >= 6
    return work / "bundle"


def whole(folder: Path, host: str) -> list[str]:
    with Bundle.open([folder]) as bundle:
        return verify_registry(bundle, RegistryClient(host, plain_http=True), deep=True).problems


def test_parts_keep_their_limit_and_a_blob_spans(split: Path) -> None:
    assert all(path.stat().st_size <= PART for path in parts_of(split))
    with Bundle.open([split]) as bundle:
        assert max(len(pieces) for pieces in bundle.places.values()) >= 2
        assert verify_bundle(bundle, deep=True).ok


def test_parts_are_plain_tars(split: Path, work: Path) -> None:
    pieces: dict[str, dict[int, bytes]] = {}
    for path in parts_of(split):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.startswith("blobs/"):
                    digest, _, number = member.name.rpartition("/")[2].partition(".")
                    stream = archive.extractfile(member)
                    assert stream is not None
                    pieces.setdefault(digest, {})[int(number or 0)] = stream.read()
    assert len(pieces) == 309
    assert all(hashlib.sha256(b"".join(data[key] for key in sorted(data))).hexdigest() == digest for digest, data in pieces.items())
    subprocess.run(["tar", "-xf", str(parts_of(split)[2]), "-C", str(work), "circleci-mirror.pyz"], check=True)
    assert b"fetch" in subprocess.run([sys.executable, str(work / "circleci-mirror.pyz"), "--help"], check=True, capture_output=True).stdout


def test_load_from_several_folders_at_once(split: Path, target: Wire, work: Path) -> None:
    for number, path in enumerate(parts_of(split)[1:]):
        folder = work / f"media{number % 2}"
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    do_load([split, work / "media0", work / "media1"], target.host)
    with Bundle.open([split, work / "media0", work / "media1"]) as bundle:
        assert verify_registry(bundle, RegistryClient(target.host, plain_http=True), deep=True).problems == []


def test_one_medium_at_a_time(split: Path, target: Wire, work: Path) -> None:
    """Each medium is inserted once, in order; bundle.json comes from the medium itself."""
    drive = work / "drive"
    parts = parts_of(split)
    asked = []
    for number, path in enumerate(parts, 1):
        drive.mkdir()
        shutil.copy(path, drive)
        if number < len(parts):
            with pytest.raises(MirrorError) as error:
                do_load(drive, target.host, state=work / "state")
            assert error.value.exit_code == 75
            asked.append(int(str(error.value).split()[1]))
        else:
            do_load(drive, target.host, state=work / "state")
        shutil.rmtree(drive)
    assert asked == list(range(2, len(parts) + 1))
    # Nothing went up twice.
    with Bundle.open([split]) as bundle:
        assert target.up <= sum(bundle.sizes.values()) + 100_000
    assert whole(split, target.host) == []


def test_wrong_order_asks_for_the_first(split: Path, target: Wire, work: Path) -> None:
    (work / "drive").mkdir()
    shutil.copy(parts_of(split)[2], work / "drive")
    with pytest.raises(MirrorError, match="Insert the medium with part 1") as error:
        do_load(work / "drive", target.host, state=work / "state")
    assert error.value.exit_code == 75 and target.up == 0


def test_read_only_medium(split: Path, target: Wire, work: Path) -> None:
    for path in [*split.iterdir(), split]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path.name: path.stat().st_mtime_ns for path in split.iterdir()}
    do_load(split, target.host, state=work / "state")
    assert {path.name: path.stat().st_mtime_ns for path in split.iterdir()} == before
    split.chmod(0o755)


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "header", "padding", "foreign", "renamed", "empty"])
def test_damaged_parts(split: Path, source: Source, target: Wire, work: Path, damage: str) -> None:
    part = parts_of(split)[1]
    place = None
    if damage == "missing":
        part.unlink()
    elif damage == "truncated":
        os.truncate(part, part.stat().st_size - 5000)
    elif damage == "empty":
        os.truncate(part, 0)
    elif damage in ("flipped", "header", "padding"):
        with Bundle.open([split]) as bundle:
            piece = next(pieces[0] for pieces in bundle.places.values() if len(pieces) == 1 and pieces[0].part == 2 and pieces[0].size % 512)
        place = {"flipped": piece.offset + 7, "header": piece.offset - 500, "padding": piece.offset + piece.size}[damage]
        with open(part, "r+b") as stream:
            stream.seek(place)
            byte = stream.read(1)
            stream.seek(place)
            stream.write(bytes([byte[0] ^ 1]))
    elif damage == "foreign":
        do_fetch(lock_for(source[0].host, source[1][:30]), work / "other", part_size=PART)
        shutil.copy(parts_of(work / "other")[1], part)
    elif damage == "renamed":
        shutil.copy(parts_of(split)[2], part)
    with Bundle.open([split]) as bundle:
        report = verify_bundle(bundle, deep=True)
    assert len(report.problems) == 1 and "Copy" in report.problems[0] + "Copy" * (damage in ("missing", "foreign", "renamed"))
    if damage in ("flipped",):
        with pytest.raises(BundleError, match="damaged"):
            do_load(split, target.host)
    elif damage not in ("header", "padding"):
        with pytest.raises(MirrorError):
            do_load(split, target.host)
    if damage not in ("header", "padding"):
        # No tag whose content is not there.
        client = RegistryClient(target.host, plain_http=True)
        for repository in client.list_repositories():
            for tag in client.list_tags(repository):
                manifest = client.get_manifest(repository, tag)
                for image in [client.get_manifest(repository, child.digest) for child in manifest.children()] or [manifest]:
                    assert all(client.head_blob(repository, blob.digest) == blob.size for blob in image.blobs())


def test_verify_of_one_part_needs_only_its_medium(split: Path, work: Path) -> None:
    (work / "drive").mkdir()
    shutil.copy(parts_of(split)[2], work / "drive")
    with Bundle.open([work / "drive"]) as bundle:
        assert verify_bundle(bundle, deep=True, part=3).ok
        assert not verify_bundle(bundle, deep=True).ok


# --- a bundle that somebody made with bad intent --------------------------------------------------------------------


def forged(raw: bytes, change: Callable[[dict[str, object]], object]) -> bytes:
    data = json.loads(raw)
    change(data)
    return canonical_json(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["blobs"][0].update(s=10**15),
        lambda data: data["blobs"][0].update(s=-1),
        lambda data: data["blobs"][0]["at"][0].__setitem__(1, -4096),
        lambda data: data["blobs"][0]["at"][0].__setitem__(1, 10**12),
        lambda data: data["blobs"][0]["at"][0].__setitem__(0, 99),
        lambda data: data["blobs"][0].update(d="sha256:../../../../etc/passwd"),
        lambda data: data["parts"][0].update(extents=10**15),
        lambda data: data["parts"][0].update(n=7),
        lambda data: data["refs"][0].update(digest="sha256:" + "0" * 64),
        lambda data: data.update(id="../../etc/cron.d/x"),
        lambda data: data.update(blobs="all"),
        lambda data: data["blobs"].append(data["blobs"][0]),
        lambda data: data["blobs"][1].update(at=data["blobs"][0]["at"]),
        lambda data: data.update(format="other"),
    ],
)
def test_bundle_json_that_lies(source: Source, work: Path, change: Callable[[dict[str, object]], object]) -> None:
    do_fetch(lock_for(source[0].host, source[1][:2]), work / "bundle")
    path = work / "bundle" / "bundle.json"
    path.write_bytes(forged(path.read_bytes(), change))
    with pytest.raises(BundleError):
        Bundle.open([work / "bundle"])


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "..", "a\\..\\b", "a//b", "x\n", ""])
def test_file_names_that_lead_out(name: str, work: Path) -> None:
    (work / "f").write_bytes(b"x")
    with pytest.raises(UsageError, match="file name" if name else "files"):
        Lock.from_data({"format": FORMAT, "artifacts": [{"repo": "onprem/packages/x", "tag": "1", "files": [{"path": str(work / "f"), "filename": name}] if name else []}]})


def test_symlink_in_the_folder_does_not_lead_files_out(work: Path) -> None:
    (work / "f").write_bytes(b"payload")
    lock = Lock.from_data({"format": FORMAT, "artifacts": [{"repo": "onprem/packages/x", "tag": "1", "files": [{"path": str(work / "f"), "filename": "sub/file"}]}]})
    do_fetch(lock, work / "bundle")
    (work / "outside").mkdir()
    (work / "to").mkdir()
    (work / "to" / "sub").symlink_to(work / "outside")
    with Bundle.open([work / "bundle"]) as bundle, pytest.raises(BundleError, match="outside"):
        extract_files(bundle, work / "to")
    assert list((work / "outside").iterdir()) == []


def test_symlinked_part_of_another_file_is_refused(split: Path) -> None:
    part = parts_of(split)[1]
    part.unlink()
    part.symlink_to("/etc/passwd")
    with Bundle.open([split]) as bundle:
        assert "no part of a bundle" in verify_bundle(bundle).problems[0]


# --- signatures -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Kind -> (secret key, public key) for what is installed here."""
    folder = tmp_path_factory.mktemp("keys")
    found: dict[str, tuple[str, str]] = {}
    if shutil.which("minisign"):
        subprocess.run(["minisign", "-G", "-W", "-p", folder / "mini.pub", "-s", folder / "mini.key"], check=True, capture_output=True, input=b"\n\n")
        found["minisign"] = (str(folder / "mini.key"), (folder / "mini.pub").read_text())
    if shutil.which("ssh-keygen"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "ssh"], check=True)
        found["ssh"] = (str(folder / "ssh"), (folder / "ssh.pub").read_text())
    if shutil.which("gpg"):
        home = folder / "gpg"
        home.mkdir(mode=0o700)
        common = ["gpg", "--homedir", str(home), "--batch", "--passphrase", ""]
        if subprocess.run([*common, "--quick-generate-key", "bundle@example.org", "ed25519", "sign", "never"], capture_output=True, check=False).returncode == 0:
            public = subprocess.run([*common, "--armor", "--export"], check=True, capture_output=True, text=True).stdout
            found["gpg"] = (str(home), public)
    return found


@pytest.mark.parametrize("kind", ["minisign", "ssh", "gpg"])
def test_signed_bundle(source: Source, target: Wire, work: Path, keys: dict[str, tuple[str, str]], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind not in keys:
        pytest.skip(f"{kind} is not installed here")
    secret, public = keys[kind]
    do_fetch(lock_for(source[0].host, source[1][:3]), work / "bundle", part_size=PART)
    before = [path.read_bytes() for path in parts_of(work / "bundle")]
    if kind == "gpg":
        monkeypatch.setenv("GNUPGHOME", secret)
    name = sign_bundle(work / "bundle", kind, "" if kind == "gpg" else secret)
    assert (work / "bundle" / name).is_file()
    for path, old in zip(parts_of(work / "bundle"), before):
        new = path.read_bytes()
        assert len(new) <= PART and new != old
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_bundle(bundle, deep=True, trust=Trust(public)).ok
    # The medium alone carries the signature.
    (work / "bundle" / name).unlink()
    (work / "bundle" / "bundle.json").unlink()
    assert do_load(work / "bundle", target.host, trust=Trust(public)).changed


@pytest.mark.parametrize("kind", ["minisign", "ssh", "gpg"])
def test_wrong_key_and_changed_content_are_refused(source: Source, target: Wire, work: Path, keys: dict[str, tuple[str, str]], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind not in keys:
        pytest.skip(f"{kind} is not installed here")
    secret, public = keys[kind]
    do_fetch(lock_for(source[0].host, source[1][:3]), work / "bundle")
    for trust in (Trust(public), Trust()):
        with pytest.raises(TrustError):
            do_load(work / "bundle", target.host, trust=trust)
    if kind == "gpg":
        monkeypatch.setenv("GNUPGHOME", secret)
    name = sign_bundle(work / "bundle", kind, "" if kind == "gpg" else secret)
    others = {
        "minisign": "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3",
        "ssh": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5gKFlGj8nTDA2aCqfJYUZ0mMcPmXZqYFqUq4DJ2nQo",
    }
    if kind in others:
        with pytest.raises(TrustError):
            do_load(work / "bundle", target.host, trust=Trust(others[kind]))
    # Another, whole bundle under the old signature.
    do_fetch(lock_for(source[0].host, source[1][:4]), work / "other")
    shutil.copy(work / "bundle" / name, work / "other" / name)
    with pytest.raises(TrustError):
        do_load(work / "other", target.host, trust=Trust(public))
    # Signed, but nobody said by whom.
    with pytest.raises(TrustError, match="no public key"):
        do_load(work / "bundle", target.host, trust=Trust())
    assert target.count == 0


def test_fetching_anew_takes_the_old_signature_away(source: Source, work: Path, keys: dict[str, tuple[str, str]]) -> None:
    if "ssh" not in keys:
        pytest.skip("ssh-keygen is not installed here")
    do_fetch(lock_for(source[0].host, source[1][:2]), work / "bundle")
    sign_bundle(work / "bundle", "ssh", keys["ssh"][0])
    assert not do_fetch(lock_for(source[0].host, source[1][:2]), work / "bundle").changed
    assert (work / "bundle" / "bundle.json.sig").exists()
    do_fetch(lock_for(source[0].host, source[1][:3]), work / "bundle")
    assert not (work / "bundle" / "bundle.json.sig").exists()


# --- files, charts, packages ----------------------------------------------------------------------------------------


@pytest.fixture
def web(work: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """A web server; what ends in .enc is stored gzip-encoded, as object stores do."""
    content = {name: random.Random(name).randbytes(size) for name, size in (("/nomad.zip", 700_000), ("/agent.enc", 900_000), ("/chart-1.0.tgz", 9_000))}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = content.get(self.path.split("?")[0])
            if body is None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            if self.path.endswith(".enc"):
                body = gzip.compress(body, mtime=0)
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", content
    server.shutdown()
    server.server_close()


def file_lock(base: str, content: dict[str, bytes], local: Path, known: bool) -> Lock:
    def facts(name: str) -> dict[str, object]:
        return {"sha256": hashlib.sha256(content[name]).hexdigest(), "size": len(content[name])} if known else {"sha256": None, "size": None}

    return Lock.from_data(
        {
            "format": FORMAT,
            "files": [
                {"name": "nomad", "version": "1.10.5", "url": f"{base}/nomad.zip?signature=secret", "mode": "0755", **facts("/nomad.zip")},
                {"name": "agent", "version": "1.0+build", "url": f"{base}/agent.enc", "filename": "circleci-agent", "mode": "0755", **facts("/agent.enc")},
            ],
            "charts": [{"name": "demo", "version": "1.0", "url": f"{base}/chart-1.0.tgz", **facts("/chart-1.0.tgz")}],
            "artifacts": [{"repo": "onprem/packages/debian-12-amd64", "tag": "one", "files": [{"path": str(path)} for path in sorted(local.iterdir())]}],
        }
    )


@pytest.mark.parametrize("known", [True, False])
def test_files_travel_as_artifacts(web: tuple[str, dict[str, bytes]], target: Wire, work: Path, known: bool) -> None:
    base, content = web
    local = work / "packages"
    local.mkdir()
    for number in range(3):
        (local / f"package{number}_1.0_amd64.deb").write_bytes(random.Random(number).randbytes(20_000))
    lock = file_lock(base, content, local, known)
    do_fetch(lock, work / "bundle")
    assert not do_fetch(lock, work / "bundle").changed
    do_load(work / "bundle", target.host)
    client = RegistryClient(target.host, plain_http=True)
    remote = describe_file(client, "nomad", "1.10.5")
    assert (remote.filename, remote.mode, remote.size) == ("nomad.zip", "0755", 700_000)
    assert pull_file(client, remote, work / "nomad") and not pull_file(client, remote, work / "nomad")
    assert (work / "nomad").read_bytes() == content["/nomad.zip"] and (work / "nomad").stat().st_mode & 0o777 == 0o755
    agent = describe_file(client, "agent", "1.0_build")
    pull_file(client, agent, work / "agent")
    assert (work / "agent").read_bytes() == content["/agent.enc"]
    assert [item.filename for item in list_files(client, "onprem/packages/debian-12-amd64", "one")] == sorted(path.name for path in local.iterdir())
    with Bundle.open([work / "bundle"]) as bundle:
        extracted = extract_files(bundle, work / "out", ["nomad", "onprem/packages/debian-12-amd64"])
        assert len(extracted) == 4 and (work / "out" / "nomad.zip").read_bytes() == content["/nomad.zip"]
        assert b"secret" not in bundle.raw
    if shutil.which("skopeo"):
        done = subprocess.run(["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{target.host}/charts/demo:1.0"], capture_output=True, check=True)
        assert b"cncf.helm.config" in done.stdout


def test_signed_links_are_written_nowhere(web: tuple[str, dict[str, bytes]], work: Path) -> None:
    base, content = web
    (work / "packages").mkdir()
    (work / "packages" / "p").write_bytes(b"p")
    lock = file_lock(base, content, work / "packages", True)
    stop = access()
    stop.stop.set()
    with pytest.raises(MirrorError):
        do_fetch(lock, work / "bundle", access=stop)
    assert (work / "bundle" / ".incomplete" / "plan.json").is_file()
    for path in (work / "bundle").rglob("*"):
        assert not path.is_file() or b"signature=secret" not in path.read_bytes()
    do_fetch(lock, work / "bundle")
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_bundle(bundle, deep=True).ok


def test_file_that_is_not_what_the_lock_says(web: tuple[str, dict[str, bytes]], work: Path) -> None:
    base, content = web
    for facts in ({"sha256": "0" * 64, "size": 700_000}, {"sha256": "0" * 64}, {"sha256": hashlib.sha256(content["/nomad.zip"]).hexdigest(), "size": 5}):
        lock = Lock.from_data({"format": FORMAT, "files": [{"name": "nomad", "version": "1", "url": f"{base}/nomad.zip", **facts}]})
        with pytest.raises((DigestMismatch, MirrorError)) as error:
            do_fetch(lock, work / "bundle")
        assert error.value.exit_code == 4
        assert not (work / "bundle" / "bundle.json").exists()


# --- other tools ----------------------------------------------------------------------------------------------------


def test_skopeo_reads_a_one_part_bundle_and_the_view(source: Source, work: Path) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed here")
    refs = [ref for ref in source[1] if "app39" in ref or "app02" in ref]
    do_fetch(lock_for(source[0].host, refs), work / "bundle")
    part = parts_of(work / "bundle")[0]
    with Bundle.open([work / "bundle"]) as bundle:
        view = make_view(bundle, work / "view")
        again = make_view(bundle, work / "view2", link_from=work / "view")
    assert view.copied + view.cloned == again.linked and again.bytes_copied == 0
    for ref in refs:
        for name in (f"oci-archive:{part}:{source[0].host}/{ref}", f"oci:{work}/view:{source[0].host}/{ref}"):
            copy = work / "copy"
            subprocess.run(["skopeo", "copy", "--all", "--preserve-digests", name, f"dir:{copy}"], check=True, capture_output=True)
            raw = (copy / "manifest.json").read_bytes()
            repository, tag = ref.split(":")
            assert "sha256:" + hashlib.sha256(raw).hexdigest() == RegistryClient(source[0].host, plain_http=True).head_manifest(repository, tag)
            shutil.rmtree(copy)


@pytest.mark.parametrize("kind", ["image", "index", "chart"])
@pytest.mark.parametrize("tool", ["oras", "crane"])
def test_other_tools_carry_it_on(source: Source, target: Wire, work: Path, tool: str, kind: str) -> None:
    """oras reads the one part as it is, crane the view; what they push has the digest of the source."""
    program = os.environ.get(tool.upper()) or shutil.which(tool)
    if program is None:
        pytest.skip(f"{tool} is not installed here; {tool.upper()}=PATH names it")
    ref = next(ref for ref in source[1] if {"image": "app02", "index": "app39", "chart": "chart0"}[kind] in ref)
    do_fetch(lock_for(source[0].host, [ref]), work / "bundle")
    environment = {**os.environ, "HOME": str(work)}
    if tool == "oras":
        # By digest: to oras a colon in the name of a layout begins the tag.
        digest = RegistryClient(source[0].host, plain_http=True).head_manifest(*ref.split(":"))
        part = parts_of(work / "bundle")[0]
        arguments = ["cp", "--no-tty", "--from-oci-layout", f"{part}@{digest}", "--to-plain-http", f"{target.host}/{ref}"]
    else:
        with Bundle.open([work / "bundle"]) as bundle:
            make_view(bundle, work / "view")
        arguments = ["push", "--insecure", str(work / "view"), f"{target.host}/{ref}"]
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    repository, tag = ref.split(":")
    far, near = (RegistryClient(host, plain_http=True).head_manifest(repository, tag) for host in (target.host, source[0].host))
    assert far == near is not None
    # Nothing is left to do for the engine, which sees the same names and digests.
    assert not do_load(work / "bundle", target.host).changed


def test_seeded_storage_is_served(source: Source, work: Path, make_registry: Callable[..., Registry]) -> None:
    do_fetch(lock_for(source[0].host, source[1]), work / "bundle")
    registry = make_registry("seeded")
    with Bundle.open([work / "bundle"]) as bundle:
        assert seed_storage(bundle, work / "seeded", dry_run=True).changed
        first = seed_storage(bundle, work / "seeded")
        assert first.changed and first.blobs == 309
        assert not seed_storage(bundle, work / "seeded").changed
        assert verify_registry(bundle, RegistryClient(registry.host, plain_http=True), deep=True).problems == []


# --- prune ----------------------------------------------------------------------------------------------------------


def test_prune_shows_first_and_touches_only_what_was_loaded(source: Source, target: Wire, work: Path) -> None:
    do_fetch(lock_for(source[0].host, source[1][:5]), work / "old")
    do_load(work / "old", target.host, receipt=work / "receipt.json")
    do_fetch(lock_for(source[0].host, source[1][2:8]), work / "new")
    do_load(work / "new", target.host)
    client = RegistryClient(target.host, plain_http=True)
    gone = source[1][0].split(":")
    # Somebody gave one of the old images a name of his own.
    client.push = True
    client.put_manifest(gone[0], "mine", client.get_manifest(*gone))
    receipt = json.loads((work / "receipt.json").read_text())
    with Bundle.open([work / "new"]) as bundle:
        plan = plan_prune(client, receipt, bundle, {})
        assert [item["name"] for item in plan.remove] == [f"{target.host}/{source[1][1]}"]
        assert len(plan.kept) == 1 and "mine" in plan.kept[0]
        assert client.head_manifest(*source[1][1].split(":")) is not None
        prune(client, plan, Progress())
    assert plan.removed == 1
    assert client.head_manifest(*source[1][1].split(":")) is None
    assert client.head_manifest(*gone) is not None


def test_prune_without_delete_says_how(source: Source, work: Path, make_registry: Callable[..., Registry]) -> None:
    registry = make_registry("nodelete", delete=False)
    do_fetch(lock_for(source[0].host, source[1][:2]), work / "bundle")
    do_load(work / "bundle", registry.host)
    client = RegistryClient(registry.host, plain_http=True)
    repository, tag = source[1][0].split(":")
    with pytest.raises(RegistryError, match=r"storage\.delete\.enabled"):
        client.delete_manifest(repository, str(client.head_manifest(repository, tag)))


# --- TLS, credentials, rate, command line ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    for name in ("server", "client"):
        subprocess.run(
            [*new, "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,DNS:registry.site.example", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"], check=True, capture_output=True
        )
    return folder


def test_tls_with_a_private_authority_and_client_certificate(source: Source, work: Path, certificates: Path, make_registry: Callable[..., Registry]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates / "client.pem")
    near, far = Wire(("127.0.0.1", source[0].port), context), Wire(("127.0.0.1", make_registry("tls").port), context)
    mutual: dict[str, Any] = {"client_cert": str(certificates / "client.pem"), "client_key": str(certificates / "client.key")}
    lock = lock_for(near.host, source[1][:6])

    def trusted() -> Access:
        return Access(ca_data=(certificates / "server.pem").read_text(), use_docker_config=False, **mutual)

    do_fetch(lock, work / "bundle", access=trusted())
    do_load(work / "bundle", far.host, access=trusted())
    with Bundle.open([work / "bundle"]) as bundle:
        assert verify_registry(bundle, trusted().client(far.host), deep=True).problems == []
    with pytest.raises(RegistryError, match="not trusted"):
        do_fetch(lock, work / "other", access=Access(use_docker_config=False, **mutual))
    near.close()
    far.close()


def test_through_a_proxy(source: Source, work: Path, make_registry: Callable[..., Registry], monkeypatch: pytest.MonkeyPatch, certificates: Path) -> None:
    """Plain HTTP is asked of the proxy, TLS goes through a tunnel of it; no_proxy goes past it."""
    lock = lock_for("registry.example:5000", source[1][:3])
    proxy = Wire(("127.0.0.1", source[0].port))
    monkeypatch.setenv("http_proxy", f"http://user:pass%20word@{proxy.host}")
    do_fetch(lock, work / "bundle")
    assert proxy.count and all(request.path.startswith("http://registry.example:5000/v2/") for request in proxy.requests)
    assert {request.headers["proxy-authorization"] for request in proxy.requests} == {"Basic " + base64.b64encode(b"user:pass word").decode()}
    monkeypatch.setenv("no_proxy", ".example")
    proxy.reset()
    with pytest.raises(MirrorError, match=r"registry\.example"):
        do_fetch(lock, work / "past", access=access(patience=Patience(tries=1)))
    assert proxy.count == 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    secure = Wire(("127.0.0.1", make_registry("tls").port), context)
    tunnel = Wire(("127.0.0.1", secure.port))
    monkeypatch.setenv("https_proxy", tunnel.host)
    monkeypatch.delenv("no_proxy")
    trusted = Access(ca_file=str(certificates / "server.pem"), use_docker_config=False)
    do_load(work / "bundle", f"registry.site.example:{secure.port}", access=trusted)
    assert {request.method for request in tunnel.requests} == {"CONNECT"} and secure.kinds()["PUT manifest"] == 3
    for wire in (proxy, secure, tunnel):
        wire.close()


def test_htpasswd_and_docker_config(source: Source, work: Path, make_registry: Callable[..., Registry], monkeypatch: pytest.MonkeyPatch) -> None:
    bcrypt = shutil.which("htpasswd")
    if bcrypt is None:
        pytest.skip("htpasswd is not installed here")
    (work / "htpasswd").write_bytes(subprocess.run([bcrypt, "-nbB", "load", "hunter2"], check=True, capture_output=True).stdout)
    registry = make_registry("auth", htpasswd=work / "htpasswd")
    do_fetch(lock_for(source[0].host, source[1][:2]), work / "bundle")
    with pytest.raises(RegistryError, match="401"):
        do_load(work / "bundle", registry.host)
    config = work / "config.json"
    config.write_text(json.dumps({"auths": {registry.host: {"auth": base64.b64encode(b"load:hunter2").decode()}}}))
    do_load(work / "bundle", registry.host, access=Access(plain_http=True, docker_config=config))
    helper = work / "bin" / "docker-credential-test"
    helper.parent.mkdir()
    helper.write_text('#!/bin/sh\necho \'{"Username":"load","Secret":"hunter2"}\'\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    config.write_text(json.dumps({"credHelpers": {registry.host: "test"}}))
    assert not do_load(work / "bundle", registry.host, access=Access(plain_http=True, docker_config=config)).changed


def test_command_line(source: Source, target: Wire, work: Path, pyz: Path) -> None:
    (work / "refs").write_text("".join(f"{source[0].host}/{ref}\n" for ref in source[1][:4]))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(pyz), *arguments], capture_output=True, text=True, check=False)

    assert run("fetch", "--refs", str(work / "refs"), "--output", str(work / "b"), "--plain-http", "--progress", str(work / "p.json"), "--limit-rate", "200M").returncode == 0
    state = read_progress(work / "p.json")
    assert state is not None and state["phase"] == "done"
    assert run("verify", str(work / "b"), "--deep").returncode == 0
    shown = run("list", str(work / "b"))
    assert source[1][0] in shown.stdout
    assert run("explain", str(work / "b"), source[1][0]).returncode == 0
    # What was fetched here by this user needs no signature; the same bytes from elsewhere do.
    loaded = run("load", str(work / "b"), "--registry", target.host, "--plain-http", "--receipt", str(work / "r.json"))
    assert loaded.returncode == 0, loaded.stderr
    shutil.rmtree(Path(os.environ["HOME"]) / ".local")
    refused = run("load", str(work / "b"), "--registry", target.host, "--plain-http")
    assert refused.returncode == 3 and "not signed" in refused.stderr
    assert run("verify", str(work / "b"), "--registry", target.host, "--plain-http", "--deep").returncode == 0
    assert run("load", str(work / "nothing"), "--registry", target.host).returncode == 2
    assert run("fetch", "--refs", str(work / "refs"), "--output", str(work / "c"), "--part-size", "lots").returncode == 2


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.12", "3.13"])
def test_other_pythons(source: Source, target: Wire, work: Path, pyz: Path, version: str) -> None:
    """The zipapp keeps its word: any Python from 3.9 on, without anything beside it."""
    python = f"python{version}"
    if shutil.which(python) is None or subprocess.run([python, "-c", "import ssl"], check=False, capture_output=True).returncode != 0:
        pytest.skip(f"{python} is not installed here")
    (work / "refs").write_text("".join(f"{source[0].host}/{ref}\n" for ref in source[1][:8]))
    run = [python, "-W", "error", "-I", str(pyz)]
    for arguments in (
        ["fetch", "--refs", str(work / "refs"), "--output", str(work / "b"), "--part-size", "3000000"],
        ["verify", str(work / "b"), "--deep"],
        ["load", str(work / "b"), "--registry", target.host, "--state", str(work / "state"), "--receipt", str(work / "r.json")],
        ["verify", str(work / "b"), "--registry", target.host, "--deep"],
    ):
        done = subprocess.run([*run, *arguments, "--plain-http"], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stderr == "", done.stderr
    (work / "s").mkdir()
    for arguments in (["view", str(work / "b"), str(work / "v")], ["seed", str(work / "b"), "--storage", str(work / "s")], ["list", str(work / "b")]):
        done = subprocess.run([*run, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stderr == "", done.stderr


def test_mapping(source: Source, target: Wire, work: Path) -> None:
    do_fetch(lock_for(source[0].host, source[1][:3]), work / "bundle")
    mapping = {f"{source[0].host}/team0": "mirror/zero", "team1": "one"}
    do_load(work / "bundle", target.host, mapping=mapping)
    names = RegistryClient(target.host, plain_http=True).list_repositories()
    assert "mirror/zero/app00" in names and "one/app01" in names and source[1][2].split(":")[0] in names
    assert not do_load(work / "bundle", target.host, mapping=mapping).changed


def test_rate_limit_is_kept(source: Source, wire: Wire, work: Path) -> None:
    import time

    started = time.monotonic()
    result = do_fetch(lock_for(wire.host, source[1][:12]), work / "bundle", access=access(limit_rate=4_000_000))
    assert time.monotonic() - started >= result.bytes_moved / 4_000_000 * 0.8


def test_memory_stays_small(work: Path, make_registry: Callable[..., Registry], pyz: Path, target: Wire) -> None:
    import images

    made = images.make_many(work / "many", 400, 1600)
    host = make_registry("many").host
    (work / "refs").write_text("".join(f"{host}/{ref}\n" for ref in made["refs"]))
    script = (
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024); raise SystemExit(code)"
    )
    for arguments in (
        ["fetch", "--refs", str(work / "refs"), "--output", str(work / "bundle"), "--plain-http", "--quiet"],
        ["load", str(work / "bundle"), "--registry", target.host, "--plain-http", "--quiet"],
    ):
        done = subprocess.run([sys.executable, "-c", script, sys.executable, str(pyz), *arguments], capture_output=True, text=True, check=True)
        assert int(done.stdout.strip().splitlines()[-1]) <= 64
    assert target.kinds()["HEAD manifest"] == 400


__all__ = ["Fault"]
