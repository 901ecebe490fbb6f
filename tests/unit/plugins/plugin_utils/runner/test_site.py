# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.runner import (
    gate,
    inventory_findings,
    look_findings,
    runners,
)

HOSTS: dict[str, dict[str, Any]] = {
    "r1": {"circleci_runner_resource_class": "acme/linux", "circleci_runner_token": "canary"},
    "r2": {"circleci_runner_resource_class": "acme/linux", "circleci_runner_token": "canary", "circleci_runner_name": "second"},
    "r3": {"circleci_runner_resource_class": "acme/gpu"},
}
RUNS = {"state": "running", "detail": "it runs"}
STOPPED = {"state": "stopped", "detail": "it does not run: somebody stopped it"}


def site(*names: str) -> list[dict[str, Any]]:
    return runners(names, HOSTS)


def test_no_token_leaves_the_inventory() -> None:
    assert site("r1", "r2", "r3") == [
        {"host": "r1", "name": "r1", "resource_class": "acme/linux", "has_token": True},
        {"host": "r2", "name": "second", "resource_class": "acme/linux", "has_token": True},
        {"host": "r3", "name": "r3", "resource_class": "acme/gpu", "has_token": False},
    ]


def test_gate_has_the_commands_of_those_without_a_token() -> None:
    (found,) = gate(site("r1", "r2", "r3"), "ci.example.com")
    assert found["name"] == "runner_tokens" and found["waits_for"] == ["r3"]
    for text in (
        'circleci runner resource-class create acme/gpu "machine runners" --generate-token', "circleci runner token create acme/gpu r3",
        "CIRCLECI_CLI_HOST=https://ci.example.com", "circleci_runner_token",
    ):  # fmt: skip
        assert text in found["sentence"]
    assert "acme/linux" not in found["sentence"]


def test_gate_of_a_site_with_all_tokens_waits_for_nothing_and_without_runners_there_is_none() -> None:
    assert gate(site("r1"), "ci.example.com")[0]["waits_for"] == []
    assert gate([], "ci.example.com") == []


def test_gate_does_not_pass_a_wrong_class_on_as_a_command() -> None:
    (found,) = gate([{"host": "r", "name": "r", "resource_class": "x; rm -rf /", "has_token": False}], "ci.example.com")
    assert "rm -rf" not in found["sentence"] and "<namespace>/<class>" in found["sentence"]


def test_preflight_finds_what_the_inventory_lacks() -> None:
    catalog = Catalog.load()
    assert inventory_findings(site("r1", "r2"), "4.10.0", "ci.example.com", catalog) == []
    assert inventory_findings([], "4.3.9", "ci.example.com", catalog) == []
    wrong = [*site("r3"), {"host": "r4", "name": "r3", "resource_class": "", "has_token": True}]
    found = {(item["check"], item["level"]) for item in inventory_findings(wrong, "4.3.9", "ci.example.com", catalog)}
    assert found == {("runner_release", "problem"), ("runner_token", "warning"), ("runner_resource_class", "problem"), ("runner_name", "problem")}


ONLINE = {"asked": True, "missing": "", "runners": {"r1": {"online": True}, "second": {"online": True}}}


@pytest.mark.parametrize("connected", [{}, ONLINE])
def test_runners_that_run_are_no_finding(connected: dict[str, Any]) -> None:
    assert look_findings(site("r1", "r2"), {"r1": RUNS, "r2": {"state": "draining", "detail": ""}}, connected) == []


def test_a_stopped_runner_says_what_users_lose() -> None:
    (one,) = look_findings(site("r1", "r2"), {"r1": STOPPED, "r2": RUNS}, {})
    assert one["urgency"] == 1 and one["subject"] == "runner r1 of acme/linux"
    assert one["found"].endswith("Jobs with this resource class wait without an error, longer, as 1 of 2 runners is left for it")
    both = look_findings(site("r1", "r2"), {"r1": STOPPED, "r2": STOPPED}, {})
    assert len(both) == 2 and all("for ever, as no runner is left for it" in item["found"] for item in both)


def test_a_runner_that_the_server_does_not_hear_is_told_even_if_it_runs() -> None:
    silent = {"asked": True, "runners": {"r1": {"online": False, "last_connected": "2026-08-20T10:00:00Z"}}}
    found = look_findings(site("r1", "r2"), {"r1": RUNS, "r2": RUNS}, silent)
    assert "its server has heard nothing of it since 2026-08-20T10:00:00Z" in found[0]["found"] and "its server does not know it" in found[1]["found"]


def test_one_without_a_token_is_told_and_fails_nothing() -> None:
    (found,) = look_findings(site("r3"), {"r3": {"state": "missing", "detail": "it is not installed"}}, {})
    assert found["urgency"] == 2 and "no token yet" in found["found"]


def test_a_server_that_was_not_asked_is_no_proof() -> None:
    (found,) = look_findings(site("r1"), {"r1": RUNS}, {"asked": False, "missing": "Missing: circleci_personal_token", "runners": {}})
    assert found["urgency"] == 4 and "not asked" in found["found"] and "circleci_personal_token" in found["remedy"]
    assert look_findings([], {}, {"asked": False, "missing": "Missing: circleci_personal_token"}) == []
