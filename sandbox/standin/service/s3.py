# SPDX-License-Identifier: GPL-3.0-or-later
"""One signed request to the object store: is the bucket there, and are these credentials good for it?"""

from __future__ import annotations

import hashlib
import hmac
import ssl
import time
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import quote, urlsplit

from .base import NotYet, Refusal

_EMPTY = hashlib.sha256(b"").hexdigest()


def sign(secret: str, day: str, region: str, text: str) -> str:
    key = b"AWS4" + secret.encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def headers(host: str, path: str, query: str, region: str, access_key: str, secret_key: str, now: float) -> dict[str, str]:
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    signed = "host;x-amz-content-sha256;x-amz-date"
    request = "\n".join(("GET", path, query, f"host:{host}", f"x-amz-content-sha256:{_EMPTY}", f"x-amz-date:{moment}", "", signed, _EMPTY))
    text = "\n".join(("AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()))
    signature = sign(secret_key, moment[:8], region, text)
    return {
        "Host": host,
        "x-amz-content-sha256": _EMPTY,
        "x-amz-date": moment,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={signed}, Signature={signature}",
    }


def check(endpoint: str, bucket: str, region: str, access_key: str, secret_key: str) -> None:
    """Trusts the system's certificate authorities only: no documented key gives a private one for the object store."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refusal(f"object_storage.s3.endpoint {endpoint!r} is no http or https address")
    host = parts.netloc
    path, query = f"{parts.path.rstrip('/')}/{quote(bucket)}", "list-type=2&max-keys=1"
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=10)
    try:
        connection.request("GET", f"{path}?{query}", headers=headers(host, path, query, region, access_key, secret_key, time.time()))
        answer = connection.getresponse()
        body = answer.read(2000).decode("utf-8", "replace")
    except ssl.SSLCertVerificationError as exc:
        raise Refusal(
            f"object_storage.s3.endpoint {endpoint}: {exc.verify_message}; only the system's certificate authorities are trusted here, "
            "tls.certificates and tls.import are for GitHub Enterprise"
        ) from exc
    finally:
        connection.close()
    if answer.status == 200:
        return
    said = f"object store {endpoint}, bucket {bucket}: status {answer.status} {body[:200]!r}"
    if answer.status in (400, 401, 403, 404):
        raise Refusal(said)
    raise NotYet(said)
