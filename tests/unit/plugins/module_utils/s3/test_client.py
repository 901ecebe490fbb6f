# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.client import Response, S3Client, S3Error
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.signature import (
    EMPTY,
    Credentials,
    encode_path,
    presigned_query,
    sign_headers,
)

MOMENT = "20130524T000000Z"
KEYS = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
HOST = "examplebucket.s3.amazonaws.com"


def test_signature_is_that_of_the_published_example() -> None:
    headers = sign_headers(KEYS, "GET", HOST, "/test.txt", {}, {"Range": "bytes=0-9"}, EMPTY, MOMENT)
    assert headers["authorization"].endswith("Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")


def test_presigned_url_is_that_of_the_published_example() -> None:
    query = presigned_query(KEYS, "GET", HOST, "/test.txt", 86400, MOMENT)
    assert query["X-Amz-Signature"] == "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"


def test_signature_of_a_listing_is_that_of_the_published_example() -> None:
    headers = sign_headers(KEYS, "GET", HOST, "/", {"max-keys": "2", "prefix": "J"}, {}, EMPTY, MOMENT)
    assert headers["authorization"].endswith("Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")


def test_credentials_that_live_for_a_while_sign_their_token_as_botocore_does() -> None:
    keys = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-west-2", "session/token==")
    headers = sign_headers(keys, "GET", "s3.us-west-2.amazonaws.com", "/example-data", {"publicAccessBlock": ""}, {}, EMPTY, "20261127T120000Z")
    assert headers["x-amz-security-token"] == "session/token==" and "session/token" not in repr(keys)
    assert "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token," in headers["authorization"]
    assert headers["authorization"].endswith("Signature=46a7e330ca16b8f20446a8325a23c51b10953acb70ef51c5c9ba0bf246dccc6d")


def test_secret_key_does_not_show() -> None:
    assert KEYS.secret_key not in repr(KEYS)


def test_paths_are_encoded_as_signed() -> None:
    assert encode_path("/bucket/with space/ümlaut+1") == "/bucket/with%20space/%C3%BCmlaut%2B1"


@pytest.mark.parametrize("endpoint", ["store.example.com", "ftp://store.example.com", "", "https://store.example.com/path"])
def test_endpoint_that_is_no_origin_is_refused(endpoint: str) -> None:
    with pytest.raises(S3Error, match="circleci_object_storage_endpoint"):
        S3Client(endpoint, KEYS)


def test_authority_that_is_no_certificate_is_refused() -> None:
    with pytest.raises(S3Error, match="no PEM certificate"):
        S3Client("https://store.example.com", KEYS, ca_data="nothing")


@pytest.mark.parametrize(
    ("code", "variable"),
    [
        ("SignatureDoesNotMatch", "circleci_object_storage_secret_key"),
        ("InvalidAccessKeyId", "circleci_object_storage_access_key"),
        ("RequestTimeTooSkewed", "clocks"),
        ("BucketAlreadyExists", "another name"),
        ("InvalidBucketName", "3 to 63"),
        ("AuthorizationHeaderMalformed", "circleci_object_storage_region"),
    ],
)
def test_refusals_name_the_variable(code: str, variable: str) -> None:
    client = S3Client("http://store.example.com", KEYS)
    with pytest.raises(S3Error, match=variable) as refused:
        client.expect("writing", Response(403, {}, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()), 200)
    assert refused.value.code == code
    assert refused.value.status == 403


def test_answer_that_is_no_s3_is_shown_short() -> None:
    client = S3Client("http://store.example.com", KEYS)
    with pytest.raises(S3Error, match="502 to writing: bad gateway"):
        client.expect("writing", Response(502, {}, b"bad gateway" + b" " * 1000), 200)


class Denying(S3Client):
    """A store whose answer to everything is 403, as for a bucket of another account or one that must not be public."""

    def send(self, *_words: object, **_more: object) -> Response:
        return Response(403, {}, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")


def test_bucket_of_another_account_is_named_as_such() -> None:
    with pytest.raises(S3Error, match=r"bucket theirs on https://s3\.example\.com is there, but not ours.*choose another name"):
        Denying("https://s3.example.com", KEYS).bucket_exists("theirs")


def test_account_that_forbids_public_access_is_named_as_such() -> None:
    with pytest.raises(S3Error, match=r"refuses to open bucket agents.*forbids public access.*Block Public Access"):
        Denying("https://s3.example.com", KEYS).put_bucket_policy("agents", {"Statement": []})


class Versions(S3Client):
    """A store with one deleted object that it still keeps, or one that answers the question for versions otherwise."""

    def __init__(self, status: int = 200, body: bytes = b"") -> None:
        super().__init__("http://store.example.com", KEYS)
        self.answer = Response(status, {}, body)
        self.kept = [("a", "v1"), ("a", "v2")]

    def send(self, method: str, path: str, query: Mapping[str, str] | None = None, *_arguments: Any, **_more: Any) -> Response:
        if method == "DELETE":
            self.kept.remove((path.rpartition("/")[2], (query or {})["versionId"]))
            return Response(204, {}, b"")
        if self.answer.body or self.answer.status != 200:
            return self.answer
        listed = "".join(f"<Version><Key>{key}</Key><VersionId>{version}</VersionId></Version>" for key, version in self.kept)
        return Response(200, {}, f"<ListVersionsResult>{listed}</ListVersionsResult>".encode())


def test_versions_are_deleted() -> None:
    store = Versions()
    store.delete_versions("b")
    assert store.kept == []


@pytest.mark.parametrize(
    ("status", "body"),
    [(403, b"<Error><Code>AccessDenied</Code></Error>"), (500, b"<Error><Code>InternalError</Code></Error>"), (503, b""), (200, b"a page of a proxy")],
)
def test_versions_that_cannot_be_listed_are_not_taken_for_none(status: int, body: bytes) -> None:
    with pytest.raises(S3Error, match="versions of"):
        Versions(status, body).delete_versions("b")


@pytest.mark.parametrize(("status", "body"), [(501, b"<Error><Code>NotImplemented</Code></Error>"), (405, b""), (400, b"<Error><Code>NotImplemented</Code></Error>")])
def test_a_store_that_knows_no_versions_keeps_none(status: int, body: bytes) -> None:
    store = Versions(status, body)
    store.delete_versions("b")
    assert len(store.kept) == 2
