# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb preflight as a first look: whatever cannot be asked is a finding, and all of them come in one table."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.releases import encode
from ansible_collections.onprem.circleci_server.tests.first_look.world import World, state_of_this_machine

BASTION = "bastion.example.com"
SECRETS = {
    "circleci_registry_password": "canary-registry",
    "circleci_object_storage_secret_key": "canary-store",
    "circleci_license": "canary-licence",
    "circleci_github_client_id": "Iv1.x",
    "circleci_github_client_secret": "canary-github",
    "circleci_github_default_token": "canary-token",
}


class Api(BaseHTTPRequestHandler):
    """Answers of a cluster that is too old, too small and has no StorageClass: a real one like that is not to be had in a test."""

    answers: dict[str, Any] = {
        "/version": {"gitVersion": "v1.28.3"},
        "/api/v1/nodes": {
            "items": [
                {
                    "metadata": {"name": "node1"},
                    "status": {"allocatable": {"cpu": "4", "memory": "16Gi"}, "conditions": [{"type": "Ready", "status": "True"}]},
                }
            ]
        },
        "/apis/storage.k8s.io/v1/storageclasses": {"items": []},
        "/apis": {"groups": [{"name": "apps"}]},
        "/api/v1/namespaces/circleci-server": None,
        "/api/v1/namespaces/circleci-server/secrets": {"items": []},
    }

    def do_GET(self) -> None:
        answer = self.answers.get(self.path.partition("?")[0])
        body = json.dumps(answer or {"message": "not found"}).encode()
        self.send_response(200 if answer else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """The user has no right at all; anything else that is written is an error."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"status": {"allowed": False}}).encode()
        self.send_response(201 if asked["kind"] == "SelfSubjectAccessReview" else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        return


def kubeconfig(path: Path, server: str) -> str:
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {"token": "t"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


@pytest.fixture
def old_cluster(world: World) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield kubeconfig(world.home / "old.kubeconfig", f"http://127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    server.server_close()


def test_a_site_of_which_nothing_answers_is_one_list(world: World) -> None:
    before, machine = world.files(), state_of_this_machine()
    result = world.run("preflight", "single-site", local=[BASTION], hosts={"nomad1.example.com": {"ansible_user": "deploy", "ansible_port": 2222}})
    assert result.code == 2
    assert result.changed == {} and all(numbers["unreachable"] == 0 for numbers in result.stats.values())
    hosts = {"registry", "store", "node1", "node2", "node3", "node4", "nomad1", "nomad2"}
    assert result.problems(BASTION) == {
        ("cluster_reachable", "circleci_kubeconfig"),
        ("bundle", "circleci_bundle_dir"),
        *(("host_reachable", f"{name}.example.com") for name in hosts),
        *(("arguments", name) for name in SECRETS),
    }
    found = {item["subject"]: item for item in result.findings(BASTION)["problem"]}
    assert found["nomad1.example.com"]["found"].startswith("deploy@192.0.2.41:2222 could not be reached: ")
    assert "ssh -p 2222 deploy@192.0.2.41" in found["nomad1.example.com"]["remedy"]
    assert "Secrets are not looked at" in found["circleci_kubeconfig"]["remedy"]
    assert ("registry", "circleci_registry_host") in {(item["check"], item["subject"]) for item in result.findings(BASTION)["warning"]}
    message = result.messages()
    assert message.startswith("16 problem(s), nothing was changed") and "nomad2.example.com" in message
    assert world.files() == before and state_of_this_machine() == machine


def test_table_for_people_is_grouped_by_severity(world: World) -> None:
    waivers = [{"name": "support_period", "reason": "a test"}]
    result = world.run("preflight", "single-site", local=[BASTION], extra={**SECRETS, "circleci_waivers": waivers}, readable=True)
    assert result.code == 2
    lines = [line for line in result.said.splitlines() if line]
    places = [next(number for number, line in enumerate(lines) if line.startswith(head)) for head in ("PROBLEMS", "IN ORDER")]
    assert places == sorted(places)
    (head,) = [line for line in lines if line.startswith(f"{BASTION}: ")]
    assert "10 problem(s)" in head
    assert any(line.split()[:2] == ["host_reachable", "nomad1.example.com"] for line in lines)
    assert not any(canary in result.said for canary in SECRETS.values() if canary.startswith("canary"))


def test_a_kubeconfig_that_is_not_given_or_leads_nowhere(world: World) -> None:
    for given, found in (("", "not set"), (kubeconfig(world.home / "dead", "http://127.0.0.1:1"), "cannot be reached")):
        result = world.run("preflight", "single-site", local=[BASTION], extra={**SECRETS, "circleci_kubeconfig": given})
        assert result.code == 2
        (one,) = [item for item in result.findings(BASTION)["problem"] if item["check"] == "cluster_reachable"]
        assert found in one["found"]
        assert ("secrets", "namespace circleci-server, verb secrets") not in result.problems(BASTION)
        assert len([check for check, _subject in result.problems(BASTION) if check == "host_reachable"]) == 8


def test_a_cluster_out_of_range_without_storage_and_secrets(world: World, old_cluster: str) -> None:
    result = world.run("preflight", "single-site", local=[BASTION], extra={**SECRETS, "circleci_kubeconfig": old_cluster, "circleci_daily_users": 800})
    problems = {item["check"]: item for item in result.findings(BASTION)["problem"]}
    assert {"installer_rights", "kubernetes_version", "cluster_size", "storage_class", "secrets", "host_reachable", "bundle"} == set(problems)
    assert problems["kubernetes_version"]["found"] == "Kubernetes v1.28.3" and problems["kubernetes_version"]["expected"] == "1.33 to 1.35"
    assert problems["cluster_size"]["expected"] == "6 nodes, 48 CPUs, 240 GB for 500+ daily users"
    assert problems["storage_class"]["found"].startswith("0 default StorageClass")
    told = {item["check"]: item for item in result.findings(BASTION)["warning"]}
    assert "storage_class_growth" not in told, "there is none that could not grow"
    assert "license" in problems["secrets"]["found"] and "Run the verb secrets" in problems["secrets"]["found"]


def test_waived_requirements_are_shown_with_their_reason(world: World, old_cluster: str) -> None:
    waivers = [{"name": "cluster_size", "reason": "a laboratory"}, {"name": "kubernetes_version", "reason": "please"}]
    result = world.run("preflight", "single-site", local=[BASTION], extra={**SECRETS, "circleci_kubeconfig": old_cluster, "circleci_waivers": waivers})
    assert [(item["check"], item["reason"]) for item in result.findings(BASTION)["waived"]] == [("cluster_size", "a laboratory")]
    assert {("kubernetes_version", "circleci_release 4.10.0"), ("waivers", "circleci_waivers")} <= result.problems(BASTION)


def test_a_release_that_leaves_a_step_out(world: World, old_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    payload = encode({"name": "circleci-server", "version": 7, "chart": {"metadata": {"name": "circleci-server", "version": "4.8.12"}}})
    kept = {"metadata": {"name": "sh.helm.release.v1.circleci-server.v7", "labels": {"owner": "helm", "version": "7"}}, "data": {"release": payload}}
    monkeypatch.setitem(Api.answers, "/api/v1/namespaces/circleci-server/secrets", {"items": [kept]})
    result = world.run("preflight", "single-site", local=[BASTION], extra={**SECRETS, "circleci_kubeconfig": old_cluster})
    (step,) = [item for item in result.findings(BASTION)["problem"] if item["check"] == "upgrade_step"]
    assert "4.8.12 is installed" in step["found"] and "Install 4.9.5 first" in step["remedy"]


def test_a_registry_of_others_that_does_not_answer(world: World) -> None:
    extra = {**SECRETS, "circleci_registry_host": "127.0.0.1:1", "circleci_ca_certificate": ""}
    result = world.run("preflight", "multi-site", local=["bastion.osaka.example.com"], extra=extra, arguments=["--limit", "site_osaka"])
    found = {item["check"]: item for item in result.findings("bastion.osaka.example.com")["problem"]}
    assert "127.0.0.1:1" in found["registry"]["found"] and found["registry"]["subject"] == "circleci_registry_host"


def test_an_object_store_of_others_that_does_not_answer(world: World) -> None:
    extra = {**SECRETS, "circleci_object_storage_endpoint": "https://127.0.0.1:1", "circleci_ca_certificate": ""}
    single = world.run("preflight", "single-site", local=[BASTION], extra=extra)
    assert "object_storage" not in {check for check, _subject in single.problems(BASTION)}, "this site runs its own"
    osaka = "bastion.osaka.example.com"
    result = world.run("preflight", "multi-site", local=[osaka], extra=extra, arguments=["--limit", "site_osaka"])
    assert ("object_storage", "circleci_object_storage_endpoint") in result.problems(osaka)


def test_databases_of_others_are_asked_what_they_are(world: World) -> None:
    owned = {
        "circleci_postgresql": {"host": "127.0.0.1", "port": 1, "username": "circleci"},
        "circleci_mongodb": {"hosts": "cluster.docdb.amazonaws.com:27017"},
        "circleci_rabbitmq": {"host": "127.0.0.1", "port": 2},
        "circleci_secrets_postgres_password": "canary-postgres",
    }
    result = world.run("preflight", "single-site", local=[BASTION], extra={**SECRETS, **owned})
    assert ("external_database", "circleci_mongodb") in result.problems(BASTION)
    told = {item["subject"]: item["found"] for item in result.findings(BASTION)["warning"] if item["check"] == "external_database"}
    assert told == {"circleci_postgresql": "PostgreSQL 127.0.0.1:1: Connection refused", "circleci_rabbitmq": "RabbitMQ 127.0.0.1:2: Connection refused"}
    assert "canary-postgres" not in result.said + result.messages()


def test_pool_of_docker_that_holds_a_host_of_the_site_is_told(world: World) -> None:
    here = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}", "circleci_addresses": ["192.0.2.41"]}
    # The pool of a client may stand in its own variables; here it holds another client's address.
    hosts = {"nomad1.example.com": {**here, "circleci_container_engine_address_pool": "192.0.2.40/30"}}
    result = world.run("preflight", "single-site", local=[BASTION], extra=SECRETS, hosts=hosts)
    (found,) = [item for item in result.findings(BASTION)["problem"] if item["check"] == "docker_addresses"]
    assert found["subject"] == "nomad1.example.com: Docker" and "192.0.2.40/30 meets 192.0.2.42/32 (host nomad2.example.com)" in found["found"]
    assert "circleci_container_engine_address_pool" in found["remedy"]


def test_sites_are_judged_apart(world: World) -> None:
    both = ("bastion.tokyo.example.com", "bastion.osaka.example.com")
    result = world.run("preflight", "multi-site", local=both, extra=SECRETS)
    assert result.code == 2
    for bastion in both:
        site = bastion.split(".")[1]
        reached = {subject for check, subject in result.problems(bastion) if check == "host_reachable"}
        assert reached and all(f".{site}." in subject for subject in reached)


def test_a_host_without_a_usable_python_is_a_finding(world: World) -> None:
    hosts = {"nomad1.example.com": {"ansible_connection": "local", "ansible_python_interpreter": "/nowhere/python3"}}
    result = world.run("preflight", "single-site", local=[BASTION], extra=SECRETS, hosts=hosts)
    found = {item["subject"]: item for item in result.findings(BASTION)["problem"]}
    assert found["nomad1.example.com"]["check"] == "host_python" and "/nowhere/python3" in found["nomad1.example.com"]["found"]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"circleci_release": 4.10}, ("circleci_release: found 4.1", "quotes")),
        ({"circleci_release": "4.99.0", "circleci_platform": "mainframe", "circleci_domain": ""}, ("4.99.0", "mainframe", "circleci_domain: not set")),
        ({"circleci_licence": "x"}, ("circleci_licence: unknown variable", "Did you mean circleci_license?")),
    ],
    ids=["float", "several", "misspelt"],
)
def test_variables_that_cannot_be_used_stop_the_look(world: World, extra: dict[str, Any], expected: tuple[str, ...]) -> None:
    result = world.run("preflight", "single-site", local=[BASTION], extra={**SECRETS, **extra})
    assert result.code == 2
    for text in expected:
        assert text in result.messages()


def test_what_install_would_refuse_later_is_told_now(world: World) -> None:
    extra = {
        "circleci_load_balancer": "provided",
        "circleci_load_balancer_idle_minutes": 7,
        "circleci_postgresql": {"host": "db.example.com"},
        "circleci_ports": {"users": ["10.0.0.1/8"], "usres": []},
        "circleci_values": {"redis": {"internal": False}},
    }
    result = world.run("preflight", "single-site", local=[BASTION], extra=extra)
    problems = result.problems(BASTION)
    assert {
        ("values", "circleci_load_balancer_idle_minutes"), ("values", "circleci_postgresql.username"), ("values", "circleci_values"),
        ("ports", "circleci_ports.users"), ("ports", "circleci_ports.usres"),
    } <= problems  # fmt: skip
