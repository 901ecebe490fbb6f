# SPDX-License-Identifier: GPL-3.0-or-later
"""Object storage by the verb cloud_prepare: S3 and Spaces as moto has them, Google Cloud and Azure as strict stand-ins."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.tests.integration_store.emulators import moto

from .aws import refusing
from .azure import Azure
from .digitalocean import DigitalOcean
from .google import Google
from .harness import PORTS, SECRET, Cloud
from .standin import TOKEN, running
from .test_aws import Aws

DATA, AGENTS = "example-circleci-data", "example-circleci-agents"
KEY = "arn:aws:kms:us-west-2:123456789012:key/00000000-0000-0000-0000-000000000000"
CLOSED = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Aws]:
    with moto(tmp_path) as found:
        keys = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
        variables = {"circleci_cloud_endpoint": found["endpoint"], "circleci_object_storage_endpoint": found["endpoint"], "circleci_cloud_object_storage": True,
                     "circleci_ports": PORTS}  # fmt: skip
        cloud = Aws(tmp_path, "eks", os.environ["MOTO_PYTHON"], variables, keys)
        cloud.moto = found["endpoint"]
        cloud.variables["circleci_cloud_network"] = cloud.ask("create_vpc", CidrBlock="192.0.2.0/24")["Vpc"]["VpcId"]
        yield cloud


def test_buckets_of_aws_check_run_again_and_repaired(aws: Aws) -> None:
    check = aws.run("--check")
    assert (check["code"], check["changed"]) == (0, 2), check["said"]
    assert check["endpoints"] == [[aws.moto, "http://169.254.169.254"]] and aws.ask("list_buckets", "s3")["Buckets"] == []
    run = aws.run(circleci_cloud_storage_key=KEY)
    assert (run["code"], run["changed"]) == (0, 2), run["said"]
    assert aws.ask("get_public_access_block", "s3", Bucket=DATA)["PublicAccessBlockConfiguration"] == CLOSED
    agents = aws.ask("get_public_access_block", "s3", Bucket=AGENTS)["PublicAccessBlockConfiguration"]
    assert agents == {**CLOSED, "BlockPublicPolicy": False, "RestrictPublicBuckets": False}
    policy = json.loads(aws.ask("get_bucket_policy", "s3", Bucket=AGENTS)["Policy"])
    assert [(item["Action"], item["Resource"]) for item in policy["Statement"]] == [(["s3:GetObject"], [f"arn:aws:s3:::{AGENTS}/*"])]

    def encryption(bucket: str) -> Any:
        (rule,) = aws.ask("get_bucket_encryption", "s3", Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        return rule["ApplyServerSideEncryptionByDefault"]

    assert encryption(DATA) == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    # Whoever has no credentials may use no key of KMS.
    assert encryption(AGENTS) == {"SSEAlgorithm": "AES256"}
    assert aws.ask("get_bucket_versioning", "s3", Bucket=DATA)["Status"] == "Enabled"
    assert aws.ask("get_bucket_tagging", "s3", Bucket=DATA)["TagSet"] == [{"Key": "onprem-circleci-site", "Value": "site"}]
    assert aws.ask("get_bucket_cors", "s3", Bucket=DATA)["CORSRules"][0]["AllowedOrigins"] == ["https://app.ci.eks.example.com"]
    for arguments in ((), ("--check",)):
        again = aws.run(*arguments, circleci_cloud_storage_key=KEY)
        assert (again["code"], again["changed"]) == (0, 0), again["said"]
    # Somebody opens the data, and tags the bucket for themselves.
    aws.ask("put_public_access_block", "s3", Bucket=DATA, PublicAccessBlockConfiguration={**CLOSED, "BlockPublicPolicy": False})
    aws.ask("put_bucket_tagging", "s3", Bucket=DATA, Tagging={"TagSet": [{"Key": "team", "Value": "theirs"}]})
    check, run = aws.run("--check", circleci_cloud_storage_key=KEY), aws.run(circleci_cloud_storage_key=KEY)
    assert run["last"]["changes"] == check["last"]["changes"] and f"bucket {DATA}: public access blocked, whatever a policy says" in run["last"]["changes"]
    assert f"bucket {DATA}: public access not blocked" in run["last"]["diff"]["before"]
    assert aws.ask("get_public_access_block", "s3", Bucket=DATA)["PublicAccessBlockConfiguration"] == CLOSED
    assert {tag["Key"] for tag in aws.ask("get_bucket_tagging", "s3", Bucket=DATA)["TagSet"]} == {"team", "onprem-circleci-site"}
    # The site finds nothing left to make, and another site is refused.
    found = aws.run(circleci_domain="ci.other.example", circleci_cloud_storage_key=KEY)
    assert found["code"] == 2 and found["last"]["msg"].count("belongs to the site 'ci.eks.example.com'") == 2


def test_buckets_of_others_and_refusals_of_aws_are_told(aws: Aws) -> None:
    other = "arn:aws:iam::222222222222:role/other"
    aws.ask("create_bucket", "s3", other, Bucket=DATA, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    found = aws.run()
    assert found["code"] == 2 and f"bucket {DATA} is there, but in an account or a project of somebody else" in found["last"]["msg"], found["said"]
    assert [bucket["Name"] for bucket in aws.ask("list_buckets", "s3")["Buckets"]] == []
    aws.ask("delete_bucket", "s3", other, Bucket=DATA)
    with refusing(aws.moto) as between:
        aws.variables["circleci_object_storage_endpoint"] = between.url
        denied = "User is not authorized to perform: s3:PutBucketPolicy because public policies are blocked by the BlockPublicPolicy setting"
        for status, code, said, action, told in (
            (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.", "GET example-circleci-data list-type", "InvalidAccessKeyId"),
            (403, "AccessDenied", "Access Denied", "PUT example-circleci-data", "the key pair lacks the right for that"),
            (400, "IllegalLocationConstraintException", "The mars-1 location constraint is incompatible", "PUT example-circleci-data", "IllegalLocationConstraint"),
            (403, "AccessDenied", denied, "PUT example-circleci-agents policy", "the account forbids public access (Block Public Access at AWS"),
        ):
            head = [(403, "", "", "HEAD example-circleci-data")] if action.startswith("GET") else []
            between.next = [*head, (status, code, said, action)]
            found = aws.run()
            assert found["code"] == 2 and told in found["last"]["msg"] and between.next == [], found["said"]
        assert "Already done: bucket example-circleci-data; the same command goes on" in found["last"]["msg"]
        assert aws.run()["changed"] == 1 and aws.run()["changed"] == 0


def test_what_is_asked_for_is_checked_before_the_cloud_is_asked(aws: Aws) -> None:
    for variables, said in (
        ({"circleci_object_storage_bucket": "sthree-data"}, "AWS keeps names that begin with"),
        ({"circleci_object_storage_bucket": "Example"}, "3 to 63 lower-case letters"),
        ({"circleci_object_storage_kind": "versitygw_s3"}, "allowed with circleci_cloud_object_storage is aws_s3_irsa, aws_s3_keys"),
        ({"circleci_cloud_storage_key": "my key"}, "allowed is the ARN of a key or an alias of KMS"),
        ({"circleci_cloud_storage_sku": "Standard_LRS"}, "only Azure has storage accounts"),
        ({"circleci_cloud_object_storage": False, "circleci_cloud_storage_key": KEY}, "but circleci_cloud_object_storage is false"),
    ):
        found = aws.run(**variables)
        assert found["code"] == 2 and said in found["last"]["msg"], found["said"]
    aws.variables["circleci_cloud_object_storage"] = False
    assert aws.run()["changed"] == 1 and aws.ask("list_buckets", "s3")["Buckets"] == []


@pytest.mark.parametrize("example, standin", [("gke", Google), ("azure", Azure)])
def test_the_example_inventories_of_google_and_azure(tmp_path: Path, example: str, standin: type[Google | Azure]) -> None:
    account = standin()
    with running(account):
        variables = {"circleci_cloud_endpoint": account.url, "circleci_cloud_token": TOKEN, "circleci_cloud_object_storage": True, "circleci_ports": PORTS}
        asked = {"circleci_cloud_storage_sku": "Standard_LRS"} if example == "azure" else {"circleci_object_storage_endpoint": account.url}
        cloud = Cloud(tmp_path, example, sys.executable, {**variables, **asked}, {})
        check = cloud.run("--check")
        assert (check["code"], check["changed"], account.writes) == (0, 2, 0), check["said"]
        assert check["endpoints"] == [[account.url]]
        run = cloud.run()
        assert (run["code"], run["changed"]) == (0, 2) and run["last"]["changes"] == check["last"]["changes"], run["said"]
        written = account.writes
        assert cloud.run()["changed"] == cloud.run("--check")["changed"] == 0 and account.writes == written


def test_spaces_with_the_keys_of_the_site(tmp_path: Path) -> None:
    """moto stands for Spaces, too: what it has beside S3 is not asked for."""
    with running(DigitalOcean()) as account, moto(tmp_path) as spaces:
        variables = {"circleci_cloud_endpoint": account.url, "circleci_cloud_token": TOKEN, "circleci_cloud_object_storage": True, "circleci_ports": PORTS,
                     "circleci_object_storage_endpoint": spaces["endpoint"], "circleci_object_storage_secret_key": SECRET}  # fmt: skip
        with refusing(spaces["endpoint"]) as between:
            cloud = Cloud(tmp_path, "digitalocean", sys.executable, {**variables, "circleci_object_storage_endpoint": between.url}, {})
            check, run = cloud.run("--check"), cloud.run()
            assert (run["code"], run["changed"]) == (0, 2) and run["last"]["changes"] == check["last"]["changes"], run["said"]
            assert check["endpoints"] == [[account.url, between.url]]
            assert not [action for action in between.actions if action.endswith(("publicAccessBlock", "encryption", "tagging"))]
            assert cloud.run()["changed"] == 0
            found = cloud.run(circleci_object_storage_secret_key="")
            assert found["code"] == 2 and "Spaces takes no other credentials" in found["last"]["msg"]
