# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb cloud_prepare with AWS as moto has it: an emulator that looks at no signature and no rights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.tests.integration_store.emulators import moto

from .aws import refusing
from .harness import NOMAD, PORTS, SECRET, Cloud

# Runs in the environment of moto, which has boto3.
ASK = """
import boto3, json, sys
session = dict(region_name="us-west-2", endpoint_url=sys.argv[1], aws_access_key_id="a", aws_secret_access_key="b")
if sys.argv[5]:
    role = boto3.client("sts", **session).assume_role(RoleArn=sys.argv[5], RoleSessionName="other")["Credentials"]
    session.update(aws_access_key_id=role["AccessKeyId"], aws_secret_access_key=role["SecretAccessKey"], aws_session_token=role["SessionToken"])
answer = getattr(boto3.client(sys.argv[2], **session), sys.argv[3])(**json.loads(sys.argv[4]))
print(json.dumps({name: value for name, value in answer.items() if name != "ResponseMetadata"}, default=str))
"""


class Aws(Cloud):
    """The same with moto behind it."""

    moto = ""

    def ask(self, call: str, service: str = "ec2", role: str = "", **arguments: Any) -> dict[str, Any]:
        """By boto3, past whatever stands before moto; with a role in the name of another account."""
        words = [self.python, "-c", ASK, self.moto, service, call, json.dumps(arguments), role]
        return dict(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))

    def groups(self) -> dict[str, Any]:
        filters = [{"Name": "vpc-id", "Values": [self.variables["circleci_cloud_network"]]}]
        return {group["GroupName"]: group for group in self.ask("describe_security_groups", Filters=filters)["SecurityGroups"]}


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Aws]:
    with moto(tmp_path) as found:
        keys = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
        variables = {"circleci_cloud_endpoint": found["endpoint"], "circleci_cloud_region": "us-west-2"}
        cloud = Aws(tmp_path, "eks", os.environ["MOTO_PYTHON"], variables, keys)
        cloud.moto = found["endpoint"]
        cloud.variables["circleci_cloud_network"] = cloud.ask("create_vpc", CidrBlock="192.0.2.0/24")["Vpc"]["VpcId"]
        yield cloud


def opened(group: dict[str, Any]) -> set[tuple[str, int, int, str]]:
    return {
        (permission["IpProtocol"], permission.get("FromPort", 0), permission.get("ToPort", 0), source.get("CidrIp") or source["CidrIpv6"])
        for permission in group["IpPermissions"]
        for source in permission["IpRanges"] + permission["Ipv6Ranges"]
    }


def test_aws_check_run_again_and_less(aws: Aws) -> None:
    before = aws.groups()
    check = aws.run("--check", circleci_ports=PORTS)
    assert (check["code"], check["changed"]) == (0, 1), check["said"]
    assert check["endpoints"] == [[aws.variables["circleci_cloud_endpoint"], "http://169.254.169.254"]]
    assert aws.groups() == before
    run = aws.run(circleci_ports=PORTS)
    assert (run["code"], run["changed"]) == (0, 1), run["said"]
    assert run["last"]["changes"] == check["last"]["changes"] and run["last"]["diff"] == check["last"]["diff"]
    assert opened(aws.groups()[NOMAD]) == {
        ("tcp", 22, 22, "192.0.2.10/32"), ("tcp", 22, 22, "203.0.113.0/28"), ("tcp", 4647, 4647, "192.0.2.128/26"),
        ("tcp", 64535, 65535, "198.51.100.0/24"), ("tcp", 64535, 65535, "2001:db8:1::/48"),
    }  # fmt: skip
    again = aws.run(circleci_ports=PORTS)
    assert (again["code"], again["changed"]) == (0, 0), again["said"]
    less = aws.run(circleci_ports={**PORTS, "administrators": []})
    assert less["changed"] == 1 and "tcp 22 from 203.0.113.0/28" in less["last"]["diff"]["before"]
    assert ("tcp", 22, 22, "203.0.113.0/28") not in opened(aws.groups()[NOMAD])


def test_aws_leaves_rules_and_groups_of_others(aws: Aws) -> None:
    aws.run(circleci_ports=PORTS)
    group = aws.groups()[NOMAD]["GroupId"]
    foreign = {"IpProtocol": "tcp", "FromPort": 9100, "ToPort": 9100, "IpRanges": [{"CidrIp": "198.51.100.9/32", "Description": "monitoring"}]}
    aws.ask("authorize_security_group_ingress", GroupId=group, IpPermissions=[foreign])
    other = aws.ask("create_security_group", GroupName="other", Description="other", VpcId=aws.variables["circleci_cloud_network"])["GroupId"]
    aws.ask("authorize_security_group_ingress", GroupId=other, IpPermissions=[foreign])
    kept = aws.groups()["other"]
    assert aws.run(circleci_ports=PORTS)["changed"] == 0
    assert aws.run(circleci_ports={**PORTS, "administrators": []})["changed"] == 1
    assert ("tcp", 9100, 9100, "198.51.100.9/32") in opened(aws.groups()[NOMAD])
    assert aws.groups()["other"] == kept


def test_aws_sets_back_what_somebody_changed_in_a_rule_of_ours(aws: Aws) -> None:
    aws.run(circleci_ports=PORTS)
    group = aws.groups()[NOMAD]
    (source,) = [item for permission in group["IpPermissions"] for item in permission["IpRanges"] if item["CidrIp"] == "203.0.113.0/28"]
    for call, port, network in (("revoke", 22, "203.0.113.0/28"), ("authorize", 22, "0.0.0.0/0")):
        rule = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": network, "Description": source["Description"]}]}
        aws.ask(f"{call}_security_group_ingress", GroupId=group["GroupId"], IpPermissions=[rule])
    check = aws.run("--check", circleci_ports=PORTS)
    assert check["changed"] == 1 and "tcp 22 from 0.0.0.0/0" in check["last"]["diff"]["before"] and "tcp 22 from 203.0.113.0/28" in check["last"]["diff"]["after"]
    assert aws.run(circleci_ports=PORTS)["last"]["changes"] == check["last"]["changes"]
    assert opened(aws.groups()[NOMAD]) == opened(group)


def test_aws_refuses_a_group_of_somebody_else(aws: Aws) -> None:
    aws.ask("create_security_group", GroupName=NOMAD, Description="theirs", VpcId=aws.variables["circleci_cloud_network"])
    before = aws.groups()
    found = aws.run(circleci_ports=PORTS)
    assert found["code"] == 2 and "lacks the mark" in found["last"]["msg"]
    assert aws.groups() == before


def test_aws_refusals_are_told_in_its_words_and_the_same_command_goes_on(aws: Aws) -> None:
    with refusing(aws.moto) as between:
        aws.variables["circleci_cloud_endpoint"] = between.url
        for status, code, said, action in (
            (401, "AuthFailure", "AWS was not able to validate the provided access credentials", "DescribeSecurityGroups"),
            (403, "UnauthorizedOperation", "You are not authorized to perform this operation.", "CreateSecurityGroup"),
            (400, "RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached.", "AuthorizeSecurityGroupIngress"),
        ):
            between.next = [(status, code, said, action)]
            found = aws.run(circleci_ports=PORTS)
            assert found["code"] == 2 and f"{said} ({code})" in found["last"]["msg"] and between.next == [], found["said"]
        between.next, between.actions = [(503, "RequestLimitExceeded", "Request limit exceeded.", "")] * 2, []
        run = aws.run(circleci_ports=PORTS)
        assert (run["code"], run["changed"], between.next) == (0, 1, []), run["said"]
        assert between.actions[:3] == ["DescribeSecurityGroups"] * 3
        assert aws.run(circleci_ports=PORTS)["changed"] == 0


def test_aws_says_what_it_lacks(aws: Aws) -> None:
    aws.environment = {}
    assert "no credentials" in aws.run(circleci_ports=PORTS)["last"]["msg"]
    assert "circleci_cloud_network" in aws.run(circleci_ports=PORTS, circleci_cloud_network="")["last"]["msg"]
    aws.python = sys.executable
    assert "boto3 is missing" in aws.run(circleci_ports=PORTS)["last"]["msg"]
