# SPDX-License-Identifier: GPL-3.0-or-later
"""RPM packages from publishers into a bundle's repository, and by dnf, which knows nothing else, onto a host."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.bundle_plan.tools import Web
from ansible_collections.onprem.circleci_server.plugins.module_utils.host import rpm_packages
from ansible_collections.onprem.circleci_server.plugins.module_utils.host.units import HostError
from ansible_collections.onprem.circleci_server.plugins.module_utils.os_packages import (
    PackageError,
    RpmSet,
    Target,
    local_path,
    resolve_rpm,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.os_packages.rpm import PRIMARY, read_primary
from ansible_collections.onprem.circleci_server.plugins.modules import host_packages
from ansible_collections.onprem.circleci_server.tests.integration_packages.conftest import (
    Description,
    Publishers,
    build,
    make_key,
    run,
)
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module
from ansible_collections.onprem.circleci_server.tests.unit.plugins.modules.test_bundles import World
from ansible_collections.onprem.circleci_server.tests.unit.plugins.modules.test_bundles import world as world

TARGET = Target.parse("rocky-9-x86_64")
ENGINE = {
    "engine", "engine-cli", "engine-policy", "epochal", "iptables-like", "libthing", "odd", "selinux-like", "shell", "two-features",
}  # fmt: skip
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="dnf installs into a root of its own only as root")


def resolve(publishers: Publishers, *names: str, sources: str = "") -> RpmSet:
    return resolve_rpm(names, TARGET, Web(tries=1), sources=sources or publishers.repo())


def lay_out(found: RpmSet, folder: Path) -> Path:
    """What lies in the bundle, as a folder."""
    for name, text in found.texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for package in found.packages:
        source = Path(local_path(found.urls[package.filename]) or "")
        shutil.copy(source, folder / package.filename)
        assert hashlib.sha256(source.read_bytes()).hexdigest() == package.sha256 and source.stat().st_size == package.size
    return folder


def dnf(root: Path, repository: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """dnf with this repository only, in a root of its own."""
    options = [f"--installroot={root}", "--releasever=9", "--disablerepo=*", f"--repofrompath=bundle,file://{repository}", "--nogpgcheck", "-y"]
    return subprocess.run(["dnf", *options, *argv], check=False, capture_output=True, text=True)


def installed(root: Path) -> set[str]:
    return set(run("rpm", f"--root={root}", "-qa", "--qf", "%{NAME}\n").split()) - {"gpg-pubkey"}


def test_the_closure_has_everything_and_nothing_else(publishers: Publishers) -> None:
    found = resolve(publishers, "engine")
    assert {package.name for package in found.packages} == ENGINE
    assert [package.evr for package in found.packages if package.name in ("engine-cli", "epochal")] == ["27.1-1.el9", "1:0.5-1.el9"]
    assert found.texts["keys/extra.asc"].startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----") and "keys/base.asc" not in found.texts
    assert "engine-27.1-1.el9.noarch.rpm" not in found.texts["unsigned"] and "shell-5.1-1.el9.noarch.rpm" in found.texts["unsigned"]


def test_the_same_packages_give_the_same_bytes(publishers: Publishers, monkeypatch: pytest.MonkeyPatch) -> None:
    first = resolve(publishers, "engine")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    sections = publishers.repo().split("[extra]")
    other = f"[extra]{sections[1].partition('[off]')[0]}{sections[0]}"
    second = resolve(publishers, "engine", "shell", sources=other)
    assert first.texts == second.texts and first.packages == second.packages
    assert str(publishers.folder) not in "".join(first.texts.values())


@root_only
def test_dnf_installs_from_the_repository_alone(publishers: Publishers, tmp_path: Path) -> None:
    repository = lay_out(resolve(publishers, "engine"), tmp_path / "repository")
    done = dnf(tmp_path / "root", repository, "install", "engine")
    assert done.returncode == 0, done.stdout + done.stderr
    # The condition on SELinux does not hold here, so dnf leaves its consequence out.
    assert installed(tmp_path / "root") == ENGINE - {"engine-policy", "selinux-like"}
    with_policy = dnf(tmp_path / "other", repository, "install", "engine", "selinux-like")
    assert with_policy.returncode == 0 and installed(tmp_path / "other") == ENGINE


@root_only
@pytest.mark.parametrize("left", ["two-features", "epochal", "odd", "engine-cli", "shell"])
def test_dnf_fails_without_any_of_them(publishers: Publishers, tmp_path: Path, left: str) -> None:
    """The closure holds nothing that could stay away."""
    found = resolve(publishers, "engine")
    folder = tmp_path / "packages"
    folder.mkdir()
    for package in found.packages:
        if package.name != left:
            shutil.copy(local_path(found.urls[package.filename]) or "", folder)
    run("createrepo_c", "--quiet", str(folder))
    done = dnf(tmp_path / "root", folder, "install", "engine")
    assert done.returncode != 0 and "nothing provides" in done.stdout + done.stderr, done.stdout + done.stderr


class Host:
    """A root that stands for a host, and the commands of the module for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.options = [f"--installroot={root}", "--releasever=9"]

    def needs(self, repository: Path, *names: str) -> list[str]:
        host = rpm_packages.Installed(root=str(self.root))
        missing = [name for name in names if not host.has_name(name)]
        return [package.filename for package in rpm_packages.closure(missing, read_primary(repository / PRIMARY).values(), host)]


@root_only
def test_a_host_takes_what_it_lacks_and_nothing_again(publishers: Publishers, tmp_path: Path) -> None:
    repository = lay_out(resolve(publishers, "engine"), tmp_path / "repository")
    host = Host(tmp_path / "root")
    assert dnf(host.root, repository, "install", "selinux-like", "odd").returncode == 0
    needed = host.needs(repository, "engine")
    assert {name.rsplit("-", 2)[0] for name in needed} == ENGINE - {"selinux-like", "odd"}
    unsigned = (repository / "unsigned").read_text().split()
    work = tmp_path / "work"
    work.mkdir()
    rpm_packages.check_signatures([repository / name for name in needed if name not in unsigned], [repository / "keys/extra.asc"], work)
    rpm_packages.install([repository / name for name in needed], options=host.options)
    assert installed(host.root) == ENGINE and "gpg-pubkey" not in run("rpm", f"--root={host.root}", "-qa")
    assert host.needs(repository, "engine", "engine-cli", "libthing") == []


@root_only
def test_a_host_with_another_provider_keeps_it(publishers: Publishers, tmp_path: Path) -> None:
    repository = lay_out(resolve(publishers, "engine", "libthing-minimal"), tmp_path / "repository")
    host = Host(tmp_path / "root")
    assert dnf(host.root, repository, "install", "libthing-minimal").returncode == 0
    needed = host.needs(repository, "engine")
    assert not [name for name in needed if name.startswith("libthing")]
    rpm_packages.install([repository / name for name in needed], options=host.options)
    assert "libthing" not in installed(host.root)


@root_only
def test_an_installed_version_that_is_too_old_is_replaced(publishers: Publishers, tmp_path: Path) -> None:
    repository = lay_out(resolve(publishers, "engine"), tmp_path / "repository")
    host = Host(tmp_path / "root")
    old = next((publishers.folder / "extra").glob("engine-cli-26*.rpm"))
    rpm_packages.install([old], options=host.options)
    needed = host.needs(repository, "engine")
    assert "engine-cli-27.1-1.el9.noarch.rpm" in needed
    rpm_packages.install([repository / name for name in needed], options=host.options)
    assert "engine-cli-27.1" in run("rpm", f"--root={host.root}", "-q", "engine-cli")


@root_only
def test_what_needs_the_old_version_is_replaced_with_it(publishers: Publishers, tmp_path: Path) -> None:
    (tmp_path / "third").mkdir()
    for version in ("1", "2"):
        build(
            tmp_path / "third",
            [
                ("core", version, [f"Provides: core.so = {version}"], []),
                ("core-words", version, [f"Requires: core.so = {version}", "Requires: core-more" if version == "2" else "Requires: core"], []),
                ("core-more", version, [], []),
                ("user", version, ["Requires: core >= 2" if version == "2" else "Requires: core"], []),
            ],
        )
    run("createrepo_c", "--quiet", str(tmp_path / "third"))
    found = resolve(publishers, "user", "core-words", sources=f"[third]\nbaseurl=file://{tmp_path}/third\ngpgcheck=0\n")
    repository = lay_out(found, tmp_path / "repository")
    host = Host(tmp_path / "root")
    rpm_packages.install([tmp_path / f"third/{name}-1-1.el9.noarch.rpm" for name in ("core", "core-words")], options=host.options)
    needed = host.needs(repository, "user")
    assert sorted(needed) == [f"{name}-2-1.el9.noarch.rpm" for name in ("core", "core-more", "core-words", "user")]
    rpm_packages.install([repository / name for name in needed], options=host.options)
    assert set(run("rpm", f"--root={host.root}", "-qa", "--qf", "%{NAME}-%{VERSION}\n").split()) == {"core-2", "core-words-2", "core-more-2", "user-2"}


@root_only
def test_dnf_says_why_it_cannot(publishers: Publishers, tmp_path: Path) -> None:
    repository = lay_out(resolve(publishers, "engine"), tmp_path / "repository")
    with pytest.raises(HostError, match=r"dnf could not install the packages of the bundle: .*nothing provides"):
        rpm_packages.install([repository / "engine-27.1-1.el9.noarch.rpm"], options=Host(tmp_path / "root").options)


def test_what_the_bundle_lacks_is_named_on_the_host(publishers: Publishers, tmp_path: Path) -> None:
    found = resolve(publishers, "engine-cli")
    packages = [package for package in found.packages if package.name != "shell"]
    with pytest.raises(HostError, match=r"nothing provides shell, which engine-cli-27\.1-1\.el9 needs.*circleci_bundle_packages"):
        rpm_packages.closure(["engine-cli"], packages, rpm_packages.Installed(root=str(tmp_path)))


@pytest.mark.parametrize("change", ["unsigned", "other-key", "damaged"])
def test_packages_that_the_publisher_did_not_sign_are_refused(publishers: Publishers, tmp_path: Path, change: str) -> None:
    files = [publishers.folder / "extra/engine-27.1-1.el9.noarch.rpm", publishers.folder / "extra/engine-cli-27.1-1.el9.noarch.rpm"]
    keys = [publishers.key]
    rpm_packages.check_signatures(files, keys, tmp_path)
    if change == "unsigned":
        files.append(publishers.folder / "base/shell-5.1-1.el9.noarch.rpm")
    elif change == "other-key":
        keys = [make_key(tmp_path, "somebody")]
    else:
        broken = tmp_path / files[0].name
        data = bytearray(files[0].read_bytes())
        data[-30] ^= 1
        broken.write_bytes(data)
        files[0] = broken
    work = tmp_path / "second"
    work.mkdir()
    with pytest.raises(HostError, match="not signed by a key of their publishers"):
        rpm_packages.check_signatures(files, keys, work)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["nosuch"], "nothing provides nosuch"),
        (["unrelated"], r"nothing provides nothing-has-it, which unrelated-1-1\.el9 needs"),
        (["engine >= 99"], "nothing provides engine >= 99"),
    ],
)
def test_what_cannot_be_resolved_is_told_with_who_needs_it(publishers: Publishers, names: list[str], said: str) -> None:
    with pytest.raises(PackageError, match=f"rocky-9-x86_64: .*base, extra: {said}"):
        resolve(publishers, *names)


def test_an_index_that_the_publisher_did_not_sign_is_refused(publishers: Publishers, tmp_path: Path) -> None:
    other = make_key(tmp_path, "somebody")
    with pytest.raises(PackageError, match=r"repository extra .*repomd\.xml is not signed by its gpgkey"):
        resolve(publishers, "engine", sources=publishers.repo(extra=f"repo_gpgcheck=1\ngpgkey={other}"))
    with pytest.raises(PackageError, match=r"repository base .*repomd\.xml\.asc"):
        resolve(publishers, "engine", sources=publishers.repo(base=f"repo_gpgcheck=1\ngpgkey={publishers.key}"))


def test_a_damaged_index_is_refused(publishers: Publishers, tmp_path: Path) -> None:
    copy = tmp_path / "base"
    shutil.copytree(publishers.folder / "base", copy)
    primary = next((copy / "repodata").glob("*primary.xml.*"))
    primary.write_bytes(primary.read_bytes()[:-1] + b"x")
    with pytest.raises(PackageError, match=r"repository base .*primary\.xml.* is not what the index names"):
        resolve(publishers, "shell", sources=f"[base]\nbaseurl=file://{copy}\ngpgcheck=0\n")


def test_a_repository_over_http_needs_signatures_and_is_read(publishers: Publishers) -> None:
    handler = partial(QuietHandler, directory=str(publishers.folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        signed = f"gpgcheck=1\nrepo_gpgcheck=1\ngpgkey={base}/publisher.asc"
        found = resolve(publishers, "engine-policy", sources=f"[base]\nbaseurl={base}/extra\n{signed}\n[two]\nbaseurl=file://{publishers.folder}/base\ngpgcheck=0\n")
        assert found.urls["engine-policy-2.2-1.el9.noarch.rpm"] == f"{base}/extra/engine-policy-2.2-1.el9.noarch.rpm"
        with pytest.raises(PackageError, match=r"repository base .*there is no such file"):
            resolve(publishers, "engine", sources=f"[base]\nbaseurl={base}/nowhere\n{signed}\n")
    finally:
        server.shutdown()
        server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_args: Any) -> None:
        return


@root_only
def test_from_the_publisher_through_the_bundle_onto_a_host(publishers: Publishers, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"target": str(TARGET), "names": ["engine"], "sources": publishers.repo()}
    ids: list[str] = []
    for _time in range(2):
        planned = world.plan(packages=[wanted], packages_tag="4.10.0", refresh=True)
        assert planned["changed"] == (not ids), planned
        world.fetch()
        ids.append(json.loads((world.bundle / "bundle.json").read_text())["id"])
        shutil.rmtree(world.bundle)
    assert ids[0] == ids[1]
    world.fetch()
    assert world.load()["contents"]["packages"] == {str(TARGET): "4.10.0"}

    host = Host(tmp_path / "host")
    monkeypatch.setattr(rpm_packages, "Installed", partial(rpm_packages.Installed, root=str(host.root)))
    monkeypatch.setattr(rpm_packages, "install", partial(rpm_packages.install, options=host.options))

    def bring(*, check: bool = False) -> dict[str, Any]:
        given = {"names": ["engine", "shell"], "target": str(TARGET), "version": "4.10.0", "registry": world.site.host}
        return run_module(host_packages, world.capsys, check=check, username="site", password="secret-password", plain_http=True, **given)

    predicted = bring(check=True)
    assert predicted["changed"] and installed(host.root) == set()
    result = bring()
    assert result["changed"] and result["installed"] == predicted["installed"] and result["diff"] == predicted["diff"]
    assert installed(host.root) == ENGINE - {"engine-policy", "selinux-like"}
    world.site.requests.clear()
    again = bring()
    assert not again["changed"] and world.site.requests == []


@root_only
def test_dnf_agrees_about_repositories_made_by_chance(publishers: Publishers, tmp_path: Path) -> None:
    """What can be resolved here, dnf can install from the result alone; what cannot, dnf cannot either."""
    chance = random.Random(20)
    # The last ones can be installed nowhere, and so cannot those that have no way around them.
    lost = 44
    names = [f"p{number}" for number in range(48)]
    packages: list[Description] = []
    for number, name in enumerate(names):
        later = names[number + 1 :]
        lines = [f"Provides: cap({number % 7}) = {number}", f"Provides: cap({number % 5}) = {number}"]
        for _need in range(chance.randrange(0, 4) if later else 0):
            one, two = chance.choice(later), chance.choice(later)
            lines.append(
                "Requires: "
                + chance.choice(
                    [one, f"{one} >= 1", f"({one} or lost{number})", f"({one} and {two})", f"cap({chance.randrange(7)}) > {chance.randrange(40)}", f"({one} if {two})",
                     f"(cap({number % 7}) with cap({number % 5}))", f"{one} = 2" if chance.random() < 0.1 else one, f"({one} >= 1 or {two} = 9)"]
                )
            )  # fmt: skip
        packages.append((name, "1", [*lines, "Requires: lost"] if number >= lost else lines, []))
    (tmp_path / "chance").mkdir()
    build(tmp_path / "chance", packages)
    run("createrepo_c", "--quiet", str(tmp_path / "chance"))
    outcomes = set()
    for name in names[:10]:
        whole = dnf(tmp_path / f"whole-{name}", tmp_path / "chance", "install", name)
        try:
            found = resolve(publishers, name, sources=f"[chance]\nbaseurl=file://{tmp_path}/chance\ngpgcheck=0\n")
        except PackageError:
            assert whole.returncode != 0, name
            outcomes.add("refused")
            continue
        assert whole.returncode == 0, (name, whole.stderr)
        alone = dnf(tmp_path / f"alone-{name}", lay_out(found, tmp_path / f"repository-{name}"), "install", name)
        assert alone.returncode == 0, (name, alone.stdout + alone.stderr)
        needed = Host(tmp_path / f"bare-{name}").needs(tmp_path / f"repository-{name}", name)
        rpm_packages.install([tmp_path / f"repository-{name}" / file for file in needed], options=Host(tmp_path / f"bare-{name}").options)
        outcomes.add("installed")
    assert outcomes == {"refused", "installed"}
