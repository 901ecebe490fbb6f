# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.common import SandboxError
from sandbox.standin import agents, build, chart, images, layers
from sandbox.standin.oci import HELM_CONFIG, HELM_LAYER, Entry, Layout, gzip_bytes, tar_bytes


@pytest.fixture
def small_layers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Layers of a few bytes in the place of Debian and of the programs."""

    def layer(cache: Path, name: str) -> Any:
        return layers.files(cache, name, [Entry(f"marker/{name}", name.encode())])

    monkeypatch.setattr(layers, "debian", lambda cache: {name: layer(cache, name) for name in ("base", "postgres", "nginx")})
    monkeypatch.setattr(images, "program_layers", lambda cache, kinds: {kind: layer(cache, kind) for kind in kinds & set(images.PROGRAMS)})
    monkeypatch.setattr(agents, "patched_nomad", lambda: {"nomad/x/linux_amd64.zip": b"zip"})


def index(output: Path) -> dict[str, Any]:
    found = json.loads((output / "oci" / "index.json").read_text(encoding="utf-8"))
    return {entry["annotations"]["org.opencontainers.image.ref.name"]: entry for entry in found["manifests"]}


def blob(output: Path, digest: str) -> bytes:
    data = (output / "oci" / "blobs" / "sha256" / digest.split(":")[1]).read_bytes()
    assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
    return data


def snapshot(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.usefixtures("small_layers")
def test_two_builds_agree_to_the_byte(tmp_path: Path) -> None:
    for name in ("one", "two"):
        build(tmp_path / name / "out", tmp_path / name / "cache", ["4.10.0", "4.7.15"])
    assert snapshot(tmp_path / "one" / "out") == snapshot(tmp_path / "two" / "out")


@pytest.mark.usefixtures("small_layers")
def test_second_build_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "out", tmp_path / "cache", ["4.10.0"])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    monkeypatch.setattr(layers, "debian", lambda cache: pytest.fail("the layers are made again"))
    build(tmp_path / "out", tmp_path / "cache", ["4.10.0"])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


@pytest.mark.usefixtures("small_layers")
def test_damage_is_repaired(tmp_path: Path) -> None:
    output = tmp_path / "out"
    build(output, tmp_path / "cache", ["4.10.0"])
    before = snapshot(output)
    victim = next(path for path in (output / "oci" / "blobs" / "sha256").iterdir() if path.stat().st_size > 300)
    victim.unlink()
    build(output, tmp_path / "cache", ["4.10.0"])
    assert snapshot(output) == before


@pytest.mark.usefixtures("small_layers")
def test_layout_holds_every_image_and_the_charts(tmp_path: Path) -> None:
    output = tmp_path / "out"
    build(output, tmp_path / "cache", ["4.9.5", "4.10.0"])
    found = index(output)
    for release in ("4.9.5", "4.10.0"):
        assert set(chart.references(release)) <= set(found)
        manifest = json.loads(blob(output, found[f"cciserver.azurecr.io/circleci-server:{release}"]["digest"]))
        assert manifest["config"]["mediaType"] == HELM_CONFIG
        assert manifest["layers"][0]["mediaType"] == HELM_LAYER
        with tarfile.open(fileobj=io.BytesIO(blob(output, manifest["layers"][0]["digest"]))) as archive:
            member = archive.extractfile("circleci-server/Chart.yaml")
            assert member
            assert yaml.safe_load(member.read())["version"] == release
    for needed in ("registry.k8s.io/pause:3.6", "docker.io/circleci/docker-gc:2.0", "docker.io/cimg/base:2025.05-20.04", "quay.io/metallb/speaker:v0.15.2"):
        assert needed in found
    digests = [entry["digest"] for entry in found.values()]
    assert len(set(digests)) == len(digests)


@pytest.mark.usefixtures("small_layers")
def test_images_say_that_they_are_stand_ins(tmp_path: Path) -> None:
    output = tmp_path / "out"
    build(output, tmp_path / "cache", ["4.10.0"])
    for ref, entry in index(output).items():
        manifest = json.loads(blob(output, entry["digest"]))
        if manifest["config"]["mediaType"] == HELM_CONFIG:
            continue
        config = json.loads(blob(output, manifest["config"]["digest"]))
        assert config["config"]["Labels"]["org.opencontainers.image.title"].startswith(f"Stand-in for {ref}")
        diffs = ["sha256:" + hashlib.sha256(gzip.decompress(blob(output, layer["digest"]))).hexdigest() for layer in manifest["layers"]]
        assert config["rootfs"]["diff_ids"] == diffs
        with tarfile.open(fileobj=io.BytesIO(blob(output, manifest["layers"][-1]["digest"]))) as archive:
            member = archive.extractfile("etc/standin.json")
            assert member
            assert json.loads(member.read())["ref"] == ref


def test_content_of_a_reference_does_not_depend_on_the_releases_asked_for() -> None:
    ref = "cciserver.azurecr.io/authentication-svc-migrator:0.1.17533-7681416"
    assert ref in chart.references("4.7.15")
    assert ref in chart.references("4.8.12")
    assert images.certainty(ref) == "documented"


def test_agents_are_stored_compressed_and_summed_uncompressed() -> None:
    stored, encoded = agents.files(["4.10.0"])
    tag = chart.images_of("4.10.0")["binaries"]["circleci/picard"]
    path = f"circleci-agent/{tag}/linux/amd64/circleci-agent"
    assert path in encoded
    content = gzip.decompress(stored[path])
    assert b"Stand-in" in content
    digest, name = stored[f"circleci-agent/{tag}/checksums.txt"].decode().split()
    assert (digest, name) == (hashlib.sha256(content).hexdigest(), "linux/amd64/circleci-agent")
    assert stored["circleci-agent/canary.txt"].decode() == f"{tag}\n"
    assert "circleci-launch-agent/candidate.txt" not in stored
    assert "circleci-launch-agent/candidate.txt" in agents.files(["4.7.15"])[0]
    assert agents.needs_patched_nomad(["4.7.15"])
    assert not agents.needs_patched_nomad(["4.8.12", "4.2.7"])


def test_bad_releases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="no release is named"):
        build(tmp_path, tmp_path, [])
    with pytest.raises(SandboxError, match=r"5\.0\.0 has no stand-in"):
        build(tmp_path, tmp_path, ["5.0.0"])


def test_tar_and_gzip_have_no_date_of_today() -> None:
    entries = [Entry("b/x", b"1"), Entry("a", b"2", 0o755)]
    assert tar_bytes(entries) == tar_bytes(list(reversed(entries)))
    assert gzip_bytes(b"x")[4:8] == b"\0\0\0\0"
    with tarfile.open(fileobj=io.BytesIO(tar_bytes(entries))) as archive:
        assert archive.getnames() == ["a", "b", "b/x"]
        assert archive.getmember("a").mode == 0o755


def test_blobs_that_nothing_names_are_dropped(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.blob(b"kept")
    layout.finish()
    again = Layout(tmp_path)
    again.finish()
    assert list((tmp_path / "blobs" / "sha256").iterdir()) == []


def test_packages_shed_what_no_image_needs() -> None:
    dropped = layers._dropped
    assert dropped("usr/share/doc/bash/README")
    assert not dropped("usr/share/doc/bash/copyright")
    assert dropped("usr/share/man/man1/ls.1.gz")
    assert dropped("usr/lib/postgresql/15/lib/llvmjit.so")
    assert not dropped("usr/bin/python3")


def test_programs_that_take_orders_get_them() -> None:
    assert images._config("keysets")["Entrypoint"] == ["server-keysets"]
    assert images._config("service")["Entrypoint"] == images.PYTHON
    assert images._config("shell") == {"Env": [images.PATH], "WorkingDir": "/", "Cmd": ["/bin/sh"]}
    assert images.kind_of("docker.io/circleci/docker-gc:2.0") == "docker-gc"
    assert images.kind_of("cciserver.azurecr.io/builds-service:1") == "service"
    assert images.kind_of("docker.io/cimg/base:2025.05-20.04") == "shell"
