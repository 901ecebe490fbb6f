# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import sys
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.mirror_outputs import (
    SOURCES,
    Place,
    mirror_outputs,
)

REGISTRY = "registry.example:5000"


def outputs(**options: Any) -> dict[str, Any]:
    return mirror_outputs(REGISTRY, catalog=Catalog.load(), release="4.10.0", **options)


def test_every_key_of_the_overlay_names_the_registry() -> None:
    values = outputs()["helm_values"]
    assert values["global"]["container"] == {"registry": REGISTRY, "org": ""}
    assert values["kong"]["image"]["repository"] == f"{REGISTRY}/library/kong"
    assert values["soketi"]["image"]["repository"] == f"{REGISTRY}/soketi/soketi"
    assert values["nomad"]["buildAgentImage"] == f"{REGISTRY}/circleci/picard"
    assert values["docker_provisioner"]["reaperContainerRepository"] == REGISTRY
    assert values["mongodb"]["image"] == {"registry": REGISTRY, "repository": "server-mongodb"}


def test_no_host_falls_back_to_the_internet() -> None:
    hosts = outputs(ca_file="/etc/ca.crt")["containerd_hosts"]
    assert set(hosts) == {*SOURCES, REGISTRY}
    assert hosts["docker.io"] == (
        'server = "https://registry.example:5000"\n\n[host."https://registry.example:5000"]\n  capabilities = ["pull", "resolve"]\n  ca = "/etc/ca.crt"\n'
    )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_hosts_toml_is_toml() -> None:
    import tomllib

    parsed = tomllib.loads(outputs(ca_file='/etc/we"ird.crt')["containerd_hosts"]["quay.io"])
    assert parsed["host"]["https://registry.example:5000"]["ca"] == '/etc/we"ird.crt'


def test_k3s() -> None:
    settings = outputs(ca_file="/etc/ca.crt", sources=["quay.io"])["k3s_registries"]
    assert settings == {
        "mirrors": {"quay.io": {"endpoint": ["https://registry.example:5000"]}, REGISTRY: {"endpoint": ["https://registry.example:5000"]}},
        "configs": {REGISTRY: {"tls": {"ca_file": "/etc/ca.crt"}}},
    }


def test_docker() -> None:
    assert outputs()["docker_daemon"] == {"registry-mirrors": ["https://registry.example:5000"]}
    assert outputs(plain_http=True)["docker_daemon"] == {"registry-mirrors": ["http://registry.example:5000"], "insecure-registries": [REGISTRY]}
    assert outputs(plain_http=True)["ca_files"] == {}
    assert outputs()["ca_files"]["docker"] == "/etc/docker/certs.d/registry.example:5000/ca.crt"


def test_a_mapping_that_moves_paths_gives_no_wrong_setting_by_host() -> None:
    found = outputs(mapping={"docker.io": "hub"})
    assert found["containerd_hosts"] == {} and found["k3s_registries"] == {}
    assert "registry-mirrors" not in found["docker_daemon"]
    assert found["helm_values"]["kong"]["image"]["repository"] == f"{REGISTRY}/hub/library/kong"


def test_rules_longest_first() -> None:
    place = Place(REGISTRY, {"docker.io": "hub", "docker.io/library": "base", "quay.io/soketi": ""})
    assert place.path("kong") == "base/kong"
    assert place.path("hashicorp/nomad") == "hub/hashicorp/nomad"
    assert place.path("quay.io/soketi/soketi") == "soketi"
    assert place.path("ghcr.io/a/b") == "a/b"
