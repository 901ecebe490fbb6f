# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values import compose_data
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values.schema import Schema, sentences
from ansible_collections.onprem.circleci_server.tests.unit.plugins.plugin_utils.values.sites import FULL, OLD, site


def run(overlay: dict[str, Any], release: str = "4.10.0", schema: dict[str, Any] | None = None) -> tuple[str, str, dict[str, Any]]:
    result = compose_data(site(release, "generic", overlay=overlay), chart_schema=schema)
    return "\n".join(result["errors"]), "\n".join(result["warnings"]), result["values"]


# Keys and harmless shapes of files that people really ran, by release.
FIELD: dict[str, tuple[str, dict[str, Any]]] = {
    "support lab": (
        "4.9.5",
        {
            "global": {
                "domainName": "circleci.example.com",
                "otel": {"enabled": True, "collector_host": "jaeger.monitoring.svc.cluster.local", "collector_port": 4317, "sample_rate": 1.0},
                "imagePullSecrets": ["regcred", "dockerhub-secret"],
                "container": {"registry": "", "org": "circleci"},
                "clusterName": "lab",
                "domainFilter": "example.com",
                "aws": {"region": "us-east-1"},
            },
            "circleci-server-version": "4.9.0",
            "argocd": {"repository": "x"},
            "machine_provisioner": {
                "fudgeScaleFactor": 0, "fudgeConstantTerm": 0, "demandFudgeFactor": 0,
                "providers": {"ec2": {"enabled": True, "region": "us-east-1", "assignPublicIP": True, "irsaRole": "dummy", "subnets": ["a"], "securityGroupId": "sg", "tags": {"k": "false"}}},
            },
            "nginx": {
                "annotations": {"external-dns.alpha.kubernetes.io/hostname": "a, b"},
                "resources": {"requests": {"cpu": "50m", "memory": "100Mi"}, "limits": {"cpu": "100m", "memory": "200Mi"}},
            },
            "kong": {
                "acme": {"enabled": True, "email": "a@example.com"},
                "resources": {"requests": {"cpu": "50m", "memory": "1Gi"}, "limits": {"cpu": "500m", "memory": "2Gi"}},
            },
            "object_storage": {"bucketName": "b", "s3": {"enabled": True, "endpoint": "https://s3.us-east-1.amazonaws.com", "region": "us-east-1", "irsaRole": "dummy"}},
            "github": {"enterprise": False},
            "postgresql": {"auth": {"existingSecret": "postgresql"}},
            "mongodb": {"auth": {"existingSecret": "mongodb-credentials"}},
            "rabbitmq": {"internal": True, "auth": {"existingPasswordSecret": "rabbitmq", "existingErlangSecret": "rabbitmq"}},
            "tink": {"enabled": True},
            "nomad": {"server": {"replicas": 3, "rpc": {"mTLS": {"enabled": True}}}, "serverHostname": "circleci.example.com"},
            "telegraf": {
                "resources": {"requests": {"cpu": "50m", "memory": "100Mi"}, "limits": {"cpu": "100m", "memory": "200Mi"}},
                "service": {
                    "ports": [
                        {"name": "statsd", "port": 8125, "protocol": "UDP", "targetPort": 8125},
                        {"name": "prometheus", "port": 9273, "protocol": "TCP", "targetPort": 9273},
                    ]
                },
                "config": {"outputs": [{"file": {"files": ["stdout"]}}, {"prometheus_client": {"listen": ":9273", "metric_version": 2, "expiration_interval": "60s"}}]},
            },
            "oidc_service": {"isEnabled": True, "json_web_keys": "in-secrets"},
        },
    ),
    "template of 4.0": (
        "4.0.6",
        {
            "global": {"domainName": "a.example.com", "license": "x", "container": {"registry": "cciserver.azurecr.io", "org": None}, "imagePullSecrets": [{"name": "regcred"}]},
            "apiToken": "x",
            "sessionCookieKey": "x",
            "keyset": {"signing": "{}", "encryption": "{}"},
            "nomad": {
                "auto_scaler": {"enabled": False},
                "server": {"gossip": {"encryption": {"key": "x"}}, "rpc": {"mTLS": {"enabled": True, "CACertificate": "x", "certificate": "x", "privateKey": "x"}}},
            },
            "object_storage": {"bucketName": "b", "s3": {"enabled": True, "endpoint": "https://x.example", "region": "r", "irsaRole": "r"}},
            "github": {"clientId": "x", "clientSecret": "x"},
            "vm_service": {"providers": {"ec2": {"enabled": True, "region": "r", "subnets": ["s"], "securityGroupId": "sg", "irsaRole": "r"}}},
            "mongodb": {"auth": {"rootPassword": "x", "password": "x"}},
            "postgresql": {"internal": True, "auth": {"postgresPassword": "x", "username": "", "existingSecret": ""}},
            "pusher": {"secret": "x"},
            "rabbitmq": {"auth": {"password": "x", "erlangCookie": "x"}},
            "nginx": {"aws_acm": {"enabled": False}},
            "telegraf": {"config": {"custom_config_file": "x"}},
        },
    ),
    "rewritten from 3.x": (
        "4.0.6",
        {
            "global": {"domainName": "a.example.com", "license": "x", "imagePullSecrets": [{"name": "regcred"}], "container": {"registry": "cciserver.azurecr.io", "org": ""}},
            "nginx": {"annotations": {"a.example.com/b": "c"}, "aws_acm": {"enabled": False}},
            "mongodb": {"auth": {"password": "x"}},
            "postgresql": {"internal": False, "auth": {"postgresPassword": "x", "username": "u", "password": "x", "existingSecret": ""}},
            "telegraf": {"config": {"custom_config_file": "x"}},
            "nomad": {"auto_scaler": {"enabled": False, "aws": {"enabled": False, "region": "r"}, "gcp": {"enabled": False, "project_id": "p"}}},
            "vm_service": {"providers": {"ec2": {"enabled": False}, "gcp": {"enabled": True, "project_id": "p", "zone": "z", "network": "n"}}},
            "object_storage": {"s3": {"enabled": False}, "gcs": {"enabled": True, "service_account": {"type": "x"}}},
        },
    ),
    "metrics": ("4.9.5", {"telegraf": {"config": {"outputs": [{"file": {"files": ["stdout"]}}, {"prometheus_client": {"listen": ":9273"}}]}}}),
    "presigned off": ("4.3.9", {"object_storage": {"s3": {"presigned": False, "storageRole": "arn"}}}),
    "tracing": (
        "4.10.0",
        {
            "opentelemetry-collector": {
                "config": {
                    "exporters": {"otlp": {"endpoint": "x:4317", "tls": {"insecure": True}}},
                    "service": {"pipelines": {"traces": {"receivers": ["otlp"], "processors": ["filter/traces_lowSignal", "batch"], "exporters": ["otlp"]}}},
                }
            }
        },
    ),
    "heap": ("4.7.15", {"frontend": {"jvmHeapSize": "11g", "resources": {"limits": {"memory": "18Gi"}}}}),
}


@pytest.mark.parametrize("name", FIELD)
def test_files_from_the_field_pass_without_an_error(name: str) -> None:
    release, overlay = FIELD[name]
    errors, _warnings, _values = run(overlay, release)
    assert errors == ""


def test_unknown_keys_of_field_files_are_warnings() -> None:
    _errors, warnings, _values = run(FIELD["support lab"][1], "4.9.5")
    for key in ("circleci-server-version", "argocd.repository", "global.clusterName", "global.aws.region", "global.domainFilter", "nomad.serverHostname"):
        assert f"circleci_values: {key} is in no values table" in warnings
    assert "nomad.server.serverHostname" in warnings


@pytest.mark.parametrize(
    ("overlay", "advice"),
    [
        ({"published": True}, "published is no key of CircleCI Server 4.x: take it out"),
        ({"domainName": "x"}, "write global.domainName instead"),
        ({"license": "x"}, "write global.license instead"),
        ({"kong": {"annotations": {"a": "b"}}}, "write nginx.annotations instead"),
        ({"postgresql": {"postgresqlUsername": "x"}}, "write postgresql.auth.username instead"),
        ({"postgresql": {"postgresqlPassword": "x"}}, "write postgresql.auth.postgresPassword instead"),
        ({"nomad": {"server": {"rpc": {"advertise": {"enabled": True}}}}}, "nomad.server.rpc.advertise is no key of CircleCI Server 4.x: take it out"),
        ({"minio": {"enabled": True}}, "write object_storage instead"),
    ],
)
def test_keys_that_were_left_behind_in_3_x_say_what_took_their_place(overlay: dict[str, Any], advice: str) -> None:
    errors, _warnings, _values = run(overlay, "4.0.6")
    assert advice in errors


def test_overlay_wins_and_says_what_it_replaced() -> None:
    result = compose_data(site("4.10.0", "generic", overlay={"kong": {"image": {"repository": "other/kong"}}, "nginx": {"replicas": 3}}))
    assert result["values"]["kong"]["image"]["repository"] == "other/kong"
    assert result["values"]["nginx"]["annotations"]
    row = next(row for row in result["explanations"] if row["key"] == "kong.image.repository")
    assert row["rule"] == "overlay"
    assert "images.relocate" in row["note"]


def test_secrets_in_the_overlay_are_masked() -> None:
    result = compose_data(site("4.10.0", "generic", overlay={"smtp": {"host": "mail", "password": "canary"}, "github": {"clientSecret": "canary"}}))
    assert "canary" not in str(result["explanations"])
    assert "canary" in result["secret_texts"]


@pytest.mark.parametrize(
    ("release", "overlay", "parts"),
    [
        ("4.3.9", {"vm_service": {"enabled": True}}, ["vm_service.enabled", "machine_provisioner.enabled", "4.3"]),
        ("4.10.0", {"docker_provisioner": {"config_path": "x"}}, ["docker_provisioner.custom_config", "4.8"]),
        ("4.7.15", {"machine_provisioner": {"machine_agent_base_url": "x"}}, ["machine_provisioner.agent_base_url", "4.7"]),
        ("4.9.5", {"global": {"tracing": {"enabled": True}}}, ["global.otel.enabled"]),
        ("4.10.0", {"telegraf": {"config": {"agent": {"anything": 1}}}}, ["telegraf", "4.10"]),
        ("4.10.0", {"telegraf": {"fullnameOverride": "x"}}, ["telegraf.fullnameOverride", "gone since 4.10"]),
        ("4.10.0", {"audit_log_service": {"replicas": 2}}, ["notifications.audit_log_batcher.replicas"]),
        ("4.8.12", {"web_ui_insights": {"replicas": 2}}, ["web_ui_insights.replicas"]),
        ("4.2.7", {"postgresql": {"persistence": {"size": "9Gi"}}}, ["postgresql.primary.persistence.size"]),
        ("4.8.12", {"runner_admin": {"external": {"launch_agent_base_url": "x"}}}, ["runner_admin.external.launch_agent_base_url"]),
        ("4.10.0", {"domainName": "x"}, ["global.domainName"]),
        ("4.10.0", {"tls": {"imports": ["ghe:443"]}}, ["tls.import instead"]),
        ("4.10.0", {"postgresql": {"postgresqlPassword": "x"}}, ["postgresql.auth.postgresPassword"]),
        ("4.10.0", {"global": {"imagePullSecrets": [{"name": "regcred"}]}}, ["list of texts", '["regcred"]']),
        ("4.6.6", {"global": {"imagePullSecrets": ["regcred"]}}, ["[{name: regcred}]"]),
        ("4.10.0", {"frontend": {"replicas": "many"}}, ["frontend.replicas must be a number"]),
        ("4.10.0", {"frontend": {"replicas": [1]}}, ["frontend.replicas must be a scalar, found a list"]),
        ("4.10.0", {"frontend": 3}, ["frontend must be a mapping"]),
        ("4.10.0", {"github": {"enterprise": "perhaps"}}, ["github.enterprise must be true or false"]),
        ("4.10.0", {"nginx": {"loadBalancerSourceRanges": "10.0.0.0/8"}}, ["must be a list, found a scalar"]),
    ],
)
def test_removed_renamed_and_wrong_keys_are_errors(release: str, overlay: dict[str, Any], parts: list[str]) -> None:
    errors, _warnings, _values = run(overlay, release)
    for part in parts:
        assert part in errors, errors


@pytest.mark.parametrize("release", [*OLD, *FULL])
def test_requests_that_one_table_prints_are_no_error_elsewhere(release: str) -> None:
    errors, _warnings, _values = run({"api_service": {"resources": {"requests": {"cpu": "1"}}}}, release)
    assert errors == ""


def test_a_block_is_reported_once() -> None:
    errors, _warnings, _values = run({"prometheus": {"x": 1, "y": 2, "server": {"z": 3}}})
    assert errors.count("prometheus") == errors.splitlines()[0].count("prometheus")
    assert len(errors.splitlines()) == 1


def test_misspelt_key_gets_a_hint() -> None:
    _errors, warnings, _values = run({"frontend": {"replica": 2}})
    assert "Did you mean frontend.replicas?" in warnings


def test_dangerous_wishes_are_warnings() -> None:
    _errors, warnings, values = run({"docker_provisioner": {"enabled": False}, "serveUnsafeArtifacts": True})
    assert "every Docker job will stay queued" in warnings
    assert "take over accounts" in warnings
    assert values["docker_provisioner"]["enabled"] is False


def test_null_takes_a_value_away() -> None:
    errors, _warnings, values = run({"object_storage": {"s3": {"region": None}}})
    assert errors == ""
    assert values["object_storage"]["s3"]["region"] is None


# -- the schema of the chart at hand -------------------------------------------------------------------------------

SCHEMA: dict[str, Any] = {
    "type": "object",
    "definitions": {"count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "properties": {
        "frontend": {"type": "object", "properties": {"replicas": {"$ref": "#/definitions/count"}}, "additionalProperties": False},
        "brand_new": {"type": "object", "properties": {"mode": {"enum": ["a", "b"]}}},
        "global": {"type": "object", "required": ["domainName"]},
        "tls": {"type": "object", "properties": {"certificate": {"type": "string", "pattern": "^[A-Za-z0-9+/=]*$"}}},
    },
}


def test_schema_speaks_first() -> None:
    errors, warnings, _values = run({"brand_new": {"mode": "a"}}, schema=SCHEMA)
    assert errors == ""
    assert "brand_new" not in warnings
    errors, _warnings, _values = run({"brand_new": {"mode": "c"}, "frontend": {"replicas": 12, "typo": 1}}, schema=SCHEMA)
    for part in ("brand_new.mode must be one of", "frontend.replicas must be at most 9", "frontend.typo is not a key of this chart"):
        assert part in errors


def test_composed_values_that_the_chart_refuses_name_their_rule() -> None:
    schema = {"properties": {"tink": {"type": "string"}, "extra": {}}, "required": ["extra"]}
    errors, _warnings, _values = run({}, schema=schema)
    assert "tink must be string, found object" in errors
    assert "secrets.tink" in errors
    assert "extra is missing" in errors


@pytest.mark.parametrize(
    ("schema", "value", "text"),
    [
        ({"type": ["string", "null"]}, None, ""),
        ({"type": "number"}, 3, ""),
        ({"type": "integer"}, 3.5, "must be integer, found number"),
        ({"type": "integer"}, True, "must be integer, found boolean"),
        ({"const": 1}, 2, "must be 1"),
        ({"minLength": 3}, "ab", "at least 3 characters"),
        ({"maxLength": 1}, "ab", "at most 1"),
        ({"items": {"type": "string"}}, [1], "[0] must be string"),
        ({"minItems": 1}, [], "at least 1 items"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, [], "fits none of the 2"),
        ({"allOf": [{"type": "string"}]}, 1, "must be string"),
        ({"not": {"type": "string"}}, "x", "not allowed"),
        ({"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"minimum": 5}}, "x", "at least 2"),
        ({"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"minimum": 5}}, 3, "at least 5"),
        ({"patternProperties": {"^a": {"type": "string"}}, "additionalProperties": {"type": "integer"}}, {"ab": 1}, "ab must be string"),
        ({"patternProperties": {"^a": {"type": "string"}}, "additionalProperties": {"type": "integer"}}, {"b": "x"}, "b must be integer"),
    ],
)
def test_schema_checker(schema: dict[str, Any], value: Any, text: str) -> None:
    found = "; ".join(sentences(Schema(schema).check(value)))
    assert (text in found) if text else found == ""
