# SPDX-License-Identifier: GPL-3.0-or-later
"""What cloud_prepare promises, with Google Cloud, Azure and DigitalOcean as strict stand-ins: the same tests for each of them."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from . import azure, google
from .azure import Azure
from .digitalocean import DigitalOcean
from .google import Google
from .harness import NOMAD, PORTS, Cloud
from .standin import TOKEN, Refused, StandIn, running

Rule = tuple[str, str, str]
OURS: set[Rule] = {
    ("tcp", "22", "192.0.2.10/32"), ("tcp", "22", "203.0.113.0/28"), ("tcp", "4647", "192.0.2.128/26"),
    ("tcp", "64535-65535", "198.51.100.0/24"), ("tcp", "64535-65535", "2001:db8:1::/48"),
}  # fmt: skip
SSH: Rule = ("tcp", "22", "203.0.113.0/28")


class Trial(Cloud):
    """One cloud: its stand-in, what a machine of the group lets in there, and what other people do."""

    account: StandIn
    variables: dict[str, Any]

    def state(self) -> Any:
        """All that the account holds."""
        raise NotImplementedError

    def opened(self, group: str = NOMAD) -> set[Rule]:
        raise NotImplementedError

    def others(self) -> None:
        """Somebody adds things of their own, some of them beside ours."""
        raise NotImplementedError

    def of_others(self) -> Any:
        """Those things, as they are now."""
        raise NotImplementedError

    def squat(self) -> None:
        """Somebody has what we would make."""
        raise NotImplementedError

    def edit(self) -> list[str]:
        """Somebody changes rules of ours without changing their ports; what the difference says of them."""
        raise NotImplementedError


class OnGoogle(Trial):
    account: Google

    def state(self) -> Any:
        return copy.deepcopy(self.account.rules)

    def opened(self, group: str = NOMAD) -> set[Rule]:
        return {
            (part["IPProtocol"], port, network)
            for rule in self.account.rules.values() if rule.get("targetTags") == [group] and not rule["disabled"] and rule["priority"] == 1000
            for part in rule["allowed"] for port in part.get("ports", ["all"]) for network in rule["sourceRanges"]
        }  # fmt: skip

    def others(self) -> None:
        allowed = {"network": google.NETWORK, "allowed": [{"IPProtocol": "tcp", "ports": ["9100"]}], "sourceRanges": ["198.51.100.9/32"]}
        self.account.rule({"name": "monitoring", "targetTags": [NOMAD], "description": "theirs", **allowed})
        self.account.rule({"name": "everything", **allowed, "priority": 0})
        self.account.rule({"name": "circleci-other-nomad-client-tcp-22-v4", "description": "onprem.circleci_server other: x", **allowed})

    def of_others(self) -> Any:
        return {name: rule for name, rule in self.state().items() if not name.startswith("circleci-site-")}

    def squat(self) -> None:
        self.account.rule({"name": f"{NOMAD}-tcp-22-v4", "network": google.NETWORK, "allowed": [{"IPProtocol": "tcp"}], "targetTags": ["theirs"]})

    def edit(self) -> list[str]:
        self.account.rules[f"{NOMAD}-tcp-22-v4"].update(disabled=True, priority=900, logConfig={"enable": True}, sourceTags=["bastion"])
        return ["  tcp 22 from 203.0.113.0/28 (disabled; priority 900; sourceTags bastion)"]


class OnAzure(Trial):
    account: Azure

    def state(self) -> Any:
        return copy.deepcopy(self.account.groups)

    def rules(self, group: str = NOMAD) -> dict[str, dict[str, Any]]:
        return {rule["name"]: rule["properties"] for rule in self.account.groups[group]["properties"]["securityRules"]}

    def opened(self, group: str = NOMAD) -> set[Rule]:
        return {
            (rule["protocol"].lower(), rule["destinationPortRange"], network)
            for rule in self.rules(group).values() if rule["access"] == "Allow" and rule.get("sourceAddressPrefix") != "AzureLoadBalancer"
            for network in rule["sourceAddressPrefixes"] or [rule["sourceAddressPrefix"]]
        }  # fmt: skip

    def others(self) -> None:
        rule = {"protocol": "Tcp", "access": "Allow", "direction": "Inbound", "sourceAddressPrefix": "198.51.100.9/32", "sourcePortRange": "*",
                "destinationAddressPrefix": "*", "destinationPortRange": "9100"}  # fmt: skip
        # One of them takes the priority that a new rule of ours would get.
        self.account.foreign(NOMAD, "monitoring", **rule, priority=1100)
        for number in range(1000, 1010):
            if number not in {item["priority"] for item in self.rules().values()}:
                self.account.foreign(NOMAD, f"theirs-{number}", **{**rule, "access": "Deny"}, priority=number)
        self.account.group("theirs", securityRules=[{"name": "circleci-tcp-22-v4", "properties": {**rule, "priority": 4096}}])

    def of_others(self) -> Any:
        return [self.state()["theirs"], {name: rule for name, rule in copy.deepcopy(self.rules()).items() if not name.startswith("circleci-")}]

    def squat(self) -> None:
        self.account.group(NOMAD)

    def edit(self) -> list[str]:
        self.rules()["circleci-tcp-22-v4"].update(sourcePortRange="22")
        self.rules()["circleci-deny-the-rest"].update(priority=4000)
        return ["  tcp 22 from 203.0.113.0/28 (sourcePortRange 22)", "  deny any protocol from everybody (priority 4000)"]


class OnDigitalOcean(Trial):
    account: DigitalOcean

    def state(self) -> Any:
        return copy.deepcopy(self.account.firewalls)

    def opened(self, group: str = NOMAD) -> set[Rule]:
        rules = self.account.named(group)["inbound_rules"]
        return {(rule["protocol"], rule["ports"], network) for rule in rules for network in rule["sources"].get("addresses", [])}

    def others(self) -> None:
        self.account.tags.add("theirs")
        ours = self.account.named(NOMAD)
        balancer = {"protocol": "tcp", "ports": "9100", "sources": {"load_balancer_uids": ["uid"]}}
        ours.update(droplet_ids=[7], tags=[*ours["tags"], "theirs"], inbound_rules=[*ours["inbound_rules"], balancer])
        theirs = {"id": "00000000-0000-0000-0000-000000000001", "name": "other", "status": "succeeded", "pending_changes": [], "outbound_rules": [],
                  "inbound_rules": [balancer], "tags": ["theirs"], "droplet_ids": [7]}  # fmt: skip
        self.account.firewalls.append(copy.deepcopy(theirs))

    def of_others(self) -> Any:
        ours = self.account.named(NOMAD)
        foreign = [rule for rule in ours["inbound_rules"] if "addresses" not in rule["sources"]]
        return copy.deepcopy([self.account.named("other"), ours["droplet_ids"], ours["tags"], ours["outbound_rules"], foreign])

    def squat(self) -> None:
        self.account.firewalls.append({"id": "00000000-0000-0000-0000-000000000002", "name": NOMAD, "status": "succeeded", "pending_changes": [],
                                       "inbound_rules": [], "outbound_rules": [], "tags": None, "droplet_ids": None})  # fmt: skip

    def edit(self) -> list[str]:
        (rule,) = [rule for rule in self.account.named(NOMAD)["inbound_rules"] if rule["ports"] == "22"]
        rule["sources"]["addresses"] = ["0.0.0.0/0"]
        self.account.named(NOMAD)["tags"].remove(NOMAD)
        gone = f"(for no machine, since the tag {NOMAD} was taken away)"
        return [f"  tcp 22 from 0.0.0.0/0 {gone}", f"  tcp 4647 from 192.0.2.128/26 {gone}"]


KINDS: dict[str, tuple[type[Trial], Callable[[], StandIn], dict[str, Any]]] = {
    "gke": (OnGoogle, Google, {"circleci_cloud_network": google.NETWORK}),
    "azure": (OnAzure, Azure, {"circleci_cloud_network": azure.NETWORK, "circleci_cloud_region": "westeurope"}),
    "digitalocean": (OnDigitalOcean, DigitalOcean, {}),
}


@pytest.fixture(params=KINDS)
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trial]:
    kind, standin, _variables = KINDS[request.param]
    with running(standin()) as account:
        # Region and network are those of the example inventory.
        trial = kind(tmp_path, request.param, sys.executable, {"circleci_cloud_endpoint": account.url, "circleci_cloud_token": TOKEN}, {})
        trial.account = account  # type: ignore[assignment]
        yield trial


def test_check_mode_equals_the_run_and_the_second_run_changes_nothing(cloud: Trial) -> None:
    check = cloud.run("--check", circleci_ports=PORTS)
    assert (check["code"], check["changed"], cloud.account.writes) == (0, 1, 0), check["said"]
    assert check["endpoints"] == [[cloud.account.url]]
    run = cloud.run(circleci_ports=PORTS)
    assert (run["code"], run["changed"]) == (0, 1), run["said"]
    assert run["last"]["changes"] == check["last"]["changes"] and run["last"]["diff"] == check["last"]["diff"]
    assert cloud.opened() == OURS
    written, state = cloud.account.writes, cloud.state()
    for arguments in ((), ("--check",)):
        again = cloud.run(*arguments, circleci_ports=PORTS)
        assert (again["code"], again["changed"], cloud.account.writes) == (0, 0, written), again["said"]
    assert cloud.state() == state


def test_rules_of_others_stay_and_only_ours_are_taken_away(cloud: Trial) -> None:
    cloud.run(circleci_ports=PORTS)
    cloud.others()
    kept = cloud.of_others()
    assert cloud.run(circleci_ports=PORTS)["changed"] == 0
    less = {**PORTS, "administrators": [], "users": [], "kubernetes": ["192.0.2.192/26"]}
    check = cloud.run("--check", circleci_ports=less)
    run = cloud.run(circleci_ports=less)
    assert (run["code"], run["changed"]) == (0, 1), run["said"]
    assert run["last"]["diff"] == check["last"]["diff"] and "  tcp 22 from 203.0.113.0/28\n" in run["last"]["diff"]["before"]
    assert SSH not in cloud.opened() and ("tcp", "4647", "192.0.2.192/26") in cloud.opened()
    assert not [rule for rule in cloud.opened() if rule[1] == "64535-65535"]
    assert cloud.of_others() == kept
    # All of it again, beside what others have.
    more = cloud.run(circleci_ports=PORTS)
    assert (more["code"], more["changed"]) == (0, 1), more["said"]
    assert cloud.opened() >= OURS and cloud.of_others() == kept
    assert cloud.run(circleci_ports=PORTS)["changed"] == 0


def test_what_somebody_else_has_under_our_name_is_refused(cloud: Trial) -> None:
    cloud.squat()
    before = cloud.state()
    found = cloud.run(circleci_ports=PORTS)
    assert found["code"] == 2 and NOMAD in found["last"]["msg"] and "rename or remove it" in found["last"]["msg"]
    assert cloud.state() == before


def test_a_rule_that_somebody_edited_is_shown_and_repaired(cloud: Trial) -> None:
    cloud.run(circleci_ports=PORTS)
    notes = cloud.edit()
    check = cloud.run("--check", circleci_ports=PORTS)
    before, after = check["last"]["diff"]["before"], check["last"]["diff"]["after"]
    assert check["changed"] == 1 and [note for note in notes if note in before] == notes and not [note for note in notes if note in after], before
    run = cloud.run(circleci_ports=PORTS)
    assert run["last"]["changes"] == check["last"]["changes"] and cloud.opened() == OURS, run["last"]
    assert cloud.run(circleci_ports=PORTS)["changed"] == 0


def test_a_wrong_token_is_told_and_never_shown(cloud: Trial) -> None:
    cloud.hidden = ["another canary"]
    found = cloud.run(circleci_ports=PORTS, circleci_cloud_token="another canary")
    assert found["code"] == 2 and "HTTP 401" in found["last"]["msg"] and "The credentials are not valid" in found["last"]["msg"]


def test_a_missing_right_is_told_in_the_words_of_the_cloud(cloud: Trial) -> None:
    cloud.account.next_writes = [Refused(403, "forbidden", "Required permission is missing for this account")]
    found = cloud.run(circleci_ports=PORTS)
    assert found["code"] == 2 and "Required permission is missing for this account" in found["last"]["msg"] and "HTTP 403" in found["last"]["msg"]
    # The same command goes on.
    assert cloud.run(circleci_ports=PORTS)["code"] == 0 and cloud.opened() == OURS


def test_an_operation_that_fails_later_is_told_and_the_same_command_goes_on(cloud: Trial) -> None:
    cloud.account.fail_operation = "QUOTA_EXCEEDED"
    found = cloud.run(circleci_ports=PORTS)
    assert found["code"] == 2 and any(text in found["last"]["msg"] for text in ("QUOTA_EXCEEDED", "to every machine")), found["last"]
    cloud.account.fail_operation = ""
    assert cloud.run(circleci_ports=PORTS)["code"] == 0 and cloud.opened() == OURS


def test_a_cloud_that_is_asked_too_often_is_asked_again(cloud: Trial) -> None:
    slow = Refused(429, "slow", "Too many requests", Retry_After="0")
    # Google has another word for it, too.
    busy = Refused(503, "busy", "Try again", Retry_After="0")
    word = [Refused(403, "rateLimitExceeded", "Rate Limit Exceeded", Retry_After="0")] if cloud.example == "gke" else []
    cloud.account.next, cloud.account.next_writes = [slow, busy, *word], [slow]
    run = cloud.run(circleci_ports=PORTS)
    assert (run["code"], run["changed"]) == (0, 1), run["said"]
    assert cloud.account.next == cloud.account.next_writes == [] and cloud.opened() == OURS
    cloud.account.next = [Refused(429, "slow", "Too many requests", Retry_After="3000")]
    found = cloud.run(circleci_ports=PORTS)
    assert found["code"] == 2 and "wants 3000 seconds of silence" in found["last"]["msg"]
    cloud.account.next = [slow] * 5
    found = cloud.run(circleci_ports=PORTS)
    assert found["code"] == 2 and "5 times" in found["last"]["msg"] and cloud.account.next == []


def test_the_variables_of_the_example_are_needed(cloud: Trial) -> None:
    for name in KINDS[cloud.example][2]:
        found = cloud.run(circleci_ports=PORTS, **{name: ""})
        assert found["code"] == 2 and name in found["last"]["msg"], found["said"]
    found = cloud.run(circleci_ports=PORTS, circleci_cloud_endpoint="http://198.51.100.1")
    assert "https:// is needed" in found["last"]["msg"] and cloud.account.calls == []


def test_rules_of_azure_keep_their_priorities_and_close_what_the_virtual_network_would_open(tmp_path: Path) -> None:
    with running(Azure()) as account:
        cloud = OnAzure(tmp_path, "azure", sys.executable, {"circleci_cloud_endpoint": account.url, "circleci_cloud_token": TOKEN}, {})
        assert isinstance(account, Azure)
        cloud.account = account
        cloud.run(circleci_ports=PORTS)
        first = {name: rule["priority"] for name, rule in cloud.rules().items()}
        assert first["circleci-deny-the-rest"] == 4096 and cloud.rules()["circleci-deny-the-rest"]["access"] == "Deny"
        probes = cloud.rules()["circleci-load-balancer-probes"]
        assert (probes["priority"], probes["access"], probes["sourceAddressPrefix"]) == (4095, "Allow", "AzureLoadBalancer")
        cloud.run(circleci_ports={**PORTS, "administrators": [], "users": []})
        cloud.run(circleci_ports=PORTS)
        second = {name: rule["priority"] for name, rule in cloud.rules().items()}
        assert sorted(second) == sorted(first) and len(set(second.values())) == len(second)
        assert [second[name] for name in ("circleci-tcp-22-v4", "circleci-tcp-4647-v4")] == [first[name] for name in ("circleci-tcp-22-v4", "circleci-tcp-4647-v4")]
        # A rule of others is theirs, whatever its name begins with.
        theirs = {"protocol": "Tcp", "access": "Deny", "direction": "Inbound", "sourceAddressPrefix": "Internet", "sourcePortRange": "*",
                  "destinationAddressPrefix": "*", "destinationPortRange": "*"}  # fmt: skip
        cloud.account.foreign(NOMAD, "circleci-no-internet", **theirs, priority=2000)
        # What somebody moves stays where it is, and a rule of others at the very end is told.
        cloud.rules()["circleci-tcp-22-v4"]["priority"] = 300
        assert cloud.run(circleci_ports=PORTS)["changed"] == 0
        rules = cloud.account.groups[NOMAD]["properties"]["securityRules"]
        rules[:] = [rule for rule in rules if rule["name"] != "circleci-deny-the-rest"]
        cloud.account.foreign(NOMAD, "last", protocol="*", access="Allow", direction="Inbound", priority=4096, sourceAddressPrefix="*", sourcePortRange="*",
                              destinationAddressPrefix="*", destinationPortRange="*")  # fmt: skip
        found = cloud.run(circleci_ports=PORTS)
        assert found["code"] == 2 and "rule last of circleci-site-nomad-client has the priority 4096" in found["last"]["msg"]


def test_operations_of_azure_are_awaited_without_a_monitor_too(tmp_path: Path) -> None:
    account = Azure()
    account.tells = "resource"
    with running(account):
        cloud = OnAzure(tmp_path, "azure", sys.executable, {"circleci_cloud_endpoint": account.url, "circleci_cloud_token": TOKEN}, {})
        cloud.account = account
        for ports in (PORTS, {**PORTS, "administrators": [], "users": []}):
            run = cloud.run(circleci_ports=ports)
            assert (run["code"], run["changed"]) == (0, 1), run["said"]
            assert account.operations and all(operation["ended"] == "Succeeded" for operation in account.operations.values())
        assert cloud.run(circleci_ports=PORTS)["code"] == 0 and cloud.opened() == OURS


def test_digitalocean_takes_its_token_from_the_environment_as_well(tmp_path: Path) -> None:
    with running(DigitalOcean()) as account:
        cloud = Cloud(tmp_path, "digitalocean", sys.executable, {"circleci_cloud_endpoint": account.url}, {})
        assert "no token" in cloud.run(circleci_ports=PORTS)["last"]["msg"]
        cloud.environment = {"DIGITALOCEAN_TOKEN": TOKEN}
        assert cloud.run(circleci_ports=PORTS)["code"] == 0
        account.next_writes = [Refused(400, "root_causes", "Error validating resource tag")]
        found = cloud.run(circleci_ports=PORTS, circleci_site="other")
        assert "Error validating resource tag" in found["last"]["msg"], json.dumps(found["last"])


def test_a_platform_without_a_firewall_of_a_cloud_is_refused_with_the_way_on(tmp_path: Path) -> None:
    with running(DigitalOcean()) as account:
        cloud = Cloud(tmp_path, "digitalocean", sys.executable, {"circleci_cloud_endpoint": account.url, "circleci_cloud_token": TOKEN}, {})
        found = cloud.run(circleci_ports=PORTS, circleci_platform="generic")
        assert found["code"] == 2 and "ports.csv" in found["said"] and account.calls == []
        for users in (["10.0.0.1/24"], ["10.0.0.0/8", "10.1.0.0/16"], ["no network"]):
            found = cloud.run(circleci_ports={**PORTS, "users": users})
            assert found["code"] == 2 and "users" in found["said"] and account.calls == []
