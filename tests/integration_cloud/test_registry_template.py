# SPDX-License-Identifier: GPL-3.0-or-later
"""ECR that makes repositories on push, by the verb cloud_prepare: the firewall as moto has it, templates as a strict stand-in, since moto has none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.tests.integration_store.emulators import moto

from .ecr import Templates
from .harness import PORTS, SECRET
from .standin import Refused, running
from .test_aws import Aws

ECR = "123456789012.dkr.ecr.us-west-2.amazonaws.com"
ON_PUSH = "circleci_cloud_registry_create_on_push"


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[tuple[Aws, Templates]]:
    with moto(tmp_path) as found, running(Templates()) as ecr:
        assert isinstance(ecr, Templates)
        keys = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
        variables = {"circleci_cloud_endpoint": found["endpoint"], "circleci_ports": PORTS}
        cloud = Aws(tmp_path, "eks", os.environ["MOTO_PYTHON"], variables, keys)
        cloud.moto = found["endpoint"]
        cloud.variables["circleci_cloud_network"] = cloud.ask("create_vpc", CidrBlock="192.0.2.0/24")["Vpc"]["VpcId"]
        # The firewall is not what is tried here.
        assert (run := cloud.run())["code"] == 0, run["said"]
        cloud.variables.update({ON_PUSH: True, f"{ON_PUSH}_endpoint": ecr.url, "circleci_registry_path": "circleci-server"})
        yield cloud, ecr


def test_a_template_is_made_once_as_check_mode_said(aws: tuple[Aws, Templates]) -> None:
    cloud, ecr = aws
    # Of others, and more than one page of them.
    for prefix in ("a", "b", "circleci", "z"):
        ecr.add(prefix=prefix, appliedFor=["PULL_THROUGH_CACHE"])
    check = cloud.run("--check")
    assert (check["code"], check["changed"]) == (0, 1) and ecr.url in check["endpoints"][0] and "circleci-server" not in ecr.templates, check["said"]
    run = cloud.run()
    assert (run["code"], run["changed"]) == (0, 1) and run["last"]["changes"] == check["last"]["changes"] and run["last"]["diff"] == check["last"]["diff"], run["said"]
    assert run["last"]["changes"] == [f"{ECR} makes repositories below circleci-server on push"]
    made = ecr.templates["circleci-server"]
    assert made["appliedFor"] == ["CREATE_ON_PUSH"] and made["imageTagMutability"] == "MUTABLE" and "CircleCI Server" in made["description"]
    assert cloud.run()["changed"] == cloud.run("--check")["changed"] == 0
    assert ecr.operations.count("CreateRepositoryCreationTemplate") == 1
    # Without a path it is the template for all that have none of their own.
    whole = cloud.run(circleci_registry_path="")
    assert whole["last"]["changes"] == [f"{ECR} makes repositories of any name on push"] and "ROOT" in ecr.templates, whole["said"]
    # Not asked for, it stays.
    assert cloud.run(**{ON_PUSH: False, f"{ON_PUSH}_endpoint": ""})["changed"] == 0 and "circleci-server" in ecr.templates


def test_a_template_of_others_is_left_as_it_is(aws: tuple[Aws, Templates]) -> None:
    cloud, ecr = aws
    ecr.add(prefix="circleci-server", appliedFor=["PULL_THROUGH_CACHE"], imageTagMutability="IMMUTABLE")
    found = cloud.run()
    assert found["code"] == 2 and "is there and is not for pushes (PULL_THROUGH_CACHE)" in found["last"]["msg"], found["said"]
    assert "--prefix circleci-server --applied-for PULL_THROUGH_CACHE CREATE_ON_PUSH" in found["last"]["msg"]
    ecr.templates["circleci-server"]["appliedFor"].append("CREATE_ON_PUSH")
    found = cloud.run()
    assert (found["code"], found["changed"]) == (0, 0) and "whose tags cannot be moved" in found["last"]["notes"][0], found["said"]
    assert "CreateRepositoryCreationTemplate" not in ecr.operations


def test_what_is_wrong_is_told_and_the_same_command_goes_on(aws: tuple[Aws, Templates]) -> None:
    cloud, ecr = aws
    for refused, said in (
        (Refused(400, "AccessDeniedException", "not authorized to perform: ecr:DescribeRepositoryCreationTemplates"), "ecr:DescribeRepositoryCreationTemplates"),
        (Refused(400, "ValidationException", "the prefix is taken"), "the prefix is taken (ValidationException)"),
    ):
        ecr.next = [refused]
        found = cloud.run()
        assert found["code"] == 2 and said in found["last"]["msg"] and ecr.next == [], found["said"]
    ecr.account = "999999999999"
    found = cloud.run()
    assert found["code"] == 2 and "of the account 123456789012, the credentials are of 999999999999" in found["last"]["msg"] and not ecr.templates, found["said"]
    ecr.account = "123456789012"
    assert cloud.run()["changed"] == 1 and cloud.run()["changed"] == 0
    for variables, said in (
        ({"circleci_registry_host": "registry.example.com:5000"}, f"{ON_PUSH}: true, and circleci_registry_host is registry.example.com; only ECR"),
        ({ON_PUSH: False}, f"but {ON_PUSH} is false; take it out, or set that to true"),
    ):
        found = cloud.run(**variables)
        assert found["code"] == 2 and said in found["last"]["msg"], found["said"]
