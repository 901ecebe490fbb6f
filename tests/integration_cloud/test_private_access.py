# SPDX-License-Identifier: GPL-3.0-or-later
"""Private ways to the object storage by the verb cloud_prepare: AWS as moto has it, Azure as a strict stand-in."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.tests.integration_store.emulators import moto

from . import azure
from .azure import Azure
from .harness import PORTS, SECRET, Cloud
from .standin import TOKEN, running
from .test_aws import Aws


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Aws]:
    with moto(tmp_path) as found:
        keys = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
        cloud = Aws(tmp_path, "eks", os.environ["MOTO_PYTHON"], {"circleci_cloud_endpoint": found["endpoint"], "circleci_ports": PORTS}, keys)
        cloud.moto = found["endpoint"]
        cloud.variables["circleci_cloud_network"] = cloud.ask("create_vpc", CidrBlock="192.0.2.0/24")["Vpc"]["VpcId"]
        assert cloud.run()["code"] == 0
        yield cloud


def endpoints(aws: Aws) -> list[dict[str, Any]]:
    return list(aws.ask("describe_vpc_endpoints")["VpcEndpoints"])


def test_the_gateway_endpoint_of_aws(aws: Aws) -> None:
    vpc = aws.variables["circleci_cloud_network"]
    first, second, third = (str(aws.ask("create_route_table", VpcId=vpc)["RouteTable"]["RouteTableId"]) for _number in range(3))
    # Somebody else has one for a table already.
    aws.ask("create_vpc_endpoint", VpcId=vpc, ServiceName="com.amazonaws.us-west-2.s3", VpcEndpointType="Gateway", RouteTableIds=[third])
    asked: dict[str, Any] = {"circleci_cloud_storage_private_access": [first, third]}
    check = aws.run("--check", **asked)
    assert (check["code"], check["changed"]) == (0, 1) and len(endpoints(aws)) == 1, check["said"]
    run = aws.run(**asked)
    assert (run["code"], run["changed"]) == (0, 1) and run["last"]["changes"] == check["last"]["changes"], run["said"]
    (ours,) = [item for item in endpoints(aws) if item["Tags"]]
    assert ours["RouteTableIds"] == [first] and {"Key": "onprem-circleci-site", "Value": "site"} in ours["Tags"] and ours["VpcEndpointType"] == "Gateway"
    assert aws.run(**asked)["changed"] == aws.run("--check", **asked)["changed"] == 0
    moved = aws.run(circleci_cloud_storage_private_access=[second, third])
    assert moved["changed"] == 1 and any(f"not any more: route table {first}" in line for line in moved["last"]["changes"]), moved["said"]
    assert [item["RouteTableIds"] for item in endpoints(aws) if item["Tags"]] == [[second]] and len(endpoints(aws)) == 2
    for variables, said in (
        ({"circleci_cloud_storage_private_access": ["vpc-1"]}, "allowed is ids of route tables"),
        ({**asked, "circleci_object_storage_region": "eu-west-1"}, "leads to no bucket of eu-west-1"),
        ({**asked, "circleci_object_storage_kind": "versitygw_s3"}, "do not lie in this cloud"),
        ({"circleci_cloud_storage_private_zone": "x"}, "only Azure has such a zone"),
    ):
        found = aws.run(**variables)
        assert found["code"] == 2 and said in found["last"]["msg"], found["said"]


def test_account_containers_and_private_endpoint_of_azure_in_one_run(tmp_path: Path) -> None:
    account = Azure()
    with running(account):
        asked = {
            "circleci_cloud_endpoint": account.url, "circleci_cloud_token": TOKEN, "circleci_ports": PORTS, "circleci_cloud_object_storage": True,
            "circleci_cloud_storage_sku": "Standard_LRS", "circleci_cloud_storage_private_zone": account.private.zone,
            "circleci_cloud_storage_private_access": [f"{azure.NETWORK}/providers/Microsoft.Network/virtualNetworks/example/subnets/nodes"],
        }  # fmt: skip
        cloud = Cloud(tmp_path, "azure", sys.executable, asked, {})
        check = cloud.run("--check")
        # The account that the endpoint leads to is made by the same run.
        assert (check["code"], check["changed"], account.writes) == (0, 3, 0), check["said"]
        run = cloud.run()
        assert (run["code"], run["changed"]) == (0, 3) and run["last"]["changes"] == check["last"]["changes"], run["said"]
        written = account.writes
        assert cloud.run()["changed"] == 0 and account.writes == written and len(account.private.things) == 4
