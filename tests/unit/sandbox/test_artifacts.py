# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable
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


def archive(tmp_path: Path, form: str) -> tuple[Path, str]:
    path = tmp_path / f"upstream.{form}"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as bundle:
            bundle.writestr("top/tool", b"released")
    else:
        with tarfile.open(path, "w:gz") as bundle:
            info = tarfile.TarInfo("top/tool")
            info.size = 8
            bundle.addfile(info, io.BytesIO(b"released"))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_release_file_is_taken_where_its_checksum_is_known(cache: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONPREM_CIRCLECI_SANDBOX_BUILD", raising=False)
    path, digest = archive(tmp_path, form)
    folder = artifacts.ensure(artifact(release={"url": path.as_uri(), "sha256": digest, "members": {"tool": "top/tool"}}))
    assert (folder / "tool").read_bytes() == b"released"
    assert '"way": "release"' in (folder / "artifact.json").read_text()


def test_release_file_with_another_checksum_is_refused(cache: Path, tmp_path: Path) -> None:
    path, _ = archive(tmp_path, "zip")
    with pytest.raises(SandboxError, match=r"sha256 is [0-9a-f]{64}, artifacts\.yml has 0{64}"):
        artifacts.ensure(artifact(release={"url": path.as_uri(), "sha256": "0" * 64, "members": {"tool": "top/tool"}}))


def test_release_file_out_of_reach_falls_back_to_building(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(artifacts, "_from_modules", makes(b"built", calls))
    release = {"url": (tmp_path / "absent").as_uri(), "sha256": "0" * 64, "members": {"tool": "tool"}}
    assert (artifacts.ensure(artifact(release=release)) / "tool").read_bytes() == b"built"


def test_release_file_without_known_checksum_is_never_taken(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = archive(tmp_path, "zip")
    calls: list[str] = []
    monkeypatch.setattr(artifacts, "_from_modules", makes(b"built", calls))
    artifacts.ensure(artifact(release={"url": path.as_uri(), "sha256": None, "members": {"tool": "top/tool"}}))
    assert calls
