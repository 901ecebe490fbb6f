# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import getpass
import grp
import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.modules import oci_file
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module
from ansible_collections.onprem.circleci_server.tests.unit.helpers.registry_stub import Stub, serve

NOMAD = b"a program" * 1000


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    return buffer.getvalue()


@pytest.fixture
def registry() -> Iterator[Stub]:
    for stub in serve("site:secret-password"):
        stub.artifact("onprem/files/nomad", "1.7.7", {"nomad": NOMAD})
        stub.artifact("onprem/files/helm", "3.19.0", {"helm.tar.gz": tarred({"linux-amd64/helm": b"helm", "linux-amd64/README.md": b"text"}, link="linux-amd64/link")})
        stub.artifact("onprem/files/zipped", "1", {"x.zip": zipped(nomad=b"zipped nomad")})
        yield stub


class Host:
    def __init__(self, tmp_path: Path, registry: Stub, capsys: pytest.CaptureFixture[str]) -> None:
        self.dest, self.registry, self.capsys, self.state = tmp_path / "bin/nomad", registry, capsys, tmp_path / "state"
        self.dest.parent.mkdir()

    def run(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {
            "registry": self.registry.host, "username": "site", "password": "secret-password", "plain_http": True, "name": "nomad", "version": "1.7.7", "dest": str(self.dest),
            "mode": "0755", "owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name, "state_dir": str(self.state), **options,
        }  # fmt: skip
        return run_module(oci_file, self.capsys, check=check, **given)


@pytest.fixture
def host(tmp_path: Path, registry: Stub, capsys: pytest.CaptureFixture[str]) -> Host:
    return Host(tmp_path, registry, capsys)


def test_brings_the_file_once(host: Host) -> None:
    first = host.run()
    assert first["changed"] and host.dest.read_bytes() == NOMAD and host.dest.stat().st_mode & 0o777 == 0o755
    host.registry.requests.clear()
    second = host.run()
    assert not second["changed"] and second["downloaded_bytes"] == 0
    # The first request of a client is refused with 401, which is how it learns which login is wanted.
    assert {request.split()[1] for request in host.registry.requests} == {"/v2/onprem/files/nomad/manifests/1.7.7"}


def test_check_mode_downloads_nothing_and_tells_the_truth(host: Host) -> None:
    result = host.run(check=True)
    assert result["changed"] and not host.dest.exists()
    assert not [request for request in host.registry.requests if "/blobs/" in request]
    assert result["diff"]["before"] == "" and "onprem/files/nomad:1.7.7" in result["diff"]["after"]
    host.run()
    assert not host.run(check=True)["changed"]


def test_a_changed_file_and_a_changed_mode_are_put_right(host: Host) -> None:
    host.run()
    host.dest.write_bytes(b"other")
    assert host.run(check=True)["changed"] and host.run()["changed"] and host.dest.read_bytes() == NOMAD
    host.dest.chmod(0o600)
    assert host.run(check=True)["changed"] and host.run()["changed"] and not host.run()["changed"]


@pytest.mark.parametrize(("name", "version", "member", "content"), [("helm", "3.19.0", "helm", b"helm"), ("helm", "3.19.0", "linux-amd64/READ*", b"text"), ("zipped", "1", "nomad", b"zipped nomad")])
def test_one_file_of_an_archive(host: Host, name: str, version: str, member: str, content: bytes) -> None:
    options: dict[str, Any] = {"name": name, "version": version, "member": member}
    assert host.run(check=True, **options)["changed"]
    assert host.run(**options)["changed"] and host.dest.read_bytes() == content
    host.registry.requests.clear()
    assert not host.run(**options)["changed"] and not host.run(check=True, **options)["changed"]
    assert not [request for request in host.registry.requests if "/blobs/" in request]
    host.dest.write_bytes(b"damaged")
    assert host.run(**options)["changed"] and host.dest.read_bytes() == content


def test_nothing_is_left_beside_the_file(host: Host) -> None:
    host.run(name="helm", version="3.19.0", member="helm")
    assert [path.name for path in host.dest.parent.iterdir()] == ["nomad"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"password": "wrong"}, "circleci_registry_username and circleci_registry_password"),
        ({"version": "9"}, "onprem/files/nomad:9 is not in the registry"),
        ({"name": "helm", "version": "3.19.0", "member": "nosuch"}, "no file 'nosuch'; it holds linux-amd64/README.md, linux-amd64/helm"),
        ({"name": "helm", "version": "3.19.0", "member": "linux-amd64/link"}, "no file 'linux-amd64/link'"),
        ({"member": "x"}, "neither a zip nor a tar archive"),
    ],
)
def test_errors(host: Host, options: dict[str, Any], sentence: str) -> None:
    result = host.run(**options)
    assert result["failed"] and sentence in result["msg"], result["msg"]
    assert "secret-password" not in str(result) and not host.dest.exists()


def test_a_missing_folder_is_named(host: Host, tmp_path: Path) -> None:
    result = host.run(dest=str(tmp_path / "none/nomad"))
    assert result["failed"] and f"the folder {tmp_path}/none does not exist" in result["msg"]


@pytest.mark.parametrize("options", [{"registry": "127.0.0.1:1"}, {"version": "9"}])
def test_check_mode_before_there_is_a_registry(host: Host, options: dict[str, Any]) -> None:
    result = host.run(check=True, registry_may_be_missing=True, **options)
    assert result["changed"] and "would bring it there first" in result["note"]
    assert host.run(check=True, **{**options, "registry": host.registry.host, "version": "9"})["failed"], "without the option it is an error"


def test_damaged_content_never_gets_the_name(host: Host) -> None:
    repository, digest = next((repository, digest) for repository, digest in host.registry.blobs if repository == "onprem/files/nomad" and host.registry.blobs[repository, digest] == NOMAD)
    host.registry.blobs[repository, digest] = NOMAD[:-1] + b"?"
    result = host.run()
    assert result["failed"] and "Nothing was kept" in result["msg"] and not host.dest.exists()


def test_absent(host: Host) -> None:
    host.run(name="helm", version="3.19.0", member="helm")
    assert host.run(state="absent", check=True)["changed"] and host.dest.exists()
    assert host.run(state="absent")["changed"] and not host.dest.exists() and not list(host.state.rglob("*.json"))
    assert not host.run(state="absent")["changed"]
