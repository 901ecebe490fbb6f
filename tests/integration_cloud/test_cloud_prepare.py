# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb cloud_prepare as an operator runs it: AWS as moto has it, DigitalOcean as a strict stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.onprem.circleci_server.tests.integration_store.emulators import moto

from .standin import TOKEN, StandIn, digitalocean

ROOT = Path(__file__).resolve().parents[2]
SECRET = "canary of the secret key"
# Runs in the environment of moto, which has boto3.
ASK = """
import boto3, json, sys
client = boto3.client("ec2", region_name="us-west-2", endpoint_url=sys.argv[1], aws_access_key_id="a", aws_secret_access_key="b")
answer = getattr(client, sys.argv[2])(**json.loads(sys.argv[3]))
print(json.dumps({name: value for name, value in answer.items() if name != "ResponseMetadata"}, default=str))
"""


class Cloud:
    """An inventory of ours in a cloud, and the verb run for it."""

    def __init__(self, folder: Path, example: str, python: str, variables: dict[str, Any], environment: dict[str, str]) -> None:
        self.folder, self.python, self.environment = folder, python, environment
        self.example, self.host = example, f"bastion.{example}.example.com"
        self.variables = variables

    def run(self, *arguments: str, **variables: Any) -> dict[str, Any]:
        # The platform variables come from the example inventory, so that what an operator copies is what is tried.
        overlay = self.folder / "overlay.yml"
        overlay.write_text(yaml.safe_dump({"circleci_sites": {"hosts": {self.host: {
            "ansible_connection": "local", "ansible_python_interpreter": self.python}}}}))  # fmt: skip
        words = [
            str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(ROOT / "inventories" / self.example), "-i", str(overlay),
            "onprem.circleci_server.cloud_prepare", "--diff", *arguments,
            "--extra-vars", json.dumps({**self.variables, **variables}),
        ]  # fmt: skip
        environment = {
            "HOME": str(self.folder), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "ANSIBLE_HOME": str(self.folder / ".ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT.parents[2]), "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl", "AWS_EC2_METADATA_DISABLED": "true",
            **self.environment,
        }  # fmt: skip
        done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=self.folder, env=environment)
        said = done.stdout + done.stderr
        assert TOKEN not in said and SECRET not in said
        events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        results = [event["hosts"][self.host] for event in events if event.get("hosts") and self.host in event["hosts"]]
        last = results[-1] if results else {}
        stats: dict[str, Any] = next((event["stats"][self.host] for event in reversed(events) if event.get("_event") == "v2_playbook_on_stats" and self.host in event["stats"]), {})
        return {"code": done.returncode, "changed": stats.get("changed"), "last": last, "said": said, "endpoints": [r["msg"] for r in results if isinstance(r.get("msg"), list)]}


@pytest.fixture
def account() -> Iterator[StandIn]:
    with digitalocean() as found:
        yield found


@pytest.fixture
def ocean(tmp_path: Path, account: StandIn) -> Cloud:
    return Cloud(tmp_path, "digitalocean", sys.executable, {"circleci_cloud_endpoint": account.url, "circleci_cloud_token": TOKEN}, {})


class Aws(Cloud):
    """The same with moto behind it."""

    def ask(self, call: str, **arguments: Any) -> dict[str, Any]:
        done = subprocess.run([self.python, "-c", ASK, self.variables["circleci_cloud_endpoint"], call, json.dumps(arguments)], check=True, capture_output=True, text=True)
        return dict(json.loads(done.stdout))

    def groups(self) -> dict[str, Any]:
        filters = [{"Name": "vpc-id", "Values": [self.variables["circleci_cloud_network"]]}]
        return {group["GroupName"]: group for group in self.ask("describe_security_groups", Filters=filters)["SecurityGroups"]}


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Aws]:
    with moto(tmp_path) as found:
        keys = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
        variables = {"circleci_cloud_endpoint": found["endpoint"], "circleci_cloud_region": "us-west-2"}
        cloud = Aws(tmp_path, "eks", os.environ["MOTO_PYTHON"], variables, keys)
        cloud.variables["circleci_cloud_network"] = cloud.ask("create_vpc", CidrBlock="192.0.2.0/24")["Vpc"]["VpcId"]
        yield cloud


NOMAD = "circleci-site-nomad-client"
PORTS: dict[str, Any] = {"kubernetes": ["192.0.2.128/26"], "users": ["198.51.100.0/24", "2001:db8:1::/48"], "administrators": ["203.0.113.0/28"]}


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
    assert check["endpoints"] == [[aws.variables["circleci_cloud_endpoint"]]]
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


def test_aws_refuses_a_group_of_somebody_else(aws: Aws) -> None:
    aws.ask("create_security_group", GroupName=NOMAD, Description="theirs", VpcId=aws.variables["circleci_cloud_network"])
    before = aws.groups()
    found = aws.run(circleci_ports=PORTS)
    assert found["code"] == 2 and "lacks the mark" in found["last"]["msg"]
    assert aws.groups() == before


def test_aws_says_what_it_lacks(aws: Aws) -> None:
    aws.environment = {}
    assert "no credentials" in aws.run(circleci_ports=PORTS)["last"]["msg"]
    assert "circleci_cloud_network" in aws.run(circleci_ports=PORTS, circleci_cloud_network="")["last"]["msg"]
    aws.python = sys.executable
    assert "boto3 is missing" in aws.run(circleci_ports=PORTS)["last"]["msg"]


def test_digitalocean_check_run_again_and_less(ocean: Cloud, account: StandIn) -> None:
    check = ocean.run("--check", circleci_ports=PORTS)
    assert (check["code"], check["changed"], account.writes) == (0, 1, 0), check["said"]
    assert check["endpoints"] == [[account.url]]
    run = ocean.run(circleci_ports=PORTS)
    assert (run["code"], run["changed"]) == (0, 1), run["said"]
    assert run["last"]["changes"] == check["last"]["changes"]
    found = account.named(NOMAD)
    assert found["tags"] == [NOMAD] and {"protocol": "tcp", "ports": "22", "sources": {"addresses": ["192.0.2.10/32", "203.0.113.0/28"]}} in found["inbound_rules"]
    written = account.writes
    again = ocean.run(circleci_ports=PORTS)
    assert (again["code"], again["changed"], account.writes) == (0, 0, written), again["said"]


def test_digitalocean_hands_back_what_others_bound(ocean: Cloud, account: StandIn) -> None:
    ocean.run(circleci_ports=PORTS)
    account.tags.add("theirs")
    ours = account.named(NOMAD)
    balancer = {"protocol": "tcp", "ports": "9100", "sources": {"load_balancer_uids": ["uid"]}}
    ours.update(droplet_ids=[7], tags=[NOMAD, "theirs"], inbound_rules=[*ours["inbound_rules"], balancer])
    theirs = {"id": "other", "name": "other", "inbound_rules": [balancer], "outbound_rules": [], "tags": ["theirs"], "droplet_ids": [7]}
    account.firewalls.append(json.loads(json.dumps(theirs)))
    assert ocean.run(circleci_ports={**PORTS, "administrators": []})["changed"] == 1
    found = account.named(NOMAD)
    assert (found["droplet_ids"], found["tags"]) == ([7], [NOMAD, "theirs"]) and balancer in found["inbound_rules"]
    assert "203.0.113.0/28" not in json.dumps(found)
    assert account.named("other") == theirs


def test_digitalocean_refusals(ocean: Cloud, account: StandIn) -> None:
    assert "no token" in ocean.run(circleci_ports=PORTS, circleci_cloud_token="")["last"]["msg"]
    assert "https:// is needed" in ocean.run(circleci_ports=PORTS, circleci_cloud_endpoint="http://198.51.100.1")["last"]["msg"]
    assert "HTTP 401" in ocean.run(circleci_ports=PORTS, circleci_cloud_token="wrong")["last"]["msg"]
    account.refuse_writes = True
    assert "HTTP 403" in ocean.run(circleci_ports=PORTS)["last"]["msg"]
    account.refuse_writes = False
    account.firewalls.append({"id": "x", "name": NOMAD, "inbound_rules": [], "outbound_rules": [], "tags": [], "droplet_ids": []})
    assert "lacks the mark" in ocean.run(circleci_ports=PORTS)["last"]["msg"]
    assert len(account.firewalls) == 1


@pytest.mark.parametrize("platform", ["gke", "azure", "generic"])
def test_a_cloud_that_is_not_set_is_refused_with_the_way_on(ocean: Cloud, account: StandIn, platform: str) -> None:
    found = ocean.run(circleci_ports=PORTS, circleci_platform=platform)
    assert found["code"] == 2 and "cloud-rules.csv" in found["said"] and account.calls == []


@pytest.mark.parametrize("users", [["10.0.0.1/24"], ["10.0.0.0/8", "10.1.0.0/16"], ["no network"]])
def test_wrong_networks_are_told_before_anything_is_asked(ocean: Cloud, account: StandIn, users: list[str]) -> None:
    found = ocean.run(circleci_ports={**PORTS, "users": users})
    assert found["code"] == 2 and "users" in found["said"] and account.calls == []
