# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.os_packages import (
    PackageError,
    Target,
    apt,
    index_text,
    resolve,
)

URIS = """'http://deb.example/debian/pool/main/d/docker-registry/docker-registry_2.8.2%2bds1-1_amd64.deb' docker-registry_2.8.2+ds1-1_amd64.deb 4954916 MD5Sum:fad7
'http://deb.example/debian/pool/main/t/tool/tool_1.2_all.deb' tool_1%3a1.2_all.deb 10 SHA256:bb
"""
SHOW = """Package: docker-registry
Version: 2.8.2+ds1-1
Architecture: amd64
Depends: libc6,
 tool
Description: what a registry is
 long text
Filename: pool/main/d/docker-registry/docker-registry_2.8.2+ds1-1_amd64.deb
Size: 4954916
SHA256: aaaa

Package: tool
Version: 1:1.2
Architecture: all
Filename: other/place/tool_1.2_all.deb
SHA256: cccc

Package: tool
Version: 1:1.2
Architecture: all
Filename: pool/main/t/tool/tool_1.2_all.deb
Size: 10
SHA256: bbbb
"""
PROGRAM = """#!/usr/bin/env python3
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
name = pathlib.Path(sys.argv[0]).name
options = dict(part.split("=", 1) for flag, part in zip(sys.argv, sys.argv[1:]) if flag == "-o")
sources = ""
if "Dir::Etc::sourceparts" in options:
    sources = {path.name: path.read_text() for path in pathlib.Path(options["Dir::Etc::sourceparts"]).iterdir()}
with open(here / "calls.jsonl", "a") as log:
    log.write(json.dumps({"name": name, "argv": sys.argv[1:], "options": options, "sources": sources}) + "\\n")
if "update" in sys.argv:
    if (here / "offline").exists():
        sys.stderr.write("E: Failed to fetch http://deb.example/ Could not resolve 'deb.example'\\nE: Some index files failed to download.\\n")
        sys.exit(100)
elif "install" in sys.argv:
    if "nosuch" in sys.argv:
        sys.stderr.write("E: Unable to locate package nosuch\\n")
        sys.exit(100)
    sys.stdout.write((here / "uris").read_text())
else:
    sys.stdout.write((here / "show").read_text())
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("apt-get", "apt-cache"):
        (tmp_path / name).write_text(PROGRAM)
        (tmp_path / name).chmod(0o755 | stat.S_IXUSR)
    (tmp_path / "uris").write_text(URIS)
    (tmp_path / "show").write_text(SHOW)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(apt, "host_is", lambda target, sources: None)
    return tmp_path


DEBIAN = Target.parse("debian-12-amd64")


def test_closure_with_checksums_of_the_signed_index(programs: Path) -> None:
    packages = resolve(["docker-registry"], DEBIAN)
    assert [(p.name, p.version, p.filename, p.sha256, p.size) for p in packages] == [
        ("docker-registry", "2.8.2+ds1-1", "docker-registry_2.8.2+ds1-1_amd64.deb", "aaaa", 4954916),
        ("tool", "1:1.2", "tool_1.2_all.deb", "bbbb", 10),
    ]
    assert packages[0].url.startswith("http://deb.example/") and packages[0].local_path is None


def test_index_is_that_of_a_flat_repository(programs: Path) -> None:
    text = index_text(resolve(["docker-registry"], DEBIAN))
    assert text == (
        "Package: docker-registry\nVersion: 2.8.2+ds1-1\nArchitecture: amd64\nDepends: libc6,\n tool\n"
        "Filename: ./docker-registry_2.8.2+ds1-1_amd64.deb\nSize: 4954916\nSHA256: aaaa\n"
        "\nPackage: tool\nVersion: 1:1.2\nArchitecture: all\nFilename: ./tool_1.2_all.deb\nSize: 10\nSHA256: bbbb\n"
    )


def test_nothing_of_the_host_takes_part(programs: Path) -> None:
    resolve(["docker-registry"], DEBIAN, sources="Types: deb\nURIs: https://x\nSuites: bookworm\n")
    calls = [json.loads(line) for line in (programs / "calls.jsonl").read_text().splitlines()]
    assert [call["name"] for call in calls] == ["apt-get", "apt-get", "apt-cache"]
    for call in calls:
        assert call["options"]["Dir::Etc::sourcelist"] == "/dev/null"
        assert not call["options"]["Dir::State"].startswith("/var/lib/apt")
        assert list(call["sources"]) == ["bundle.sources"]


def test_one_line_sources(programs: Path) -> None:
    resolve(["docker-registry"], DEBIAN, sources="deb https://x bookworm main")
    first = json.loads((programs / "calls.jsonl").read_text().splitlines()[0])
    assert first["sources"] == {"bundle.list": "deb https://x bookworm main\n"}


def test_files_of_a_local_repository(programs: Path) -> None:
    (programs / "uris").write_text(URIS.replace("http://deb.example/", "file:/srv/"))
    assert resolve(["x"], DEBIAN)[0].local_path == "/srv/debian/pool/main/d/docker-registry/docker-registry_2.8.2+ds1-1_amd64.deb"


def test_errors_are_one_sentence(programs: Path) -> None:
    with pytest.raises(PackageError, match=r"^debian-12-amd64: the packages cannot be put together: E: Unable to locate package nosuch$"):
        resolve(["nosuch"], DEBIAN)
    (programs / "offline").touch()
    with pytest.raises(PackageError, match="its package lists cannot be read: E: Failed to fetch"):
        resolve(["x"], DEBIAN)


def test_an_index_without_sha256_is_refused(programs: Path) -> None:
    (programs / "show").write_text(SHOW.replace("SHA256: bbbb", "MD5sum: bbbb"))
    with pytest.raises(PackageError, match=r"no SHA256 for tool 1:1\.2"):
        resolve(["x"], DEBIAN)


@pytest.mark.parametrize(("text", "reason"), [("bookworm", "must look like"), ("gentoo-9-amd64", "collected for debian, ubuntu, rhel")])
def test_targets(text: str, reason: str) -> None:
    with pytest.raises(PackageError, match=reason):
        Target.parse(text)


def test_another_distribution_needs_its_sources() -> None:
    with pytest.raises(PackageError, match=r"ubuntu-1\.04-amd64, but the connected host runs .*sources"):
        resolve(["x"], Target.parse("ubuntu-1.04-amd64"))


def test_no_packages_ask_nothing() -> None:
    assert resolve([], DEBIAN) == []
