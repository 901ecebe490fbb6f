# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cloud Storage of Google behind the methods of the S3 client, so that buckets, agents and the probe need no second engine.

It speaks the JSON interface with a token, and signs URLs with the key of a service account (GOOG4-RSA-SHA256). Needs the library cryptography.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, BinaryIO, Optional
from urllib.parse import quote, urlencode, urlsplit

from .client import Body, Entry, Response, S3Client, S3Error
from .protection import BLOCKED, BY_POLICY, CLOUD_KEYS, OPEN, Protection
from .signature import Credentials, encode_path, encode_query

try:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    HAS_CRYPTOGRAPHY = True
except ImportError:  # pragma: no cover
    HAS_CRYPTOGRAPHY = False

VARIABLE = "circleci_object_storage_service_account"
SCOPE = "https://www.googleapis.com/auth/devstorage.full_control"
METADATA = "http://metadata.google.internal"
READ_ROLE = "roles/storage.legacyObjectReader"
"""Opens objects without their listing."""
LIST_ROLE = "roles/storage.objectViewer"
EVERYBODY = "allUsers"


@dataclass(frozen=True)
class ServiceAccount:
    """The key file of a service account."""

    email: str
    project: str
    token_url: str
    key: Any = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> ServiceAccount:
        """Read the JSON that Google gives; a sentence when it is something else."""
        wrong = f"{VARIABLE}: found a value that is not shown; allowed is the JSON of a key of a service account"
        if not HAS_CRYPTOGRAPHY:
            raise S3Error("the Python library cryptography is missing on this host, and what is asked of Google is signed with it; install it there")
        try:
            data = json.loads(text)
        except ValueError as error:
            raise S3Error(f"{wrong}, and this is no JSON") from error
        missing = [name for name in ("client_email", "private_key", "project_id", "token_uri") if not (isinstance(data, dict) and data.get(name))]
        if missing:
            raise S3Error(f"{wrong}; {', '.join(missing)} is missing in it")
        try:
            key = serialization.load_pem_private_key(str(data["private_key"]).encode(), password=None)
        except (ValueError, TypeError) as error:
            raise S3Error(f"{wrong}; its private_key cannot be read") from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise S3Error(f"{wrong}; its private_key is no RSA key")
        return cls(str(data["client_email"]), str(data["project_id"]), str(data["token_uri"]), key)

    def sign(self, data: bytes) -> bytes:
        return bytes(self.key.sign(data, padding.PKCS1v15(), hashes.SHA256()))


def _b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def assertion(account: ServiceAccount, now: float) -> str:
    """The signed claim that is traded for a token (RFC 7523)."""
    claims = {"iss": account.email, "scope": SCOPE, "aud": account.token_url, "iat": int(now), "exp": int(now) + 3600}
    head = ".".join(_b64(json.dumps(part, separators=(",", ":")).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, claims))
    return f"{head}.{_b64(account.sign(head.encode()))}"


class _Joined(io.RawIOBase):
    """Bytes, a stream and bytes again as one body."""

    def __init__(self, head: bytes, body: BinaryIO, tail: bytes) -> None:
        super().__init__()
        self._head, self._body, self._tail = head, body, tail
        self._start = body.tell()
        self._parts: list[BinaryIO] = [io.BytesIO(head), body, io.BytesIO(tail)]

    def read(self, size: int = -1) -> bytes:
        while self._parts:
            data = self._parts[0].read(size)
            if data:
                return data
            self._parts.pop(0)
        return b""

    def tell(self) -> int:
        return 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Only back to the beginning, which a connection that was closed meanwhile asks for."""
        self._body.seek(self._start)
        self._parts = [io.BytesIO(self._head), self._body, io.BytesIO(self._tail)]
        return 0


class GoogleClient(S3Client):
    """Buckets and objects of one endpoint, by the JSON interface."""

    def __init__(
        self,
        endpoint: str,
        account: Optional[ServiceAccount],
        *,
        ca_data: str = "",
        timeout: float = 30.0,
        location: str = "",
        project: str = "",
        token: Optional[Callable[[], str]] = None,
    ) -> None:
        """Without *account* the token is that of *token*, or that of the machine's own identity from Google's metadata server; no URL can be signed."""
        super().__init__(endpoint, None, ca_data=ca_data, timeout=timeout)
        self._account = account
        self._location = location
        self._project = project or (account.project if account else os.environ.get("GOOGLE_CLOUD_PROJECT", ""))
        self._given = token
        self._token, self._token_end = "", 0.0

    @property
    def signs(self) -> bool:
        """Whether URLs can be signed here."""
        return self._account is not None

    # --- tokens ---------------------------------------------------------------------------------------------------------

    def _bearer(self) -> str:
        if self._given is not None:
            return f"Bearer {self._given()}"
        if time.time() > self._token_end - 60:
            answer = self._ask_token()
            try:
                data = json.loads(answer.body)
                self._token, self._token_end = str(data["access_token"]), time.time() + float(data.get("expires_in", 3600))
            except (ValueError, KeyError, TypeError) as error:
                raise S3Error("the answer to the request for a token holds none; is that Google's token service?") from error
        return f"Bearer {self._token}"

    def _ask_token(self) -> Response:
        if self._account is None:
            where = os.environ.get("GCE_METADATA_HOST")
            client = S3Client(f"http://{where}" if where else METADATA, None, timeout=5)
            path = "/computeMetadata/v1/instance/service-accounts/default/token"
            answer = client.send("GET", path, headers={"metadata-flavor": "Google"}, signed=False)
            client.close()
            if answer.status != 200:
                raise S3Error(f"this host has no identity of Google's: its metadata server answered {answer.status}; set {VARIABLE}")
            return answer
        parts = urlsplit(self._account.token_url)
        client = S3Client(f"{parts.scheme}://{parts.netloc}", None)
        grant = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion(self._account, time.time())}
        answer = client.send(
            "POST", parts.path, headers={"content-type": "application/x-www-form-urlencoded"}, body=urlencode(grant).encode(), signed=False
        )
        client.close()
        if answer.status != 200:
            said = answer.body[:300].decode(errors="replace")
            hint = "the clock of this host is wrong" if b"Token must be a short-lived token" in answer.body else f"check {VARIABLE}; the key may be revoked"
            raise S3Error(f"{self._account.token_url} answered {answer.status} to {self._account.email}: {said}; {hint}", answer.status, "InvalidAccessKeyId")
        return answer

    # --- requests -------------------------------------------------------------------------------------------------------

    def _call(
        self,
        method: str,
        path: str,
        query: Optional[Mapping[str, str]] = None,
        document: Optional[Mapping[str, Any]] = None,
        *,
        headers: Optional[Mapping[str, str]] = None,
        body: Body = b"",
        length: Optional[int] = None,
        sink: Optional[BinaryIO] = None,
    ) -> Response:
        wire = {"host": self.host, "authorization": self._bearer(), **{name.lower(): value for name, value in (headers or {}).items()}}
        if document is not None:
            body = json.dumps(document).encode()
            wire["content-type"] = "application/json"
        size = len(body) if isinstance(body, bytes) else length or 0
        if size or method in ("PUT", "POST", "PATCH"):
            wire["content-length"] = str(size)
        text = encode_query(query or {})
        return self._exchange(method, path + (f"?{text}" if text else ""), wire, body, sink)

    def refused(self, what: str, response: Response) -> S3Error:
        """Errors of the JSON interface; those of URLs that everybody can use are XML."""
        try:
            error = json.loads(response.body)["error"]
            message, code = str(error.get("message", "")), str((error.get("errors") or [{}])[0].get("reason", ""))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return super().refused(what, response)
        hints = {401: f"check {VARIABLE}", 403: f"the service account lacks the right for that, or the organization forbids it; check {VARIABLE} and its roles"}
        if "ublic access prevention" in message:
            prevented = "the organization or the bucket enforces public access prevention, so that agents cannot be served from it: serve them elsewhere"
            hints[response.status] = prevented
        if response.status == 409 and "POST" not in what:
            hints[409] = "the bucket belongs to somebody else: choose another name"
        hint = hints.get(response.status, "")
        return S3Error(f"{self.endpoint} answered {response.status} to {what}: {message}{f'; {hint}' if hint else ''}", response.status, code)

    @staticmethod
    def _bucket(bucket: str) -> str:
        return f"/storage/v1/b/{quote(bucket, safe='')}"

    def _object(self, bucket: str, key: str) -> str:
        return f"{self._bucket(bucket)}/o/{quote(key, safe='')}"

    # --- buckets --------------------------------------------------------------------------------------------------------

    def bucket_exists(self, bucket: str) -> bool:
        response = self._call("GET", self._bucket(bucket))
        if response.status == 403:
            raise S3Error(
                f"bucket {bucket} on {self.endpoint} is there, but not ours: the service account may not use it; choose another name or ask its owner "
                "for the right",
                403,
                "AccessDenied",
            )
        return self.expect(f"asking for bucket {bucket}", response, 200, 404).status == 200

    def create_bucket(self, bucket: str) -> None:
        if not self._project:
            raise S3Error(f"bucket {bucket} is not there, and the project to make it in is unknown: make it before, or set {VARIABLE}, which names its project")
        wish: dict[str, Any] = {"name": bucket, "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}}}
        if self._location:
            wish["location"] = self._location
        self.expect(f"making bucket {bucket}", self._call("POST", "/storage/v1/b", {"project": self._project}, wish), 200)

    def _resource(self, bucket: str) -> dict[str, Any]:
        response = self.expect(f"reading the settings of bucket {bucket}", self._call("GET", self._bucket(bucket)), 200)
        return dict(json.loads(response.body))

    def protection(self, bucket: str, tag: str) -> Protection:
        found = self._resource(bucket)
        rights = found.get("iamConfiguration") or {}
        uniform = bool((rights.get("uniformBucketLevelAccess") or {}).get("enabled"))
        public = OPEN if not uniform else BLOCKED if rights.get("publicAccessPrevention") == "enforced" else BY_POLICY
        key = (found.get("encryption") or {}).get("defaultKmsKeyName")
        return Protection(public, str(key or CLOUD_KEYS), (tag, str((found.get("labels") or {}).get(tag, ""))))

    def protect(self, bucket: str, wish: Protection, now: Protection) -> None:
        change: dict[str, Any] = {}
        if wish.public != now.public:
            change["iamConfiguration"] = {
                "uniformBucketLevelAccess": {"enabled": True},
                "publicAccessPrevention": "enforced" if wish.public == BLOCKED else "inherited",
            }
        if wish.key != now.key:
            change["encryption"] = {"defaultKmsKeyName": None if wish.key == CLOUD_KEYS else wish.key}
        if wish.tag != now.tag:
            change["labels"] = {wish.tag[0]: wish.tag[1]}
        # A patch leaves what it does not name.
        self.expect(f"protecting bucket {bucket}", self._call("PATCH", self._bucket(bucket), None, change), 200)

    def owns(self, bucket: str) -> bool:
        query = {"project": self._project, "prefix": bucket}
        while True:
            data = json.loads(self.expect(f"listing the buckets of project {self._project}", self._call("GET", "/storage/v1/b", query), 200).body)
            if any(item.get("name") == bucket for item in data.get("items") or ()):
                return True
            if not data.get("nextPageToken"):
                return False
            query["pageToken"] = str(data["nextPageToken"])

    def delete_bucket(self, bucket: str) -> None:
        self.expect(f"deleting bucket {bucket}", self._call("DELETE", self._bucket(bucket)), 200, 204, 404)

    def _iam(self, bucket: str) -> dict[str, Any]:
        response = self._call("GET", f"{self._bucket(bucket)}/iam")
        found: dict[str, Any] = json.loads(self.expect(f"reading the rights on bucket {bucket}", response, 200).body)
        return found

    def bucket_policy(self, bucket: str) -> Optional[dict[str, Any]]:
        """What IAM opens for everybody, in the words of a policy of S3."""
        statements = []
        for binding in self._iam(bucket).get("bindings") or ():
            if EVERYBODY not in (binding.get("members") or ()):
                continue
            known = binding.get("role") in (READ_ROLE, LIST_ROLE) and not binding.get("condition")
            actions = ["s3:GetObject"] if known else [f"google:{binding.get('role')}"]
            statements.append({"Effect": "Allow", "Principal": "*", "Action": actions, "Resource": [f"arn:aws:s3:::{bucket}/*"]})
            if binding.get("role") == LIST_ROLE:
                listing = ["s3:GetBucketLocation", "s3:ListBucket"]
                statements.append({"Effect": "Allow", "Principal": "*", "Action": listing, "Resource": [f"arn:aws:s3:::{bucket}"]})
        return {"Statement": statements} if statements else None

    def put_bucket_policy(self, bucket: str, policy: Mapping[str, Any]) -> None:
        """Open objects for everybody; rights of others stay as they are."""
        listing = any("s3:ListBucket" in statement.get("Action", ()) for statement in policy.get("Statement", ()))
        role = LIST_ROLE if listing else READ_ROLE
        current = self._iam(bucket)
        same = [binding for binding in current.get("bindings") or () if binding.get("role") == role and not binding.get("condition")]
        bindings = [binding for binding in current.get("bindings") or () if binding not in same]
        members = {str(member) for binding in same for member in binding["members"]}
        wish = {**current, "bindings": [*bindings, {"role": role, "members": sorted(members | {EVERYBODY})}]}
        self.expect(f"opening bucket {bucket} for reading", self._call("PUT", f"{self._bucket(bucket)}/iam", None, wish), 200)

    def versioning(self, bucket: str) -> bool:
        response = self.expect(f"reading the versioning of bucket {bucket}", self._call("GET", self._bucket(bucket)), 200)
        return bool((json.loads(response.body).get("versioning") or {}).get("enabled"))

    def enable_versioning(self, bucket: str) -> None:
        response = self._call("PATCH", self._bucket(bucket), None, {"versioning": {"enabled": True}})
        self.expect(f"switching versioning on for bucket {bucket}", response, 200)

    # --- objects --------------------------------------------------------------------------------------------------------

    def head(self, bucket: str, key: str) -> Optional[Response]:
        response = self.expect(f"asking for {bucket}/{key}", self._call("GET", self._object(bucket, key)), 200, 404)
        if response.status == 404:
            return None
        data = json.loads(response.body)
        headers = {
            "content-length": str(data.get("size", "0")),
            "etag": str(data.get("etag", "")),
            "content-type": str(data.get("contentType", "")),
            "content-encoding": str(data.get("contentEncoding", "")),
            "x-amz-version-id": str(data.get("generation", "")),
        }
        return Response(200, {**headers, **{f"x-amz-meta-{name}": str(value) for name, value in (data.get("metadata") or {}).items()}}, b"")

    def get(self, bucket: str, key: str, *, headers: Optional[Mapping[str, str]] = None, sink: Optional[BinaryIO] = None) -> Response:
        response = self._call("GET", self._object(bucket, key), {"alt": "media"}, headers=headers, sink=sink)
        return self.expect(f"reading {bucket}/{key}", response, 200, 206)

    def put(
        self,
        bucket: str,
        key: str,
        body: Body,
        *,
        length: Optional[int] = None,
        sha256: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> Response:
        wanted = {name.lower(): value for name, value in (headers or {}).items()}
        kind = wanted.get("content-type", "application/octet-stream")
        metadata = {name[len("x-amz-meta-") :]: value for name, value in wanted.items() if name.startswith("x-amz-meta-")}
        about: dict[str, Any] = {"name": key, "contentType": kind}
        about.update({"metadata": metadata} if metadata else {})
        about.update({"contentEncoding": wanted["content-encoding"]} if "content-encoding" in wanted else {})
        boundary = secrets.token_hex(16)
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(about)}\r\n--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()
        )
        tail = f"\r\n--{boundary}--\r\n".encode()
        whole: Any = head + body + tail if isinstance(body, bytes) else _Joined(head, body, tail)
        size = len(whole) if isinstance(whole, bytes) else len(head) + int(length or 0) + len(tail)
        path = f"/upload{self._bucket(bucket)}/o"
        response = self._call(
            "POST", path, {"uploadType": "multipart"}, headers={"content-type": f"multipart/related; boundary={boundary}"}, body=whole, length=size
        )
        return self.expect(f"writing {bucket}/{key}", response, 200)

    def delete(self, bucket: str, key: str) -> None:
        self.expect(f"deleting {bucket}/{key}", self._call("DELETE", self._object(bucket, key)), 200, 204, 404)

    def copy(self, bucket: str, source: str, target: str) -> Response:
        path = f"{self._object(bucket, source)}/copyTo/b/{quote(bucket, safe='')}/o/{quote(target, safe='')}"
        return self.expect(f"copying {bucket}/{source}", self._call("POST", path), 200)

    def list(self, bucket: str, prefix: str = "", *, page: int = 1000) -> Iterator[Entry]:
        query = {"prefix": prefix, "maxResults": str(page)}
        while True:
            data = json.loads(self.expect(f"listing {bucket}", self._call("GET", f"{self._bucket(bucket)}/o", query), 200).body)
            for item in data.get("items") or ():
                yield Entry(str(item["name"]), int(item.get("size", 0)), str(item.get("etag", "")))
            if not data.get("nextPageToken"):
                return
            query["pageToken"] = str(data["nextPageToken"])

    def delete_versions(self, bucket: str, prefix: str = "") -> None:
        query = {"prefix": prefix, "versions": "true"}
        for _round in range(10_000):
            data = json.loads(self.expect(f"listing versions of {bucket}", self._call("GET", f"{self._bucket(bucket)}/o", query), 200).body)
            for item in data.get("items") or ():
                response = self._call("DELETE", self._object(bucket, str(item["name"])), {"generation": str(item["generation"])})
                self.expect(f"deleting a version of {bucket}/{item['name']}", response, 200, 204, 404)
            if not data.get("items"):
                return

    # --- without credentials --------------------------------------------------------------------------------------------

    def presign(self, method: str, bucket: str, key: str, expires: int, *, when: Optional[str] = None, credentials: Optional[Credentials] = None) -> str:
        """A URL that anybody can use for *expires* seconds. Other *credentials* stand for a key that is not the account's: the signature is then wrong."""
        if self._account is None:
            raise S3Error(f"signing a URL needs the key of a service account; set {VARIABLE}")
        moment = when or datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{moment[:8]}/auto/storage/goog4_request"
        query = {
            "X-Goog-Algorithm": "GOOG4-RSA-SHA256",
            "X-Goog-Credential": f"{self._account.email}/{scope}",
            "X-Goog-Date": moment,
            "X-Goog-Expires": str(expires),
            "X-Goog-SignedHeaders": "host",
        }
        path = encode_path(f"/{bucket}/{key}")
        request = "\n".join((method, path, encode_query(query), f"host:{self.host}", "", "host", "UNSIGNED-PAYLOAD"))
        signed = "\n".join(("GOOG4-RSA-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()))
        signature = self._account.sign(signed.encode() + (b"x" if credentials else b"")).hex()
        return f"{self.endpoint}{path}?{encode_query(query)}&X-Goog-Signature={signature}"

    def configuration(self, bucket: str, name: str) -> bytes:
        """Rules of expiry and for browsers have no form here that is known to be ours; whoever owns the project sets them."""
        return b""

    def folders(self, bucket: str) -> Sequence[str]:  # type: ignore[override]
        return []
