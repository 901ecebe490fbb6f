# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import shlex
from typing import Any

import pytest
import yaml
from ansible_collections.onprem.circleci_server.plugins.plugin_utils import object_storage
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.arguments import ROOT
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.object_storage import running

CATALOG = Catalog.load()
SITE = {
    "circleci_object_storage_kind": "versitygw_posix",
    "circleci_object_storage_endpoint": "http://store.example.com:7070",
    "circleci_object_storage_access_key": "circleci",
    "circleci_object_storage_secret_key": "a long secret",
    "circleci_object_storage_bucket": "circleci-data",
    "circleci_object_storage_agent_bucket": "circleci-agents",
    "circleci_object_storage_versioning": False,
    "circleci_object_storage_accepted_risks": [],
    "circleci_values": {},
    "circleci_load_balancer_address": "192.0.2.100",
}
S3_BEHIND: dict[str, Any] = {"backend_endpoint": "https://s3.example.net", "backend_account": "key", "backend_key": "other secret"}
AZURE_BEHIND: dict[str, Any] = {"backend_account": "account", "backend_key": "bG9uZw=="}
IN_CLUSTER: dict[str, Any] = {
    "kind": "versitygw_s3", "hosts": 0, "placement": "cluster", "load_balancer_address": "192.0.2.101", "load_balancer": "metallb", "platform": "rancher", **S3_BEHIND,
}  # fmt: skip
OTHERS = {"values", "load_balancer", "platform"}
"""Variables without the prefix of the object store."""
OPTIONS: dict[str, Any] = {
    "access_key": "circleci",
    "secret_key": 'se"cret$key`\\',
    "region": "us-east-1",
    "port": 7070,
    "address": "",
    "tls": False,
    "data_dir": "/srv/store",
    "policies": "circleci-data-gateway",
    "versioning": False,
    "environment": {},
    **S3_BEHIND,
    "backend_region": "eu-west-1",
}


def problems(hosts: int = 1, **changes: Any) -> list[str]:
    named = {f"circleci_{name}" if name in OTHERS else f"circleci_object_storage_{name}": value for name, value in changes.items()}
    return object_storage.problems(CATALOG, {**SITE, **named}, hosts)


def test_each_managed_kind_is_a_choice_of_the_site_and_known_to_the_catalog() -> None:
    choices = yaml.safe_load((ROOT / "arguments.yml").read_text(encoding="utf-8"))["arguments"]["circleci_object_storage_kind"]["choices"]
    assert list(object_storage.CHOICES) == choices
    for kind in choices:
        assert object_storage.capabilities(CATALOG, kind)["agents"] != "none", f"{kind} could not serve the agents"


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"versioning": True},
        {"kind": "versitygw_s3", **S3_BEHIND},
        {"kind": "versitygw_azure", **AZURE_BEHIND},
        {"kind": "versitygw_azure", "backend_account": "account"},
        {"kind": "minio_server", "accepted_risks": ["minio_server"]},
        {"kind": "minio_gateway_azure", "accepted_risks": ["minio_gateway_azure"], "agent_port": 7071, **AZURE_BEHIND},
        {"kind": "minio_gateway_azure", "accepted_risks": ["minio_gateway_azure"], "hosts": 0},
        {"kind": "versitygw_azure", "agent_port": 7071, "hosts": 2, **AZURE_BEHIND},
        {"kind": "minio_gateway_s3", "accepted_risks": ["minio_gateway_s3"], **S3_BEHIND},
        {"kind": "minio_server", "accepted_risks": ["minio_server"], "expiry_days": 90, "origins": ["https://app.ci.example.com"]},
        {"kind": "minio_nas", "accepted_risks": ["minio_nas"], "hosts": 2},
        {"kind": "versitygw_s3", "hosts": 2, **S3_BEHIND},
        IN_CLUSTER,
        {**IN_CLUSTER, "kind": "minio_gateway_s3", "accepted_risks": ["minio_gateway_s3"]},
        {**IN_CLUSTER, "kind": "versitygw_azure", **AZURE_BEHIND, "load_balancer": "provided", "platform": "azure"},
        {**IN_CLUSTER, "load_balancer": "provided", "platform": "eks", "load_balancer_address": ""},
        {"kind": "s3", "hosts": 0, "versioning": True, "expiry_days": 90},
        {"kind": "do_spaces", "hosts": 0, "versioning": True, "expiry_days": 90},
        {"kind": "aws_s3_keys", "hosts": 0},
        {"kind": "aws_s3_irsa", "hosts": 0, "irsa_role": "arn:aws:iam::1:role/x", "values": {"object_storage": {"s3": {"presigned": False}}}},
        {"kind": "gcs_key", "hosts": 0, "versioning": True, "service_account": "{}"},
        {"kind": "gcs_workload_identity", "hosts": 0, "workload_identity": "x@p.iam.gserviceaccount.com"},
    ],
)
def test_sound_choices_have_no_problem(choice: dict[str, Any]) -> None:
    assert problems(**choice) == []


@pytest.mark.parametrize(
    ("choice", "variable", "words"),
    [
        ({"kind": "minio_server"}, "circleci_object_storage_kind", ["2025-09-07", "CVE-2026-40344", "circleci_object_storage_accepted_risks: [minio_server]", "versitygw_posix"]),
        ({"kind": "minio_gateway_azure", "agent_port": 7071, **AZURE_BEHIND}, "circleci_object_storage_kind", ["2022-03-17", "CVE-2022-31028"]),
        ({"kind": "minio_gateway_s3", "accepted_risks": ["minio_server"], **S3_BEHIND}, "circleci_object_storage_kind", ["2022-10-24", "CVE-2024-36107"]),
        ({"accepted_risks": ["minio"]}, "circleci_object_storage_accepted_risks", ["'minio'", "minio_server"]),
        ({"kind": "versitygw_azure", "versioning": True, **AZURE_BEHIND}, "circleci_object_storage_versioning", ["cannot keep versions", "Docker layer caching"]),
        ({"values": {"object_storage": {"s3": {"presigned": False}}}}, "circleci_values.object_storage.s3.presigned", ["temporary credentials", "5 GB"]),
        ({"expiry_days": 30}, "circleci_object_storage_expiry_days", ["versitygw_posix has no expiry rules", "allowed is 0"]),
        ({"kind": "gcs_key", "hosts": 0, "expiry_days": 30}, "circleci_object_storage_expiry_days", ["not known to have"]),
        ({"kind": "gcs_key", "hosts": 0, "origins": ["https://a.example"]}, "circleci_object_storage_origins", ["gcs_key", "empty list"]),
        ({"kind": "aws_s3_irsa", "hosts": 0}, "circleci_object_storage_irsa_role", ["not set", "ARN"]),
        ({"irsa_role": "arn"}, "circleci_object_storage_irsa_role", ["versitygw_posix does not use it", "aws_s3_irsa"]),
        ({"kind": "gcs_workload_identity", "hosts": 0}, "circleci_object_storage_workload_identity", ["not set"]),
        ({"service_account": "hidden"}, "circleci_object_storage_service_account", ["does not use it", "gcs_key"]),
        ({"kind": "aws_s3_keys", "hosts": 0, "bucket": "xn--data"}, "circleci_object_storage_bucket", ["xn--data", "AWS"]),
        ({"kind": "aws_s3_keys", "hosts": 0, "agent_bucket": "agents--ol-s3"}, "circleci_object_storage_agent_bucket", ["AWS"]),
        ({"kind": "gcs_key", "hosts": 0, "bucket": "my-google-data"}, "circleci_object_storage_bucket", ["Google"]),
        ({"kind": "minio_nas"}, "circleci_object_storage_kind", ["2022-04-29", "CVE-2022-31028"]),
        ({"hosts": 2}, "circleci_object_storage", ["2 hosts", "one host"]),
        ({"kind": "minio_server", "accepted_risks": ["minio_server"], "hosts": 2}, "circleci_object_storage", ["minio_server keeps the objects", "versitygw_s3"]),
        ({"hosts": 0, "placement": "cluster"}, "circleci_object_storage_placement", ["versitygw_posix keeps the objects itself", "hosts", "versitygw_azure"]),
        ({"kind": "minio_server", "hosts": 0, "placement": "cluster", "accepted_risks": ["minio_server"]}, "circleci_object_storage_placement", ["each replica"]),
        ({"kind": "minio_nas", "hosts": 0, "placement": "cluster", "accepted_risks": ["minio_nas"]}, "circleci_object_storage_placement", ["keeps the objects"]),
        ({"kind": "s3", "hosts": 0, "placement": "cluster"}, "circleci_object_storage_placement", ["s3 is run by somebody else"]),
        (
            {"kind": "minio_gateway_azure", "hosts": 0, "placement": "cluster", "accepted_risks": ["minio_gateway_azure"], **AZURE_BEHIND},
            "circleci_object_storage_placement", ["listing", "no host"],
        ),
        ({**IN_CLUSTER, "hosts": 2}, "circleci_object_storage", ["2 host(s)", "placement is cluster"]),
        ({**IN_CLUSTER, "agent_port": 7071}, "circleci_object_storage_agent_port", ["found 7071", "allowed is 0"]),
        ({**IN_CLUSTER, "load_balancer_address": ""}, "circleci_object_storage_load_balancer_address", ["not set", "MetalLB"]),
        ({**IN_CLUSTER, "load_balancer_address": "192.0.2.100"}, "circleci_object_storage_load_balancer_address", ["circleci_load_balancer_address"]),
        ({**IN_CLUSTER, "load_balancer": "provided", "platform": "digitalocean"}, "circleci_object_storage_load_balancer_address", ["digitalocean", "empty"]),
        ({**IN_CLUSTER, "backend_account": ""}, "circleci_object_storage_backend_account", ["not set", "access key of the store behind"]),
        ({"load_balancer_address": "192.0.2.101"}, "circleci_object_storage_load_balancer_address", ["placement is not cluster"]),
        ({"kind": "s3"}, "circleci_object_storage", ["run by somebody else"]),
        ({"agent_bucket": "circleci-data"}, "circleci_object_storage_agent_bucket", ["circleci-data", "any other name"]),
        ({"kind": "versitygw_azure", "bucket": "ci--data", **AZURE_BEHIND}, "circleci_object_storage_bucket", ["ci--data", "hyphens"]),
        ({"kind": "versitygw_s3", "bucket": "d" * 60, **S3_BEHIND}, "circleci_object_storage_bucket", ["55"]),
        ({"kind": "versitygw_azure"}, "circleci_object_storage_backend_account", ["storage account"]),
        ({"kind": "versitygw_s3", "backend_account": "key", "backend_key": "x"}, "circleci_object_storage_backend_endpoint", ["not set"]),
        ({"kind": "versitygw_s3", **S3_BEHIND, "backend_endpoint": "http://store.example.com:7070"}, "circleci_object_storage_backend_endpoint", ["ask itself"]),
        ({"kind": "minio_gateway_azure", "accepted_risks": ["minio_gateway_azure"], **AZURE_BEHIND}, "circleci_object_storage_agent_port", ["found 0", "listing", "past the gateway"]),
        ({"kind": "s3", "hosts": 0, "agent_port": 7071}, "circleci_object_storage_agent_port", ["found 7071", "no host"]),
        ({"agent_port": 7070}, "circleci_object_storage_agent_port", ["found 7070", "circleci_object_storage_endpoint"]),
        ({"kind": "minio_gateway_azure", "accepted_risks": ["minio_gateway_azure"], "agent_port": 7071, "backend_account": "a"}, "circleci_object_storage_backend_key", ["managed identity"]),
        ({"backend_account": "key"}, "circleci_object_storage_backend_account", ["versitygw_posix has no store behind it"]),
        ({"kind": "minio_server", "accepted_risks": ["minio_server"], "secret_key": "short"}, "circleci_object_storage_secret_key", ["5 characters", "8"]),
    ],
)
def test_problems_are_sentences_that_name_the_variable(choice: dict[str, Any], variable: str, words: list[str]) -> None:
    (line,) = problems(**choice)
    assert line.startswith(f"{variable}: ")
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize(
    ("endpoint", "port", "url"),
    [
        ("http://store.example.com:7070", 7071, "http://store.example.com:7071"),
        ("https://store.example.com", 7071, "https://store.example.com:7071"),
        ("https://[2001:db8::1]:9000", 9001, "https://[2001:db8::1]:9001"),
        ("https://store.example.com", 0, ""),
    ],
)
def test_agents_have_the_name_and_the_scheme_of_the_store(endpoint: str, port: int, url: str) -> None:
    assert object_storage.agents_url(endpoint, port) == url


def test_no_problem_shows_a_secret() -> None:
    choice: dict[str, Any] = {**S3_BEHIND, "backend_key": "hidden1"}
    found = problems(kind="minio_gateway_s3", secret_key="hidden1", **choice)
    assert len(found) == 3 and "hidden1" not in " ".join(found)


def test_store_of_somebody_else_needs_no_back_end() -> None:
    assert problems(hosts=0, kind="versitygw_s3") == []


def test_kind_that_is_no_choice_is_left_to_the_check_of_choices() -> None:
    assert problems(kind="floppy") == []


@pytest.mark.parametrize("kind", object_storage.MANAGED)
def test_no_credentials_in_arguments(kind: str) -> None:
    made = object_storage.service(kind, {**OPTIONS, "access_key": "the access key", "backend_account": "the account"})
    for secret in (OPTIONS["secret_key"], "the access key", OPTIONS["backend_key"], "the account"):
        assert secret not in " ".join(made["arguments"]) and secret not in made["command"]


@pytest.mark.parametrize("kind", object_storage.MANAGED)
def test_environment_names_are_those_of_the_catalog(kind: str) -> None:
    listed = {entry.split("=")[0] for entry in CATALOG.object_storage_option(kind).environment}
    made = object_storage.service(kind, {**OPTIONS, "tls": True, "versioning": True})
    assert set(made["environment"]) <= listed


def test_folders_of_a_store_belong_to_its_user_and_those_of_a_gateway_are_none() -> None:
    posix = object_storage.service("versitygw_posix", {**OPTIONS, "versioning": True})
    assert [item["path"] for item in posix["directories"] if item.get("owner") == "circleci-store"] == [
        "/srv/store",
        "/srv/store/posix",
        "/srv/store/posix/buckets",
        "/srv/store/posix/versions",
    ]
    assert posix["environment"]["VGW_VERSIONING_DIR"] == "/srv/store/posix/versions"
    gateway = object_storage.service("versitygw_azure", OPTIONS)
    assert not gateway["keeps_data"] and all("owner" not in item for item in gateway["directories"])


def test_certificate_is_used_where_it_is_put() -> None:
    made = object_storage.service("versitygw_posix", {**OPTIONS, "tls": True})
    assert (made["environment"]["VGW_CERT"], made["environment"]["VGW_KEY"]) == (made["certificate"], made["private_key"])
    made = object_storage.service("minio_server", {**OPTIONS, "tls": True})
    assert made["arguments"][made["arguments"].index("--certs-dir") + 1] == made["certificate"].rsplit("/", 1)[0]


def test_origins_are_the_whole_servers_with_minio() -> None:
    made = object_storage.service("minio_server", {**OPTIONS, "origins": ["https://a.example", "https://b.example"]})
    assert made["environment"]["MINIO_API_CORS_ALLOW_ORIGIN"] == "https://a.example,https://b.example"
    assert "MINIO_API_CORS_ALLOW_ORIGIN" not in object_storage.service("minio_server", OPTIONS)["environment"]


def test_azure_without_a_key_leaves_it_to_the_managed_identity() -> None:
    made = object_storage.service("versitygw_azure", {**OPTIONS, "backend_key": "", "backend_endpoint": ""})
    assert "AZ_ACCESS_KEY" not in made["environment"] and "AZ_ENDPOINT" not in made["environment"]


def test_further_environment_wins() -> None:
    made = object_storage.service("versitygw_azure", {**OPTIONS, "environment": {"AZURE_CLIENT_ID": "1-2", "VGW_QUIET": False}})
    assert made["environment"]["AZURE_CLIENT_ID"] == "1-2" and made["environment"]["VGW_QUIET"] == "False"


def test_environment_file_is_read_back_as_it_was() -> None:
    text = running.environment_file({"A": 'a"b\\c$d`e f%g#h', "B": ""})
    # Within double quotes a shell undoes the same four escapes as systemd.
    assert text.splitlines() == ['A="a\\"b\\\\c\\$d\\`e f%g#h"', 'B=""']


@pytest.mark.parametrize("environment", [{"A": "two\nlines"}, {"A B": "x"}])
def test_environment_that_systemd_cannot_read_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(object_storage.ServiceError, match="systemd"):
        running.environment_file(environment)


def test_command_line_survives_systemd() -> None:
    made = object_storage.service("versitygw_posix", {**OPTIONS, "data_dir": '/srv/a "b" 100%'})
    assert made["command"] == '/usr/local/bin/versitygw posix "/srv/a \\"b\\" 100%%/posix/buckets"'
    plain = object_storage.service("minio_server", OPTIONS)
    assert shlex.split(plain["command"]) == ["/usr/local/bin/minio", *plain["arguments"]]


def test_address_of_version_six_is_written_in_brackets() -> None:
    assert object_storage.service("versitygw_posix", {**OPTIONS, "address": "fd00::1"})["environment"]["VGW_PORT"] == "[fd00::1]:7070"


def test_kind_of_somebody_else_has_no_service() -> None:
    with pytest.raises(object_storage.ServiceError, match="versitygw_posix"):
        object_storage.service("s3", OPTIONS)


FILES = {
    "build-agent": "1.0.2",
    "build-agent-checksums": "1.0.2",
    "build-agent-canary": "4.10.0",
    "docker-agent": "1.0.7",
    "docker-agent-checksums": "1.0.7",
    "nomad-client": "1.7.7",
}


def test_agents_lie_where_the_vendor_documents_them() -> None:
    found = object_storage.agent_objects(CATALOG, "4.10.0", FILES)
    assert {item["key"] for item in found["objects"]} == {
        "1.0.2/linux/amd64/circleci-agent",
        "1.0.2/checksums.txt",
        "canary.txt",
        "docker-provisioner/1.0.7/linux/amd64/agent",
        "docker-provisioner/1.0.7/checksums.txt",
    }
    assert found["texts"] == {"release.txt": "1.0.2", "docker-provisioner/release.txt": "1.0.7"}


def test_agents_with_a_condition_are_brought_when_the_bundle_has_them() -> None:
    found = object_storage.agent_objects(CATALOG, "4.10.0", {**FILES, "machine-agent": "2", "machine-agent-checksums": "2"})
    assert found["texts"]["machine-provisioner/release.txt"] == "2"


def test_missing_agent_is_named() -> None:
    with pytest.raises(object_storage.AgentsError, match="docker-agent, docker-agent-checksums"):
        object_storage.agent_objects(CATALOG, "4.10.0", {name: version for name, version in FILES.items() if "docker" not in name})


def test_release_without_documented_agents_has_none() -> None:
    assert object_storage.agent_objects(CATALOG, "4.0.6", {}) == {"objects": [], "texts": {}}


def test_private_authority_is_unproven() -> None:
    (finding,) = object_storage.unproven("versitygw_posix", "https://store.example.com", True)
    assert finding["level"] == "warning" and "UNPROVEN" in finding["remedy"]
    assert object_storage.unproven("versitygw_posix", "http://store.example.com", False) == []
