# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wanted, and the difference."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.cloud import CloudError, endpoints
from ansible_collections.onprem.circleci_server.plugins.module_utils.cloud_firewall import (
    Found,
    RuleKey,
    changes,
    constructs,
    shown,
    table,
)


def rule(**changed: Any) -> dict[str, Any]:
    return {
        "id": "client-in", "group": "nomad_client", "direction": "ingress", "action": "accept", "state": "apply", "protocol": "tcp",
        "ports": ["4646"], "peers": ["10.0.0.0/24"], **changed,
    }  # fmt: skip


def test_ports_that_touch_are_joined_for_each_network_and_protocol() -> None:
    found = constructs("aws", "osaka", [rule(), rule(ports=["4647-4648"], id="rpc"), rule(ports=["22"]), rule(protocol="udp"), rule(peers=["fd00::/64"])])
    assert list(found) == ["circleci-osaka-nomad-client"]
    assert [(i["protocol"], i["low"], i["high"], i["network"], i["reason"]) for i in found["circleci-osaka-nomad-client"]] == [
        ("tcp", 22, 22, "10.0.0.0/24", "client-in"),
        ("tcp", 4646, 4648, "10.0.0.0/24", "client-in rpc"),
        ("tcp", 4646, 4646, "fd00::/64", "client-in"),
        ("udp", 4646, 4646, "10.0.0.0/24", "client-in"),
    ]


@pytest.mark.parametrize("changed", [
    {"direction": "egress"}, {"action": "drop"}, {"peers": []}, {"direction": "ingress_from_containers"},
    {"state": "documented, not served"}, {"state": "nobody of the kind vm is known in this site"},
])  # fmt: skip
def test_what_nobody_has_to_carry_is_left_out(changed: dict[str, Any]) -> None:
    assert constructs("aws", "osaka", [rule(**changed)]) == {}


@pytest.mark.parametrize("provider, fits", [("aws", 60), ("digitalocean", 47), ("azure", 998)])
def test_more_rules_than_the_cloud_holds_are_refused(provider: str, fits: int) -> None:
    many = [rule(ports=[str(2 * number)]) for number in range(1, fits + 2)]
    last = 2 if provider == "azure" else 0
    assert len(constructs(provider, "osaka", many[:fits])["circleci-osaka-nomad-client"]) == fits + last
    with pytest.raises(CloudError, match=r"circleci-osaka-nomad-client needs .* rules, .* holds"):
        constructs(provider, "osaka", many)
    assert len(constructs(provider, "osaka", many, limited=False)["circleci-osaka-nomad-client"]) == fits + 1 + last


def test_wrong_input_is_told() -> None:
    with pytest.raises(CloudError, match=r"peer '10.0.0.1/24' is no network"):
        constructs("aws", "osaka", [rule(peers=["10.0.0.1/24"])])
    with pytest.raises(CloudError, match="cloud 'oracle' is unknown"):
        constructs("oracle", "osaka", [])
    with pytest.raises(CloudError, match="form 'xml' is unknown"):
        table("aws", {}, "xml")


NAME = "circleci-osaka-nomad-client"
WANTED = constructs("aws", "osaka", [rule()])
KEY = RuleKey("tcp", 4646, 4646, "10.0.0.0/24")
OLD = RuleKey("tcp", 1, 1, "10.0.0.0/24")


def test_the_difference_adds_removes_and_spares_what_is_foreign() -> None:
    (new,) = changes(WANTED, {})
    assert (new.id, new.add, new.remove) == ("", (KEY,), ())
    assert changes(WANTED, {NAME: Found("sg-1", True, {KEY: ""}, frozenset({OLD}))}) == []
    assert changes(WANTED, {NAME: Found("sg-1", True, {}, frozenset({KEY}))}) == []
    there = {NAME: Found("sg-1", True, {OLD: ""})}
    (change,) = changes(WANTED, there)
    assert (change.id, change.add, change.remove) == ("sg-1", (KEY,), (OLD,))
    assert shown(there, [change]) == (f"{NAME}\n  tcp 1 from 10.0.0.0/24\n", f"{NAME}\n  tcp 4646 from 10.0.0.0/24\n")


def test_a_group_that_nothing_wants_loses_our_rules_and_others_are_left() -> None:
    (change,) = changes({}, {NAME: Found("sg-1", True, {OLD: ""}), "theirs": Found("sg-2", False, {}, frozenset({OLD}))})
    assert (change.name, change.add, change.remove) == (NAME, (), (OLD,))
    with pytest.raises(CloudError, match="lacks the mark"):
        changes(WANTED, {NAME: Found("sg-1", False)})


@pytest.mark.parametrize("provider", ["aws", "gcp", "digitalocean"])
def test_the_table_is_there_for_every_cloud(provider: str) -> None:
    groups = constructs(provider, "osaka", [rule(), rule(ports=["64535-65535"])])
    rows = list(csv.DictReader(io.StringIO(table(provider, groups, "csv"))))
    assert [(row["name"], row["action"], row["ports"], row["network"]) for row in rows] == [
        (NAME, "allow", "4646", "10.0.0.0/24"), (NAME, "allow", "64535-65535", "10.0.0.0/24"),
    ]  # fmt: skip
    assert table(provider, groups, "markdown").count("\n") == 4


def test_the_table_of_azure_ends_with_what_closes_the_rest() -> None:
    rows = list(csv.DictReader(io.StringIO(table("azure", constructs("azure", "osaka", [rule()]), "csv"))))
    assert [(row["action"], row["protocol"], row["network"]) for row in rows] == [
        ("allow", "tcp", "10.0.0.0/24"), ("allow", "any", "AzureLoadBalancer"), ("deny", "any", "*"),
    ]  # fmt: skip


def test_networks_that_azure_cannot_hold_and_names_that_google_cannot_are_refused() -> None:
    many = [f"10.{high}.{low}.0/24" for high in range(16) for low in range(250)]
    with pytest.raises(CloudError, match="needs 4002 networks in its rules, azure holds 4000"):
        constructs("azure", "osaka", [rule(peers=many)])
    with pytest.raises(CloudError, match=r"makes names of \d+ characters, gcp takes 63; give circleci_site a shorter name"):
        constructs("gcp", "a-site-with-a-name-that-is-long", [rule()])


def test_what_somebody_edited_is_repaired_and_shown() -> None:
    there = {NAME: Found("sg-1", True, {KEY: "", OLD: ""}, edited={KEY: "disabled", OLD: "priority 1"})}
    (change,) = changes(WANTED, there)
    assert (change.add, change.remove, change.repair) == ((), (OLD,), (KEY,))
    assert shown(there, [change]) == (
        f"{NAME}\n  tcp 1 from 10.0.0.0/24 (priority 1)\n  tcp 4646 from 10.0.0.0/24 (disabled)\n", f"{NAME}\n  tcp 4646 from 10.0.0.0/24\n",
    )  # fmt: skip


def test_endpoints_are_known_without_talking() -> None:
    metadata = "http://169.254.169.254"
    assert endpoints("aws", "us-west-2") == ["https://ec2.us-west-2.amazonaws.com", "https://sts.us-west-2.amazonaws.com", metadata]
    assert endpoints("aws", "cn-north-1") == ["https://ec2.cn-north-1.amazonaws.com.cn", "https://sts.cn-north-1.amazonaws.com.cn", metadata]
    assert endpoints("digitalocean", "") == ["https://api.digitalocean.com"]
    assert endpoints("aws", "us-west-2", "https://vpce.example.com") == ["https://vpce.example.com", metadata]
    assert endpoints("aws", "us-west-2", parts={"registry_template": "https://api.ecr.eu-west-1.amazonaws.com"}) == [
        "https://ec2.us-west-2.amazonaws.com", "https://api.ecr.eu-west-1.amazonaws.com", "https://sts.us-west-2.amazonaws.com",
        "https://sts.eu-west-1.amazonaws.com", metadata]  # fmt: skip
    assert endpoints("gcp", "", token=True) == ["https://compute.googleapis.com"]
    assert endpoints("gcp", "") == [
        "https://compute.googleapis.com", "https://oauth2.googleapis.com", "http://metadata.google.internal", "http://169.254.169.254",
    ]  # fmt: skip
    assert endpoints("azure", "usgovvirginia", "https://management.usgovcloudapi.net/") == [
        "https://management.usgovcloudapi.net", "https://login.microsoftonline.us", "http://169.254.169.254",
    ]  # fmt: skip
