# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan, fetch, verify, extract and load: the modules one after the other, against registries in memory."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.onprem.circleci_server.plugins.module_utils.bundle_plan import plan as planning
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.access import Access
from ansible_collections.onprem.circleci_server.plugins.modules import (
    bundle_extract,
    bundle_fetch,
    bundle_listing,
    bundle_load,
    bundle_plan,
    bundle_verify,
)
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module
from ansible_collections.onprem.circleci_server.tests.unit.helpers.orb_stand_in import serve_orbs
from ansible_collections.onprem.circleci_server.tests.unit.helpers.registry_stub import Stub, serve

HELM = """#!/bin/sh
cat <<YAML
---
# Source: circleci-server/templates/frontend.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: frontend}
spec: {template: {spec: {containers: [{name: f, image: "HOST/frontend:1"}, {name: k, image: "HOST/library/kong:3.4.2"}]}}}
YAML
"""
AGENT = b"agent" * 100


def chart() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in (
            ("circleci-server/Chart.yaml", "name: circleci-server\nversion: 4.10.0\n"),
            ("circleci-server/values.yaml", "a: {enabled: false}\n"),
            ("circleci-server/images.yaml", "circleci/docker-agent: '7'\n"),
        ):
            info = tarfile.TarInfo(name)
            body = text.encode()
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


class World:
    """The connected side, the site, and the folder that is carried between them."""

    def __init__(self, path: Path, vendor: Stub, site: Stub, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self.vendor, self.site, self.capsys = path, vendor, site, capsys
        self.bundle, self.lock = path / "bundle", path / "bundle.lock"
        helm = path / "helm"
        helm.write_text(HELM.replace("HOST", vendor.host))
        helm.chmod(0o755)
        vendor.chart("circleci-server", "4.10.0", chart())
        vendor.image("frontend", "1", b"frontend layer")
        vendor.image("library/kong", "3.4.2", b"kong layer")
        vendor.image("circleci/docker-gc", "2.0", b"gc layer")
        vendor.files["/agent/7/agent"] = (AGENT, {})
        vendor.files["/agent/7/checksums.txt"] = (f"{hashlib.sha256(AGENT).hexdigest()} *7/agent\n".encode(), {})
        (path / "own.tar.gz").write_bytes(b"own file")

    def plan(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        return run_module(
            bundle_plan,
            self.capsys,
            check=check,
            **{
                "lock": str(self.lock),
                "work_dir": str(self.path / "work"),
                "chart": f"{self.vendor.host}/circleci-server:4.10.0",
                "helm": str(self.path / "helm"),
                "images": [
                    {"ref": f"{self.vendor.host}/circleci/docker-gc:2.0", "path": "nomad_client", "why": "cleans", "needed": True},
                    {"ref": f"{self.vendor.host}/velero/velero:latest", "path": "backup", "why": "backup", "needed": False},
                ],
                "files": [
                    {
                        "name": "docker-agent", "version": "", "version_from": "circleci/docker-agent", "url": f"http://{self.vendor.host}/agent/{{version}}/agent",
                        "checksum_url": f"http://{self.vendor.host}/agent/{{version}}/checksums.txt", "filename": "agent", "mode": "0755", "why": "object_storage",
                    }
                ],
                "local_files": [{"name": "collection", "version": "0.1.0", "path": str(self.path / "own.tar.gz")}],
                **options,
            },
        )  # fmt: skip

    def fetch(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        return run_module(bundle_fetch, self.capsys, check=check, lock=str(self.lock), output=str(self.bundle), **options)

    def load(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {
            "directories": [str(self.bundle)], "allow_unsigned": True, "registry": self.site.host, "username": "site", "password": "secret-password", "plain_http": True,
            "state_dir": str(self.path / "state"), "receipt": str(self.path / "receipts/registry.json"), **options,
        }  # fmt: skip
        return run_module(bundle_load, self.capsys, check=check, **given)

    def verify(self, **options: Any) -> dict[str, Any]:
        return run_module(bundle_verify, self.capsys, **{"directories": [str(self.bundle)], "allow_unsigned": True, **options})


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # The stubs speak plain HTTP; the modules of the connected side only know TLS.
    for module in (bundle_plan, bundle_fetch):
        monkeypatch.setattr(module, "Access", lambda **options: Access(plain_http=True, use_docker_config=False, **options))
    for vendor in serve():
        for site in serve("site:secret-password"):
            yield World(tmp_path, vendor, site, capsys)


def test_the_whole_way_and_again(world: World) -> None:
    planned = world.plan()
    assert planned["changed"] and planned["images"] == 4, planned
    assert [item["ref"] for item in planned["left_out"]] == [f"{world.vendor.host}/velero/velero:latest"]
    assert {item["name"]: item["version"] for item in planned["lock"]["files"]} == {"docker-agent": "7", "collection": "0.1.0"}
    fetched = world.fetch()
    assert fetched["changed"] and fetched["bytes_moved"] > 0 and not fetched["signed"]
    verified = world.verify(deep=True)
    assert verified["contents"]["files"] == {"docker-agent": "7", "collection": "0.1.0"}
    assert verified["contents"]["charts"] == {"circleci-server": "4.10.0"}
    loaded = world.load()
    assert loaded["changed"] and loaded["contents"] == verified["contents"]
    assert {"frontend", "library/kong", "circleci/docker-gc", "charts/circleci-server", "onprem/files/docker-agent"} <= {repository for repository, _tag in world.site.manifests}
    receipt = json.loads((world.path / "receipts/registry.json").read_text())
    assert receipt["registry"] == world.site.host and "secret-password" not in json.dumps(receipt)

    world.vendor.requests.clear()
    assert not world.plan()["changed"] and not world.fetch()["changed"]
    assert world.vendor.requests == [], "what is pinned and there is asked for nowhere"
    world.site.requests.clear()
    again = world.load()
    assert not again["changed"]
    # Connections that start at once each learn the login by a 401; beside these it is one question for each name.
    assert len(set(world.site.requests)) == len(fetched_names(world)) and all(request.startswith("HEAD ") for request in world.site.requests)


def fetched_names(world: World) -> list[str]:
    return [ref["name"] for ref in json.loads((world.bundle / "bundle.json").read_text())["refs"]]


def test_listing_names_everything_and_its_sizes_make_up_the_whole(world: World) -> None:
    def look() -> dict[str, Any]:
        return run_module(bundle_listing, world.capsys, directory=str(world.bundle))

    missing = look()
    assert not missing["found"] and str(world.bundle) in missing["problem"] and missing["items"] == []
    world.plan()
    world.fetch()
    found = look()
    assert found["found"] and not found["changed"]
    targets = {item["target"]: item for item in found["items"]}
    assert {"frontend:1", "library/kong:3.4.2", "charts/circleci-server:4.10.0", "onprem/files/docker-agent:7"} <= set(targets)
    assert targets["frontend:1"]["source"] == world.vendor.host and targets["circleci/docker-gc:2.0"]["why"] == "catalog: cleans"
    assert sum(item["bytes"] for item in found["items"]) == found["bytes_total"]
    for part in world.bundle.glob("bundle-*.tar"):
        part.unlink()
    hidden = look()
    assert hidden["found"] and {item["bytes"] for item in hidden["items"]} == {None}


def test_check_mode_on_an_empty_site_predicts_everything(world: World) -> None:
    planned = world.plan(check=True)
    assert planned["changed"] and not world.lock.exists()
    fetched = world.fetch(check=True, planned=planned["lock"])
    assert fetched["changed"] and not world.bundle.exists()
    assert f"{world.vendor.host}/frontend:1" in fetched["diff"]["after"]
    world.plan()
    world.fetch()
    missing = world.load(check=True, registry="127.0.0.1:1", registry_may_be_missing=True)
    assert missing["changed"] and "would set it up first" in missing["note"] and "library/kong:3.4.2" in missing["diff"]["after"]
    predicted = world.load(check=True)
    assert predicted["changed"] and not world.site.manifests
    done = world.load()
    assert predicted["diff"]["after"] == done["diff"]["after"]
    assert not world.load(check=True)["changed"]


def test_a_moved_tag_is_followed_only_when_asked(world: World) -> None:
    world.plan()
    world.vendor.image("frontend", "1", b"rebuilt")
    assert not world.plan()["changed"]
    refreshed = world.plan(refresh=True)
    assert refreshed["changed"]
    before, after = (refreshed["diff"][key].splitlines() for key in ("before", "after"))
    assert len(set(before) - set(after)) == len(set(after) - set(before)) == 1
    assert "frontend:1" in (set(after) - set(before)).pop()


def test_other_inputs_plan_anew_and_keep_what_is_pinned(world: World) -> None:
    world.plan()
    world.vendor.image("frontend", "1", b"rebuilt")
    world.vendor.image("me/job", "1", b"job")
    planned = world.plan(extra_images=[f"{world.vendor.host}/me/job:1"])
    before, after = (set(planned["diff"][key].splitlines()) for key in ("before", "after"))
    assert [line.split(" ")[0] for line in after - before] == [f"{world.vendor.host}/me/job:1"] and not before - after


def test_all_problems_of_a_plan_come_at_once_and_leave_the_lock(world: World) -> None:
    world.plan()
    lock = world.lock.read_bytes()
    world.vendor.files["/agent/7/checksums.txt"] = (b"0" * 64 + b"  7/agent\n", {})
    result = world.plan(
        refresh=True,
        extra_images=[f"{world.vendor.host}/no/such:1"],
        local_files=[{"name": "x", "version": "1", "path": "/nowhere/x"}],
        packages=[{"target": "rhel-9-x86", "names": ["x"], "sources": ""}],
    )
    assert (result["failed"] and "4 problem(s), the lock was not changed" in result["msg"]) or (result["failed"] and "3 problem(s)" in result["msg"]), result["msg"]
    for part in ("no/such:1", "has no such image", "/nowhere/x is not on the connected host", "rhel"):
        assert part in result["msg"]
    assert world.lock.read_bytes() == lock


def test_a_file_that_is_not_what_its_publisher_says_is_refused(world: World) -> None:
    world.vendor.files["/agent/7/agent"] = (AGENT, {"Content-Encoding": "identity"})
    world.plan()
    world.vendor.files["/agent/7/agent"] = (AGENT[:-1] + b"?", {})
    result = world.fetch()
    assert result["failed"] and hashlib.sha256(AGENT[:-1] + b"?").hexdigest() in result["msg"]
    assert not (world.bundle / "bundle.json").exists()


def test_a_checksum_list_without_the_file_is_refused(world: World) -> None:
    world.vendor.files["/agent/7/checksums.txt"] = (b"0" * 64 + b"  other\n", {})
    assert "has no sha256 for" in world.plan()["msg"]


def test_no_checksum_list_is_warned_of_and_pinned(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _self, text: warnings.append(text))
    del world.vendor.files["/agent/7/checksums.txt"]
    result = world.plan()
    assert not result.get("failed") and "the lock pins what is there now" in " ".join(warnings)
    assert next(item for item in result["lock"]["files"] if item["name"] == "docker-agent")["sha256"] == hashlib.sha256(AGENT).hexdigest()


def test_wrong_vendor_login(world: World) -> None:
    world.vendor.login = "other:login"
    result = world.plan()
    assert result["failed"] and "401" in result["msg"]


def test_parts_of_a_byte_limit(world: World) -> None:
    world.vendor.image("big", "1", bytes(3 << 20))
    world.plan(extra_images=[f"{world.vendor.host}/big:1"])
    assert "allowed are 0 for one part, or 1048576 bytes and more" in world.fetch(part_size=1000)["msg"]
    parts = world.fetch(part_size=2 << 20)["parts"]
    assert len(parts) > 1 and all((world.bundle / part).stat().st_size <= 2 << 20 for part in parts)
    (world.bundle / parts[1]).rename(world.path / parts[1])
    assert f"({parts[1]}) is not in" in world.verify()["msg"]
    assert f"({parts[1]}) is not in" in world.load()["msg"]
    (world.path / parts[1]).rename(world.bundle / parts[1])
    assert world.load()["changed"]


def test_one_changed_byte(world: World) -> None:
    world.plan()
    part = world.bundle / world.fetch()["parts"][0]
    data = bytearray(part.read_bytes())
    data[data.index(b"kong layer")] ^= 1
    part.write_bytes(data)
    assert "circleci_bundle_dir" in world.verify(deep=True)["msg"]
    result = world.load()
    assert result["failed"] and "damaged" in result["msg"]
    assert ("library/kong", "3.4.2") not in world.site.manifests, "a tag appears only when all its content is there"


@pytest.fixture
def ssh_key(tmp_path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    return tmp_path / "key"


def test_signed_bundles(world: World, ssh_key: Path) -> None:
    public = ssh_key.with_suffix(".pub").read_text()
    world.plan()
    assert world.fetch(signing_key=str(ssh_key))["signed"]
    assert not world.fetch(signing_key=str(ssh_key))["changed"]
    refused = world.load(allow_unsigned=False)
    assert refused["failed"] and "circleci_bundle_public_key" in refused["msg"] and not world.site.manifests
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(world.path / "other")], check=True)
    other = world.load(allow_unsigned=False, public_key=(world.path / "other.pub").read_text())
    assert other["failed"] and "another key signed it" in other["msg"] and not world.site.manifests
    assert world.verify(allow_unsigned=False, public_key=public)["bundle_id"]
    assert world.load(allow_unsigned=False, public_key=public)["changed"]


@pytest.mark.parametrize(("text", "sentence"), [("nonsense", "neither a secret key of minisign nor"), (None, "No such file")])
def test_a_key_that_is_none_is_refused_before_the_long_work(world: World, text: str | None, sentence: str) -> None:
    world.plan()
    key = world.path / "key"
    if text:
        key.write_text(text)
    result = world.fetch(signing_key=str(key))
    assert result["failed"] and sentence in result["msg"] and not world.bundle.exists()


def test_a_key_with_a_password_is_refused(world: World) -> None:
    import base64

    world.plan()
    (world.path / "key").write_text("untrusted comment: minisign encrypted secret key\n" + base64.b64encode(b"EdSc" + bytes(154)).decode() + "\n")
    assert "minisign -G -W" in world.fetch(signing_key=str(world.path / "key"))["msg"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"password": "wrong"}, "Check circleci_registry_username and circleci_registry_password against"),
        ({"registry": "127.0.0.1:1"}, "cannot be reached: Connection refused. Is circleci_registry_host (127.0.0.1:1) right"),
        ({"registry": "127.0.0.1:1/project/circleci"}, "cannot be reached: Connection refused. Is circleci_registry_host (127.0.0.1:1/project/circleci) right"),
        ({"registry": "registry.invalid"}, "Is circleci_registry_host (registry.invalid) right"),
        ({"directories": ["/nowhere"]}, "circleci_bundle_dir: /nowhere: there is no such folder."),
        ({"allow_unsigned": False}, "The bundle is not signed"),
    ],
)
def test_each_refusal_is_one_sentence_with_the_variable(world: World, options: dict[str, Any], sentence: str) -> None:
    world.plan()
    world.fetch()
    result = world.load(**options)
    assert result["failed"] and sentence in result["msg"] and "\n" not in result["msg"], result["msg"]
    assert "secret-password" not in str(result) and not world.site.manifests


def test_progress_is_written_as_json(world: World) -> None:
    world.plan()
    world.fetch(progress_file=str(world.path / "work/fetch.json"))
    document = json.loads((world.path / "work/fetch.json").read_text())
    assert document["phase"] == "done" and document["pid"]


# --- extract ------------------------------------------------------------------------------------------------------------

INDEX = """Package: docker-registry
Version: 2.8
Depends: adduser, tool (>= 1) | other, virtual, libc6:any
Filename: ./docker-registry_2.8_amd64.deb

Package: adduser
Version: 3
Filename: ./adduser_3_all.deb

Package: tool
Version: 1
Pre-Depends: deep
Filename: ./tool_1_all.deb

Package: deep
Version: 1
Filename: ./deep_1_all.deb

Package: real
Version: 1
Provides: virtual (= 1)
Filename: ./real_1_all.deb

Package: libc6
Version: 2
Priority: required
Filename: ./libc6_2_amd64.deb

Package: unrelated
Version: 1
Filename: ./unrelated_1_all.deb
"""


@pytest.fixture
def packages(world: World) -> World:
    names = ["docker-registry_2.8_amd64.deb", "adduser_3_all.deb", "tool_1_all.deb", "deep_1_all.deb", "real_1_all.deb", "libc6_2_amd64.deb", "unrelated_1_all.deb"]
    (world.path / "Packages").write_text(INDEX)
    for name in names:
        (world.path / name).write_bytes(name.encode())
    files = [{"path": name, "filename": name, "mode": "0644"} for name in ["Packages", *names]]
    lock = {"format": "onprem.circleci_server/lock/1", "artifacts": [{"repo": "onprem/packages/debian-12-amd64", "tag": "1", "artifact_type": planning.PACKAGES_TYPE, "files": files}]}
    world.lock.write_text(json.dumps(lock))
    assert not world.fetch().get("failed")
    return world


def extract(world: World, *, check: bool = False, **options: Any) -> dict[str, Any]:
    given = {"directories": [str(world.bundle)], "allow_unsigned": True, "artifact": "onprem/packages/debian-12-amd64", "packages": True, "files": ["docker-registry"], **options}
    return run_module(bundle_extract, world.capsys, check=check, **{"dest": str(world.path / "out"), **given})


def test_packages_come_with_what_they_depend_on_and_the_base_system_does_not(packages: World) -> None:
    assert extract(packages, check=True)["changed"] and not (packages.path / "out").exists()
    result = extract(packages)
    assert [item["package"] for item in result["files"]] == ["adduser", "deep", "docker-registry", "real", "tool"]
    assert (packages.path / "out/tool_1_all.deb").read_bytes() == b"tool_1_all.deb"
    assert not extract(packages)["changed"]
    (packages.path / "out/tool_1_all.deb").write_bytes(b"x")
    assert extract(packages)["diff"]["after"].splitlines() == [f"{packages.path}/out/tool_1_all.deb"]


def test_one_archive_for_another_host(packages: World) -> None:
    dest = packages.path / "feed/registry.tar"
    assert extract(packages, archive=True, dest=str(dest), check=True)["changed"] and not dest.exists()
    result = extract(packages, archive=True, dest=str(dest))
    assert result["archive"] == str(dest)
    with tarfile.open(dest) as archive:
        assert archive.getnames() == sorted(item["name"] for item in result["files"])
    assert not extract(packages, archive=True, dest=str(dest))["changed"]
    first = dest.read_bytes()
    dest.write_bytes(b"damaged")
    assert extract(packages, archive=True, dest=str(dest))["changed"] and dest.read_bytes() == first


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"artifact": "onprem/packages/ubuntu-22.04-amd64"}, "has no onprem/packages/ubuntu-22.04-amd64; it has onprem/packages/debian-12-amd64"),
        ({"files": ["nosuch"]}, "circleci_bundle_packages: the bundle has no package nosuch"),
        ({"packages": False, "files": ["nosuch*"]}, "the artifact has no nosuch*; it has Packages"),
        ({"allow_unsigned": False}, "The bundle is not signed"),
    ],
)
def test_what_cannot_be_extracted(packages: World, options: dict[str, Any], sentence: str) -> None:
    result = extract(packages, **options)
    assert result["failed"] and sentence in result["msg"], result["msg"]


def test_patterns(packages: World) -> None:
    result = extract(packages, packages=False, files=["*_all.deb"])
    assert len(result["files"]) == 5 and "package" not in result["files"][0]


def test_orbs_travel_with_what_they_import(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _self, text: warnings.append(text))
    with serve_orbs() as cloud:
        cloud.add("circleci/aws-cli@5.1.3", 'version: 2.1\nexecutors: {default: {docker: [{image: "cimg/base:stable"}]}}\n')
        cloud.add("circleci/aws-ecr@9.5.0", "version: 2.1\norbs: {cli: circleci/aws-cli@5}\n")
        wanted: dict[str, Any] = {"orbs": ["circleci/aws-ecr@9.5.0"], "orbs_host": cloud.url}
        planned = world.plan(**wanted)
        (artifact,) = [item for item in planned["lock"]["artifacts"] if item["repo"] == "onprem/orbs"]
        assert [item["filename"] for item in artifact["files"]] == ["orbs.json", "circleci/aws-cli@5.1.3.yml", "circleci/aws-ecr@9.5.0.yml"]
        assert [item["rule"] for item in artifact["why"]] == ["circleci/aws-cli@5.1.3: imported by circleci/aws-ecr@9.5.0", "circleci/aws-ecr@9.5.0: circleci_orbs"]
        assert "image(s) that the bundle does not hold: cimg/base:stable. Name those that your jobs use in circleci_extra_images" in " ".join(warnings)
        world.fetch()
        first = json.loads((world.bundle / "bundle.json").read_text())["id"]
        assert world.load()["contents"]["orbs"] == {"onprem/orbs": "1"}

        # A newer version appears: the lock keeps what it pins, a refresh follows, and what is published stays what it was.
        cloud.add("circleci/aws-cli@5.2.0", "version: 2.1\n")
        cloud.asked.clear()
        again = world.plan(**wanted, extra_images=[f"{world.vendor.host}/frontend:1"])
        assert [item for item in again["lock"]["artifacts"] if item["repo"] == "onprem/orbs"] == [artifact] and cloud.asked == []
        world.plan(**wanted)
        world.fetch()
        assert json.loads((world.bundle / "bundle.json").read_text())["id"] == first
        refreshed = world.plan(**wanted, refresh=True)
        assert "circleci/aws-cli@5.2.0.yml" in json.dumps(refreshed["lock"])
        cloud.versions["circleci/aws-ecr"]["9.5.0"] = "version: 2.1\n"
        before = world.lock.read_bytes()
        refused = world.plan(**wanted, refresh=True)
        assert refused["failed"] and "circleci/aws-ecr@9.5.0 has the sha256" in refused["msg"] and world.lock.read_bytes() == before


def test_orbs_that_cannot_be_had_leave_the_lock_alone(world: World) -> None:
    with serve_orbs() as cloud:
        refused = world.plan(orbs=["acme/nothing@1.0.0", "acme/nothing"], orbs_host=cloud.url)
    assert refused["failed"] and "2 problem(s)" in refused["msg"] and "acme/nothing@1.0.0 is not in the registry" in refused["msg"] and not world.lock.exists()
