# SPDX-License-Identifier: GPL-3.0-or-later
"""The right to pull by the verb cloud_prepare: IAM of AWS as moto has it, the others as strict stand-ins."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.tests.integration_store.emulators import moto

from .aws import refusing
from .azure import Azure
from .digitalocean import DigitalOcean
from .google import Google
from .harness import PORTS, SECRET, Cloud
from .standin import TOKEN, StandIn, running
from .test_aws import Aws

ECR, POLICY = "123456789012.dkr.ecr.us-west-2.amazonaws.com", "arn:aws:iam::aws:policy/AmazonEC2ContainerRegistry"
CLUSTER = "bd5f5959-5e1e-4205-a714-a914373942af"


class Roles(Aws):
    """The same with roles of nodes."""

    def make(self, *names: str) -> None:
        trust = '{"Version": "2012-10-17", "Statement": []}'
        for name in names:
            self.ask("create_role", "iam", RoleName=name, AssumeRolePolicyDocument=trust)

    def attached(self, name: str) -> list[str]:
        return sorted(item["PolicyArn"] for item in self.ask("list_attached_role_policies", "iam", RoleName=name)["AttachedPolicies"])


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Roles]:
    with moto(tmp_path, MOTO_IAM_LOAD_MANAGED_POLICIES="true") as found:
        keys = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
        variables = {"circleci_cloud_endpoint": found["endpoint"], "circleci_ports": PORTS}
        cloud = Roles(tmp_path, "eks", os.environ["MOTO_PYTHON"], variables, keys)
        cloud.moto = found["endpoint"]
        cloud.variables["circleci_cloud_network"] = cloud.ask("create_vpc", CidrBlock="192.0.2.0/24")["Vpc"]["VpcId"]
        # The firewall is not what is tried here.
        assert cloud.run()["code"] == 0
        cloud.variables.update(circleci_cloud_registry_endpoint=found["endpoint"], circleci_cloud_registry_nodes=["nodes", "other-nodes"])
        yield cloud


def test_roles_of_aws_check_run_and_run_again(aws: Roles) -> None:
    aws.make("nodes", "other-nodes")
    # eksctl gives its node groups more than is needed; that is enough.
    aws.ask("attach_role_policy", "iam", RoleName="other-nodes", PolicyArn=f"{POLICY}ReadOnly")
    aws.ask("attach_role_policy", "iam", RoleName="nodes", PolicyArn="arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy")
    check = aws.run("--check")
    assert (check["code"], check["changed"]) == (0, 1) and check["endpoints"] == [[aws.moto, "http://169.254.169.254"]], check["said"]
    assert aws.attached("nodes") == ["arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy"]
    run = aws.run()
    assert (run["code"], run["changed"]) == (0, 1) and run["last"]["changes"] == check["last"]["changes"] and run["last"]["diff"] == check["last"]["diff"], run["said"]
    assert run["last"]["changes"] == [f"nodes may pull from {ECR} by AmazonEC2ContainerRegistryPullOnly"]
    assert aws.attached("nodes") == [f"{POLICY}PullOnly", "arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy"]
    assert aws.attached("other-nodes") == [f"{POLICY}ReadOnly"]
    assert aws.run()["changed"] == aws.run("--check")["changed"] == 0
    # A node group that is no longer named keeps its right, and without names nothing is asked for.
    assert aws.run(circleci_cloud_registry_nodes=["other-nodes"])["changed"] == 0 and f"{POLICY}PullOnly" in aws.attached("nodes")
    elsewhere = aws.run(circleci_registry_host="999999999999.dkr.ecr.us-west-2.amazonaws.com")
    assert elsewhere["code"] == 0 and "the policy of each repository there has to let that account pull, too" in elsewhere["last"]["notes"][0], elsewhere["said"]


def test_what_is_wrong_on_aws_is_told_and_the_same_command_goes_on(aws: Roles) -> None:
    found = aws.run()
    assert found["code"] == 2 and "there is no role 'nodes'" in found["last"]["msg"] and "there is no role 'other-nodes'" in found["last"]["msg"], found["said"]
    aws.make("nodes", "other-nodes")
    with refusing(aws.moto) as between:
        aws.variables["circleci_cloud_registry_endpoint"] = between.url
        for status, code, said, action in (
            (403, "AccessDenied", "User is not authorized to perform: iam:GetRole on resource: role nodes", "GetRole"),
            (409, "LimitExceeded", "Cannot exceed quota for PoliciesPerRole: 10", "AttachRolePolicy"),
        ):
            between.next = [(status, code, said, action)]
            found = aws.run()
            assert found["code"] == 2 and f"{said} ({code})" in found["last"]["msg"] and between.next == [], found["said"]
        assert aws.run()["changed"] == 1 and aws.run()["changed"] == 0
    for variables, said in (
        ({"circleci_cloud_registry_nodes": ["arn:aws:iam::123456789012:role/nodes"]}, "allowed are names of the IAM roles"),
        ({"circleci_registry_host": "registry.example.com:5000"}, "circleci_registry_host is registry.example.com, no registry of this cloud"),
        ({"circleci_cloud_registry": "x"}, "allowed is nothing: the policy holds for all registries of the account"),
        ({"circleci_cloud_registry_nodes": []}, "circleci_cloud_registry_nodes is empty; take it out, or name who is to pull"),
    ):
        found = aws.run(**variables)
        assert found["code"] == 2 and said in found["last"]["msg"], found["said"]


def _google(account: Any) -> dict[str, Any]:
    account.repositories.bind({"role": "roles/artifactregistry.writer", "members": ["user:builder@example.com"]})
    return {"circleci_cloud_registry": account.repositories.name, "circleci_registry_path": account.repositories.path, "circleci_cloud_registry_endpoint": account.url,
            "circleci_cloud_registry_nodes": ["nodes@example-project.iam.gserviceaccount.com"]}  # fmt: skip


def _azure(account: Any) -> dict[str, Any]:
    return {"circleci_registry_host": "examplecircleci.azurecr.io", "circleci_cloud_registry": account.registries.registry,
            "circleci_cloud_registry_nodes": [account.registries.cluster]}  # fmt: skip


def _digitalocean(account: Any) -> dict[str, Any]:
    account.clusters[CLUSTER] = False
    return {"circleci_registry_host": "registry.digitalocean.com", "circleci_cloud_registry_nodes": [CLUSTER]}


@pytest.mark.parametrize("example, standin, asks", [("gke", Google, _google), ("azure", Azure, _azure), ("digitalocean", DigitalOcean, _digitalocean)])
def test_the_right_in_the_example_inventories(tmp_path: Path, example: str, standin: Callable[[], StandIn], asks: Any) -> None:
    account = standin()
    with running(account):
        asked = {"circleci_cloud_endpoint": account.url, "circleci_cloud_token": TOKEN, "circleci_ports": PORTS, **asks(account)}
        cloud = Cloud(tmp_path, example, sys.executable, asked, {})
        check = cloud.run("--check")
        assert (check["code"], check["changed"], account.writes) == (0, 2, 0), check["said"]
        assert check["endpoints"] == [[account.url]]
        run = cloud.run()
        assert (run["code"], run["changed"]) == (0, 2) and run["last"]["changes"] == check["last"]["changes"], run["said"]
        assert len(run["last"]["changes"]) == 1 and "may pull from" in run["last"]["changes"][0]
        written = account.writes
        assert cloud.run()["changed"] == cloud.run("--check")["changed"] == 0 and account.writes == written
