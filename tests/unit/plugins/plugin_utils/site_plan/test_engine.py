# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.onprem.circleci_server.plugins.filter.site_plan import site_plan
from ansible_collections.onprem.circleci_server.plugins.module_utils.report import render_plan

GROUPS = {
    "site_osaka": ["bastion", "registry", "store", "node1", "node2", "node3", "node4", "nomad1", "nomad2"],
    "site_tokyo": ["other"],
    "circleci_sites": ["bastion", "other"],
    "circleci_registry": ["registry", "other"],
    "circleci_object_storage": ["store"],
    "circleci_cluster_nodes": ["node1", "node2", "node3", "node4"],
    "circleci_nomad_clients": ["nomad1", "nomad2", "other"],
}


class Poisoned(Mapping[str, Any]):
    """Variables of a host of another site."""

    def __getitem__(self, name: str) -> Any:
        raise AssertionError(f"read {name} of another site")

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("listed the variables of another site")

    def __len__(self) -> int:
        return 1


HOSTVARS: dict[str, Mapping[str, Any]] = {
    name: {"ansible_host": f"192.0.2.{number}"} for number, name in enumerate(GROUPS["site_osaka"], 10)
} | {"other": Poisoned()}
GATES = [{"name": "dns", "sentence": "Let names resolve"}, {"name": "oauth_application", "sentence": "Set the callback"}]


def facts(**changes: Any) -> dict[str, Any]:
    return {
        "release": "4.10.0",
        "platform": "generic",
        "domain": "ci.example.com",
        "namespace": "circleci-server",
        "release_name": "circleci-server",
        "registry": {"host": "registry.example.com:5000"},
        "object_storage": {
            "kind": "versitygw_posix", "endpoint": "http://store.example.com:7070", "bucket": "data", "agent_bucket": "agents", "region": "us-east-1",
        },
        "github": {"hostname": "github.example.com"},
        "load_balancer": {"kind": "metallb", "address": "192.0.2.100"},
        "nomad_clients": ["nomad1", "nomad2"],
        "overlay": {},
        **changes,
    }  # fmt: skip


def outcome(groups: Mapping[str, Any] = GROUPS, more: Mapping[str, Mapping[str, Any]] = {}, **changes: Any) -> dict[str, Any]:
    request = {
        "site": "osaka",
        "facts": facts(),
        "port_options": {"registry_port": 5000, "object_storage_port": 7070, "load_balancer": ["192.0.2.100"]},
        "storage_class": "local_path",
        "gates": GATES,
        **changes,
    }
    return site_plan(groups, {**HOSTVARS, **more}, "bastion", request)


def plan(groups: Mapping[str, Any] = GROUPS, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = outcome(groups, **changes)["plan"]
    return found


def rows(section: list[dict[str, Any]], key: str) -> set[str]:
    return {str(item[key]) for item in section}


def problems(found: Mapping[str, Any]) -> list[str]:
    return [item["subject"] for item in found["findings"] if item["severity"] == "problem"]


def test_document_of_a_whole_site_can_be_rendered() -> None:
    markdown, page = render_plan(plan())
    for expected in ("nomad1", "64535-65535", "4647", "app.ci.example.com", "circleci-proxy", "signing-keys", "onprem-circleci-object-storage.service"):
        assert expected in markdown and expected in page.replace("<wbr>", "")


def test_hosts_of_other_sites_are_neither_read_nor_named() -> None:
    found = outcome()
    assert "other" not in rows(found["plan"]["hosts"], "name")
    assert len(found["plan"]["hosts"]) == 9
    assert {row["host"] for row in csv.DictReader(io.StringIO(found["ports_csv"]))} <= {*GROUPS["site_osaka"], "load-balancer"}


def test_gateway_in_the_cluster_is_told_with_its_objects_name_and_image() -> None:
    groups = {**GROUPS, "circleci_object_storage": []}
    store = {**facts()["object_storage"], "kind": "versitygw_s3", "endpoint": "https://store.example.com:7070"}
    ports = {"object_storage_port": 7070, "load_balancer": ["192.0.2.100"], "object_storage": ["192.0.2.101"], "object_storage_in_cluster": True}
    there = plan(groups, facts=facts(object_storage=store), port_options=ports, gateway_in_cluster=True, gateway_address="192.0.2.101")
    objects = {(row["kind"], row["name"]) for row in there["kubernetes"] if row["namespace"] == "circleci-server-object-storage"}
    name = "onprem-circleci-object-storage"
    assert objects == {
        ("Deployment", name), ("Service", name), ("PodDisruptionBudget", name), ("Secret", name), ("Secret", f"{name}-tls"), ("Secret", "onprem-circleci-registry"),
    }  # fmt: skip
    assert [row["value"] for row in there["dns"] if row["name"] == "store.example.com"] == ["192.0.2.101"]
    # The certificate is made by the verb secrets, and nobody has proved a private authority there.
    assert f"{name}-tls" in {row["name"] for row in there["kubernetes"] if row["namespace"] == "circleci-server"}
    assert "circleci_object_storage_endpoint" in {item["subject"] for item in there["findings"]}
    assert any("versity/versitygw" in str(row) for row in there["downloads"])
    elsewhere = plan(groups, facts=facts(object_storage={**store, "kind": "s3"}))
    assert not [row for row in elsewhere["kubernetes"] if row["namespace"] == "circleci-server-object-storage"]


@pytest.mark.parametrize("platform", ["eks", "gke", "azure", "digitalocean"])
def test_a_cloud_gets_its_rules_as_a_table(platform: str) -> None:
    found = outcome(facts=facts(platform=platform))
    rules = list(csv.DictReader(io.StringIO(found["cloud_csv"])))
    assert ("circleci-osaka-nomad-client", "64535-65535") in {(row["name"], row["ports"]) for row in rules}
    assert found["cloud_markdown"].count("\n") == len(rules) + 2


def test_a_site_outside_clouds_gets_none() -> None:
    found = outcome()
    assert [found[name] for name in ("cloud_csv", "cloud_markdown", "cloud_requests_csv", "cloud_requests_markdown")] == [""] * 4


def test_the_same_inventory_gives_the_same_plan() -> None:
    assert outcome() == outcome()


def test_secrets_that_will_stand_in_the_values_are_listed() -> None:
    overlay = {"smtp": {"host": "mail.example.com", "password": "laid-over"}}
    found = plan(facts=facts(overlay=overlay, smtp={"host": "mail.example.com", "user": "circleci"}))
    assert rows(found["secrets_in_values"], "key") == {"tls.privateKey", "smtp.password"}
    markdown, page = render_plan(found)
    assert "## Secrets that stand in the Helm values" in markdown and "laid-over" not in markdown + page


def test_a_clean_site_has_no_problem() -> None:
    assert problems(plan()) == []


def test_each_group_gets_what_its_roles_write() -> None:
    found = plan()
    assert {item["host"] for item in found["files"] if item["path"] == "/etc/nomad/client.hcl"} == {"nomad1, nomad2"}
    assert {item["host"] for item in found["files"] if item["owner"] == "trust"} == {"all 4 Kubernetes nodes", "nomad1, nomad2"}
    assert {"docker-registry", "docker.io", "iptables"} == rows(found["packages"], "name")
    assert {"nomad.service", "onprem-circleci-object-storage.service", "onprem-circleci-registry.service"} <= rows(found["services"], "name")
    assert "/usr/local/bin/versitygw" in rows(found["files"], "path")
    assert not {"/usr/local/bin/minio", "/etc/onprem-circleci/object-storage/certs/private.key"} & rows(found["files"], "path")
    assert rows(found["buckets"], "name") == {"data", "agents"}


def test_empty_groups_switch_their_part_off() -> None:
    groups = {**GROUPS, "circleci_registry": [], "circleci_object_storage": [], "circleci_cluster_nodes": []}
    options = {"kubernetes": ["198.51.100.0/24"], "registry": ["203.0.113.1"], "object_storage": ["203.0.113.2"], "load_balancer": ["192.0.2.100"]}
    found = plan(groups, port_options=options, facts=facts(object_storage={**facts()["object_storage"], "kind": "s3"}))
    assert not {item["owner"] for item in found["files"]} & {"registry", "object_storage"}
    assert "onprem-circleci-registry-tls" not in rows(found["kubernetes"], "name")
    assert {"name": "registry.example.com", "type": "", "value": "as it is today"}.items() <= found["dns"][2].items()


def test_reported_firewall_writes_no_rules() -> None:
    managed, reported = plan(), plan(firewall="reported")
    assert any(row["state"] == "apply" for row in managed["ports"]) and managed["ports"][0]["state"] == "apply"
    assert not any(row["state"] == "apply" for row in reported["ports"])
    assert "firewall" in rows(managed["files"], "owner") and "firewall" not in rows(reported["files"], "owner")


def test_filters_of_macos_and_windows_are_for_somebody_to_set_and_no_file_is_written_there() -> None:
    groups = {**GROUPS, "site_osaka": [*GROUPS["site_osaka"], "mac", "win"], "circleci_runners_macos": ["mac"], "circleci_runners_windows": ["win"]}
    ports = {"registry_port": 5000, "object_storage_port": 7070, "load_balancer": ["192.0.2.100"], "runner_ssh_rerun": True}
    document = outcome(groups, {"mac": {"ansible_host": "192.0.2.61"}, "win": {"ansible_host": "192.0.2.62"}}, port_options=ports)["plan"]
    lines = {host: [row["line"] for row in document["by_hand"] if row["host"] == host] for host in ("mac", "win")}
    assert any(line.startswith("pass in quick proto tcp") and line.endswith("54782") for line in lines["mac"])
    assert any(line.startswith("New-NetFirewallRule") and "54782" in line for line in lines["win"])
    assert {row["state"].partition(":")[0] for row in document["ports"] if row["host"] in ("mac", "win") and row["direction"] == "ingress"} == {"by hand"}
    assert not [row for key in ("files", "services", "packages") for row in document[key] if row["host"] in ("mac", "win")]
    for text in render_plan(document):
        assert "never run" in text and "New-NetFirewallRule" in text


def test_nomad_clients_reboot_only_for_cgroup_v1() -> None:
    assert {item["name"] for item in plan()["hosts"] if item["reboot"]} == {"nomad1", "nomad2"}
    waived = plan(waivers=[{"name": "cgroup_version", "reason": "Podman"}])
    assert not any(item["reboot"] for item in waived["hosts"])
    assert waived["waivers"] == [{"name": "cgroup_version", "reason": "Podman"}]


def test_brought_add_ons_are_objects_of_the_cluster() -> None:
    names = rows(plan()["kubernetes"], "kind")
    assert {"IPAddressPool", "L2Advertisement", "StorageClass", "Secret", "Helm release", "Deployment", "StatefulSet"} <= names
    provided = plan(storage_class="provided", facts=facts(load_balancer={"kind": "provided", "address": "192.0.2.100"}))
    assert not {"IPAddressPool", "StorageClass"} & rows(provided["kubernetes"], "kind")
    assert any("local-path" in item["step"] for item in plan()["irreversible"])
    assert not any("local-path" in item["step"] for item in provided["irreversible"])


def test_volumes_follow_the_values_of_the_operator() -> None:
    def size(found: Mapping[str, Any]) -> Any:
        return next(item["size"] for item in found["sizes"] if item["what"] == "volume mongodb")

    assert size(plan()) == 8 * 1024**3
    assert size(plan(facts=facts(overlay={"mongodb": {"persistence": {"size": "50Gi"}}}))) == 50 * 1024**3


def test_values_hide_secrets() -> None:
    values = {item["key"]: item["value"] for item in plan()["values"]}
    assert values["global.domainName"] == "ci.example.com"
    assert values["tls.privateKey"] == "(secret)"


def test_gates_that_are_answered_say_so() -> None:
    gates = plan(gates_passed=["dns"])["gates"]
    assert "answered in advance" in gates[0]["text"] and "answered" not in gates[1]["text"]
    assert all(gate["who"] for gate in gates)


def test_downloads_without_a_bundle_are_names_of_unknown_size() -> None:
    found = plan(extra_images=["cimg/go:1.23"])["downloads"]
    assert "cimg/go:1.23" in rows(found, "what") and "cciserver.azurecr.io/circleci-server:4.10.0" in rows(found, "what")
    assert any("docker.io" in item["what"] and item["what"].startswith("packages") for item in found)
    assert {item["size"] for item in found} == {"unknown until the bundle is made"}


def test_runners_whose_program_is_not_in_the_bundle_are_told_before_anything_is_done() -> None:
    groups = {**GROUPS, "circleci_nomad_clients": ["nomad1"], "circleci_runners_linux": ["nomad2"]}

    def told(**more: Any) -> list[tuple[str, str]]:
        found = plan(groups, **more)["findings"]
        return [(item["severity"], item["remedy"]) for item in found if item["subject"] == "circleci_bundle_optional_files"]

    def bundle(*targets: str) -> dict[str, Any]:
        return {"found": True, "items": [{"target": name, "source": "", "bytes": 1, "kind": "file", "why": ""} for name in targets], "bytes_total": 1}

    assert [level for level, _remedy in told()] == ["warning"]
    ((level, remedy),) = told(bundle=bundle("onprem/files/nomad-client:1.7.7"), bundle_dir="/srv/bundle")
    assert level == "problem" and "machine-runner" in remedy
    assert told(bundle=bundle("onprem/files/machine-runner-linux-amd64:3.1.11"), bundle_dir="/srv/bundle") == []
    assert [item for item in plan()["findings"] if item["subject"] == "circleci_bundle_optional_files"] == []


def test_downloads_of_a_bundle_are_what_it_holds() -> None:
    items = [
        {"kind": "image", "target": "frontend:1", "source": "cciserver.azurecr.io", "bytes": 10, "why": "templates/x.yaml: image"},
        {"kind": "file", "target": "onprem/files/helm-linux-amd64:3.19.0", "source": "", "bytes": None, "why": "catalog: tool"},
        {"kind": "packages", "target": "onprem/packages/debian-12-amd64:4.10.0", "source": "", "bytes": 30, "why": "x"},
    ]
    found = plan(bundle={"found": True, "items": items, "bytes_total": 40}, bundle_dir="/srv/bundle")
    assert [item["size"] for item in found["downloads"]] == [10, "unknown, a part is missing", 30]
    assert [item["from"] for item in found["downloads"]][::2] == ["cciserver.azurecr.io", "archive of the distribution"]
    assert {"bundle in /srv/bundle", "private registry: images, chart, programs, packages"} == {item["what"] for item in found["sizes"] if item["size"] == 40}


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"facts": facts(load_balancer={"kind": "metallb", "address": ""})}, "circleci_load_balancer_address"),
        ({"facts": facts(load_balancer={"kind": "metallb", "address": "192.0.2.11"})}, "circleci_load_balancer_address"),
        ({"facts": facts(platform="openshift")}, "circleci_platform"),
        ({"facts": facts(object_storage={**facts()["object_storage"], "kind": "minio_server"})}, "circleci_object_storage_kind"),
        ({"port_options": {"users": ["10.0.0.1/8"]}}, "circleci_ports.users"),
        ({"port_options": {"colour": "red"}}, "circleci_ports.colour"),
        ({"waivers": [{"name": "everything", "reason": "lazy"}]}, "circleci_waivers"),
        ({"facts": facts(github={"hostname": "github.com"})}, "Helm values"),
        ({"groups": {**GROUPS, "circleci_nomad_clients": []}}, "circleci_nomad_clients"),
        ({"groups": {**GROUPS, "circleci_sites": ["bastion", "store"]}}, "circleci_sites"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_stands_in_the_way_is_a_problem_and_the_plan_is_made_all_the_same(changes: dict[str, Any], subject: str) -> None:
    found = plan(**changes)
    assert subject in problems(found), [item for item in found["findings"] if item["severity"] == "problem"]
    render_plan(found)


def test_an_accepted_risk_is_a_warning() -> None:
    store = {**facts()["object_storage"], "kind": "minio_server"}
    found = plan(facts=facts(object_storage=store), accepted_risks=["minio_server"])
    assert problems(found) == []
    assert any(item["subject"] == "circleci_object_storage_kind" and "CVE-" in item["found"] for item in found["findings"])


def test_what_is_not_given_yet_is_a_warning_and_what_is_wrong_a_problem() -> None:
    missing = {
        "check": "arguments", "level": "problem", "subject": "circleci_registry_password", "found": "not set", "expected": "text",
        "source": "arguments.yml, verb secrets", "remedy": "", "reason": "",
    }  # fmt: skip
    wrong = {**missing, "subject": "circleci_firewall", "found": "'off'"}
    found = plan(findings=[missing, wrong])["findings"]
    assert (found[0]["subject"], found[0]["severity"]) == ("circleci_firewall", "problem")
    assert [item["severity"] for item in found if item["subject"] == "circleci_registry_password"] == ["warning"]


def test_unknown_release_and_unknown_options_are_refused() -> None:
    with pytest.raises(AnsibleFilterError, match=r"4\.99\.0"):
        plan(facts=facts(release="4.99.0"))
    with pytest.raises(AnsibleFilterError, match="unknown colour"):
        plan(colour="red")


def test_a_thousand_clients_stay_readable() -> None:
    names = [f"nomad{number}" for number in range(1000)]
    groups = {**GROUPS, "site_osaka": [*GROUPS["site_osaka"], *names], "circleci_nomad_clients": names}
    hostvars = {**HOSTVARS, **{name: {"ansible_host": f"10.0.{number // 250}.{number % 250 + 1}"} for number, name in enumerate(names)}}
    request = {"site": "osaka", "facts": facts(nomad_clients=[]), "storage_class": "local_path", "port_options": {"load_balancer": ["192.0.2.100"]}}
    found = site_plan(groups, hostvars, "bastion", request)["plan"]
    assert {item["host"] for item in found["files"] if item["owner"] == "nomad_client"} == {"all 1000 Nomad clients"}
    assert len(render_plan(found)[1]) < 1_000_000


def test_explanations_are_given_for_what_is_asked() -> None:
    assert outcome()["explained"] == []
    (value, rule) = outcome(explain="global.domainName")["explained"]
    assert value == "global.domainName: ci.example.com"
    assert rule.startswith("    set by the rule site.domain, from vendor docs")
    everything = outcome(explain="all")["explained"]
    assert len(everything) == 2 * len(outcome()["plan"]["values"])
    assert not any("PRIVATE KEY" in line for line in everything)
    assert "circleci_explain: all" in outcome(explain="nonsense")["explained"][0]
