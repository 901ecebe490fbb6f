# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Callable

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.onprem.circleci_server.plugins.filter.site import (
    control_host_value,
    docker_networks,
    exit_at_open_gates,
    later_findings,
    nomad_client_facts,
    past_gates,
    preflight_facts,
    report_findings,
    site_results,
)
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog

GROUPS = {
    "site_a": ["bastion-a", "nomad-a"],
    "site_b": ["bastion-b", "nomad-b"],
    "circleci_sites": ["bastion-a", "bastion-b"],
    "circleci_nomad_clients": ["nomad-a", "nomad-b"],
}


class Poisoned(Mapping[str, Any]):
    """Variables of a host that nobody may read."""

    def __getitem__(self, name: str) -> Any:
        raise AssertionError(f"read {name} of another site")

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("listed the variables of another site")

    def __len__(self) -> int:
        return 1

    def __contains__(self, name: object) -> bool:
        raise AssertionError(f"asked for {name} of another site")


HOSTVARS: dict[str, Mapping[str, Any]] = {
    "bastion-a": {"token": "a", "group_names": ["site_a", "circleci_sites"]},
    "nomad-a": {"found": [1], "group_names": ["site_a", "circleci_nomad_clients"]},
    "bastion-b": Poisoned(),
    "nomad-b": Poisoned(),
}


def test_only_the_own_site_is_read() -> None:
    assert control_host_value("token", GROUPS, HOSTVARS, "nomad-a") == "a"
    assert site_results("found", "circleci_nomad_clients", GROUPS, HOSTVARS, "bastion-a") == {"nomad-a": [1]}


def test_missing_value_says_which_play_did_not_run() -> None:
    with pytest.raises(AnsibleFilterError, match="bastion-a: other is not set"):
        control_host_value("other", GROUPS, HOSTVARS, "nomad-a")


def test_two_control_hosts_in_one_site_are_refused() -> None:
    groups = {**GROUPS, "site_a": ["bastion-a", "bastion-c", "nomad-a"], "circleci_sites": ["bastion-a", "bastion-b", "bastion-c"]}
    with pytest.raises(AnsibleFilterError, match="2 hosts in circleci_sites"):
        control_host_value("token", groups, HOSTVARS, "nomad-a")


def site(gate: str | None, reasons: list[str] | None = None) -> dict[str, Any]:
    """What a control host has registered: None is one that failed before the gates, without reasons it has not been judged."""
    found: dict[str, Any] = {"__circleci_site_secrets": {}}
    if gate is not None:
        found["__circleci_gates_open"] = {"open": gate, "sentence": f"Do {gate}." if gate else ""}
    return found if reasons is None else {**found, "__circleci_verify_site": {"reasons": reasons}}


@pytest.mark.parametrize("leave", [past_gates, exit_at_open_gates])
def test_sites_that_all_wait_end_the_run_with_75(leave: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        leave(["x"], GROUPS, {"bastion-a": site("dns"), "bastion-b": site("token")})
    assert stopped.value.code == 75
    assert capsys.readouterr().out.splitlines()[-2:] == ["  bastion-a: dns: Do dns.", "  bastion-b: token: Do token."]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        pytest.param(site(""), ["x", "!site_a"], id="passed"),
        pytest.param(site(None), ["x", "!site_a", "!site_b"], id="failed-before"),
        pytest.param({}, None, id="not-in-this-run"),
    ],
)
def test_a_waiting_site_holds_up_no_other(other: dict[str, Any], expected: list[str] | None) -> None:
    hostvars = {"bastion-a": site("dns"), "bastion-b": other}
    if expected is None:
        with pytest.raises(SystemExit):
            past_gates(["x"], GROUPS, hostvars)
    else:
        assert past_gates(["x"], GROUPS, hostvars) == expected


@pytest.mark.parametrize(
    ("other", "ends"),
    [
        pytest.param(site("", []), True, id="in-order"),
        pytest.param(site("", ["broken"]), False, id="not-in-order"),
        pytest.param(site(""), False, id="failed-after"),
        pytest.param(site(None), False, id="failed-before"),
    ],
)
def test_75_hides_no_failure_of_another_site(other: dict[str, Any], ends: bool) -> None:
    hostvars = {"bastion-a": site("dns"), "bastion-b": other}
    if ends:
        with pytest.raises(SystemExit):
            exit_at_open_gates(["x"], GROUPS, hostvars)
    else:
        assert exit_at_open_gates(["x"], GROUPS, hostvars) == ["x"]


def test_check_mode_says_that_the_run_would_stop_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    hostvars = {"bastion-a": site("dns"), "bastion-b": {}}
    assert past_gates(["x"], GROUPS, hostvars, True) == ["x"]
    assert capsys.readouterr().out == ""
    assert exit_at_open_gates(["x"], GROUPS, hostvars, True) == ["x"]
    assert "would stop here" in capsys.readouterr().out


def test_nomad_client_facts_are_those_of_the_bundle() -> None:
    assert nomad_client_facts("4.10.0") == {"version": "1.7.7", "rpc_port": 4647, "pause_image": "pause:3.6", "gc_image": "circleci/docker-gc:2.0"}
    with pytest.raises(AnsibleFilterError, match=r"4\.99\.0"):
        nomad_client_facts("4.99.0")


@pytest.mark.parametrize("release", [release for release in Catalog.load().releases() if release != "4.7.7"])
def test_every_release_that_may_be_used_says_what_its_clients_need(release: str) -> None:
    facts = nomad_client_facts(release)
    assert facts["version"] and facts["rpc_port"] == 4647 and facts["gc_image"]
    assert bool(facts["pause_image"]) == (tuple(map(int, release.split("."))) >= (4, 8))


@pytest.mark.parametrize("leave", [past_gates, exit_at_open_gates])
def test_no_open_gate_leaves_the_hosts_alone(leave: Callable[..., list[str]]) -> None:
    assert leave(["x"], GROUPS, {"bastion-a": site(""), "bastion-b": {}}) == ["x"]
    assert leave(["x"], GROUPS, {}) == ["x"]


def test_networks_of_docker_are_those_of_clients_that_were_looked_at() -> None:
    groups = {"circleci_nomad_clients": ["n1", "n2", "n3"]}
    hosts = {"n1": {"found": {"findings": [], "docker_networks": ["10.10.0.0/16"]}}, "n2": {"found": {"findings": []}}, "n3": {}}
    assert docker_networks("found", groups, hosts, "n1") == {"n1": ["10.10.0.0/16"]}


def test_preflight_facts_come_from_the_catalog() -> None:
    facts = preflight_facts("4.10.0")
    assert (facts["kubernetes_min"], facts["kubernetes_max"], facts["cluster_nodes"]) == ("1.33", "1.35", 4)
    assert facts["upgrade_from"] == ["4.9.5"]
    assert facts["cluster_users"] == "<500" and preflight_facts("4.10.0", 499) == facts
    many = preflight_facts("4.10.0", 500)
    assert (many["cluster_users"], many["cluster_nodes"], many["cluster_cpus"], many["cluster_memory_gb"]) == ("500+", 6, 48, 240)
    assert (facts["cluster_link_gbps"], many["cluster_link_gbps"]) == (1, 10)
    with pytest.raises(AnsibleFilterError, match="circleci_daily_users is -1"):
        preflight_facts("4.10.0", -1)
    with pytest.raises(AnsibleFilterError, match=r"4\.99\.0"):
        preflight_facts("4.99.0")


def test_what_later_verbs_miss_is_told_once_a_variable() -> None:
    def missing(verb: str, name: str) -> dict[str, str]:
        return {"subject": name, "found": "not set", "source": f"arguments.yml, verb {verb}"}

    results = [
        {"findings": [missing("secrets", "circleci_license"), missing("secrets", "circleci_registry_password")]},
        {"findings": [missing("install", "circleci_registry_password")]},
    ]
    assert [(item["subject"], item["source"]) for item in later_findings(results)] == [
        ("circleci_license", "arguments.yml, verb secrets"),
        ("circleci_registry_password", "arguments.yml, verb secrets, verb install"),
    ]
    assert later_findings(results, {"verified": True}) == [missing("install", "circleci_registry_password")]
    assert later_findings(results, {"skipped": True}) == later_findings(results)


def test_findings_for_the_report_leave_out_what_is_in_order() -> None:
    shape = {"subject": "s", "found": "f", "expected": "e", "remedy": "r", "source": "q"}
    given = [{"check": "c", "level": level, "reason": "", **shape} for level in ("ok", "problem", "warning", "waived")]
    assert report_findings(given) == [{"urgency": 1, **shape}, {"urgency": 3, **shape}]
