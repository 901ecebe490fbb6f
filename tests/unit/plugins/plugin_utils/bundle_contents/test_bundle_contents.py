# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils import object_storage
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.bundle_contents import (
    ContentsError,
    brought,
    bundle_contents,
    gateway_image,
)
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog


def contents(release: str = "4.10.0", **choices: Any) -> dict[str, Any]:
    return bundle_contents(Catalog.load(), release, **choices)


def names(found: dict[str, Any]) -> set[str]:
    return {item["name"] for item in found["files"]}


def refs(found: dict[str, Any]) -> set[str]:
    return {item["ref"] for item in found["images"]}


@pytest.mark.parametrize("release", Catalog.load().last_patches())
def test_every_release_has_contents_that_can_be_fetched(release: str) -> None:
    found = contents(release, load_balancer="metallb", storage_class="local_path", object_storage_kind="versitygw_posix")
    assert found["chart"] == f"cciserver.azurecr.io/circleci-server:{release}"
    for item in found["files"]:
        assert item["url"].startswith("https://"), item
        assert item["version"] or item["version_from"], item
        assert ("{version}" in item["url"] + item["object_path"]) == bool(item["version_from"]), item
        assert item["why"] and item["filename"], item
    assert len({(item["name"], item["version"]) for item in found["files"]}) == len(found["files"])


def test_what_the_site_provides_itself_is_not_carried() -> None:
    everything = contents(load_balancer="metallb", storage_class="local_path", object_storage_kind="versitygw_posix")
    provided = contents(load_balancer="provided", storage_class="provided", object_storage_kind="s3")
    assert names(everything) - names(provided) == {"metallb-manifest", "local-path-manifest", "versitygw"}
    assert "quay.io/metallb/controller:v0.15.2" in refs(everything) - refs(provided)


@pytest.mark.parametrize("kind", object_storage.MANAGED)
def test_program_of_each_object_store_is_carried_in_the_version_of_the_catalog(kind: str) -> None:
    options = dict.fromkeys(("access_key", "secret_key", "region", "data_dir", "policies", "backend_endpoint", "backend_account", "backend_key", "backend_region"), "x")
    made = object_storage.service(kind, {**options, "port": 1})
    (item,) = [item for item in contents(object_storage_kind=kind)["files"] if item["name"] == made["artifact"]]
    assert item["version"] == Catalog.load().object_storage_option(kind).version
    assert item["checksum_url"] and item["url"].endswith(".tar.gz") == bool(made["member"])


def test_images_without_which_no_job_runs_are_needed() -> None:
    needed = {item["ref"] for item in contents()["images"] if item["needed"]}
    assert {"circleci/docker-gc:2.0", "registry.k8s.io/pause:3.6", "cimg/base:2025.05-20.04"} <= needed
    assert "velero/velero:latest" not in needed


def test_what_the_collection_does_itself_is_not_carried() -> None:
    assert not {ref for ref in refs(contents()) if "yq" in ref or "server-keysets" in ref}


def test_versions_can_be_chosen() -> None:
    found = contents(load_balancer="metallb", versions={"helm": "3.20.1", "metallb-manifest": "0.16.0"})
    assert found["file_versions"]["helm"] == "3.20.1"
    assert "https://get.helm.sh/helm-v3.20.1-linux-amd64.tar.gz" in {item["url"] for item in found["files"]}
    assert "quay.io/metallb/speaker:v0.16.0" in refs(found)


def test_optional_files() -> None:
    found = contents(optional={"machine-runner": ""})
    assert {"machine-runner-linux-amd64", "machine-runner-windows-amd64"} <= names(found)
    assert not any(name.startswith("machine-runner") for name in names(contents()))
    with pytest.raises(ContentsError, match=r'circleci-cli cannot be fetched: give its version, like circleci-cli: "1\.2\.3"'):
        contents(optional={"circleci-cli": ""})
    assert "circleci-cli" in names(contents(optional={"circleci-cli": "0.1.30549"}))
    with pytest.raises(ContentsError, match=r"nonsense is no file of release 4\.10\.0; known: .*helm"):
        contents(optional={"nonsense": ""})


def test_the_plugin_for_support_bundles_comes_from_where_krew_takes_it() -> None:
    assert "support-bundle" not in names(contents())
    for version, chosen in (("", "0.134.1"), ("0.140.0", "0.140.0")):
        (found,) = [item for item in contents(optional={"support-bundle": version})["files"] if item["name"] == "support-bundle"]
        place = f"https://github.com/replicatedhq/troubleshoot/releases/download/v{chosen}"
        assert found["url"] == f"{place}/support-bundle_linux_amd64.tar.gz" and found["checksum_url"] == f"{place}/troubleshoot_{chosen}_checksums.txt"
        # bootstrap.sh takes it by this name and unpacks any archive of it.
        assert found["version"] == chosen and found["filename"].endswith(".tar.gz")


def test_unknown_groups_are_named() -> None:
    assert {item["path"] for item in contents(groups=["nomad_client"])["images"]} == {"nomad_client"}
    with pytest.raises(ContentsError, match="nonsense is no group of images; known: nomad_client"):
        contents(groups=["nonsense"])


def test_relocation_keys_are_those_of_the_catalog() -> None:
    assert {"global.container.registry", "kong.image.repository", "nomad.buildAgentImage"} <= set(contents()["relocation_keys"])


def test_what_is_brought_is_complete() -> None:
    for thing in brought()["things"]:
        assert set(thing["when"]) <= {"load_balancer", "storage_class", "object_storage_kind", "object_storage_placement"}
        assert thing["images"] if "url" not in thing else thing["url"].startswith("https://") and thing["filename"]


@pytest.mark.parametrize(
    ("kind", "image", "program"),
    [
        ("versitygw_s3", "ghcr.io/versity/versitygw:v1.8.0", "versitygw"),
        ("versitygw_azure", "ghcr.io/versity/versitygw:v1.8.0", "versitygw"),
        ("minio_gateway_s3", "quay.io/minio/minio:RELEASE.2022-10-24T18-35-07Z", "minio-gateway-s3"),
    ],
)
def test_gateway_comes_as_an_image_for_the_cluster_and_as_a_program_for_hosts(kind: str, image: str, program: str) -> None:
    found = {place: contents(object_storage_kind=kind, object_storage_placement=place) for place in ("hosts", "cluster")}
    refs = {place: {item["ref"] for item in one["images"]} for place, one in found.items()}
    names = {place: {item["name"] for item in one["files"]} for place, one in found.items()}
    assert (refs["cluster"] - refs["hosts"], refs["hosts"] - refs["cluster"]) == ({image}, set())
    assert (names["hosts"] - names["cluster"], names["cluster"] - names["hosts"]) == ({program}, set())
    assert gateway_image(kind, {image.partition("/")[2]: "sha256:1"}) == {"image": image, "digest": "sha256:1"}
    with pytest.raises(ContentsError, match="circleci_object_storage_placement: found cluster, but the bundle holds no"):
        gateway_image(kind, {"other:1": "sha256:2"})


@pytest.mark.parametrize("kind", ["versitygw_posix", "minio_server", "s3"])
def test_no_image_is_brought_for_what_is_not_run_in_the_cluster(kind: str) -> None:
    hosts, cluster = (contents(object_storage_kind=kind, object_storage_placement=place)["images"] for place in ("hosts", "cluster"))
    assert hosts == cluster
    with pytest.raises(ContentsError, match="must be hosts"):
        gateway_image(kind, {})
