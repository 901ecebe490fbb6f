# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores of clouds, as far as emulators go: what each cannot show stands beside the check."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.client import S3Client, S3Error
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.google import GoogleClient, ServiceAccount
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.signature import Credentials
from ansible_collections.onprem.circleci_server.plugins.modules import (
    object_storage_agents,
    object_storage_buckets,
    object_storage_probe,
)
from ansible_collections.onprem.circleci_server.plugins.plugin_utils import object_storage
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module
from ansible_collections.onprem.circleci_server.tests.unit.helpers.registry_stub import Stub

from .conftest import RELEASE, bring_release, keep
from .emulators import Google, google, moto

BUCKETS: dict[str, Any] = {"site": "ci.site.example", "bucket": "example-data", "agent_bucket": "example-agents"}
MOTO_CANNOT = {"presigned_signature_checked", "presigned_expiry", "presigned_method", "checksum_checked", "anonymous_refused", "anonymous_agents_scope"}
"""moto looks at no signature and no checksum, and lets everybody list and write; only reads follow the policy."""


class Cloud:
    """The modules of the role against one emulator."""

    def __init__(self, options: dict[str, Any], registry: Stub, capsys: pytest.CaptureFixture[str]) -> None:
        self.options, self.registry, self.capsys = options, registry, capsys

    def module(self, module: Any, *, check: bool = False, **more: Any) -> dict[str, Any]:
        return run_module(module, self.capsys, check=check, **{**self.options, **more})

    def buckets(self, **more: Any) -> dict[str, Any]:
        return self.module(object_storage_buckets, **{**BUCKETS, **more})

    def agents(self, version: str, **more: Any) -> dict[str, Any]:
        found = object_storage.agent_objects(Catalog.load(), RELEASE, bring_release(self.registry, version))
        login: dict[str, Any] = {"registry": self.registry.host, "username": "site", "password": "secret-password", "plain_http": True}
        return self.module(object_storage_agents, bucket="example-agents", objects=found["objects"], texts=found["texts"], **login, **more)

    def probe(self, name: str = "", behind: str = "", blind: str = "") -> dict[str, Any]:
        found = self.module(object_storage_probe, bucket="example-data", agent_bucket="example-agents")
        if name:
            keep(name, kind=name, behind=behind, level="emulator", blind=blind, results=found["results"], changes=["made"])
        return {"failed": found.get("failed", False), "msg": found.get("msg", ""), **{item["name"]: item["works"] for item in found["results"]}}


@pytest.fixture
def aws(tmp_path: Path, registry: Stub, capsys: pytest.CaptureFixture[str]) -> Iterator[Cloud]:
    with moto(tmp_path) as found:
        yield Cloud({"endpoint": found["endpoint"], "access_key": found["account"], "secret_key": found["key"], "region": "us-west-2"}, registry, capsys)


@pytest.fixture
def fake_google(tmp_path: Path) -> Iterator[Google]:
    with google(tmp_path) as found:
        yield found


@pytest.fixture
def gcs(fake_google: Google, registry: Stub, capsys: pytest.CaptureFixture[str]) -> Cloud:
    return Cloud({"endpoint": fake_google.endpoint, "speaks": "google", "service_account": fake_google.service_account}, registry, capsys)


# --- AWS ----------------------------------------------------------------------------------------------------------------


def test_buckets_of_aws_get_versions_expiry_and_origins_and_keep_rules_of_others(aws: Cloud) -> None:
    wish = {"versioning": True, "expiry_days": 90, "expiry_prefixes": ["artifacts/", "caches/"], "origins": ["https://app.ci.site.example"]}
    predicted = aws.buckets(check=True, **wish)
    made = aws.buckets(**wish)
    assert made["changed"] and made["changes"] == predicted["changes"], made
    assert "bucket example-data: objects below caches/ expire after 90 days" in made["changes"]
    assert not aws.buckets(**wish)["changed"]

    client = S3Client(aws.options["endpoint"], Credentials("a", "b", "us-west-2"))
    foreign = (
        b'<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule><ID>theirs</ID><Filter><Prefix>tmp/</Prefix></Filter>'
        b"<Status>Enabled</Status><Expiration><Days>3</Days></Expiration></Rule></LifecycleConfiguration>"
    )
    client.put_configuration("example-data", "lifecycle", foreign)
    again = aws.buckets(**{**wish, "expiry_days": 30})
    assert "bucket example-data: objects below caches/ expire after 30 days" in again["changes"], again
    kept = client.configuration("example-data", "lifecycle")
    assert b"theirs" in kept and b"caches/" in kept
    gone = aws.buckets(**{**wish, "expiry_days": 0, "origins": []})
    assert gone["changed"] and not aws.buckets(**{**wish, "expiry_days": 0, "origins": []})["changed"]
    kept = client.configuration("example-data", "lifecycle")
    assert b"theirs" in kept and b"onprem-circleci" not in kept
    assert client.configuration("example-data", "cors") == b""


def test_expiry_leaves_audit_logs_and_agents_alone(aws: Cloud) -> None:
    aws.buckets()
    client = S3Client(aws.options["endpoint"], Credentials("a", "b", "us-west-2"))
    for key in ("artifacts/1", "audit-logs/2026/1", "onprem-circleci/probe/1", "workspaces/1"):
        client.put("example-data", key, b"x")
    made = aws.buckets(expiry_days=7)
    assert made["changes"] == [f"bucket example-data: objects below {name}/ expire after 7 days" for name in ("artifacts", "workspaces")]
    assert client.configuration("example-agents", "lifecycle") == b""
    for prefix in ("", "audit-logs/", "audit", "audit-logs/2026/", "on"):
        refused = aws.buckets(expiry_days=7, expiry_prefixes=[prefix])
        assert refused["failed"] and "circleci_object_storage_expiry_prefixes" in refused["msg"] and "never expire" in refused["msg"]


def test_conformance_with_aws_is_right_but_for_what_moto_cannot_show(aws: Cloud) -> None:
    aws.buckets(versioning=True)
    assert aws.agents("1.0.1")["changed"] and not aws.agents("1.0.1")["changed"]
    seen = aws.probe("aws_s3_keys", "moto", "signatures, checksums, anonymous lists and writes: moto looks at none of them")
    plain = S3Client(aws.options["endpoint"], None)
    reads = {bucket: plain.anonymous("GET", bucket, ".onprem-circleci-site").status for bucket in ("example-data", "example-agents")}
    assert reads == {"example-data": 403, "example-agents": 200}
    assert {name for name, works in seen.items() if works is False and name not in ("failed", "msg")} <= MOTO_CANNOT | {"conditional_put", "browsers"}
    assert seen["failed"] and "does not check signatures" in seen["msg"], "moto has learned to check signatures: take this out"
    needed = ("put_get", "range", "list", "copy", "multipart", "presigned_get", "presigned_put", "anonymous_agents", "versioning")
    assert [name for name in needed if seen[name] is not True] == []


def test_bucket_that_another_site_has_claimed_is_refused(aws: Cloud) -> None:
    client = S3Client(aws.options["endpoint"], Credentials("a", "b", "us-west-2"))
    client.create_bucket("example-data")
    client.put("example-data", ".onprem-circleci-site", b"ci.other.example\n")
    found = aws.buckets()
    assert found["failed"] and "belongs to the site 'ci.other.example'" in found["msg"] and "cannot share" in found["msg"]


# --- Google -------------------------------------------------------------------------------------------------------------


def test_buckets_and_agents_of_google(gcs: Cloud, fake_google: Google) -> None:
    predicted = gcs.buckets(check=True, versioning=True)
    made = gcs.buckets(versioning=True)
    assert not made.get("failed"), made
    assert made["changed"] and made["changes"] == predicted["changes"]
    assert not gcs.buckets(versioning=True)["changed"]
    assert [row["role"] for row in fake_google.rights["example-agents"]["bindings"]] == ["roles/storage.legacyObjectReader"]
    brought = gcs.agents("1.0.1")
    assert brought["changed"] and brought["uploaded"][-1] == "release.txt", brought
    assert not gcs.agents("1.0.1")["changed"]
    assert gcs.agents("1.0.2")["uploaded"][-1] == "release.txt"
    plain = S3Client(fake_google.endpoint, None)
    assert plain.anonymous("GET", "example-agents", "release.txt").body == b"1.0.2\n"
    assert plain.anonymous("GET", "example-agents").status == plain.anonymous("GET", "example-data", ".onprem-circleci-site").status == 403


def test_conformance_with_google(gcs: Cloud) -> None:
    gcs.buckets(versioning=True)
    seen = gcs.probe("gcs_key", "fake-gcs-server", "tokens, rights of IAM and signed URLs are additions of the tests")
    assert not seen["failed"], seen["msg"]
    assert {name for name, works in seen.items() if works is None} == {
        "multipart", "checksum_header", "checksum_checked", "trailer_checksum", "conditional_put", "single_put_limit",
    }  # fmt: skip
    assert not [name for name, works in seen.items() if works is False and name not in ("failed", "browsers")], seen


def test_account_of_google_that_is_revoked_wrong_or_no_account_is_named(gcs: Cloud, fake_google: Google, tmp_path: Path) -> None:
    fake_google.revoked = True
    found = gcs.buckets()
    assert found["failed"] and "circleci_object_storage_service_account" in found["msg"] and "circleci@example-project" in found["msg"]
    fake_google.revoked = False
    for text in ("no json", "{}", json.dumps({**json.loads(fake_google.service_account), "private_key": "hidden-key"})):
        found = gcs.buckets(service_account=text)
        assert found["failed"] and "circleci_object_storage_service_account" in found["msg"] and "hidden-key" not in str(found)


def test_project_that_forbids_public_access_is_named(tmp_path: Path, registry: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    with google(tmp_path, prevention=True) as fake:
        cloud = Cloud({"endpoint": fake.endpoint, "speaks": "google", "service_account": fake.service_account}, registry, capsys)
        found = cloud.buckets()
        assert found["failed"] and "public access prevention" in found["msg"]


def test_bucket_of_google_that_another_site_has_claimed_is_refused_and_kept(gcs: Cloud, fake_google: Google) -> None:
    gcs.buckets()
    found = gcs.buckets(site="ci.other.example")
    assert found["failed"] and "cannot share" in found["msg"]
    assert not gcs.buckets(site="ci.other.example", state="absent")["changed"]
    assert gcs.buckets(state="absent")["changed"]
    assert not GoogleClient(fake_google.endpoint, ServiceAccount.parse(fake_google.service_account)).bucket_exists("example-data")


def test_identity_of_the_machine_fills_the_buckets_and_signs_nothing(gcs: Cloud, fake_google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{fake_google.port}")
    gcs.options["service_account"] = ""
    found = gcs.buckets()
    assert found["failed"] and "the project to make it in is unknown" in found["msg"]
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "example-project")
    assert gcs.buckets()["changed"] and not gcs.buckets()["changed"]
    assert gcs.agents("1.0.1")["uploaded"][-1] == "release.txt"
    seen = gcs.probe()
    assert not seen["failed"] and seen["presigned_get"] is None and seen["anonymous_refused"] is True, seen
    fake_google.revoked = True
    found = gcs.buckets()
    assert found["failed"] and "circleci_object_storage_service_account" in found["msg"]


def test_signing_without_a_key_is_refused_with_the_variable() -> None:
    with pytest.raises(S3Error, match="circleci_object_storage_service_account"):
        GoogleClient("http://127.0.0.1:1", None).presign("GET", "b", "k", 60)
