# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages of the bundle onto a host: what the module asks, says and predicts. Real packages are in tests/integration_packages."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.host import packages, rpm_packages
from ansible_collections.onprem.circleci_server.plugins.modules import host_packages
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module
from ansible_collections.onprem.circleci_server.tests.unit.helpers.registry_stub import Stub, serve

INDEX = b"""Package: tool
Version: 1:2.0
Architecture: all
Depends: libtool
Filename: ./tool_2.0_all.deb

Package: libtool
Version: 1
Architecture: all
Filename: ./libtool_1_all.deb
"""
PRIMARY = b"""<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="1"><package type="rpm"><name>tool</name><arch>noarch</arch>
<version epoch="0" ver="2" rel="1"/><checksum type="sha256">00</checksum><size package="1"/><location href="tool-2-1.noarch.rpm"/><format><rpm:provides><rpm:entry name="tool"/>
</rpm:provides></format></package></metadata>"""


def empty(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """rpm on a host that has no package yet."""
    return subprocess.CompletedProcess(list(argv), 0, "", "")


class Host:
    def __init__(self, registry: Stub, capsys: pytest.CaptureFixture[str]) -> None:
        self.registry, self.capsys = registry, capsys
        self.installed: set[str] = set()
        self.got: list[list[str]] = []

    def names(self) -> set[str]:
        return set(self.installed)

    def install(self, files: list[Path]) -> None:
        self.got.append([path.name for path in files])
        assert all(path.is_file() for path in files)
        self.installed |= {path.name.split("_")[0] for path in files}

    def run(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"names": ["tool"], "target": "debian-12-amd64", "version": "1", "registry": self.registry.host, "plain_http": True, **options}
        return run_module(host_packages, self.capsys, check=check, **given)


@pytest.fixture
def host(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    for registry in serve():
        registry.artifact("onprem/packages/debian-12-amd64", "1", {"Packages": INDEX, "tool_2.0_all.deb": b"tool", "libtool_1_all.deb": b"lib"})
        registry.artifact("onprem/packages/rocky-9-x86_64", "1", {"repodata/primary.xml": PRIMARY, "tool-2-1.noarch.rpm": b"no package"})
        made = Host(registry, capsys)
        monkeypatch.setattr(packages, "installed_packages", made.names)
        monkeypatch.setattr(rpm_packages, "Installed", partial(rpm_packages.Installed, run=empty))
        monkeypatch.setattr(packages, "install", made.install)
        monkeypatch.setattr(rpm_packages, "install", made.install)
        yield made


def test_debian_packages_come_once_with_what_they_need(host: Host) -> None:
    predicted = host.run(check=True)
    assert predicted["changed"] and host.got == [] and predicted["installed"] == ["tool=1:2.0", "libtool=1"]
    result = host.run()
    assert result["installed"] == predicted["installed"] and result["diff"] == predicted["diff"] and host.got == [["tool_2.0_all.deb", "libtool_1_all.deb"]]
    host.registry.requests.clear()
    assert not host.run()["changed"] and host.registry.requests == []


def test_rpm_packages_without_a_key_are_not_installed(host: Host) -> None:
    assert host.run(check=True, target="rocky-9-x86_64")["installed"] == ["tool=2-1"]
    result = host.run(target="rocky-9-x86_64")
    assert result["failed"] and "without the keys of their publishers" in result["msg"] and host.got == []


def test_an_artifact_of_another_kind_is_told(host: Host) -> None:
    host.registry.artifact("onprem/packages/ubuntu-22.04-amd64", "1", {"repodata/primary.xml": PRIMARY})
    assert "holds no Packages" in host.run(target="ubuntu-22.04-amd64")["msg"]
    assert host.run(target="gentoo-1-amd64")["msg"].startswith("target: gentoo-1-amd64: packages are collected for debian")


def test_in_check_mode_the_registry_may_be_missing(host: Host) -> None:
    result = host.run(check=True, registry="127.0.0.1:1", registry_may_be_missing=True)
    assert result["changed"] and result["installed"] == ["tool"]
    assert host.run(check=True, registry="127.0.0.1:1")["failed"] and host.run(version="2")["failed"]


def test_a_host_without_rpm_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpm_packages, "Installed", partial(rpm_packages.Installed.func, run=lambda argv: subprocess.CompletedProcess(list(argv), 127, "", "")))  # type: ignore[attr-defined]
    assert "This host has no rpm" in host.run(target="rocky-9-x86_64")["msg"]
