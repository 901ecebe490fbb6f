# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb plan with the example inventories, as an operator runs it: no sandbox, and no host that answers but the control host."""

from __future__ import annotations

import csv
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.tests.first_look.world import World, state_of_this_machine

SINGLE = ("bastion.example.com",)
MULTI = ("bastion.tokyo.example.com", "bastion.osaka.example.com")
DOCUMENT = {"change-request.html", "change-request.json", "change-request.md", "ports.csv"}


def names(rows: list[dict[str, Any]], key: str = "name") -> set[str]:
    return {str(row[key]) for row in rows}


def test_document_of_one_site(world: World) -> None:
    before, machine = world.files(), state_of_this_machine()
    result = world.run("plan", "single-site", local=SINGLE)
    assert result.code == 0, result.messages() + result.said
    assert result.changed == {"bastion.example.com": 1}
    assert set(world.files()) - set(before) == {"plans", "plans/site", *(f"plans/site/{name}" for name in DOCUMENT)}
    assert state_of_this_machine() == machine

    plan = world.plan("site")
    assert names(plan["hosts"]) == {
        "bastion.example.com", "registry.example.com", "store.example.com", *(f"node{number}.example.com" for number in range(1, 5)),
        "nomad1.example.com", "nomad2.example.com",
    }  # fmt: skip
    assert {"ci.example.com": "192.0.2.100", "app.ci.example.com": "192.0.2.100"}.items() <= {row["name"]: row["value"] for row in plan["dns"]}.items()
    assert names(plan["gates"]) == {"dns", "oauth_application", "first_administrator", "personal_token", "organization_namespace"}
    assert {"docker-registry", "docker.io", "iptables"} == names(plan["packages"])
    assert {"nomad.service", "onprem-circleci-registry.service", "onprem-circleci-object-storage.service"} <= names(plan["services"])
    assert {"circleci-server", "circleci-proxy", "license", "signing-keys", "nomad-server", "metallb-system"} <= names(plan["kubernetes"])
    assert {"circleci-data", "circleci-agents"} == names(plan["buckets"])
    assert [row["severity"] for row in plan["findings"] if row["severity"] == "problem"] == []
    assert {"circleci_license", "circleci_registry_password"} <= names(plan["findings"], "subject")
    applied = {(row["host"], row["ports"]) for row in plan["ports"] if row["state"] == "apply"}
    assert {("nomad1.example.com, nomad2.example.com", "64535-65535"), ("registry.example.com", "5000"), ("store.example.com", "7070")} <= applied
    with open(world.plans / "site" / "ports.csv", encoding="utf-8", newline="") as stream:
        rules = list(csv.DictReader(stream))
    assert {"nomad1.example.com", "nomad2.example.com", "load-balancer"} <= {row["host"] for row in rules}
    page = (world.plans / "site" / "change-request.html").read_text(encoding="utf-8")
    assert "<script" not in page and "http-equiv" in page


def test_second_run_changes_nothing_and_check_mode_tells_the_truth(world: World) -> None:
    empty = world.run("plan", "single-site", local=SINGLE, arguments=["--check", "--diff"])
    assert (empty.code, empty.changed) == (0, {"bastion.example.com": 1}), empty.messages()
    assert not world.plans.exists()
    assert "ci.example.com" in empty.results("site_plan")["bastion.example.com"]["diff"]["after"]
    assert world.run("plan", "single-site", local=SINGLE).changed == {"bastion.example.com": 1}
    before = world.files()
    for arguments in ([], ["--check", "--diff"]):
        again = world.run("plan", "single-site", local=SINGLE, arguments=arguments)
        assert (again.code, again.changed) == (0, {}), again.messages()
    assert world.files() == before
    other = world.run("plan", "single-site", local=SINGLE, extra={"circleci_domain": "ci.other.example"}, arguments=["--diff"])
    assert other.changed == {"bastion.example.com": 1}
    diff = other.results("site_plan")["bastion.example.com"]["diff"]
    assert "ci.example.com" in diff["before"] and "ci.other.example" in diff["after"]


def test_each_site_of_an_inventory_gets_its_own_document(world: World) -> None:
    result = world.run("plan", "multi-site", local=MULTI)
    assert result.code == 0, result.messages()
    assert result.changed == dict.fromkeys(MULTI, 1)
    for site, other in (("tokyo", "osaka"), ("osaka", "tokyo")):
        plan = world.plan(site)
        assert plan["site"] == site and plan["domain"] == f"ci.{site}.example.com"
        assert all(name.endswith(f".{site}.example.com") for name in names(plan["hosts"]))
        for path in (world.plans / site).iterdir():
            assert f"{other}.example.com" not in path.read_text(encoding="utf-8"), path
    assert "docker-registry" in names(world.plan("tokyo")["packages"])
    assert "docker-registry" not in names(world.plan("osaka")["packages"])


def test_no_variable_of_another_site_is_read(world: World) -> None:
    poison = "{{ undef(hint='a variable of another site was read') }}"
    variables = (
        "ansible_host", "circleci_addresses", "circleci_site", "circleci_domain", "circleci_registry_host", "circleci_load_balancer_address",
        "circleci_object_storage_endpoint", "circleci_object_storage_kind", "circleci_ports", "circleci_waivers", "circleci_release",
    )  # fmt: skip
    hosts = {name: dict.fromkeys(variables, poison) for name in ("bastion.osaka.example.com", "nomad1.osaka.example.com", "nomad2.osaka.example.com")}
    result = world.run("plan", "multi-site", local=MULTI, hosts=hosts, arguments=["--limit", "site_tokyo"])
    assert result.code == 0, result.messages()
    assert set(result.stats) == {"bastion.tokyo.example.com"}
    assert len(world.plan("tokyo")["hosts"]) == 4
    # The poison is one: the poisoned site itself cannot be planned.
    both = world.run("plan", "multi-site", local=MULTI, hosts=hosts)
    assert both.code == 2 and "another site was read" in both.messages()
    assert both.stats["bastion.tokyo.example.com"]["failures"] == 0


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"circleci_release": "4.99.0"}, ("circleci_release", "4.99.0", "4.10.0")),
        ({"circleci_release": 4.10}, ("circleci_release: found 4.1", '"4.10.0"', "quotes")),
        ({"circleci_platform": "mainframe"}, ("circleci_platform", "mainframe", "generic")),
        ({"circleci_domain": ""}, ("circleci_domain: not set", "ci.example.com")),
        ({"circleci_registery_host": "x"}, ("circleci_registery_host: unknown variable", "Did you mean circleci_registry_host?")),
        ({"circleci_load_balancer": "f5", "circleci_domain": "CI"}, ("circleci_load_balancer: found 'f5'", "circleci_domain: found 'CI'")),
        ({"circleci_object_storage_kind": "minio_server"}, ("circleci_object_storage_accepted_risks",)),
        (
            {"circleci_postgresql": {"hots": "db"}, "circleci_smtp": {"port": "25"}},
            ("circleci_postgresql: hots is not a known fact of a site; did you mean host?", "circleci_smtp: port must be a whole number, found str"),
        ),
    ],
    ids=lambda value: ", ".join(f"{name}={item}" for name, item in value.items()) if isinstance(value, dict) else "",
)
def test_what_cannot_be_used_is_refused_in_one_message(world: World, extra: dict[str, Any], expected: tuple[str, ...]) -> None:
    result = world.run("plan", "single-site", local=SINGLE, extra=extra)
    assert result.code == 2
    for text in expected:
        assert text in result.messages()
    assert not world.plans.exists()


def test_what_does_not_fit_together_is_told_in_the_document(world: World) -> None:
    result = world.run(
        "plan",
        "single-site",
        local=SINGLE,
        extra={
            "circleci_load_balancer_address": "192.0.2.11",
            "circleci_ports": {"users": ["10.0.0.1/8"]},
            "circleci_waivers": [{"name": "cgroup_version", "reason": "Podman"}, {"name": "moon", "reason": "full"}],
        },
    )
    assert result.code == 0, result.messages()
    plan = world.plan("site")
    problems = {row["subject"]: row["found"] for row in plan["findings"] if row["severity"] == "problem"}
    assert {"circleci_load_balancer_address", "circleci_ports.users", "circleci_waivers"} <= set(problems)
    assert "registry.example.com" in problems["circleci_load_balancer_address"]
    assert not any(row["reboot"] for row in plan["hosts"])
    assert names(plan["waivers"]) == {"cgroup_version", "moon"}


def test_what_set_a_value_is_said_on_the_screen(world: World) -> None:
    blocks = {"circleci_postgresql": {"host": "db.example.com", "username": "circleci"}, "circleci_explain": "postgresql"}
    result = world.run("plan", "single-site", local=SINGLE, extra=blocks)
    assert result.code == 0, result.messages()
    told = [line for _host, item in result._results("v2_runner_on_ok") if isinstance(item.get("msg"), list) for line in item["msg"]]
    place = told.index("postgresql.postgresqlHost: db.example.com")
    assert told[place + 1] == "    set by the rule postgres.external, from vendor docs: configuring external services (documented)"
    assert not any(line.startswith("kong") for line in told)
    nothing = world.run("plan", "single-site", local=SINGLE, extra={"circleci_explain": "nonsense"})
    assert "No Helm value of this site has 'nonsense' in its key" in str(nothing.events)


def test_two_sites_of_one_name_would_share_the_firewall_of_their_cloud(world: World) -> None:
    extra = {"circleci_platform": "eks", "circleci_cloud_region": "us-west-2", "circleci_cloud_network": "vpc-1", "circleci_cloud_endpoint": "http://127.0.0.1:1"}
    sites = ("bastion.tokyo.example.com", "bastion.osaka.example.com")
    hosts = {sites[0]: {"circleci_site": "site"}}
    result = world.run("cloud_prepare", "multi-site", local=sites, extra=extra, hosts=hosts, arguments=["--check"])
    assert result.messages().count("circleci_site: found 'site', the default, and the inventory has 2 sites") == 1


def test_what_a_site_asks_of_its_cloud_is_told_to_those_who_own_it(world: World) -> None:
    host = ["bastion.eks.example.com"]
    asked = {"circleci_cloud_object_storage": True, "circleci_cloud_dns_zone": "Z0123456789ABCDEFGHIJ", "circleci_load_balancer_address": "192.0.2.100",
             "circleci_cloud_storage_private_access": ["rtb-0123456789abcdef0"], "circleci_cloud_registry_nodes": ["example-nodes"]}  # fmt: skip
    result = world.run("plan", "eks", local=host, extra=asked)
    assert result.code == 0, result.messages() + result.said
    with open(world.plans / "site" / "cloud-requests.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["part"], row["name"]) for row in rows] == [
        ("object storage", "example-circleci-data"), ("object storage", "example-circleci-agents"), ("names", "ci.eks.example.com"),
        ("names", "app.ci.eks.example.com"), ("private access", "com.amazonaws.us-west-2.s3"), ("registry", "123456789012.dkr.ecr.us-west-2.amazonaws.com"),
        ("registry", "123456789012.dkr.ecr.us-west-2.amazonaws.com"),
    ]  # fmt: skip
    assert "public access blocked" in rows[0]["request"] and rows[2]["request"] == "A 192.0.2.100"
    assert rows[-2]["request"].startswith("aws iam attach-role-policy --role-name example-nodes --policy-arn arn:aws:iam::aws:policy/")
    assert rows[-1]["request"].startswith("aws ecr create-repository-creation-template --region us-west-2 --prefix ROOT --applied-for CREATE_ON_PUSH")
    assert (world.plans / "site" / "cloud-requests.md").read_text(encoding="utf-8").count("\n") == len(rows) + 2
    assert world.run("plan", "eks", local=host, extra=asked).changed == {}
    wrong = world.run("plan", "eks", local=host, extra={**asked, "circleci_cloud_dns_zone": "eks.example.com"})
    assert wrong.code == 2 and "allowed is the id of a hosted zone" in wrong.messages()
