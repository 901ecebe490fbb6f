# SPDX-License-Identifier: GPL-3.0-or-later
"""Names by the module against the strict stand-ins of Google Cloud, Azure and DigitalOcean; tests/integration_cloud tries the whole verb, and AWS."""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.cloud import CloudError, endpoints
from ansible_collections.onprem.circleci_server.plugins.module_utils.cloud_dns.aws import Route53
from ansible_collections.onprem.circleci_server.plugins.modules import cloud_dns
from ansible_collections.onprem.circleci_server.tests.integration_cloud import azure, google
from ansible_collections.onprem.circleci_server.tests.integration_cloud.azure import Azure
from ansible_collections.onprem.circleci_server.tests.integration_cloud.digitalocean import DigitalOcean
from ansible_collections.onprem.circleci_server.tests.integration_cloud.google import Google
from ansible_collections.onprem.circleci_server.tests.integration_cloud.standin import TOKEN, Refused, running
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module

DOMAIN, APP, STORE = "ci.example.com", "app.ci.example.com", "store.example.com"
BALANCER = ["192.0.2.100"]


def names(**changed: Any) -> list[dict[str, Any]]:
    given = {DOMAIN: BALANCER, APP: BALANCER, STORE: ["192.0.2.10", "192.0.2.11", "2001:db8::10"], **changed}
    return [{"name": name, "values": values, "needed": name in (DOMAIN, APP)} for name, values in given.items() if values is not None]


class Account(ABC):
    """The module against one stand-in. C(state) and C(theirs) have one shape for all clouds: name, type, values, TTL."""

    zone = ""

    def __init__(self, standin: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.standin, self.capsys = standin, capsys

    provider = ""

    def set(self, records: list[dict[str, Any]], *, check: bool = False, **changed: Any) -> dict[str, Any]:
        options = {"provider": self.provider, "site": "osaka", "region": "westeurope", "token": TOKEN, "endpoint": self.standin.url, "zone": self.zone}
        return run_module(cloud_dns, self.capsys, check=check, **{**options, "records": records, **changed})

    @abstractmethod
    def state(self) -> dict[tuple[str, str], tuple[list[str], int]]:
        """What others see, without marks."""

    @abstractmethod
    def theirs(self, name: str, kind: str, *values: str) -> None:
        """Somebody makes a record; the name is relative to the zone."""

    @abstractmethod
    def spoil(self, name: str, kind: str, value: str) -> None:
        """Somebody changes a record of ours: its value, and its TTL."""


class OnGoogle(Account):
    provider, zone = "gcp", "projects/example-project/managedZones/example-zone"

    def state(self) -> dict[tuple[str, str], tuple[list[str], int]]:
        return {(item["name"], item["type"]): (item["rrdatas"], item["ttl"]) for item in self.standin.dns.sets if item["type"] in ("A", "AAAA", "CNAME")}

    def theirs(self, name: str, kind: str, *values: str) -> None:
        self.standin.dns.add(f"{name}.example.com.", kind, list(values))

    def spoil(self, name: str, kind: str, value: str) -> None:
        (item,) = [item for item in self.standin.dns.sets if (item["name"], item["type"]) == (f"{name}.example.com.", kind)]
        item.update(rrdatas=[value], ttl=60)


class OnAzure(Account):
    provider, kind = "azure", "dnsZones"

    @property
    def zone(self) -> str:  # type: ignore[override]
        return f"{azure.NETWORK}/providers/Microsoft.Network/{self.kind}/example.com"

    @property
    def words(self) -> tuple[str, str, str]:
        return ("ARecords", "AAAARecords", "TTL") if self.kind == "dnsZones" else ("aRecords", "aaaaRecords", "ttl")

    def state(self) -> dict[tuple[str, str], tuple[list[str], int]]:
        four, six, ttl = self.words
        found = {}
        for (name, kind), item in self.standin.dns.sets[self.kind].items():
            properties = item["properties"]
            values = [value for field in (four, six) for entry in properties.get(field, []) for value in entry.values()]
            cname = properties.get("CNAMERecord") or properties.get("cnameRecord")
            found[f"{name}.example.com.", kind] = values or ([f"{cname['cname']}."] if cname else []), properties[ttl]
        return found

    def theirs(self, name: str, kind: str, *values: str) -> None:
        four, six, ttl = self.words
        key = {"A": "ipv4Address", "AAAA": "ipv6Address"}
        data: dict[str, Any] = {{"A": four, "AAAA": six}[kind]: [{key[kind]: value} for value in values]} if kind in key else {}
        if kind == "CNAME":
            data = {"CNAMERecord" if self.kind == "dnsZones" else "cnameRecord": {"cname": values[0]}}
        self.standin.dns.add(self.kind, kind, name, **data, **{ttl: 300})

    def spoil(self, name: str, kind: str, value: str) -> None:
        properties = self.standin.dns.sets[self.kind][name, kind]["properties"]
        properties.update({self.words[0]: [{"ipv4Address": value}], self.words[2]: 60})


class OnPrivateAzure(OnAzure):
    kind = "privateDnsZones"


class OnDigitalOcean(Account):
    provider, zone = "digitalocean", "example.com"

    def state(self) -> dict[tuple[str, str], tuple[list[str], int]]:
        found: dict[tuple[str, str], tuple[list[str], int]] = {}
        for item in self.standin.records:
            if item["type"] in ("A", "AAAA", "CNAME"):
                dot = "." if item["type"] == "CNAME" else ""
                found.setdefault((f"{item['name']}.example.com.", item["type"]), ([], item["ttl"]))[0].append(f"{item['data']}{dot}")
        return found

    def theirs(self, name: str, kind: str, *values: str) -> None:
        for value in values:
            self.standin.record(kind, name, value.rstrip("."))

    def spoil(self, name: str, kind: str, value: str) -> None:
        (item,) = [item for item in self.standin.records if (item["name"], item["type"]) == (name, kind)]
        item.update(data=value, ttl=60)


KINDS: dict[str, tuple[type[Account], Any]] = {
    "google": (OnGoogle, Google), "azure": (OnAzure, Azure), "private azure": (OnPrivateAzure, Azure), "digitalocean": (OnDigitalOcean, DigitalOcean),
}  # fmt: skip


@pytest.fixture(params=KINDS)
def account(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    kind, standin = KINDS[request.param]
    with running(standin()) as made:
        yield kind(made, capsys)


def sorted_state(account: Account) -> dict[tuple[str, str], tuple[list[str], int]]:
    return {key: (sorted(values), ttl) for key, (values, ttl) in account.state().items()}


WANTED = {
    ("ci.example.com.", "A"): (BALANCER, 300), ("app.ci.example.com.", "A"): (BALANCER, 300),
    ("store.example.com.", "A"): (["192.0.2.10", "192.0.2.11"], 300), ("store.example.com.", "AAAA"): (["2001:db8::10"], 300),
}  # fmt: skip


def test_names_are_set_once_changed_and_taken_away(account: Account) -> None:
    account.theirs("www", "A", "198.51.100.1")
    theirs = sorted_state(account)
    check = account.set(names(), check=True)
    assert check["changed"] and account.standin.writes == 0 and len(check["changes"]) == 4, check
    made = account.set(names())
    assert made["changes"] == check["changes"] and made["diff"] == check["diff"], made
    assert sorted_state(account) == {**theirs, **WANTED}
    written = account.standin.writes
    assert not account.set(names())["changed"] and not account.set(names(), check=True)["changed"] and account.standin.writes == written
    # One address less, and another balancer.
    moved = names(**{DOMAIN: ["192.0.2.101"], APP: ["192.0.2.101"], STORE: ["192.0.2.10"]})
    check = account.set(moved, check=True)
    assert "store.example.com AAAA 2001:db8::10" in check["diff"]["before"] and "AAAA" not in check["diff"]["after"]
    assert account.set(moved)["changes"] == check["changes"] and not account.set(moved)["changed"]
    assert sorted_state(account) == {
        **theirs, ("ci.example.com.", "A"): (["192.0.2.101"], 300), ("app.ci.example.com.", "A"): (["192.0.2.101"], 300),
        ("store.example.com.", "A"): (["192.0.2.10"], 300)}  # fmt: skip
    # A name that is gone from the site goes, too; one that leads nowhere yet stays.
    found = account.set(names(**{DOMAIN: [], APP: ["192.0.2.101"], STORE: None}))
    assert found["changes"] == ["not any more: store.example.com A 192.0.2.10"], found
    assert any("ci.example.com gets no record" in text for text in found["notes"])
    assert sorted_state(account) == {**theirs, ("ci.example.com.", "A"): (["192.0.2.101"], 300), ("app.ci.example.com.", "A"): (["192.0.2.101"], 300)}


def test_what_somebody_did_to_a_record_of_ours_is_shown_and_set_back(account: Account) -> None:
    account.set(names(**{STORE: None}))
    account.spoil("ci", "A", "203.0.113.9")
    check = account.set(names(**{STORE: None}), check=True)
    assert "ci.example.com A 203.0.113.9 (TTL 60)" in check["diff"]["before"] and "ci.example.com A 192.0.2.100\n" in check["diff"]["after"], check
    assert account.set(names(**{STORE: None}))["changed"] and sorted_state(account)["ci.example.com.", "A"] == (BALANCER, 300)


def test_records_of_others_are_left_or_refused(account: Account) -> None:
    account.theirs("ci", "A", "192.0.2.100")
    account.theirs("app.ci", "A", "203.0.113.1")
    account.theirs("store", "CNAME", "elsewhere.example.net.")
    before = copy.deepcopy(account.state())
    found = account.set(names())
    assert found["failed"] and account.standin.writes == 0 and account.state() == before, found
    assert "app.ci.example.com A 203.0.113.1 is there and was not made by this collection" in found["msg"]
    assert found["msg"].count("store.example.com CNAME elsewhere.example.net is there and lacks the mark") == 2
    # What says the same already is neither made ours nor taken away later.
    run = account.set(names(**{APP: None, STORE: None}))
    assert not run["changed"] and account.set([])["changed"] is False and sorted_state(account)["ci.example.com.", "A"] == (BALANCER, 300)


def test_two_sites_in_one_zone(account: Account) -> None:
    account.set(names(**{STORE: None}))
    assert account.set([{"name": "ci2.example.com", "values": BALANCER, "needed": True}], site="kobe")["changed"]
    assert not account.set(names(**{STORE: None}))["changed"]
    found = account.set(names(**{STORE: None}), site="kobe")
    assert found["failed"] and "belongs to the site 'osaka', this one is 'kobe'" in found["msg"]
    assert len(account.set([], site="kobe")["changes"]) == 1 and sorted_state(account) == {key: WANTED[key] for key in list(WANTED)[:2]}


def test_a_balancer_that_has_only_a_name(account: Account) -> None:
    target = "example-0123.elb.us-west-2.amazonaws.com"
    given = names(**{DOMAIN: [target], APP: [target], STORE: None})
    assert account.set(given)["changed"] and not account.set(given)["changed"]
    assert account.state()["app.ci.example.com.", "CNAME"] == ([f"{target}."], 300)
    # And back to an address, for which the CNAME makes room.
    assert account.set(names(**{STORE: None}))["changed"] and not account.set(names(**{STORE: None}))["changed"]
    assert sorted_state(account) == {key: WANTED[key] for key in list(WANTED)[:2]}
    found = account.set([{"name": "example.com", "values": [target], "needed": True}])
    assert found["failed"] and "is the top of its zone, where DNS has no CNAME" in found["msg"]


def test_names_outside_of_the_zone(account: Account) -> None:
    found = account.set([{"name": "ci.example.net", "values": BALANCER, "needed": True}])
    assert found["failed"] and "ci.example.net is not in the zone of example.com; name the zone that holds circleci_domain" in found["msg"]
    found = account.set([*names(**{STORE: None}), {"name": "store.example.net", "values": BALANCER}])
    assert found["changed"] and any("store.example.net is not in the zone of example.com" in text for text in found["notes"])


def test_a_wrong_token_rights_and_zones_are_told_and_the_same_command_goes_on(account: Account) -> None:
    found = account.set(names(), token="another canary")
    assert found["failed"] and "401" in found["msg"] and "another canary" not in found["msg"]
    account.standin.next_writes = [Refused(403, "forbidden", "Required permission is missing")]
    found = account.set(names())
    assert found["failed"] and "Required permission is missing" in found["msg"] and "HTTP 403" in found["msg"]
    assert account.set(names())["changed"] and sorted_state(account) == WANTED
    other = {"gcp": "projects/example-project/managedZones/other", "azure": account.zone.replace("example.com", "example.org"), "digitalocean": "example.org"}
    found = account.set(names(), zone=other[account.provider])
    assert found["failed"] and "not" in found["msg"]
    found = account.set(names(), zone="no zone")
    assert found["failed"] and "circleci_cloud_dns_zone is 'no zone'" in found["msg"]


def test_a_run_that_is_killed_between_mark_and_record_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with running(DigitalOcean()) as made:
        account = OnDigitalOcean(made, capsys)
        account.set(names(**{STORE: None}))
        # Only the marks are left, as after a run that is killed.
        made.records[:] = [item for item in made.records if item["type"] == "TXT"]  # type: ignore[attr-defined]
        assert account.set(names(**{STORE: None}))["changed"] and sorted_state(account) == {key: WANTED[key] for key in list(WANTED)[:2]}
        assert len(made.records) == 4  # type: ignore[attr-defined]
        made.records[:] = [item for item in made.records if item["type"] == "TXT"]  # type: ignore[attr-defined]
        found = account.set([])
        assert "ci.example.com A, of which only the mark is left" in found["diff"]["before"] and made.records == []  # type: ignore[attr-defined]


def test_what_changes_between_look_and_change_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    with running(Azure()) as made:
        account = OnAzure(made, capsys)
        account.set(names(**{STORE: None}))
        sets = made.dns.sets["dnsZones"]  # type: ignore[attr-defined]
        account.spoil("ci", "A", "203.0.113.9")
        kept = made.serve

        def between(method: str, *rest: Any) -> Any:
            if method == "PUT":
                sets["ci", "A"]["etag"] = "changed meanwhile"
            return kept(method, *rest)

        made.serve = between  # type: ignore[assignment, method-assign]
        found = account.set(names(**{STORE: None}))
        assert found["failed"] and "etag mismatch" in found["msg"]


def test_addresses_of_the_apis_are_named() -> None:
    assert endpoints("aws", "us-west-2", parts={"dns": ""})[:2] == ["https://ec2.us-west-2.amazonaws.com", "https://route53.amazonaws.com"]
    assert "https://sts.us-east-1.amazonaws.com" in endpoints("aws", "us-west-2", parts={"dns": ""})
    assert "https://route53.amazonaws.com.cn" in endpoints("aws", "cn-north-1", parts={"dns": ""})
    assert "https://route53.us-gov.amazonaws.com" in endpoints("aws", "us-gov-west-1", parts={"dns": ""})
    assert endpoints("gcp", "", token=True, parts={"dns": "", "object_storage": "https://storage.googleapis.com"}) == [
        "https://compute.googleapis.com", "https://storage.googleapis.com", "https://dns.googleapis.com"]  # fmt: skip
    assert endpoints("digitalocean", "", parts={"dns": ""}) == ["https://api.digitalocean.com"]
    with pytest.raises(CloudError, match="needs the id of the hosted zone"):
        Route53("example.com", "osaka", "us-west-2")
    assert google.NETWORK
