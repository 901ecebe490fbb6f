# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapters of Google Cloud, Azure and DigitalOcean by the module, against the strict stand-ins; tests/integration_cloud tries the whole verb."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.cloud_firewall import constructs
from ansible_collections.onprem.circleci_server.plugins.modules import cloud_firewall
from ansible_collections.onprem.circleci_server.tests.integration_cloud import azure, google
from ansible_collections.onprem.circleci_server.tests.integration_cloud.azure import Azure
from ansible_collections.onprem.circleci_server.tests.integration_cloud.digitalocean import DigitalOcean
from ansible_collections.onprem.circleci_server.tests.integration_cloud.google import Google
from ansible_collections.onprem.circleci_server.tests.integration_cloud.standin import TOKEN, Refused, StandIn, running
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module

NAME = "circleci-osaka-nomad-client"


def rules(**changed: Any) -> list[dict[str, Any]]:
    plain = {"id": "ssh", "group": "nomad_client", "direction": "ingress", "action": "accept", "state": "apply", "protocol": "tcp"}
    return [{**plain, "ports": ["22"], "peers": ["10.0.0.0/24", "fd00::/64"], **changed}]


class Account:
    """The module against one stand-in."""

    def __init__(self, provider: str, standin: Any, capsys: pytest.CaptureFixture[str], waits: list[float]) -> None:
        self.provider, self.standin, self.capsys, self.waits = provider, standin, capsys, waits

    def set(self, given: list[dict[str, Any]], *, check: bool = False, **changed: Any) -> dict[str, Any]:
        network = {"gcp": google.NETWORK, "azure": azure.NETWORK}.get(self.provider, "")
        options = {"provider": self.provider, "site": "osaka", "network": network, "region": "westeurope", "token": TOKEN, "endpoint": self.standin.url}
        return run_module(cloud_firewall, self.capsys, check=check, **{**options, "groups": constructs(self.provider, "osaka", given), **changed})


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited, without waiting."""
    seen: list[float] = []
    monkeypatch.setattr(time, "sleep", seen.append)
    return seen


@pytest.fixture(params=["gcp", "azure", "digitalocean"])
def account(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], waits: list[float]) -> Iterator[Account]:
    made: StandIn = {"gcp": Google, "azure": Azure, "digitalocean": DigitalOcean}[request.param]()
    with running(made):
        yield Account(request.param, made, capsys, waits)


@pytest.fixture
def on_google(capsys: pytest.CaptureFixture[str], waits: list[float]) -> Iterator[Account]:
    with running(Google()) as made:
        yield Account("gcp", made, capsys, waits)


@pytest.fixture
def on_azure(capsys: pytest.CaptureFixture[str], waits: list[float]) -> Iterator[Account]:
    with running(Azure()) as made:
        yield Account("azure", made, capsys, waits)


def test_every_kind_of_rule_is_made_once_and_taken_away(account: Account) -> None:
    given = [*rules(), *rules(ports=["64535-65535"], protocol="udp"), *rules(ports=["any"], protocol="any", peers=["10.9.0.0/16"]), *rules(protocol="icmp", ports=["any"], peers=["10.8.0.0/16"])]
    check = account.set(given, check=True)
    assert check["changed"] and account.standin.writes == 0
    made = account.set(given)
    assert made["changed"] and made["changes"] == check["changes"] and made["diff"] == check["diff"], made
    again = account.set(given)
    assert not again["changed"], again["diff"]
    less = account.set(rules())
    assert less["changed"] and not account.set(rules())["changed"]
    assert "any protocol from 10.9.0.0/16" in less["diff"]["before"] and "10.9.0.0/16" not in less["diff"]["after"]
    gone = account.set([])
    assert gone["changed"] and "tcp 22" not in gone["diff"]["after"]
    assert not account.set([])["changed"]
    if account.provider == "azure":
        left = [(rule["name"], rule["properties"]["access"]) for rule in account.standin.groups[NAME]["properties"]["securityRules"]]
        assert left == [("circleci-load-balancer-probes", "Allow"), ("circleci-deny-the-rest", "Deny")]
    assert account.set(rules())["changed"] and not account.set(rules())["changed"]


def test_networks_in_another_form_are_the_same(account: Account) -> None:
    account.set(rules(peers=["10.0.0.7/32"]))
    if account.provider == "gcp":
        account.standin.rules[f"{NAME}-tcp-22-v4"]["sourceRanges"] = ["10.0.0.7"]
    elif account.provider == "azure":
        properties = account.standin.groups[NAME]["properties"]["securityRules"][0]["properties"]
        del properties["sourceAddressPrefixes"]
        properties.update(sourceAddressPrefix="10.0.0.7", destinationPortRanges=["22"], destinationPortRange="")
    else:
        account.standin.named(NAME)["inbound_rules"][0]["sources"]["addresses"] = ["10.0.0.7"]
    assert not account.set(rules(peers=["10.0.0.7/32"]))["changed"]


def test_two_sites_of_one_account_do_not_see_each_other(account: Account) -> None:
    account.set(rules())
    other = {"circleci-osaka-2-nomad-client": constructs(account.provider, "osaka-2", rules())["circleci-osaka-2-nomad-client"]}
    account.set([], site="osaka-2", groups=other)
    assert not account.set(rules())["changed"]
    assert not account.set([], site="osaka-2", groups=other)["changed"]


def test_throttling_is_waited_for_as_long_as_the_cloud_says(account: Account) -> None:
    account.standin.next = [Refused(429, "slow", "Too many", Retry_After="7"), Refused(429, "slow", "Too many")]
    account.set(rules())
    assert account.waits[:2] == [7, 2]
    account.standin.next = [Refused(429, "slow", "Too many", Retry_After="3600")]
    found = account.set(rules())
    assert found["failed"] and "wants 3600 seconds of silence" in found["msg"]


def test_the_hourly_limit_of_digitalocean_is_told(capsys: pytest.CaptureFixture[str], waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    with running(DigitalOcean()) as made:
        made.next = [Refused(429, "slow", "API rate limit exceeded.", ratelimit_remaining="0", ratelimit_reset="1001800")]
        found = Account("digitalocean", made, capsys, waits).set(rules())
    assert "wants 1800 seconds of silence: API rate limit exceeded. (HTTP 429)" in found["msg"] and waits == []


def test_a_change_that_makes_things_is_not_sent_twice_after_an_unclear_answer(account: Account) -> None:
    account.standin.next_writes = [Refused(503, "busy", "Try again")]
    found = account.set(rules())
    # Only Azure makes things with PUT, which can be sent again.
    assert bool(found.get("failed")) == (account.provider != "azure")
    assert not account.set(rules()).get("failed")


def test_a_page_or_an_operation_elsewhere_gets_no_token(on_azure: Account) -> None:
    on_azure.set(rules())
    on_azure.set([], site="other", groups={"circleci-other-nomad-client": constructs("azure", "other", rules(group="nomad_client"))["circleci-other-nomad-client"]})
    on_azure.standin.url = "https://198.51.100.1"
    found = on_azure.set(rules(), endpoint=f"http://127.0.0.1:{on_azure.standin.port}")
    assert found["failed"] and "points to https://198.51.100.1, which was not named before" in found["msg"]


def test_what_is_logged_by_google_stays_so(on_google: Account) -> None:
    on_google.set(rules())
    log = {"enable": True, "metadata": "EXCLUDE_ALL_METADATA"}
    on_google.standin.rules[f"{NAME}-tcp-22-v4"].update(logConfig=log, disabled=True, targetTags=["everything"])
    found = on_google.set(rules())
    assert found["changes"] == [{"name": NAME, "added": [], "removed": [], "repaired": ["tcp 22 from 10.0.0.0/24 (disabled; for the tags everything)"]}]
    rule = on_google.standin.rules[f"{NAME}-tcp-22-v4"]
    assert (rule["logConfig"], rule["disabled"], rule["targetTags"]) == (log, False, [NAME])


def test_all_operations_of_google_that_fail_are_told(on_google: Account) -> None:
    on_google.standin.fail_operation = "QUOTA_EXCEEDED"
    found = on_google.set([*rules(), *rules(ports=["80"])])
    assert found["failed"] and found["msg"].count("QUOTA_EXCEEDED") == 4


def test_rules_of_google_in_another_network_are_refused(on_google: Account) -> None:
    on_google.set(rules())
    before = copy.deepcopy(on_google.standin.rules)
    found = on_google.set(rules(), network="projects/example-project/global/networks/other")
    assert found["failed"] and "another network's" in found["msg"] and on_google.standin.rules == before


@pytest.mark.parametrize("network", ["", "example-network", "projects/p/global/networks/n/x"])
def test_a_wrong_network_is_told_with_the_form(on_google: Account, on_azure: Account, network: str) -> None:
    assert "projects/<project>/global/networks/<name>" in on_google.set(rules(), network=network)["msg"]
    found = on_azure.set(rules(), network=network, region="")
    assert "/subscriptions/<id>/resourceGroups/<name>" in found["msg"] and "circleci_cloud_region is empty" in found["msg"]
    assert on_google.standin.calls == on_azure.standin.calls == []


def test_priorities_and_marks_of_azure(on_azure: Account) -> None:
    on_azure.set(rules())
    theirs = {"protocol": "Tcp", "access": "Deny", "direction": "Inbound", "sourceAddressPrefix": "*", "sourcePortRange": "*",
              "destinationAddressPrefix": "*", "destinationPortRange": "23"}  # fmt: skip
    kept = copy.deepcopy(on_azure.standin.foreign(NAME, "theirs", **theirs, priority=1002))
    first = {rule["name"]: rule["properties"]["priority"] for rule in on_azure.standin.groups[NAME]["properties"]["securityRules"]}
    assert not on_azure.set([*rules(), *rules(ports=["80"])]).get("failed")
    there = {rule["name"]: rule for rule in on_azure.standin.groups[NAME]["properties"]["securityRules"]}
    second = {name: rule["properties"]["priority"] for name, rule in there.items()}
    assert {name: second[name] for name in first} == first and there["theirs"] == kept
    assert [second[f"circleci-tcp-80-{family}"] for family in ("v4", "v6")] == [1003, 1004]
    there["circleci-tcp-80-v4"]["properties"]["description"] = "mine now"
    found = on_azure.set(rules())
    assert found["failed"] and "rule circleci-tcp-80-v4 of circleci-osaka-nomad-client has a name of ours" in found["msg"]
