# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to an S3 store. Path style, no retries that hide anything, errors as sentences."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import ssl
import xml.etree.ElementTree as ET
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Optional, Union
from urllib.parse import unquote_plus, urlsplit

from . import protection
from .protection import Protection
from .signature import UNSIGNED, Credentials, encode_path, encode_query, presigned_query, sign_headers, timestamp

Body = Union[bytes, BinaryIO]
CHUNK = 1 << 20
_OWN = {name: f"circleci_object_storage_{name}" for name in ("endpoint", "access_key", "secret_key", "region")}
_BACKEND = {name: f"circleci_object_storage_backend_{last}" for name, last in zip(_OWN, ("endpoint", "account", "key", "region"))}


class S3Error(Exception):
    """The store refused, or could not be reached (status 0). The text is a sentence for the operator."""

    def __init__(self, message: str, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Response:
    """An answer that has been read."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def header(self, name: str) -> str:
        return self.headers.get(name.lower(), "")

    @property
    def code(self) -> str:
        """The error code of the store."""
        return _text(self.body, "Code")


@dataclass(frozen=True)
class Entry:
    """One object of a listing."""

    key: str
    size: int
    etag: str


def _xml(body: bytes) -> Optional[ET.Element]:
    try:
        return ET.fromstring(body)  # noqa: S314 - the parser of every supported Python refuses entity bombs
    except ET.ParseError:
        return None


def _local(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]


def _text(body: bytes, name: str) -> str:
    root = _xml(body) if body.lstrip().startswith(b"<") else None
    if root is not None:
        for node in root.iter():
            if _local(node.tag) == name:
                return (node.text or "").strip()
    return ""


class S3Client:
    """One endpoint with one key pair; thread-unsafe, keeps one connection."""

    def __init__(
        self,
        endpoint: str,
        credentials: Optional[Credentials],
        *,
        ca_data: str = "",
        timeout: float = 30.0,
        address: str = "",
        port: int = 0,
        backend: bool = False,
    ) -> None:
        """*address* and *port* are where to connect to instead of where the endpoint's name leads; name and certificate stay those of the endpoint.

        With *backend* sentences name the variables of the store behind a gateway.
        """
        self._names = _BACKEND if backend else _OWN
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.path.strip("/"):
            raise S3Error(f"{self._names['endpoint']} is {endpoint!r}; it must be http(s)://host[:port] and nothing behind it")
        self.endpoint = f"{parts.scheme}://{parts.netloc}"
        self.host = parts.netloc
        self._hostname, self._port = parts.hostname, parts.port
        self._credentials = credentials
        self._timeout = timeout
        self._address, self._at_port = address, port
        self._connection: Optional[http.client.HTTPConnection] = None
        self._tls: Optional[ssl.SSLContext] = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context()
            if ca_data:
                try:
                    self._tls.load_verify_locations(cadata=ca_data)
                except ssl.SSLError as error:
                    raise S3Error(f"the certificate authority given for {self.endpoint} is no PEM certificate ({error})") from error

    # --- transport ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            if self._tls is not None:
                self._connection = http.client.HTTPSConnection(self._hostname, self._port, timeout=self._timeout, context=self._tls)
            else:
                self._connection = http.client.HTTPConnection(self._hostname, self._port, timeout=self._timeout)
            if self._address:
                # The hook of http.client for this; the name goes on to be that of the Host header and of the certificate.
                self._connection._create_connection = self._create_connection  # type: ignore[attr-defined]
        return self._connection

    def _create_connection(self, target: tuple[str, int], *options: Any, **more: Any) -> socket.socket:
        return socket.create_connection((self._address, self._at_port or target[1]), *options, **more)

    def _explain(self, error: Exception) -> S3Error:
        where = f"the object store {self.endpoint}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return S3Error(
                f"{where} has a certificate that is not trusted here ({error.verify_message}); "
                "give the PEM of its authority, or use a certificate that is trusted"
            )
        if isinstance(error, ssl.SSLError):
            return S3Error(
                f"{where} does not speak TLS as asked ({error.reason or error}); does it answer "
                f"plain http on that port? Then write http:// in {self._names['endpoint']}"
            )
        if isinstance(error, http.client.BadStatusLine) and self._tls is None:
            return S3Error(f"{where} does not answer in http; does it speak TLS on that port? Then write https:// in {self._names['endpoint']}")
        if isinstance(error, socket.gaierror):
            return S3Error(f"{where}: its name cannot be resolved ({error.strerror}); check DNS and {self._names['endpoint']}")
        if isinstance(error, (TimeoutError, socket.timeout)):
            return S3Error(f"{where} did not answer within {self._timeout:.0f} seconds; is the service up and the port open?")
        return S3Error(f"{where} cannot be reached ({error}); is the service up and the port open?")

    def send(
        self,
        method: str,
        path: str,
        query: Optional[Mapping[str, str]] = None,
        headers: Optional[Mapping[str, str]] = None,
        body: Body = b"",
        *,
        length: Optional[int] = None,
        payload: Optional[str] = None,
        signed: bool = True,
        when: Optional[str] = None,
        sink: Optional[BinaryIO] = None,
    ) -> Response:
        """One request; any status is an answer. *payload* is the sha256 of a body that is a stream, if it is known."""
        query = dict(query or {})
        if isinstance(body, bytes):
            length = len(body)
            payload = payload or hashlib.sha256(body).hexdigest()
        wire = {name.lower(): value for name, value in (headers or {}).items()}
        if signed and self._credentials is not None:
            wire = sign_headers(self._credentials, method, self.host, path, query, wire, payload or UNSIGNED, when or timestamp())
        else:
            wire["host"] = self.host
        if length or method in ("PUT", "POST"):
            wire["content-length"] = str(length or 0)
        text = encode_query(query)
        target = encode_path(path) + (f"?{text}" if text else "")
        return self._exchange(method, target, wire, body, sink)

    def _exchange(self, method: str, target: str, headers: Mapping[str, str], body: Body, sink: Optional[BinaryIO]) -> Response:
        reused = self._connection is not None
        start = None if isinstance(body, bytes) else body.tell()
        while True:
            connection = self._connect()
            try:
                connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
                for name, value in headers.items():
                    connection.putheader(name, value)
                connection.endheaders()
                if isinstance(body, bytes):
                    if body:
                        connection.send(body)
                else:
                    connection.send(body)
                answer = connection.getresponse()
                if sink is not None and answer.status in (200, 206):
                    while data := answer.read(CHUNK):
                        sink.write(data)
                    content = b""
                else:
                    content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.close()
                # A kept connection may have been closed by the other side meanwhile; a fresh one may not.
                if reused and isinstance(error, (ConnectionError, http.client.RemoteDisconnected, http.client.CannotSendRequest)):
                    reused = False
                    if start is not None and not isinstance(body, bytes):
                        body.seek(start)
                    continue
                raise self._explain(error) from error
            if answer.will_close:
                self.close()
            return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)

    def refused(self, what: str, response: Response) -> S3Error:
        """The sentence for an answer that is none of those that were expected."""
        code = response.code
        message = _text(response.body, "Message")
        hints = {
            "InvalidAccessKeyId": f"check {self._names['access_key']}",
            "SignatureDoesNotMatch": f"check {self._names['secret_key']} and {self._names['region']}",
            "AuthorizationFailure": f"the store behind the gateway refuses its key: check {_BACKEND['access_key']} and {_BACKEND['secret_key']}",
            "AuthorizationHeaderMalformed": f"check {self._names['region']}, which must be the region of the store",
            "RequestTimeTooSkewed": "the clocks of this host and the store differ by more than 15 minutes: set them by the same time server",
            "AccessDenied": "the key pair lacks the right for that",
            "BucketAlreadyExists": "the bucket belongs to somebody else: choose another name",
            "InvalidBucketName": "choose a name of 3 to 63 lower case letters, digits and hyphens",
            "QuotaExceeded": "the store is full",
            "XMinioStorageFull": "the disk of the store is full",
        }
        hint = hints.get(code, "")
        if response.status == 403 and not code:
            hint = f"check {self._names['access_key']} and {self._names['secret_key']}"
        if response.status == 400 and b"HTTPS server" in response.body:
            hint = f"the store speaks TLS on that port: write https:// in {self._names['endpoint']}"
        said = " ".join(part for part in (code, message) if part) or response.body[:200].decode(errors="replace").strip() or "no reason"
        return S3Error(f"{self.endpoint} answered {response.status} to {what}: {said}{f'; {hint}' if hint else ''}", response.status, code)

    def expect(self, what: str, response: Response, *statuses: int) -> Response:
        if response.status not in statuses:
            raise self.refused(what, response)
        return response

    # --- buckets --------------------------------------------------------------------------------------------------------

    def bucket_exists(self, bucket: str) -> bool:
        response = self.send("HEAD", f"/{bucket}")
        if response.status in (200, 404):
            return response.status == 200
        # HEAD has no body, so the reason is asked for with a request that has one.
        reason = self.send("GET", f"/{bucket}", {"list-type": "2", "max-keys": "1"})
        if reason.status == 200 or (reason.status, reason.code) == (404, "NoSuchBucket"):
            return reason.status == 200  # it has become ready between the two
        if reason.status == 403 and reason.code == "AccessDenied":
            raise S3Error(
                f"bucket {bucket} on {self.endpoint} is there, but not ours: the key pair may not use it; choose another name or ask its owner for the right",
                403,
                "AccessDenied",
            )
        raise self.refused(f"asking for bucket {bucket}", reason if reason.status >= 300 else response)

    def create_bucket(self, bucket: str) -> None:
        region = self._credentials.region if self._credentials else "us-east-1"
        body = b""
        if region != "us-east-1":
            body = (
                "<CreateBucketConfiguration "
                f'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>'.encode()
            )
        response = self.send("PUT", f"/{bucket}", body=body)
        if response.status == 409 and response.code == "BucketAlreadyOwnedByYou":
            return
        self.expect(f"making bucket {bucket}", response, 200)

    def delete_bucket(self, bucket: str) -> None:
        self.expect(f"deleting bucket {bucket}", self.send("DELETE", f"/{bucket}"), 204, 200, 404)

    def bucket_policy(self, bucket: str) -> Optional[dict[str, Any]]:
        response = self.send("GET", f"/{bucket}", {"policy": ""})
        if response.status == 404:
            return None
        self.expect(f"reading the policy of bucket {bucket}", response, 200)
        try:
            policy = json.loads(response.body)
        except ValueError as error:
            raise S3Error(f"{self.endpoint}: the policy of bucket {bucket} is no JSON ({error})") from error
        return policy if isinstance(policy, dict) and policy.get("Statement") else None

    def put_bucket_policy(self, bucket: str, policy: Mapping[str, Any]) -> None:
        body = json.dumps(policy, sort_keys=True).encode()
        response = self.send("PUT", f"/{bucket}", {"policy": ""}, _md5(body), body)
        if response.status == 403 and response.code == "AccessDenied":
            raise S3Error(
                f"{self.endpoint} refuses to open bucket {bucket} for reading: the key pair lacks the right for that, or the account forbids public access "
                "(Block Public Access at AWS, public access of the storage account at Azure). Allow it for this bucket alone, which holds nothing but agents",
                403,
                "AccessDenied",
            )
        self.expect(f"setting the policy of bucket {bucket}", response, 200, 204)

    def delete_bucket_policy(self, bucket: str) -> None:
        self.expect(f"removing the policy of bucket {bucket}", self.send("DELETE", f"/{bucket}", {"policy": ""}), 200, 204, 404)

    def versioning(self, bucket: str) -> bool:
        response = self.send("GET", f"/{bucket}", {"versioning": ""})
        if response.status in (404, 501) and response.code != "NoSuchBucket":
            return False
        self.expect(f"reading the versioning of bucket {bucket}", response, 200)
        return _text(response.body, "Status") == "Enabled"

    def enable_versioning(self, bucket: str) -> None:
        body = b'<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>'
        self.expect(f"switching versioning on for bucket {bucket}", self.send("PUT", f"/{bucket}", {"versioning": ""}, _md5(body), body), 200)

    def configuration(self, bucket: str, name: str) -> bytes:
        """Document of a bucket's subresource such as C(lifecycle) or C(cors); empty where there is none."""
        response = self.send("GET", f"/{bucket}", {name: ""})
        if response.status == 404 and response.code != "NoSuchBucket":
            return b""
        return self.expect(f"reading the {name} of bucket {bucket}", response, 200).body

    def put_configuration(self, bucket: str, name: str, body: bytes) -> None:
        self.expect(f"setting the {name} of bucket {bucket}", self.send("PUT", f"/{bucket}", {name: ""}, _md5(body), body), 200, 204)

    def delete_configuration(self, bucket: str, name: str) -> None:
        self.expect(f"removing the {name} of bucket {bucket}", self.send("DELETE", f"/{bucket}", {name: ""}), 200, 204, 404)

    def protection(self, bucket: str, tag: str) -> Protection:
        """What the cloud does for the bucket; C(tag) is the name of the tag that tells whose it is."""
        return protection.read(self, bucket, tag)

    def protect(self, bucket: str, wish: Protection, now: Protection) -> None:
        protection.write(self, bucket, wish, now)

    def owns(self, bucket: str) -> bool:
        """Whether a bucket is the account's own, and not one of others that it may use."""
        response = self.expect("listing the buckets of the account", self.send("GET", "/"), 200)
        root = _xml(response.body)
        return root is not None and bucket in [(node.text or "").strip() for node in root.iter() if _local(node.tag) == "Name"]

    def folders(self, bucket: str) -> list[str]:
        """Top-level prefixes of a bucket, each with its slash."""
        found: list[str] = []
        query = {"list-type": "2", "delimiter": "/"}
        while True:
            response = self.expect(f"listing bucket {bucket}", self.send("GET", f"/{bucket}", query), 200)
            root = _xml(response.body)
            for node in root if root is not None else ():
                if _local(node.tag) == "CommonPrefixes":
                    found += [child.text or "" for child in node if _local(child.tag) == "Prefix"]
            token = _text(response.body, "NextContinuationToken")
            if _text(response.body, "IsTruncated") != "true" or not token:
                return sorted(set(found))
            query["continuation-token"] = token

    # --- objects --------------------------------------------------------------------------------------------------------

    def head(self, bucket: str, key: str) -> Optional[Response]:
        response = self.send("HEAD", f"/{bucket}/{key}")
        if response.status == 404:
            return None
        if response.status != 200:
            reason = self.send("GET", f"/{bucket}/{key}", headers={"range": "bytes=0-0"})
            raise self.refused(f"asking for {bucket}/{key}", reason if reason.status >= 300 else response)
        return response

    def get(self, bucket: str, key: str, *, headers: Optional[Mapping[str, str]] = None, sink: Optional[BinaryIO] = None) -> Response:
        return self.expect(f"reading {bucket}/{key}", self.send("GET", f"/{bucket}/{key}", headers=headers, sink=sink), 200, 206)

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
        return self.expect(f"writing {bucket}/{key}", self.send("PUT", f"/{bucket}/{key}", headers=headers, body=body, length=length, payload=sha256), 200)

    def delete(self, bucket: str, key: str) -> None:
        self.expect(f"deleting {bucket}/{key}", self.send("DELETE", f"/{bucket}/{key}"), 200, 204, 404)

    def copy(self, bucket: str, source: str, target: str) -> Response:
        response = self.send("PUT", f"/{bucket}/{target}", headers={"x-amz-copy-source": encode_path(f"/{bucket}/{source}")})
        return self.expect(f"copying {bucket}/{source}", response, 200)

    def list(self, bucket: str, prefix: str = "", *, page: int = 1000) -> Iterator[Entry]:
        token = ""
        while True:
            query = {"list-type": "2", "prefix": prefix, "max-keys": str(page), "encoding-type": "url"}
            if token:
                query["continuation-token"] = token
            response = self.expect(f"listing {bucket}", self.send("GET", f"/{bucket}", query), 200)
            root = _xml(response.body)
            if root is None:
                raise S3Error(f"{self.endpoint}: the listing of bucket {bucket} is no XML; is that an S3 store?")
            encoded = _text(response.body, "EncodingType") == "url"
            for node in root:
                if _local(node.tag) == "Contents":
                    values = {_local(child.tag): child.text or "" for child in node}
                    key = unquote_plus(values.get("Key", "")) if encoded else values.get("Key", "")
                    yield Entry(key, int(values.get("Size", "0")), values.get("ETag", "").strip('"'))
            token = _text(response.body, "NextContinuationToken")
            if not token or _text(response.body, "IsTruncated") != "true":
                return

    def delete_versions(self, bucket: str, prefix: str = "") -> None:
        """Delete what a bucket with versions still keeps; a store that knows no versions keeps none."""
        for _round in range(10_000):
            response = self.send("GET", f"/{bucket}", {"versions": "", "prefix": prefix})
            if response.status in (405, 501) or response.code in ("MethodNotAllowed", "NotImplemented"):
                return
            root = _xml(self.expect(f"listing versions of {bucket}", response, 200).body)
            if root is None:
                raise S3Error(f"{self.endpoint}: the listing of versions of bucket {bucket} is no XML; is that an S3 store?")
            nodes = [node for node in root if _local(node.tag) in ("Version", "DeleteMarker")]
            if not nodes:
                return
            for node in nodes:
                values = {_local(child.tag): child.text or "" for child in node}
                answer = self.send("DELETE", f"/{bucket}/{values.get('Key', '')}", {"versionId": values.get("VersionId", "null")})
                self.expect(f"deleting a version of {bucket}/{values.get('Key', '')}", answer, 200, 204, 404)

    # --- multipart ------------------------------------------------------------------------------------------------------

    def start_upload(self, bucket: str, key: str, headers: Optional[Mapping[str, str]] = None) -> str:
        response = self.expect(f"starting an upload of {bucket}/{key}", self.send("POST", f"/{bucket}/{key}", {"uploads": ""}, headers), 200)
        return _text(response.body, "UploadId")

    def upload_part(self, bucket: str, key: str, upload: str, number: int, body: bytes) -> str:
        response = self.send("PUT", f"/{bucket}/{key}", {"partNumber": str(number), "uploadId": upload}, body=body)
        return self.expect(f"uploading part {number} of {bucket}/{key}", response, 200).header("etag")

    def finish_upload(self, bucket: str, key: str, upload: str, etags: Sequence[str]) -> str:
        parts = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in enumerate(etags, 1))
        body = f'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{parts}</CompleteMultipartUpload>'.encode()
        response = self.expect(f"completing the upload of {bucket}/{key}", self.send("POST", f"/{bucket}/{key}", {"uploadId": upload}, body=body), 200)
        if response.code:
            # The answer starts before the store knows whether it can put the parts together.
            raise S3Error(
                f"{self.endpoint} could not complete the upload of {bucket}/{key}: {response.code} {_text(response.body, 'Message')}", 200, response.code
            )
        return _text(response.body, "ETag").strip('"')

    def abort_upload(self, bucket: str, key: str, upload: str) -> None:
        self.expect(f"aborting the upload of {bucket}/{key}", self.send("DELETE", f"/{bucket}/{key}", {"uploadId": upload}), 200, 204, 404)

    # --- without credentials --------------------------------------------------------------------------------------------

    def presign(self, method: str, bucket: str, key: str, expires: int, *, when: Optional[str] = None, credentials: Optional[Credentials] = None) -> str:
        """A URL that anybody can use for *expires* seconds."""
        chosen = credentials or self._credentials
        if chosen is None:
            raise S3Error("presigning needs a key pair")
        path = f"/{bucket}/{key}"
        query = presigned_query(chosen, method, self.host, path, expires, when or timestamp())
        return f"{self.endpoint}{encode_path(path)}?{encode_query(query)}"

    def open_url(self, method: str, url: str, *, body: bytes = b"", headers: Optional[Mapping[str, str]] = None) -> Response:
        """Use a URL of this store as a client without credentials does."""
        parts = urlsplit(url)
        wire = {**{name.lower(): value for name, value in (headers or {}).items()}, "host": self.host}
        if body or method in ("PUT", "POST"):
            wire["content-length"] = str(len(body))
        return self._exchange(method, parts.path + (f"?{parts.query}" if parts.query else ""), wire, body, None)

    def anonymous(self, method: str, bucket: str, key: str = "", query: Optional[Mapping[str, str]] = None, body: bytes = b"") -> Response:
        return self.send(method, f"/{bucket}/{key}" if key else f"/{bucket}", query, body=body, signed=False)


def _md5(body: bytes) -> dict[str, str]:
    # Old stores demand Content-MD5 for configuration calls; new ones accept it.
    return {"content-md5": b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()}
