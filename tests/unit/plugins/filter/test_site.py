# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.onprem.circleci_server.plugins.filter.site import (
    control_host_value,
    exit_at_open_gates,
    later_findings,
    nomad_client_facts,
    preflight_facts,
    site_results,
)

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


def test_a_waiting_site_ends_the_run_with_75(capsys: pytest.CaptureFixture[str]) -> None:
    hostvars = {"bastion-a": {"__circleci_gates_open": {"open": "dns", "sentence": "Make DNS entries."}}, "bastion-b": {}}
    with pytest.raises(SystemExit) as stopped:
        exit_at_open_gates(["circleci_sites"], GROUPS, hostvars)
    assert stopped.value.code == 75
    assert "bastion-a: dns: Make DNS entries." in capsys.readouterr().out


def test_check_mode_says_where_the_run_would_stop_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    hostvars = {"bastion-a": {"__circleci_gates_open": {"open": "dns", "sentence": "Make DNS entries."}}, "bastion-b": {}}
    assert exit_at_open_gates(["x"], GROUPS, hostvars, True) == ["x"]
    assert "would stop here" in capsys.readouterr().out


def test_nomad_client_facts_are_those_of_the_bundle() -> None:
    assert nomad_client_facts("4.10.0") == {"version": "1.7.7", "rpc_port": 4647, "pause_image": "pause:3.6", "gc_image": "circleci/docker-gc:2.0"}
    with pytest.raises(AnsibleFilterError, match=r"4\.99\.0"):
        nomad_client_facts("4.99.0")


def test_no_open_gate_leaves_the_hosts_alone() -> None:
    hostvars = {"bastion-a": {"__circleci_gates_open": {"open": "", "sentence": ""}}, "bastion-b": {}}
    assert exit_at_open_gates(["x"], GROUPS, hostvars) == ["x"]
    assert exit_at_open_gates(["x"], GROUPS, {}) == ["x"]


def test_preflight_facts_come_from_the_catalog() -> None:
    facts = preflight_facts("4.10.0")
    assert (facts["kubernetes_min"], facts["kubernetes_max"], facts["cluster_nodes"]) == ("1.33", "1.35", 4)
    assert facts["upgrade_from"] == ["4.9.5"]
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
