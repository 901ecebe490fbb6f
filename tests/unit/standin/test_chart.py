# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog

from sandbox import artifacts
from sandbox.common import SandboxError
from sandbox.standin import chart, documented, images
from sandbox.standin.oci import normalise

RELEASES = chart.known_releases()
INSTALLABLE = [release for release in RELEASES if release != "4.2.7"]


def _helm() -> str | None:
    made = artifacts.find("helm").folder() / "helm"
    return str(made) if made.is_file() else shutil.which("helm")


needs_helm = pytest.mark.skipif(_helm() is None, reason="helm is neither in the cache nor on PATH")


def render(release: str, folder: Path, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    done = run_helm(release, folder, values)
    assert done.returncode == 0, done.stderr[-1500:]
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def run_helm(release: str, folder: Path, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    helm = _helm()
    assert helm
    place = chart.unpack(release, folder)
    given = folder / "given.yaml"
    given.write_text(yaml.safe_dump(values or {}), encoding="utf-8")
    argv = [helm, "template", "any-name", str(place), "--namespace", "ci", "--values", str(given)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def containers(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for document in documents:
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        found += [*pod.get("initContainers", []), *pod.get("containers", [])]
    return found


def named(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


# --- data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
def test_every_row_of_the_release_has_a_workload(release: str) -> None:
    rows = chart.rows(release)
    missing = [service.name for service in Catalog.load().services(release) if service.name not in rows]
    assert not missing
    assert not set(rows) - {service.name for service in Catalog.load().services(release)}


@pytest.mark.parametrize("release", RELEASES)
def test_workloads_are_called_as_the_catalog_calls_them(release: str) -> None:
    ours = {name for pairs in chart.rows(release).values() for kind, name in pairs if kind != "none"}
    theirs = {
        workload.name
        for service in Catalog.load().services(release)
        for workload in service.workloads
        if service.name != "prometheus"
    }
    assert not theirs - ours
    # the approval job provider is a container of this one
    assert ours - theirs <= {"workflows-conductor-grpc"}


@pytest.mark.parametrize("release", RELEASES)
def test_chart_names_itself_a_stand_in(release: str) -> None:
    metadata = yaml.safe_load(chart.files(release)["Chart.yaml"])
    assert metadata["description"].startswith("STAND-IN for the CircleCI Server chart, not the vendor's")
    assert metadata["name"] == "circleci-server"
    assert metadata["version"] == release


def test_images_file_is_a_flat_map() -> None:
    for release in INSTALLABLE:
        table = yaml.safe_load(chart.files(release)["images.yaml"])
        assert set(table) == {"circleci/picard", "circleci/docker-agent", "circleci/machine-agent"}
        assert all(isinstance(tag, str) for tag in table.values())


def test_unknown_release_is_named_with_the_known_ones() -> None:
    with pytest.raises(SandboxError, match=r"4\.6\.6 has no stand-in; known: 4\.2\.7, .*4\.10\.0"):
        chart.images_of("4.6.6")


def test_sixteen_password_secrets_from_4_9_on() -> None:
    count = {release: sum(1 for entry in chart.databases(release).values() if entry["role"]) for release in RELEASES}
    assert count["4.10.0"] == count["4.9.5"] == 16
    assert count["4.8.12"] == count["4.7.15"] == 15


def test_constructed_references_can_be_seen() -> None:
    for release in RELEASES:
        for ref, certainty in chart.references(release).items():
            assert ("constructed" in ref) == (certainty == "constructed"), ref
    assert images.certainty("docker.io/library/kong:3.4.2") == "documented"


def test_short_names_are_spelled_out() -> None:
    assert normalise("kong:3.4.2") == "docker.io/library/kong:3.4.2"
    assert normalise("hashicorp/nomad:1.11.3") == "docker.io/hashicorp/nomad:1.11.3"
    assert normalise("quay.io/soketi/soketi:1") == "quay.io/soketi/soketi:1"
    assert normalise("circleci/python") == "docker.io/circleci/python:latest"


def test_small_values_file_is_up_to_date() -> None:
    path = chart.HERE / "values-small.yml"
    assert path.read_text(encoding="utf-8") == chart.small_values_file("4.10.0"), (
        "run: python3 -m sandbox.standin small 4.10.0 > sandbox/standin/values-small.yml"
    )


# --- values and schema ----------------------------------------------------------------------------------------------


def test_key_paths() -> None:
    assert documented.parse('a."b.c/d".e[0].f') == ("a", "b.c/d", "e", 0, "f")
    assert documented.parse("x.filter/y_z.t[2]") == ("x", "filter/y_z", "t", 2)
    with pytest.raises(SandboxError, match="unexpected"):
        documented.parse("a[x]")


def test_defaults_join_objects_and_parts() -> None:
    entries = (
        documented.Key("a", "object", {"b": 1, "c": True}),
        documented.Key("a.c", "bool", None),
        documented.Key("l[0]", "string", "x"),
        documented.Key("l[1].y", "int", 2),
        documented.Key("seen", "string", None, listed=False),
    )
    assert documented.defaults(entries) == {"a": {"b": 1, "c": True}, "l": ["x", {"y": 2}]}


@pytest.mark.parametrize("release", RELEASES)
def test_defaults_satisfy_the_schema(release: str) -> None:
    made = chart.files(release)
    jsonschema.validate(yaml.safe_load(made["values.yaml"]), json.loads(made["values.schema.json"]))


@pytest.mark.parametrize(
    ("release", "values", "good"),
    [
        ("4.10.0", {"anything": 1, "global": {"clusterName": "x"}, "nomad": {"serverHostname": "x"}}, True),
        ("4.10.0", {"telegraf": {"service": {"ports": []}}}, True),
        ("4.10.0", {"github": {"selfSignedCert": True, "defaultToken": "x"}}, True),
        ("4.10.0", {"proxy": {"enabled": "1"}}, True),
        ("4.10.0", {"global": {"container": {"org": None}}}, True),
        ("4.9.5", {"global": {"otel": {"collector_port": 4317}}}, True),
        ("4.10.0", {"global": {"imagePullSecrets": ["regcred"]}}, True),
        ("4.10.0", {"global": {"imagePullSecrets": [{"name": "regcred"}]}}, False),
        ("4.2.7", {"global": {"imagePullSecrets": [{"name": "regcred"}]}}, True),
        ("4.2.7", {"global": {"imagePullSecrets": ["regcred"]}}, False),
        ("4.10.0", {"tink": {"enabled": "yes"}}, False),
        ("4.10.0", {"nomad": {"server": {"replicas": "three"}}}, False),
        ("4.10.0", {"object_storage": {"s3": {"acessKey": "x"}}}, False),
        ("4.10.0", {"github": {"clientID": "x"}}, False),
    ],
)
def test_schema_is_as_strict_as_the_real_one_was_seen_to_be(release: str, values: dict[str, Any], good: bool) -> None:
    schema = json.loads(chart.files(release)["values.schema.json"])
    errors = [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(values)]
    assert (not errors) == good, errors


def test_keys_differ_between_releases() -> None:
    trees = {release: chart.values(release) for release in RELEASES}
    assert "vm_service" in trees["4.2.7"]
    assert "machine_provisioner" not in trees["4.2.7"]
    assert "config_path" in trees["4.7.15"]["docker_provisioner"]
    assert "custom_config" in trees["4.8.12"]["docker_provisioner"]
    assert "reaperContainerRepository" not in trees["4.7.15"]["docker_provisioner"]
    assert "otel" in trees["4.9.5"]["global"]
    assert "tracing" in trees["4.8.12"]["global"]
    assert "telegraf" not in trees["4.10.0"]
    assert "audit_log_service" not in trees["4.10.0"]
    assert "audit_log_batcher" in trees["4.10.0"]["notifications"]
    assert trees["4.7.15"]["nomad"]["server"]["replicas"] == 5
    assert trees["4.2.7"]["nomad"]["server"]["replicas"] == 3


# --- rendered -------------------------------------------------------------------------------------------------------


@needs_helm
@pytest.mark.parametrize("release", RELEASES)
def test_chart_renders_and_asks_only_for_images_of_the_release(release: str, tmp_path: Path) -> None:
    documents = render(release, tmp_path, chart.small_values(release))
    asked = {normalise(container["image"]) for container in containers(documents)}
    assert not asked - set(chart.references(release))
    names = [(document["kind"], document["metadata"]["name"]) for document in documents]
    assert len(set(names)) == len(names)
    for kind, name in {pair for pairs in chart.rows(release).values() for pair in pairs}:
        if kind in ("Deployment", "StatefulSet") and name not in ("vault", "nomad-autoscaler", "oidc-service", "oidc-tasks-service", "otel-collector"):
            assert (kind, name) in names


@needs_helm
@pytest.mark.parametrize("release", INSTALLABLE)
def test_every_image_can_be_moved_into_a_private_registry(release: str, tmp_path: Path) -> None:
    private = "registry.site.example:5000"
    values: dict[str, Any] = {
        "global": {"container": {"registry": private}},
        "kong": {"image": {"repository": f"{private}/library/kong"}},
        "soketi": {"image": {"repository": f"{private}/soketi/soketi"}},
        "nginx": {"image": {"repository": f"{private}/nginxinc/nginx-unprivileged"}},
        "nomad": {
            "server": {"image": {"repository": f"{private}/hashicorp/nomad"}},
            "auto_scaler": {"enabled": True, "image": {"repository": f"{private}/hashicorp/nomad-autoscaler"}},
        },
        "mongodb": {"image": {"registry": private}, "injectBotToken": {"image": {"repository": f"{private}/library/mongo"}}},
        "postgresql": {"image": {"registry": private}},
        "rabbitmq": {"image": {"registry": private}},
        "redis": {"image": {"registry": private}},
        "telegraf": {"image": {"repo": f"{private}/library/telegraf"}},
        "opentelemetry-collector": {"image": {"repository": f"{private}/otel/collector"}},
    }
    outside = {container["image"] for container in containers(render(release, tmp_path, values)) if not container["image"].startswith(f"{private}/")}
    assert not outside


@needs_helm
def test_registry_and_org_may_be_empty_or_given(tmp_path: Path) -> None:
    def frontend(container: dict[str, Any]) -> str:
        documents = render("4.10.0", tmp_path, {"global": {"container": container}})
        return str(named(documents, "Deployment")["frontend"]["spec"]["template"]["spec"]["containers"][0]["image"])

    assert frontend({"registry": "", "org": "circleci"}).startswith("circleci/circle-www-api:")
    assert frontend({"registry": "r.example", "org": "mine"}).startswith("r.example/mine/circle-www-api:")


@needs_helm
def test_secrets_are_kept_and_owned(tmp_path: Path) -> None:
    found = named(render("4.9.5", tmp_path), "Secret")
    for name in ("api-token", "session-cookie", "pusher", "nomad-gossip-encryption-key", "nomad-mtls", "policy-service", "distributor-db-app"):
        assert found[name]["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    # seen on 4.9.0, and no word about the release
    assert found["policy-service"]["metadata"]["labels"]["helm.sh/chart"] == "circleci-server-5.0.0"
    assert set(found["nomad-mtls"]["data"]) == {"ca.pem", "cert.pem", "key.pem"}


@needs_helm
def test_values_that_have_a_secret_of_their_own_name(tmp_path: Path) -> None:
    quiet = {"postgresql": {"auth": {"existingSecret": "a"}}, "mongodb": {"auth": {"existingSecret": "b"}}}
    quiet["rabbitmq"] = {"auth": {"existingPasswordSecret": "c", "existingErlangSecret": "c"}}
    found = named(render("4.10.0", tmp_path, quiet), "Secret")
    assert not {"postgresql", "mongodb", "rabbitmq", "license", "signing-keys", "github-secret", "object-storage-secret", "tink"} & set(found)
    given = {"global": {"license": "x"}, "keyset": {"signing": "s", "encryption": "e"}, "github": {"clientId": "i", "clientSecret": "c"}}
    assert {"license", "signing-keys", "github-secret", "postgresql", "mongodb", "rabbitmq"} <= set(named(render("4.10.0", tmp_path, given), "Secret"))


@needs_helm
@pytest.mark.parametrize(("release", "more"), [("4.2.7", {3000, 8585}), ("4.7.15", set()), ("4.10.0", set())])
def test_load_balancer_has_the_documented_ports(release: str, more: set[int], tmp_path: Path) -> None:
    values = {"nginx": {"annotations": {"a/b": "c"}, "loadBalancerIp": "10.0.0.9"}}
    service = named(render(release, tmp_path, values), "Service")["circleci-proxy"]
    assert service["spec"]["type"] == "LoadBalancer"
    assert {port["port"] for port in service["spec"]["ports"]} == {80, 443, 4647} | more
    assert service["metadata"]["labels"]["app"] == "circleci-proxy"
    assert service["metadata"]["annotations"]["a/b"] == "c"
    assert service["spec"]["loadBalancerIP"] == "10.0.0.9"


@needs_helm
def test_source_ranges_and_acm(tmp_path: Path) -> None:
    values = {"nginx": {"loadBalancerSourceRanges": ["10.0.0.0/8"], "aws_acm": {"enabled": True}}}
    services = named(render("4.10.0", tmp_path, values), "Service")
    assert "circleci-proxy" not in services
    assert services["circleci-proxy-acm"]["spec"]["loadBalancerSourceRanges"] == ["10.0.0.0/8"]


@needs_helm
def test_tink_removes_vault(tmp_path: Path) -> None:
    assert "vault" in named(render("4.10.0", tmp_path), "StatefulSet")
    assert "vault" not in named(render("4.10.0", tmp_path, {"tink": {"enabled": True}}), "StatefulSet")


@needs_helm
def test_outside_nomad_servers_remove_the_inner_ones(tmp_path: Path) -> None:
    values = {"nomad": {"server": {"internal": False, "serverHostname": "nomad.example"}}}
    documents = render("4.10.0", tmp_path, values)
    assert "nomad-server" not in named(documents, "StatefulSet")
    assert {port["port"] for port in named(documents, "Service")["circleci-proxy"]["spec"]["ports"]} == {80, 443}
    assert "nomad-mtls" not in named(documents, "Secret")


@needs_helm
def test_nomad_servers_start_together(tmp_path: Path) -> None:
    documents = render("4.10.0", tmp_path)
    stateful = named(documents, "StatefulSet")["nomad-server"]
    assert stateful["spec"]["podManagementPolicy"] == "Parallel"
    assert stateful["spec"]["replicas"] == 5
    assert "bootstrap_expect = 5" in named(documents, "ConfigMap")["nomad-server-config"]["data"]["server.hcl"]
    assert stateful["metadata"]["labels"]["layer"] == "execution"


@needs_helm
def test_migrators_run_in_the_pods_of_their_services(tmp_path: Path) -> None:
    documents = render("4.10.0", tmp_path)
    assert not named(documents, "Job")
    pod = named(documents, "Deployment")["workflows-conductor-grpc"]["spec"]["template"]["spec"]
    assert [container["name"] for container in pod["initContainers"]] == ["flyway-table-rename", "repair-migrations", "dbmigrator-approvaljobservice"]
    assert pod["containers"][0]["name"] == "workflows-conductor-grpc-handler"
    assert list(named(render("4.7.15", tmp_path), "Job")) == ["inject-bottoken-4-7-15"]


@needs_helm
def test_volumes_name_no_storage_class(tmp_path: Path) -> None:
    stateful = named(render("4.10.0", tmp_path), "StatefulSet")
    claims = {f"{claim['metadata']['name']}-{name}": claim["spec"] for name, item in stateful.items() for claim in item["spec"].get("volumeClaimTemplates", [])}
    assert {"data-postgresql", "datadir-mongodb", "redis-data-redis-master", "redis-data-redis-slave", "data-rabbitmq", "data-vault", "data-nomad-server"} == set(claims)
    assert not any("storageClassName" in spec for spec in claims.values())


@needs_helm
@pytest.mark.parametrize(
    ("release", "values", "words"),
    [
        ("4.10.0", {"tls": {"certificate": "eA=="}}, "belong together"),
        ("4.10.0", {"oidc_service": {"isEnabled": True}}, "json_web_keys is needed"),
        ("4.10.0", {"nomad": {"server": {"internal": False, "serverHostname": ""}}}, "serverHostname is needed"),
        ("4.10.0", {"global": {"imagePullSecrets": [{"name": "regcred"}]}}, "imagePullSecrets"),
        ("4.2.7", {"global": {"imagePullSecrets": ["regcred"]}}, "imagePullSecrets"),
    ],
)
def test_chart_refuses(release: str, values: dict[str, Any], words: str, tmp_path: Path) -> None:
    done = run_helm(release, tmp_path, values)
    assert done.returncode != 0
    assert words in done.stderr


@needs_helm
@pytest.mark.parametrize("release", RELEASES)
def test_everything_switched_on_renders(release: str, tmp_path: Path) -> None:
    """The vendor's script that lists images does this."""

    def switch_on(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {key: True if key in ("enabled", "isEnabled") else switch_on(value) for key, value in tree.items()}
        return tree

    values = switch_on(chart.values(release))
    if "oidc_service" in values:
        values["oidc_service"]["json_web_keys"] = "dummy"
    (tmp_path / "schema-off").mkdir()
    place = chart.unpack(release, tmp_path)
    given = tmp_path / "on.yaml"
    given.write_text(yaml.safe_dump(values), encoding="utf-8")
    argv = [str(_helm()), "template", "x", str(place), "--values", str(given), "--skip-schema-validation"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
    found = {normalise(match) for match in re.findall(r"^\s*image: (\S+)", done.stdout, re.MULTILINE)}
    assert not found - set(chart.references(release))


@needs_helm
def test_lint(tmp_path: Path) -> None:
    place = chart.unpack("4.10.0", tmp_path)
    done = subprocess.run([str(_helm()), "lint", str(place)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
