# SPDX-License-Identifier: GPL-3.0-or-later
"""Names by the verb cloud_prepare: Route 53 as moto has it, the others as strict stand-ins."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.tests.integration_store.emulators import moto

from . import azure
from .aws import refusing
from .azure import Azure
from .digitalocean import DigitalOcean
from .google import Google
from .harness import PORTS, SECRET, Cloud
from .standin import TOKEN, StandIn, running
from .test_aws import Aws

DOMAIN, APP = "ci.eks.example.com", "app.ci.eks.example.com"
BALANCER = {"circleci_load_balancer_address": "192.0.2.100"}


class Names(Aws):
    """The same with a hosted zone."""

    zone = ""

    def records(self) -> dict[tuple[str, str], list[str]]:
        found = self.ask("list_resource_record_sets", "route53", HostedZoneId=self.zone)["ResourceRecordSets"]
        return {(item["Name"].rstrip("."), item["Type"]): [value["Value"] for value in item.get("ResourceRecords", [])] for item in found if item["Type"] not in ("NS", "SOA")}

    def upsert(self, name: str, **more: Any) -> None:
        change = {"Action": "UPSERT", "ResourceRecordSet": {"Name": f"{name}.", "Type": "A", "TTL": 300, **more}}
        self.ask("change_resource_record_sets", "route53", HostedZoneId=self.zone, ChangeBatch={"Changes": [change]})


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Names]:
    with moto(tmp_path) as found:
        keys = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
        cloud = Names(tmp_path, "eks", os.environ["MOTO_PYTHON"], {"circleci_cloud_endpoint": found["endpoint"], "circleci_ports": PORTS}, keys)
        cloud.moto = found["endpoint"]
        cloud.zone = cloud.ask("create_hosted_zone", "route53", Name="eks.example.com", CallerReference="1")["HostedZone"]["Id"].rpartition("/")[2]
        cloud.variables.update(circleci_cloud_network=cloud.ask("create_vpc", CidrBlock="192.0.2.0/24")["Vpc"]["VpcId"], circleci_cloud_dns_zone=cloud.zone,
                               circleci_cloud_dns_endpoint=found["endpoint"])  # fmt: skip
        # The firewall is not what is tried here.
        assert cloud.run(circleci_cloud_dns_zone="", circleci_cloud_dns_endpoint="")["code"] == 0
        yield cloud


def test_names_of_aws_check_run_again_and_moved(aws: Names) -> None:
    check = aws.run("--check", **BALANCER)
    assert (check["code"], check["changed"]) == (0, 1) and check["endpoints"] == [[aws.moto, "http://169.254.169.254"]], check["said"]
    assert aws.records() == {}
    run = aws.run(**BALANCER)
    assert (run["code"], run["changed"]) == (0, 1) and run["last"]["changes"] == check["last"]["changes"], run["said"]
    mark = '"onprem.circleci_server site=site"'
    assert aws.records() == {
        (DOMAIN, "A"): ["192.0.2.100"], (APP, "A"): ["192.0.2.100"], (f"_onprem-circleci-a.{DOMAIN}", "TXT"): [mark], (f"_onprem-circleci-a.{APP}", "TXT"): [mark],
    }  # fmt: skip
    assert aws.run(**BALANCER)["changed"] == aws.run("--check", **BALANCER)["changed"] == 0
    # Without an address nobody knows where the names lead, and they stay.
    waits = aws.run()
    assert waits["changed"] == 0 and "app.ci.eks.example.com gets no record" in waits["said"] and len(aws.records()) == 4
    target = {"circleci_cloud_dns_target": "example-0123.elb.us-west-2.amazonaws.com"}
    moved = aws.run(**target)
    assert moved["changed"] == 1 and aws.records()[DOMAIN, "CNAME"] == [target["circleci_cloud_dns_target"]] and (DOMAIN, "A") not in aws.records(), moved["said"]
    assert aws.run(**target)["changed"] == 0 and len(aws.records()) == 4


def test_names_of_others_and_refusals_of_aws_are_told(aws: Names) -> None:
    aws.upsert(DOMAIN, ResourceRecords=[{"Value": "203.0.113.1"}])
    found = aws.run(**BALANCER)
    assert found["code"] == 2 and f"{DOMAIN} A 203.0.113.1 is there and was not made by this collection" in found["last"]["msg"], found["said"]
    assert aws.records() == {(DOMAIN, "A"): ["203.0.113.1"]}
    aws.upsert(DOMAIN, ResourceRecords=[{"Value": "192.0.2.100"}])
    run = aws.run(**BALANCER)
    assert run["last"]["changes"] == [f"{APP} A 192.0.2.100"] and (f"_onprem-circleci-a.{DOMAIN}", "TXT") not in aws.records(), run["said"]
    for zone, said in (("Z0000000000000000000", "AWS refused GetHostedZone"), ("eks.example.com", "allowed is the id of a hosted zone")):
        found = aws.run(**BALANCER, circleci_cloud_dns_zone=zone)
        assert found["code"] == 2 and said in found["last"]["msg"], found["said"]
    found = aws.run(**BALANCER, circleci_cloud_dns_target="example.elb.amazonaws.com")
    assert found["code"] == 2 and "allowed is one of them" in found["last"]["msg"]
    with refusing(aws.moto) as between:
        aws.variables["circleci_cloud_dns_endpoint"] = between.url
        between.next = [(403, "AccessDenied", "User is not authorized to perform: route53:ChangeResourceRecordSets", f"POST 2013-04-01/hostedzone/{aws.zone}/rrset")]
        found = aws.run(circleci_load_balancer_address="192.0.2.101", circleci_domain="new.eks.example.com")
        assert found["code"] == 2 and "route53:ChangeResourceRecordSets" in found["last"]["msg"] and between.next == [], found["said"]


ZONES = {
    "gke": (Google, {"circleci_cloud_dns_zone": "projects/example-project/managedZones/example-zone"}),
    "azure": (Azure, {"circleci_cloud_dns_zone": f"{azure.NETWORK}/providers/Microsoft.Network/privatednszones/example.com"}),
    "digitalocean": (DigitalOcean, {"circleci_cloud_dns_zone": "example.com", "circleci_load_balancer_address": "192.0.2.100"}),
}


@pytest.mark.parametrize("example", ZONES)
def test_the_names_of_the_example_inventories(tmp_path: Path, example: str) -> None:
    standin, variables = ZONES[example]
    account: StandIn = standin()
    with running(account):
        dns = {"circleci_cloud_dns_endpoint": account.url} if example == "gke" else {}
        asked = {"circleci_cloud_endpoint": account.url, "circleci_cloud_token": TOKEN, "circleci_ports": PORTS, **dns, **variables}
        cloud = Cloud(tmp_path, example, sys.executable, asked, {})
        check = cloud.run("--check")
        assert (check["code"], check["changed"], account.writes) == (0, 2, 0), check["said"]
        assert check["endpoints"] == [[account.url]]
        run = cloud.run()
        assert (run["code"], run["changed"]) == (0, 2) and run["last"]["changes"] == check["last"]["changes"], run["said"]
        wanted = {f"ci.{example}.example.com A 192.0.2.100", f"app.ci.{example}.example.com A 192.0.2.100"}
        # Some examples have hosts of their own for registry and store.
        wanted |= {f"registry.{example}.example.com A 192.0.2.11"} if example != "gke" else set()
        wanted |= {"store.azure.example.com A 192.0.2.31"} if example == "azure" else set()
        assert set(run["last"]["changes"]) == wanted, run["last"]
        written = account.writes
        assert cloud.run()["changed"] == 0 and account.writes == written
