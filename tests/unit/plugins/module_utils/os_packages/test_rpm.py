# SPDX-License-Identifier: GPL-3.0-or-later
"""What RPM packages need, read and worked out from metadata. How dnf sees the same is in tests/integration_packages."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.bundle_plan.tools import Web
from ansible_collections.onprem.circleci_server.plugins.module_utils.os_packages import (
    PackageError,
    RpmSet,
    Target,
    resolve_rpm,
    rpm_repository,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.os_packages.rpm import (
    Capability,
    Closure,
    DependencyError,
    Pool,
    Rich,
    RpmPackage,
    compare,
    compare_text,
    parse_need,
    parse_version,
)

TARGET = Target.parse("rocky-9-x86_64")


# Order of versions as in the test suite of rpm itself.
@pytest.mark.parametrize(
    ("one", "two", "order"),
    [
        ("1.0", "1.0", 0), ("1.0", "2.0", -1), ("2.0.1", "2.0", 1), ("2.0.1a", "2.0.1", 1), ("5.5p1", "5.5p2", -1), ("5.5p10", "5.5p1", 1), ("10xyz", "10.1xyz", -1),
        ("xyz10", "xyz10.1", -1), ("xyz.4", "8", -1), ("xyz.4", "2", -1), ("5.5p2", "5.6p1", -1), ("6.0.rc1", "6.0", 1), ("10b2", "10a1", 1), ("7.4.052", "7.4.52", 0),
        ("1_0", "1.0", 0), ("1.0~rc1", "1.0", -1), ("1.0~rc1", "1.0~rc2", -1), ("1.0~rc1~git1", "1.0~rc1", -1), ("1.0^", "1.0", 1), ("1.0^git1", "1.0^git2", -1),
        ("1.0^git1", "1.01", -1), ("1.0^20160101", "1.0.1", -1), ("1.0^20160102", "1.0^20160101^git1", 1), ("1.0~rc1^git1", "1.0~rc1", 1), ("1.0^git1~pre", "1.0^git1", -1),
    ],
)  # fmt: skip
def test_versions_are_in_the_order_of_rpm(one: str, two: str, order: int) -> None:
    assert compare_text(one, two) == order and compare_text(two, one) == -order


def test_epoch_wins_and_a_release_counts_where_both_have_one() -> None:
    assert compare(parse_version("1:1.0-1"), parse_version("2.0-1")) == 1
    assert compare(parse_version("2.0"), parse_version("2.0-7")) == 0
    assert compare(parse_version("2.0-7"), parse_version("2.0-10")) == -1


@pytest.mark.parametrize(
    ("provided", "wanted", "met"),
    [
        ("= 2.0", ">= 1.0", True), ("= 2.0", "> 2.0", False), ("= 2.0", "<= 2.0", True), ("= 2.0", "< 2.0", False), ("= 2.0", "", True), ("", ">= 9", True),
        (">= 1.0", "= 5", True), ("< 1.0", ">= 1.0", False), ("= 1:1.0", "> 9", True),
    ],
)  # fmt: skip
def test_a_capability_meets_a_requirement_where_their_ranges_touch(provided: str, wanted: str, met: bool) -> None:
    def read(text: str) -> Capability:
        sense, _space, version = text.partition(" ")
        return Capability("x", sense, parse_version(version))

    assert read(provided).meets(read(wanted)) is met


def test_rich_dependencies_are_read() -> None:
    found = parse_need("((libz.so.1()(64bit) >= 1:2.3-4 or other) if (b with b > 2) else c)")
    assert isinstance(found, Rich) and found.word == "if" and len(found.parts) == 3
    first = found.parts[0]
    assert isinstance(first, Rich) and first.word == "or" and first.parts == (Capability("libz.so.1()(64bit)", ">=", ("1", "2.3", "4")), Capability("other"))
    assert parse_need("libc.so.6()(64bit)") == Capability("libc.so.6()(64bit)") and parse_need("(a)") == Capability("a")
    assert str(parse_need("(a if b)")) == "(a if b)"


@pytest.mark.parametrize("text", ["(a", "(a or)", "(a or b and c)", "(a b)", "(a if b else c else d)", "(a or b) c", "()", "(a xor b)"])
def test_what_is_no_dependency_is_refused(text: str) -> None:
    with pytest.raises(DependencyError, match="cannot be read as a dependency"):
        parse_need(text)


def package(name: str, *requires: str, provides: Sequence[str] = (), version: str = "1-1", files: Sequence[str] = (), priority: int = 99) -> RpmPackage:
    own = parse_version(version)

    def read(text: str) -> Capability:
        words = text.split()
        return Capability(words[0], words[1], parse_version(words[2])) if len(words) == 3 else Capability(text)

    needs = tuple(parse_need(text) if text.startswith("(") else read(text) for text in requires)
    given = (Capability(name, "=", own), *(read(text) for text in provides))
    return RpmPackage(name, own, "x86_64", f"{name}-{version}.x86_64.rpm", 1, hashlib.sha256(f"{name}{version}".encode()).hexdigest(), given, needs, tuple(files), priority=priority)


def closure(packages: Sequence[RpmPackage], *names: str, installed: Sequence[str] = (), carry: bool = False) -> tuple[list[str], list[str]]:
    found = Closure(Pool(packages), carry, lambda wanted: wanted.name in installed).names(names)
    return sorted(f"{item.name}-{item.evr}" for item in found.chosen), list(found.problems)


def test_the_newest_version_that_meets_everything_is_taken() -> None:
    packages = [package("a", "b >= 2"), package("b", version="1-1"), package("b", version="3-1"), package("b", version="2-1")]
    assert closure(packages, "a") == (["a-1-1", "b-3-1"], [])


def test_a_preferred_repository_wins_over_a_newer_version() -> None:
    packages = [package("b", version="1-1", priority=1), package("b", version="2-1")]
    assert closure(packages, "b")[0] == ["b-1-1"]


def test_a_condition_counts_on_a_host_as_it_is_and_in_a_bundle_always() -> None:
    packages = [package("a", "(policy if selinux)", "(x unless y else z)"), package("policy", "tools"), package("tools"), package("selinux"), package("x"), package("z")]
    assert closure(packages, "a") == (["a-1-1", "x-1-1"], [])
    assert closure(packages, "a", installed=["selinux"])[0] == ["a-1-1", "policy-1-1", "tools-1-1", "x-1-1"]
    assert closure(packages, "a", installed=["y"])[0] == ["a-1-1", "z-1-1"]
    assert closure(packages, "a", "selinux")[0] == ["a-1-1", "policy-1-1", "selinux-1-1", "tools-1-1", "x-1-1"]
    assert closure(packages, "a", carry=True)[0] == ["a-1-1", "policy-1-1", "tools-1-1", "x-1-1", "z-1-1"]


def test_a_condition_whose_consequence_cannot_be_had_only_counts_where_it_holds() -> None:
    packages = [package("a", "(lost if selinux)"), package("selinux")]
    assert closure(packages, "a", carry=True) == (["a-1-1"], [])
    assert closure(packages, "a", "selinux", carry=True)[1] == ["nothing provides lost, which a-1-1 needs"]


def test_what_is_installed_is_left_and_what_is_too_old_is_not() -> None:
    packages = [package("a", "b", "/bin/sh", "(c or d)"), package("b"), package("c")]
    assert closure(packages, "a", installed=["b", "/bin/sh", "d"])[0] == ["a-1-1"]


def test_a_package_that_can_be_installed_nowhere_is_passed_over() -> None:
    packages = [package("a", "cap"), package("b", "lost", provides=["cap"]), package("ccc", provides=["cap"]), package("user", "b")]
    assert closure(packages, "a")[1] == ["nothing provides lost, which b-1-1 needs"]
    alive = Pool(packages).living()
    assert sorted(item.name for item in alive.packages) == ["a", "ccc"]


# --- repositories ------------------------------------------------------------------------------------------------------

PACKAGE = """<package type="rpm"><name>{name}</name><arch>{arch}</arch><version epoch="0" ver="{version}" rel="1"/>
<checksum type="{kind}" pkgid="YES">{sha256}</checksum><summary>s</summary><time file="5" build="{built}"/><size package="3"/><location xml:base="http://x/" href="{href}"/>
<format><rpm:license>MIT</rpm:license><rpm:provides><rpm:entry name="{name}" flags="EQ" epoch="0" ver="{version}" rel="1"/></rpm:provides>
<rpm:requires><rpm:entry name="rpmlib(CompressedFileNames)" flags="LE" epoch="0" ver="3" rel="1"/>{requires}</rpm:requires></format></package>"""


class Folder:
    """A repository written by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packages: list[str] = []
        self.more: dict[str, bytes] = {}
        (path / "repodata").mkdir(parents=True)

    def add(self, name: str, *requires: str, version: str = "1", arch: str = "x86_64", kind: str = "sha256", href: str = "", built: int = 7) -> Folder:
        needs = "".join(f'<rpm:entry name="{need}"/>' for need in requires)
        sha256 = hashlib.sha256(f"{self.path}{name}{version}{arch}".encode()).hexdigest()
        href = href or f"Packages/{name}-{version}-1.{arch}.rpm"
        self.packages.append(PACKAGE.format(name=name, arch=arch, version=version, kind=kind, sha256=sha256, href=href, requires=needs, built=built))
        return self

    def source(self, lines: str = "gpgcheck=0", name: str = "") -> str:
        text = '<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="9">' + "".join(self.packages) + "</metadata>"
        files = {"primary": ("primary.xml.gz", gzip.compress(text.encode())), **{kind: (f"{kind}.yaml", body) for kind, body in self.more.items()}}
        data = ""
        for kind, (file, body) in files.items():
            (self.path / "repodata" / file).write_bytes(body)
            data += f'<data type="{kind}"><checksum type="sha256">{hashlib.sha256(body).hexdigest()}</checksum><location href="repodata/{file}"/></data>'
        (self.path / "repodata/repomd.xml").write_text(f'<repomd xmlns="http://linux.duke.edu/metadata/repo">{data}</repomd>')
        return f"[{name or self.path.name}]\nbaseurl=file://{self.path}\n{lines}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "base")


def resolve(sources: str, *names: str) -> RpmSet:
    return resolve_rpm(names, TARGET, Web(tries=1), sources=sources)


def test_index_is_that_of_the_publisher_with_flat_places(folder: Folder) -> None:
    found = resolve(folder.add("a", "b").add("b", built=9).add("c").source(), "a")
    primary = found.texts["repodata/primary.xml"]
    assert [item.filename for item in found.packages] == ["a-1-1.x86_64.rpm", "b-1-1.x86_64.rpm"]
    assert '<location href="a-1-1.x86_64.rpm" />' in primary and "http://x/" not in primary and "<name>c</name>" not in primary and "<rpm:license>MIT" in primary
    assert found.urls["b-1-1.x86_64.rpm"] == f"file://{folder.path}/Packages/b-1-1.x86_64.rpm"
    assert "<revision>9</revision>" in found.texts["repodata/repomd.xml"]
    assert hashlib.sha256(primary.encode()).hexdigest() in found.texts["repodata/repomd.xml"]


def test_only_the_architecture_of_the_target_counts(folder: Folder) -> None:
    found = resolve(folder.add("a", version="2", arch="i686").add("a").add("b", arch="noarch").add("a", version="3", arch="src").source(), "a", "b")
    assert [item.filename for item in found.packages] == ["a-1-1.x86_64.rpm", "b-1-1.noarch.rpm"]


def test_streams_of_modules_that_are_not_the_default_are_hidden(folder: Folder) -> None:
    folder.more["modules"] = b"""---
document: modulemd
data: {name: tools, stream: rhel9, artifacts: {rpms: ["a-0:2-1.x86_64"]}}
---
document: modulemd
data: {name: tools, stream: next, artifacts: {rpms: ["a-0:3-1.x86_64", "only-next-0:1-1.x86_64"]}}
---
document: modulemd-defaults
data: {module: tools, stream: rhel9}
"""
    folder.add("a").add("a", version="2").add("a", version="3").add("only-next")
    assert [item.filename for item in resolve(folder.source(), "a").packages] == ["a-2-1.x86_64.rpm"]
    with pytest.raises(PackageError, match="nothing provides only-next"):
        resolve(folder.source(), "only-next")


def test_excluded_packages_are_left_out(folder: Folder) -> None:
    folder.add("a").add("a-extra").add("b")
    with pytest.raises(PackageError, match=r"nothing provides a-extra; nothing provides b$"):
        resolve(folder.source("gpgcheck=0\nexcludepkgs=a-*, b"), "a", "a-extra", "b")


def test_a_checksum_that_is_no_sha256_is_refused(folder: Folder) -> None:
    with pytest.raises(PackageError, match=r"the repository base has no sha256 for a-1-1\.x86_64\.rpm"):
        resolve(folder.add("a", kind="sha").source(), "a")


@pytest.mark.parametrize("href", ["../../etc/a.rpm", "x/..rpm", "a b.rpm", "a.deb", "x/"])
def test_a_place_outside_of_the_repository_is_refused(folder: Folder, href: str) -> None:
    with pytest.raises(PackageError, match="which is refused"):
        resolve(folder.add("a", href=href).source(), "a")


def test_two_files_of_one_name_are_refused(folder: Folder, tmp_path: Path) -> None:
    other = Folder(tmp_path / "other").add("b", href="x/same.rpm")
    with pytest.raises(PackageError, match=r"same\.rpm of (base|other) and of (base|other) differ"):
        resolve(folder.add("a", "b", href="x/same.rpm").source() + other.source(), "a")


def test_an_index_packed_with_zstd_needs_that_program(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    text = folder.add("a").source()
    repomd = folder.path / "repodata/repomd.xml"
    repomd.write_text(repomd.read_text().replace("primary.xml.gz", "primary.xml.zst"))
    (folder.path / "repodata/primary.xml.gz").rename(folder.path / "repodata/primary.xml.zst")
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(PackageError, match=r"packed with zstd.*install it \(package zstd\)"):
        resolve(text, "a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Types: deb\n", "is no .repo file of dnf"),
        ("[a]\nname=a\nenabled=0\n", "has no section that is switched on"),
        ("[a]\nmetalink=https://x/\n", "section a: it has no baseurl"),
        ("[a]\nbaseurl=https://x/$awsregion\ngpgcheck=0\n", "with a variable that only dnf knows"),
        ("[a]\nbaseurl=ftp://x/\ngpgcheck=0\n", "is no http, https or file address"),
        ("[a]\nbaseurl=https://x/\n", "section a: gpgkey is missing"),
        ("[a]\nbaseurl=http://x/\ngpgcheck=0\n", "section a: over http: nothing says"),
        ("[a]\nbaseurl=https://x/\ngpgcheck=0\npriority=high\n", "section a: priority is 'high'"),
    ],
)
def test_sources_that_cannot_be_used_are_told(text: str, said: str) -> None:
    with pytest.raises(PackageError, match="rocky-9-x86_64: `sources`") as error:
        resolve(text, "a")
    assert said in str(error.value)


def test_variables_of_dnf_are_filled_in() -> None:
    text = "[a]\nbaseurl=https://x/$releasever/${basearch}/os/ https://other/\ngpgkey=file:///k1 file:///k2\n"
    (source,) = rpm_repository.read_sources(text, TARGET)
    assert source.url == "https://x/9/x86_64/os" and source.keys == ("file:///k1", "file:///k2") and source.signed_packages and not source.signed_index


def test_a_key_that_is_none_is_refused(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key")
    with pytest.raises(PackageError, match="is no public key as text"):
        resolve(folder.add("a").source(f"gpgkey={tmp_path}/key"), "a")


def test_without_sources_the_host_must_run_the_target(folder: Folder) -> None:
    with pytest.raises(PackageError, match=r"the connected host runs .*give the \.repo file of dnf of rocky-9-x86_64 in `sources`"):
        resolve("", "a")


@pytest.mark.parametrize("text", ["rocky-9-amd64", "gentoo-1-amd64", "rocky", "rocky-9", "Rocky-9-x86_64"])
def test_targets_that_are_none_are_told(text: str) -> None:
    with pytest.raises(PackageError):
        Target.parse(text)
