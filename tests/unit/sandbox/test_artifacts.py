# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import http.server
import io
import json
import socket
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import artifacts
from sandbox.artifacts import Artifact
from sandbox.common import SandboxError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONPREM_CIRCLECI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def artifact(**changes: Any) -> Artifact:
    values: dict[str, Any] = {
        "name": "tool",
        "version": "1.0.0",
        "use": ("up",),
        "seconds": 1,
        "files": ("tool",),
        "release": None,
        "build": {"module": "example.invalid/tool", "module_version": "v1.0.0", "packages": ["example.invalid/tool"], "cgo": False},
    }
    return Artifact(**{**values, **changes})


def makes(data: bytes, calls: list[str]) -> Callable[[Artifact, Path], dict[str, Any]]:
    def make(item: Artifact, work: Path) -> dict[str, Any]:
        calls.append(item.label)
        (work / "tool").write_bytes(data)
        return {"way": "build"}

    return make


def test_catalogue_is_consistent() -> None:
    items = artifacts.load()
    names = {item.name for item in items}
    assert {"kubernetes", "helm", "nomad", "versitygw", "metallb", "local-path-provisioner", "minio", "coredns"} <= names
    assert {item.version for item in items if item.name == "nomad"} == {"1.11.3", "1.7.7"}
    assert artifacts.find("kubernetes").version == "1.33.0"
    assert set(artifacts.find("kubernetes").files) >= {"kubelet", "kube-proxy", "kubectl"}


def test_checksums_of_the_catalogue_have_the_form_of_checksums() -> None:
    for item in artifacts.load():
        release = item.release or {}
        for algorithm, digits in (("sha256", 64), ("sha512", 128)):
            value = release.get(algorithm)
            assert value is None or (len(value) == digits and int(value, 16) >= 0), item.label
        assert item.build["sum"] is None or item.build["sum"].startswith("h1:"), item.label


def test_catalogue_problems_are_all_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "artifacts.yml"
    path.write_text(
        "artifacts:\n"
        "- {name: a, version: 1.0, use: [nowhere], seconds: 1, files: [a], build: {module: m, module_version: v1, packages: [m]}}\n"
        "- {name: b, version: '1', use: [up], seconds: 1, files: [b], build: {}}\n"
        "- {name: b, version: '1', use: [up], seconds: 1, files: [b], release: {url: u, members: {c: c}}, build: {module: m, module_version: v1, packages: [m]}}\n"
    )
    with pytest.raises(SandboxError) as error:
        artifacts.load(path)
    for part in ("a 1.0: version must be quoted", "'nowhere' is not one of", "b 1: build needs", "members must name", "b 1: listed twice"):
        assert part in str(error.value)


def test_unknown_artifact_lists_known_ones() -> None:
    with pytest.raises(SandboxError, match=r"artifact absent is not in .*known: .*helm 3"):
        artifacts.find("absent")


def test_several_versions_must_be_told_apart() -> None:
    with pytest.raises(SandboxError, match=r"several versions: 1\.11\.3, 1\.7\.7"):
        artifacts.find("nomad")


def test_recipe_ignores_what_does_not_change_the_result() -> None:
    one = artifact()
    assert one.recipe == artifact(seconds=99, use=("bench",)).recipe
    assert one.recipe == artifact(build={**one.build, "sum": "h1:x"}).recipe
    assert one.recipe != artifact(version="1.0.1").recipe
    assert one.recipe != artifact(build={**one.build, "cgo": True}).recipe


def test_made_once_and_verified_on_use(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(artifacts, "_from_modules", makes(b"program", calls))
    folder = artifacts.ensure(artifact())
    assert artifacts.ensure(artifact()) == folder
    assert calls == ["tool 1.0.0"]
    assert (folder / "SHA256SUMS").read_text() == f"{hashlib.sha256(b'program').hexdigest()}  tool\n"
    assert (folder / "tool").stat().st_mode & 0o777 == 0o755


def test_changed_file_is_refused_and_made_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(artifacts, "_from_modules", makes(b"program", calls))
    folder = artifacts.ensure(artifact())
    (folder / "tool").write_bytes(b"progrum")
    with pytest.raises(SandboxError, match="is not what was put there"):
        artifacts.ensure(artifact())
    artifacts.ensure(artifact())
    assert len(calls) == 2


def test_failed_build_leaves_nothing_half(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(item: Artifact, work: Path) -> dict[str, Any]:
        (work / "tool").write_bytes(b"half")
        raise SandboxError("the compiler said no")

    monkeypatch.setattr(artifacts, "_from_modules", make)
    with pytest.raises(SandboxError, match="the compiler said no"):
        artifacts.ensure(artifact())
    assert list((cache / "artifacts").iterdir()) == []


def test_leftover_of_a_killed_build_is_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(artifacts, "_from_modules", makes(b"program", calls))
    leftover = cache / "artifacts" / f".{artifact().folder().name}.killed"
    leftover.mkdir(parents=True)
    artifacts.ensure(artifact())
    assert not leftover.exists()


def test_two_at_once_build_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(artifacts, "_from_modules", makes(b"program", calls))
    threads = [threading.Thread(target=artifacts.ensure, args=(artifact(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_missing_go_says_what_to_install(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(SandboxError, match=r"`go` is not installed: install Go 1\.24 or later"):
        artifacts.ensure(artifact())


GO_MOD = """module example.invalid/tool

go 1.22

replace example.invalid/one => example.invalid/fork v1.2.3 // why

replace (
	// a comment
	k8s.io/api => ./staging/src/k8s.io/api
	example.invalid/two v1.0.0 => example.invalid/two v1.0.1
)
"""


def test_replace_lines_become_published_versions() -> None:
    assert sorted(artifacts.replace_lines(GO_MOD, {"k8s.io/": "v0.33.0"})) == [
        "example.invalid/one => example.invalid/fork v1.2.3",
        "example.invalid/two v1.0.0 => example.invalid/two v1.0.1",
        "k8s.io/api => k8s.io/api v0.33.0",
    ]


def test_local_replace_without_a_version_is_refused() -> None:
    with pytest.raises(SandboxError, match=r"k8s\.io/api => \./staging/src/k8s\.io/api points to a folder"):
        artifacts.replace_lines(GO_MOD, {})


# --- upstream's release files -------------------------------------------------------------------------------------------


class Upstream:
    """A web server on loopback: path → status, headers and content. It counts what it is asked for."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                status, headers, data = outer.files.get(self.path, (404, {}, b"nothing here"))
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(data))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}{path}"


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    for name in ("http_proxy", "HTTP_PROXY", "ONPREM_CIRCLECI_SANDBOX_BUILD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(artifacts, "_no_way", set())
    made = Upstream()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was built from modules, here without a compiler."""
    calls: list[str] = []
    monkeypatch.setattr(artifacts, "_from_modules", makes(b"built", calls))
    return calls


def archive(form: str) -> bytes:
    output = io.BytesIO()
    if form == "zip":
        with zipfile.ZipFile(output, "w") as bundle:
            bundle.writestr("LICENSE.txt", b"words")
            bundle.writestr("top/tool", b"released")
    else:
        with tarfile.open(fileobj=output, mode="w:gz") as bundle:
            for name, data in (("top/other", b"not asked for"), ("top/tool", b"released")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                bundle.addfile(info, io.BytesIO(data))
    return output.getvalue()


def released(url: str, data: bytes, algorithm: str = "sha256", **changes: Any) -> Artifact:
    return artifact(release={"url": url, algorithm: hashlib.new(algorithm, data).hexdigest(), "members": {"tool": "top/tool"}}, **changes)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_release_file_is_taken_where_its_checksum_is_known(cache: Path, upstream: Upstream, built: list[str], form: str, algorithm: str) -> None:
    data = archive(form)
    upstream.files["/tool"] = (200, {}, data)
    folder = artifacts.ensure(released(upstream.url("/tool"), data, algorithm))
    assert (folder / "tool").read_bytes() == b"released"
    assert (folder / "tool").stat().st_mode & 0o777 == 0o755
    record = json.loads((folder / "artifact.json").read_text())
    assert (record["way"], record["url"]) == ("release", upstream.url("/tool"))
    assert sorted(path.name for path in folder.iterdir()) == ["SHA256SUMS", "artifact.json", "tool"]
    artifacts.ensure(released(upstream.url("/tool"), data, algorithm))
    assert (upstream.asked, built) == (["/tool"], [])


def test_both_ways_lead_to_the_same_folder() -> None:
    """What stands on an artifact does not change with the way it came."""
    assert released("https://a.example/tool", b"").folder() == artifact().folder()


def test_release_file_with_another_checksum_stops_the_run(cache: Path, upstream: Upstream, built: list[str]) -> None:
    upstream.files["/tool"] = (200, {}, archive("zip"))
    with pytest.raises(SandboxError) as error:
        artifacts.ensure(released(upstream.url("/tool"), b"something else"))
    expected = hashlib.sha256(b"something else").hexdigest()
    assert str(error.value).startswith(f"{upstream.url('/tool')} is not the file that artifacts.yml names and was thrown away: its sha256 is ")
    assert f"expected {expected}" in str(error.value)
    assert "ONPREM_CIRCLECI_SANDBOX_BUILD=1" in str(error.value)
    assert (built, list((cache / "artifacts").iterdir())) == ([], [])


def test_build_way_can_be_demanded(cache: Path, upstream: Upstream, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONPREM_CIRCLECI_SANDBOX_BUILD", "1")
    artifacts.ensure(released(upstream.url("/tool"), b""))
    assert (upstream.asked, built) == ([], ["tool 1.0.0"])


def test_release_file_without_known_checksum_is_never_taken(cache: Path, upstream: Upstream, built: list[str]) -> None:
    artifacts.ensure(artifact(release={"url": upstream.url("/tool"), "sha256": None, "members": {"tool": "top/tool"}}))
    assert (upstream.asked, built) == ([], ["tool 1.0.0"])


def test_without_a_way_out_the_host_is_asked_once_and_all_is_built(
    cache: Path, built: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "_no_way", set())
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for version in ("1.0.0", "2.0.0"):
        artifacts.ensure(released(f"http://127.0.0.1:{port}/{version}", b"", version=version))
    assert built == ["tool 1.0.0", "tool 2.0.0"]
    lines = [line for line in capsys.readouterr().err.splitlines() if "no way" in line]
    assert len(lines) == 1
    assert f"tool 1.0.0: no way to the release file at 127.0.0.1:{port} ([Errno 111] Connection refused); building it from Go modules instead" in lines[0]


def test_host_that_says_nothing_is_given_up_soon(cache: Path, built: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_no_way", set())
    monkeypatch.setattr(artifacts, "CONNECT", 0.2)
    # accepts, and never answers; the time of the socket itself is far longer
    with socket.create_server(("127.0.0.1", 0)) as silent:
        artifacts.ensure(released(f"http://127.0.0.1:{silent.getsockname()[1]}/tool", b""))
    assert built == ["tool 1.0.0"]
    assert "(no answer within 0.2 s)" in capsys.readouterr().err


def test_missing_file_is_built_and_its_host_asked_again_for_others(cache: Path, upstream: Upstream, built: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    artifacts.ensure(released(upstream.url("/gone"), b""))
    data = archive("tar.gz")
    upstream.files["/tool"] = (200, {}, data)
    folder = artifacts.ensure(released(upstream.url("/tool"), data, version="2.0.0"))
    assert (folder / "tool").read_bytes() == b"released"
    assert (built, upstream.asked) == (["tool 1.0.0"], ["/gone", "/tool"])
    assert "(Not Found)" in capsys.readouterr().err


def test_download_that_breaks_off_is_no_wrong_checksum(cache: Path, upstream: Upstream, built: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    data = archive("zip")
    upstream.files["/tool"] = (200, {"Content-Length": str(len(data) + 5)}, data)
    artifacts.ensure(released(upstream.url("/tool"), data))
    assert built == ["tool 1.0.0"]
    assert f"(it broke off after {len(data)} of {len(data) + 5} bytes)" in capsys.readouterr().err


def test_archive_without_a_wanted_member_is_told(cache: Path, upstream: Upstream, built: list[str]) -> None:
    for form in ("zip", "tar.gz"):
        data = archive(form)
        upstream.files["/tool"] = (200, {}, data)
        item = artifact(release={"url": upstream.url("/tool"), "sha256": hashlib.sha256(data).hexdigest(), "members": {"tool": "elsewhere/tool"}})
        with pytest.raises(SandboxError, match="does not hold elsewhere/tool"):
            artifacts.ensure(item)
    assert built == []
