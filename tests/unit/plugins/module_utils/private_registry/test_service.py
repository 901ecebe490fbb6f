# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import io
import json
import os
import pwd
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.onprem.circleci_server.plugins.module_utils.private_registry import (
    Registry,
    RegistryHostError,
    Wanted,
    service,
)

PASSWORD = "canary-password"


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / "key", "-out", folder / "crt", "-subj", "/CN=registry"],
        check=True,
        capture_output=True,
    )
    return (folder / "crt").read_text(), (folder / "key").read_text()


class FakeHost(service.Host):
    """A host in memory, with the files of a temporary folder."""

    def __init__(self) -> None:
        self.packages: dict[str, str] = {}
        self.units: dict[str, dict[str, str]] = {}
        self.calls: list[list[str]] = []
        self.environments: list[Mapping[str, str]] = []
        self.free_bytes = 1 << 40
        self.failing: dict[str, str] = {}
        self.installs: dict[str, str] = {}
        self.garbage = ""

    def run(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        self.calls.append(list(argv))
        self.environments.append(environment or {})
        line = " ".join(argv)
        for pattern, reason in self.failing.items():
            if pattern in line:
                return subprocess.CompletedProcess(list(argv), 1, "", reason)
        if argv[:2] == ["dpkg", "--install"]:
            self.packages.update(self.installs)
        elif argv[:2] == ["dpkg", "--purge"]:
            self.packages.pop(argv[2], None)
        elif argv[:2] == ["systemctl", "enable"]:
            self.units.setdefault(argv[2], {})["UnitFileState"] = "enabled"
        elif argv[:2] in (["systemctl", "restart"], ["systemctl", "start"]):
            self.units.setdefault(argv[2], {}).update(ActiveState="active", LoadState="loaded")
        elif argv[:2] == ["systemctl", "disable"]:
            self.units.pop(argv[-1], None)
        return subprocess.CompletedProcess(list(argv), 0, self.garbage if "--dry-run" in argv else "", "")

    def changing(self) -> list[str]:
        reading = ("dpkg-query", "journalctl")
        return [" ".join(call) for call in self.calls if call[0] not in reading and call[:2] != ["systemctl", "show"] and "--dry-run" not in call]

    def installed(self, package: str) -> str:
        return self.packages.get(package, "")

    def unit(self, name: str) -> dict[str, str]:
        return self.units.get(name, {})

    def free(self, path: Path) -> int:
        return self.free_bytes

    def has_user(self, name: str) -> bool:
        return "docker-registry" in self.packages

    def chown(self, path: Path, user: str, group: str) -> None:
        return

    def name(self) -> str:
        return "registry1"


class Site:
    def __init__(self, path: Path, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.host = path, FakeHost()
        self.certificate, self.key = pair
        self.packages = [self.deb("docker-registry", "2.8.2"), self.deb("adduser", "3")]
        self.archive = path / "feed.tar"
        self.options: dict[str, Any] = {}
        monkeypatch.setattr(service, "USER", pwd.getpwuid(os.getuid()).pw_name)
        monkeypatch.setattr(service.Registry, "answers", lambda _self: "")

    def deb(self, name: str, version: str) -> dict[str, str]:
        body = f"{name} {version}".encode()
        self.host.installs[name] = version
        return {"package": name, "version": version, "name": f"{name}_{version}.deb", "sha256": hashlib.sha256(body).hexdigest(), "body": body.decode()}

    def bring(self) -> None:
        with tarfile.open(self.archive, "w") as archive:
            for package in self.packages:
                info = tarfile.TarInfo(package["name"])
                body = package["body"].encode()
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))

    def registry(self, **options: Any) -> Registry:
        wanted = Wanted(
            **{
                "storage_dir": self.path / "storage", "certificate": self.certificate, "private_key": self.key, "users": {"site": PASSWORD}, "packages": self.packages,
                "archive": self.archive, "config_dir": self.path / "etc", **self.options, **options,
            }
        )  # fmt: skip
        registry = Registry(wanted, self.host)
        (self.path / "systemd").mkdir(exist_ok=True)
        registry.unit_path, registry.masked_path = self.path / "systemd" / service.UNIT, self.path / "systemd/docker-registry.service"
        return registry


@pytest.fixture
def site(tmp_path: Path, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, pair, monkeypatch)


def test_sets_up_once(site: Site) -> None:
    site.bring()
    outcome = site.registry().apply(write=True)
    assert outcome.changed and outcome.packages == ["docker-registry", "adduser"]
    config = yaml.safe_load((site.path / "etc/config.yml").read_text())
    assert config["storage"]["filesystem"]["rootdirectory"] == str(site.path / "storage")
    assert config["http"]["tls"] == {"certificate": f"{site.path}/etc/tls.crt", "key": f"{site.path}/etc/tls.key"}
    assert config["auth"]["htpasswd"]["path"] == f"{site.path}/etc/htpasswd"
    assert (site.path / "etc/tls.key").stat().st_mode & 0o777 == 0o640
    site.host.calls.clear()
    again = site.registry().apply(write=True)
    assert not again.changed and site.host.changing() == [] and not again.restarted


def test_the_packages_own_service_never_starts(site: Site) -> None:
    site.bring()
    seen: list[bool] = []
    plain = site.host.run
    registry = site.registry()

    def run(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        if argv[0] == "dpkg":
            seen.append(registry.masked_path.is_symlink() and os.readlink(registry.masked_path) == "/dev/null")
        return plain(argv, environment)

    site.host.run = run  # type: ignore[method-assign]
    registry.apply(write=True)
    assert seen == [True]


def test_check_mode_on_an_empty_host_predicts_the_run(site: Site) -> None:
    predicted = site.registry().apply(write=False)
    assert site.host.changing() == [] and not (site.path / "etc").exists() and not (site.path / "storage").exists()
    site.bring()
    done = site.registry().apply(write=True)
    assert (predicted.changed, predicted.before, predicted.after) == (True, [], done.after)
    assert not site.registry().apply(write=False).changed


def test_secrets_are_in_no_difference_and_no_argument(site: Site) -> None:
    site.bring()
    outcome = site.registry().apply(write=True)
    shown = "\n".join(outcome.before + outcome.after) + json.dumps(site.host.calls) + json.dumps(site.host.environments)
    secret = (site.path / "etc/environment").read_text().split("REGISTRY_HTTP_SECRET=")[1].split()[0]
    for canary in (PASSWORD, secret, site.key.splitlines()[1], (site.path / "etc/htpasswd").read_text().strip()):
        assert canary not in shown
    assert PASSWORD not in (site.path / "etc/htpasswd").read_text()
    assert "users" not in repr(site.registry().wanted) and site.key not in repr(site.registry().wanted)


def test_a_new_password_needs_no_restart_a_new_certificate_does(site: Site) -> None:
    site.bring()
    site.registry().apply(write=True)
    outcome = site.registry(users={"site": "another"}).apply(write=True)
    assert outcome.changed and not outcome.restarted
    outcome = site.registry(users={"site": "another"}, port=5443).apply(write=True)
    assert outcome.changed and outcome.restarted


def test_uploads_survive_a_restart_because_the_secret_stays(site: Site) -> None:
    site.bring()
    site.registry().apply(write=True)
    before = (site.path / "etc/environment").read_text()
    site.registry(port=5443).apply(write=True)
    assert (site.path / "etc/environment").read_text() == before


def test_only_missing_packages_are_installed(site: Site) -> None:
    site.host.packages = {"adduser": "2-older"}
    site.bring()
    assert [package["package"] for package in site.registry().missing_packages()] == ["docker-registry"]
    site.registry().apply(write=True)
    install = next(call for call in site.host.calls if call[:2] == ["dpkg", "--install"])
    assert [Path(part).name for part in install if part.endswith(".deb")] == ["docker-registry_2.8.2.deb"]


def test_another_version_of_the_registry_is_installed_over_it(site: Site) -> None:
    site.host.packages = {"adduser": "3", "docker-registry": "2.8.1"}
    site.bring()
    outcome = site.registry().apply(write=True)
    assert "package docker-registry: 2.8.1" in outcome.before and "package docker-registry: 2.8.2" in outcome.after and outcome.restarted


def test_damaged_and_absent_archives(site: Site) -> None:
    with pytest.raises(RegistryHostError, match="docker-registry, adduser: the packages were not brought to registry1"):
        site.registry().apply(write=True)
    site.packages[0]["body"] = "damaged"
    site.bring()
    with pytest.raises(RegistryHostError, match=r"docker-registry_2\.8\.2\.deb is missing or damaged"):
        site.registry().apply(write=True)
    assert site.host.packages == {}


def test_dpkg_says_why(site: Site) -> None:
    site.bring()
    site.host.failing["dpkg --install"] = "dpkg: error processing archive: disk full\nmore"
    with pytest.raises(RegistryHostError, match="dpkg cannot install docker-registry, adduser on registry1: dpkg: error processing archive: disk full"):
        site.registry().apply(write=True)


def test_a_full_disk_is_said_before_anything_is_done(site: Site) -> None:
    site.bring()
    site.host.free_bytes = 1000
    with pytest.raises(RegistryHostError, match=r"the disk of registry1 that holds circleci_registry_storage_dir .* has 1000 bytes free, 67113864 are needed"):
        site.registry(needed_bytes=5000).apply(write=True)
    assert site.host.changing() == []


def test_what_is_stored_already_needs_no_room(site: Site) -> None:
    blob = site.path / "storage/docker/registry/v2/blobs/sha256/aa/data"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(5000))
    site.host.free_bytes = service.HEADROOM + 1
    site.bring()
    site.registry(needed_bytes=5000).apply(write=True)
    with pytest.raises(RegistryHostError, match="bytes free"):
        site.registry(needed_bytes=50_000).apply(write=True)


def test_all_problems_at_once(site: Site, tmp_path: Path) -> None:
    site.host.free_bytes = 0
    with pytest.raises(RegistryHostError) as caught:
        site.registry(packages=[], certificate="nonsense", users={}, storage_dir=Path("relative")).apply(write=True)
    text = str(caught.value)
    for part in ("circleci_bundle_packages must hold docker-registry", "cannot be read as PEM", "circleci_registry_username", "an absolute path", "0 bytes free"):
        assert part in text
    assert len(text.splitlines()) == 5


def test_a_key_of_another_certificate(site: Site, tmp_path: Path) -> None:
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", tmp_path / "k"], check=True, capture_output=True)
    with pytest.raises(RegistryHostError, match="circleci_registry_private_key does not belong to circleci_registry_certificate"):
        site.registry(private_key=(tmp_path / "k").read_text()).apply(write=True)


def test_a_registry_that_dies_gives_its_last_words(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.bring()
    registry = site.registry()
    monkeypatch.setattr(service.Registry, "answers", lambda _self: "port 5000 does not answer (refused)")
    monkeypatch.setattr(service, "HEALTH_SECONDS", -1)
    with pytest.raises(RegistryHostError, match=r"the registry on registry1 is not healthy: port 5000 does not answer"):
        registry.apply(write=True)


def test_taken_away_with_and_without_its_content(site: Site) -> None:
    site.bring()
    site.registry().apply(write=True)
    predicted = site.registry().remove(write=False, purge_storage=False)
    assert predicted.changed and (site.path / "etc").exists()
    done = site.registry().remove(write=True, purge_storage=False)
    assert done.before == predicted.before and not done.after
    assert not (site.path / "etc").exists() and (site.path / "storage").exists() and "docker-registry" not in site.host.packages
    assert not site.registry().remove(write=True, purge_storage=False).changed
    assert site.registry().remove(write=True, purge_storage=True).changed and not (site.path / "storage").exists()


def test_a_disk_that_holds_the_content_is_emptied_and_stays(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.bring()
    site.registry().apply(write=True)
    storage = site.path / "storage"
    (storage / "docker").mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: str(path) == str(storage))
    assert site.registry().remove(write=True, purge_storage=True).changed
    assert list(storage.iterdir()) == []
    assert not site.registry().remove(write=True, purge_storage=True).changed


def test_a_package_that_we_did_not_bring_stays(site: Site) -> None:
    site.host.packages = {"docker-registry": "2.8.2", "adduser": "3"}
    site.registry().apply(write=True)
    site.registry().remove(write=True, purge_storage=False)
    assert "docker-registry" in site.host.packages


def test_garbage(site: Site) -> None:
    with pytest.raises(RegistryHostError, match="has no registry of this collection"):
        site.registry().collect_garbage(write=True)
    site.bring()
    site.registry().apply(write=True)
    site.host.calls.clear()
    outcome, freed = site.registry().collect_garbage(write=True)
    assert not outcome.changed and freed == 0 and site.host.changing() == [], "nothing to collect stops nothing"
    site.host.garbage = f"x\nblob eligible for deletion: sha256:{'a' * 64}\n"
    outcome, _freed = site.registry().collect_garbage(write=False)
    assert outcome.changed and site.host.changing() == []
    site.registry().collect_garbage(write=True)
    assert [line.split()[0:2] for line in site.host.changing()] == [["systemctl", "stop"], ["runuser", "--user"], ["systemctl", "start"]]


def test_the_registry_comes_back_when_collecting_fails(site: Site) -> None:
    site.bring()
    site.registry().apply(write=True)
    site.host.garbage = f"blob eligible for deletion: sha256:{'a' * 64}\n"
    site.host.failing["runuser"] = "boom"
    with pytest.raises(RegistryHostError, match="collecting garbage failed on registry1: boom"):
        site.registry().collect_garbage(write=True)
    assert site.host.changing()[-1].startswith("systemctl start")
