# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any, cast

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3 import buckets
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.buckets import BucketWish
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.client import S3Client

OBJECTS = BucketWish("agents", "circleci_object_storage_agent_bucket", "ci.example.com", public_read=True)
LISTED = BucketWish("agents", "circleci_object_storage_agent_bucket", "ci.example.com", public_read=True, public_list=True)
ALL = ["arn:aws:s3:::agents", "arn:aws:s3:::agents/*"]


class Store:
    """A bucket with a policy, spelt as some store spells it."""

    def __init__(self, *statements: dict[str, Any]) -> None:
        self.statements = statements

    def bucket_exists(self, _bucket: str) -> bool:
        return True

    def bucket_policy(self, _bucket: str) -> dict[str, Any]:
        return {"Statement": list(self.statements)}

    def head(self, _bucket: str, _key: str) -> None:
        return None

    def state(self, wish: BucketWish) -> buckets.BucketState:
        client: Any = self
        return buckets.read_state(cast("S3Client", client), wish)


def allow(action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Principal": {"AWS": ["*"]}, "Action": action, "Resource": resource, **more}


@pytest.mark.parametrize("wish", [OBJECTS, LISTED])
def test_own_policy_is_recognised(wish: BucketWish) -> None:
    state = Store(*buckets.read_policy("agents", listing=wish.public_list)["Statement"]).state(wish)
    assert state.public_read and state.foreign_statements == []


@pytest.mark.parametrize(
    "statements",
    [
        [allow("s3:GetObject", "arn:aws:s3:::agents/*"), allow(["s3:ListBucket", "s3:GetBucketLocation"], ["arn:aws:s3:::agents"])],
        # MinIO's Azure gateway answers with one statement for all.
        [allow(["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"], ALL)],
    ],
)
def test_listed_bucket_is_recognised_however_it_is_spelt(statements: list[dict[str, Any]]) -> None:
    state = Store(*statements).state(LISTED)
    assert state.public_read and state.foreign_statements == []


@pytest.mark.parametrize(
    "statement",
    [
        allow(["s3:GetObject", "s3:PutObject"], "arn:aws:s3:::agents/*"),
        allow("s3:GetObject", "arn:aws:s3:::agents/some/*"),
        allow("s3:GetObject", "arn:aws:s3:::agents/*", Condition={"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}),
        {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::agents/*"},
        {"Effect": "Allow", "Principal": {"AWS": "someone"}, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::agents/*"},
    ],
)
def test_statement_of_somebody_else_is_kept_and_opens_nothing_of_ours(statement: dict[str, Any]) -> None:
    state = Store(statement).state(OBJECTS)
    assert not state.public_read and state.foreign_statements == [statement]


def test_objects_alone_are_not_enough_where_the_listing_is_wanted() -> None:
    assert not Store(allow("s3:GetObject", "arn:aws:s3:::agents/*")).state(LISTED).public_read
