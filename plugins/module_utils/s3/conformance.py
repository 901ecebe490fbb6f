# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a store can and cannot do, found out by doing it. Leaves nothing behind."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Optional

from .client import Response, S3Client, S3Error
from .google import GoogleClient
from .signature import Credentials, timestamp

PREFIX = "onprem-circleci/probe"
PART = 5 << 20
"""The smallest part that S3 allows before the last one."""

REQUIRED = (
    "put_get",
    "head",
    "list",
    "delete",
    "range",
    "presigned_get",
    "presigned_put",
    "presigned_signature_checked",
    "presigned_expiry",
    "anonymous_refused",
)
"""What the product needs in its default mode, with presigned URLs."""


@dataclass(frozen=True)
class Result:
    """One question and its answer; ``works`` is None where the question does not arise."""

    name: str
    title: str
    works: Optional[bool]
    evidence: str
    required: bool

    def as_dict(self) -> dict[str, object]:
        return {"name": self.name, "title": self.title, "works": self.works, "evidence": self.evidence, "required": self.required}

    def line(self) -> str:
        answer = {True: "yes", False: "NO", None: "–"}[self.works]
        return f"{self.title:<44} {answer:<4} {self.evidence}"


class _No(Exception):
    """The answer is no; the text is the evidence."""


class _NotAsked(Exception):
    """The question does not arise."""


class Conformance:
    """All checks against one data bucket and the bucket of the agents, or the server that has them instead."""

    def __init__(self, client: S3Client, credentials: Credentials, bucket: str, agent_bucket: str = "", served: Optional[S3Client] = None) -> None:
        self.client = client
        self.credentials = credentials
        self.bucket = bucket
        self.agent_bucket = agent_bucket
        self.served = served
        self.prefix = f"{PREFIX}/{secrets.token_hex(8)}"
        self._keys: list[tuple[str, str]] = []
        self.data = b"onprem.circleci_server conformance\n" * 40

    def run(self, required: tuple[str, ...] = REQUIRED) -> list[Result]:
        results = []
        try:
            for name, title, check in self._checks():
                works: Optional[bool]
                try:
                    works, evidence = True, check()
                except _No as no:
                    works, evidence = False, str(no)
                except _NotAsked as no:
                    works, evidence = None, str(no)
                except S3Error as error:
                    if error.status == 0 and error.code == "":
                        raise
                    works, evidence = False, f"{error.status} {error.code}".strip()
                results.append(Result(name, title, works, evidence, name in required))
        finally:
            self.clean()
        return results

    def clean(self) -> None:
        for bucket, key in self._keys:
            # What cannot be deleted is reported by the check of deletion.
            with contextlib.suppress(S3Error):
                self.client.delete(bucket, key)
        self._keys.clear()
        with contextlib.suppress(S3Error):
            if self.client.versioning(self.bucket):
                self.client.delete_versions(self.bucket, f"{self.prefix}/")

    def _checks(self) -> list[tuple[str, str, Callable[[], str]]]:
        return [
            ("put_get", "write and read an object", self.put_get),
            ("head", "size and metadata of an object", self.head),
            ("range", "read a part of an object", self.range),
            ("list", "list by prefix, in pages", self.list),
            ("odd_keys", "keys with spaces, plus signs, umlauts", self.odd_keys),
            ("copy", "copy inside the store", self.copy),
            ("delete", "delete an object", self.delete),
            ("multipart", "multipart upload", self.multipart),
            ("presigned_get", "presigned download", self.presigned_get),
            ("presigned_put", "presigned upload", self.presigned_put),
            ("presigned_signature_checked", "presigned URL with a wrong signature refused", self.presigned_wrong),
            ("presigned_expiry", "expired presigned URL refused", self.presigned_expired),
            ("presigned_method", "presigned download used for an upload refused", self.presigned_method),
            ("checksum_header", "checksum header of new SDKs (CRC32)", self.checksum_header),
            ("checksum_checked", "wrong checksum refused", self.checksum_checked),
            ("trailer_checksum", "checksum as a trailer (SDKs over https)", self.trailer),
            ("conditional_put", "write only if absent", self.conditional),
            ("versioning", "versioned objects (Docker layer caching)", self.versioning),
            ("single_put_limit", "largest object with presigned URLs", self.single_put_limit),
            ("browsers", "other web origins kept out (CORS)", self.browsers),
            ("anonymous_refused", "data bucket closed without credentials", self.anonymous_refused),
            ("anonymous_agents", "agents readable without credentials", self.anonymous_agents),
            ("anonymous_agents_scope", "agents neither listable nor writable", self.anonymous_scope),
        ]

    def _key(self, name: str, bucket: str = "") -> str:
        key = f"{self.prefix}/{name}"
        self._keys.append((bucket or self.bucket, key))
        return key

    def _put(self, name: str, data: Optional[bytes] = None) -> str:
        key = self._key(name)
        self.client.put(self.bucket, key, self.data if data is None else data)
        return key

    def _same(self, body: bytes, wanted: bytes, what: str) -> None:
        if body != wanted:
            raise _No(f"{what} gave {len(body)} other bytes")

    def put_get(self) -> str:
        key = self._put("plain")
        self._same(self.client.get(self.bucket, key).body, self.data, "reading")
        return f"{len(self.data)} bytes"

    def head(self) -> str:
        key = self._key("head")
        self.client.put(self.bucket, key, self.data, headers={"x-amz-meta-sha256": "0f", "content-type": "text/x-probe"})
        found = self.client.head(self.bucket, key)
        if found is None or found.header("content-length") != str(len(self.data)):
            raise _No("no or wrong size")
        if found.header("x-amz-meta-sha256") != "0f":
            raise _No("metadata are lost")
        md5 = hashlib.md5(self.data, usedforsecurity=False).hexdigest()
        return "ETag is the MD5" if found.header("etag").strip('"') == md5 else "ETag is not the MD5"

    def range(self) -> str:
        key = self._put("range")
        response = self.client.get(self.bucket, key, headers={"range": "bytes=10-19"})
        if response.status != 206:
            raise _No(f"answers {response.status}")
        self._same(response.body, self.data[10:20], "the range")
        return "206"

    def list(self) -> str:
        keys = [self._put(f"list/{number}", b"x") for number in range(3)]
        found = [entry.key for entry in self.client.list(self.bucket, f"{self.prefix}/list/", page=2)]
        if sorted(found) != sorted(keys):
            raise _No(f"{len(found)} of 3 keys")
        return "3 keys in 2 pages"

    def odd_keys(self) -> str:
        names = ["odd/with space", "odd/plus+sign", "odd/ümlaut", "odd/per%cent", "odd/a=b&c"]
        for name in names:
            key = self._put(name, name.encode())
            self._same(self.client.get(self.bucket, key).body, name.encode(), repr(name))
        found = {entry.key for entry in self.client.list(self.bucket, f"{self.prefix}/odd/")}
        lost = [name for name in names if f"{self.prefix}/{name}" not in found]
        if lost:
            raise _No(f"the listing lacks {', '.join(lost)}")
        return f"{len(names)} keys"

    def copy(self) -> str:
        key = self._put("copy-source")
        target = self._key("copy-target")
        self.client.copy(self.bucket, key, target)
        self._same(self.client.get(self.bucket, target).body, self.data, "the copy")
        return f"{len(self.data)} bytes"

    def delete(self) -> str:
        key = self._put("delete")
        self.client.delete(self.bucket, key)
        if self.client.head(self.bucket, key) is not None:
            raise _No("the object is still there")
        return "gone"

    def multipart(self) -> str:
        key = self._key("multipart")
        upload = self.client.start_upload(self.bucket, key)
        first, last = secrets.token_bytes(PART), b"the end"
        try:
            etags = [self.client.upload_part(self.bucket, key, upload, number, data) for number, data in enumerate((first, last), 1)]
            self.client.finish_upload(self.bucket, key, upload, etags)
        except S3Error:
            with contextlib.suppress(S3Error):
                self.client.abort_upload(self.bucket, key, upload)
            raise
        self._same(self.client.get(self.bucket, key).body, first + last, "the object")
        return "2 parts, 5 MiB and 7 bytes"

    def presigned_get(self) -> str:
        key = self._put("presigned get")
        response = self.client.open_url("GET", self.client.presign("GET", self.bucket, key, 60))
        if response.status != 200:
            raise _No(f"{response.status} {response.code}".strip())
        self._same(response.body, self.data, "the URL")
        return "signature version 4"

    def presigned_put(self) -> str:
        key = self._key("presigned-put")
        response = self.client.open_url("PUT", self.client.presign("PUT", self.bucket, key, 60), body=self.data)
        if response.status != 200:
            raise _No(f"{response.status} {response.code}".strip())
        self._same(self.client.get(self.bucket, key).body, self.data, "the object")
        return "one PUT, 5 GB at most"

    def presigned_wrong(self) -> str:
        key = self._put("presigned-wrong")
        wrong = Credentials(self.credentials.access_key, self.credentials.secret_key + "x", self.credentials.region)
        response = self.client.open_url("GET", self.client.presign("GET", self.bucket, key, 60, credentials=wrong))
        return self._refused(response, "the store does not check signatures: whoever reaches it reads everything")

    def _refused(self, response: Response, otherwise: str) -> str:
        if response.status < 400:
            raise _No(otherwise)
        return f"{response.status} {response.code}".strip()

    def presigned_expired(self) -> str:
        key = self._put("presigned-expired")
        old = timestamp(datetime.now(timezone.utc) - timedelta(minutes=5))
        response = self.client.open_url("GET", self.client.presign("GET", self.bucket, key, 60, when=old))
        if response.status < 400:
            raise _No("the URL still works four minutes after its end")
        return f"{response.status} {response.code}".strip()

    def presigned_method(self) -> str:
        key = self._put("presigned-method")
        response = self.client.open_url("PUT", self.client.presign("GET", self.bucket, key, 60), body=b"other")
        if response.status < 400:
            raise _No("a URL for reading allows writing")
        return f"{response.status} {response.code}".strip()

    def _crc32(self, data: bytes) -> str:
        return b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()

    def checksum_header(self) -> str:
        key = self._key("checksum")
        headers = {"x-amz-checksum-crc32": self._crc32(self.data), "x-amz-sdk-checksum-algorithm": "CRC32"}
        self.client.put(self.bucket, key, self.data, headers=headers)
        return "accepted"

    def checksum_checked(self) -> str:
        key = self._key("checksum-wrong")
        response = self.client.send("PUT", f"/{self.bucket}/{key}", headers={"x-amz-checksum-crc32": self._crc32(b"other")}, body=self.data)
        if response.status < 400:
            raise _No("the header is ignored")
        return f"{response.status} {response.code}".strip()

    def trailer(self) -> str:
        key = self._key("trailer")
        crc = self._crc32(self.data)
        body = f"{len(self.data):x}\r\n".encode() + self.data + f"\r\n0\r\nx-amz-checksum-crc32:{crc}\r\n\r\n".encode()
        headers = {
            "content-encoding": "aws-chunked",
            "x-amz-trailer": "x-amz-checksum-crc32",
            "x-amz-decoded-content-length": str(len(self.data)),
        }
        response = self.client.send("PUT", f"/{self.bucket}/{key}", headers=headers, body=body, payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER")
        if response.status != 200:
            raise _No(f"{response.status} {response.code}".strip())
        self._same(self.client.get(self.bucket, key).body, self.data, "the object")
        return "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

    def conditional(self) -> str:
        key = self._put("conditional")
        response = self.client.send("PUT", f"/{self.bucket}/{key}", headers={"if-none-match": "*"}, body=b"other")
        if response.status < 400:
            raise _No("If-None-Match is ignored, the object is overwritten")
        return f"{response.status} {response.code}".strip()

    def versioning(self) -> str:
        if not self.client.versioning(self.bucket):
            raise _NotAsked("not switched on for the data bucket")
        key = self._put("versioned")
        self.client.put(self.bucket, key, b"second")
        found = self.client.head(self.bucket, key)
        if found is None or not found.header("x-amz-version-id"):
            raise _No("objects have no version")
        return "on"

    def single_put_limit(self) -> str:
        """Nothing of that size is written; it is what a single PUT has by the definition of S3."""
        raise _NotAsked("5 GB: one PUT for each artifact, cache and workspace; not tried")

    def browsers(self) -> str:
        key = self._put("browsers")
        wire = {"origin": "https://probe.invalid", "access-control-request-method": "GET"}
        response = self.client.send("OPTIONS", f"/{self.bucket}/{key}", headers=wire, signed=False)
        allowed = response.header("access-control-allow-origin")
        if response.status < 400 and allowed:
            raise _No(f"pages of {'every origin' if allowed == '*' else 'any origin'} may use presigned URLs")
        return f"{response.status} without an allowed origin"

    def anonymous_refused(self) -> str:
        key = self._put("anonymous")
        answers = {
            "read": self.client.anonymous("GET", self.bucket, key).status,
            "list": self.client.anonymous("GET", self.bucket, query={"list-type": "2"}).status,
            "write": self.client.anonymous("PUT", self.bucket, self._key("anonymous-put"), body=b"x").status,
        }
        opened = [name for name, status in answers.items() if status < 400]
        if opened:
            raise _No(f"everybody may {', '.join(opened)}")
        return "read, list and write refused"

    def anonymous_agents(self) -> str:
        if self.served is not None:
            response = self.served.send("GET", "/release.txt", signed=False)
            if response.status != 200 or not response.body:
                raise _No(f"{self.served.endpoint}/release.txt answers {response.status}")
            return f"plain GET from {self.served.endpoint}"
        if not self.agent_bucket:
            raise _NotAsked("no bucket of agents")
        key = self._key("anonymous", self.agent_bucket)
        self.client.put(self.agent_bucket, key, self.data)
        response = self.client.anonymous("GET", self.agent_bucket, key)
        if response.status != 200:
            raise _No(f"{response.status} {response.code}".strip())
        self._same(response.body, self.data, "reading")
        return "plain GET"

    def anonymous_scope(self) -> str:
        if self.served is not None:
            answers = {
                "listed": self.served.send("GET", "/", signed=False).status,
                "written": self.served.send("PUT", f"/{secrets.token_hex(8)}", signed=False).status,
            }
            return self._closed(answers)
        if not self.agent_bucket:
            raise _NotAsked("no bucket of agents")
        answers = {
            "listed": self.client.anonymous("GET", self.agent_bucket, query={"list-type": "2"}).status,
            "written": self.client.anonymous("PUT", self.agent_bucket, self._key("anonymous-put", self.agent_bucket), body=b"x").status,
        }
        return self._closed(answers)

    def _closed(self, answers: Mapping[str, int]) -> str:
        opened = [name for name, status in answers.items() if status < 400]
        if opened:
            raise _No(f"everybody may have it {' and '.join(opened)}")
        return "list and write refused"


class GoogleConformance(Conformance):
    """The same questions where Google has an answer of its own: no checksum headers and parts of S3."""

    _of_s3 = ("multipart", "checksum_header", "checksum_checked", "trailer_checksum", "conditional_put")

    def _checks(self) -> list[tuple[str, str, Callable[[], str]]]:
        signs = isinstance(self.client, GoogleClient) and self.client.signs
        return [
            (name, title, self._own if name in self._of_s3 else self._unsigned if name.startswith("presigned") and not signs else check)
            for name, title, check in super()._checks()
        ]

    def _unsigned(self) -> str:
        raise _NotAsked("this host has no key of a service account to sign with")

    def _own(self) -> str:
        raise _NotAsked("a question to S3; Google has calls of its own")

    def presigned_wrong(self) -> str:
        key = self._put("presigned-wrong")
        url = self.client.presign("GET", self.bucket, key, 60, credentials=self.credentials)
        return self._refused(self.client.open_url("GET", url), "the store does not check signatures: whoever reaches it reads everything")


def conformance_of(client: S3Client, credentials: Credentials, bucket: str, agent_bucket: str = "", served: Optional[S3Client] = None) -> Conformance:
    """The checks that fit the interface which *client* speaks."""
    kind = GoogleConformance if isinstance(client, GoogleClient) else Conformance
    return kind(client, credentials, bucket, agent_bucket, served)


def table(results: list[Result]) -> list[str]:
    """The results for people."""
    return [result.line() for result in results]
