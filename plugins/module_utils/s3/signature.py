# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signature version 4 of AWS, as headers and as presigned URLs."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from urllib.parse import quote

EMPTY = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"
ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class Credentials:
    """A key pair and the region that requests are signed for."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"
    session_token: str = field(default="", repr=False)
    """Of credentials that live for a while, for instance those of a machine's role."""


def encode_path(path: str) -> str:
    """A path as S3 signs it: everything but the unreserved characters and the slash."""
    return quote(path, safe="/-_.~")


def encode_query(query: Mapping[str, str]) -> str:
    """A query in the order and the form that are signed."""
    pairs = sorted((quote(key, safe="-_.~"), quote(value, safe="-_.~")) for key, value in query.items())
    return "&".join(f"{key}={value}" for key, value in pairs)


def timestamp(now: datetime | None = None) -> str:
    """The time of a request."""
    return (now or datetime.now(timezone.utc)).strftime("%Y%m%dT%H%M%SZ")


def _signature(credentials: Credentials, when: str, canonical: str) -> tuple[str, str]:
    scope = f"{when[:8]}/{credentials.region}/s3/aws4_request"
    text = "\n".join([ALGORITHM, when, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (when[:8], credentials.region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return scope, hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def sign_headers(
    credentials: Credentials,
    method: str,
    host: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    payload: str,
    when: str,
) -> dict[str, str]:
    """*headers* with what makes them a signed request. *payload* is the digest of the body or ``UNSIGNED-PAYLOAD``."""
    signed = {**{name.lower(): " ".join(value.split()) for name, value in headers.items()}}
    signed.update({"host": host, "x-amz-content-sha256": payload, "x-amz-date": when})
    if credentials.session_token:
        signed["x-amz-security-token"] = credentials.session_token
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    canonical = "\n".join([method, encode_path(path), encode_query(query), lines, names, payload])
    scope, signature = _signature(credentials, when, canonical)
    signed["authorization"] = f"{ALGORITHM} Credential={credentials.access_key}/{scope},SignedHeaders={names},Signature={signature}"
    return signed


def presigned_query(
    credentials: Credentials, method: str, host: str, path: str, expires: int, when: str, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The query of a presigned URL; only the host is signed with it, so that any client can use it."""
    query = {
        **(extra or {}),
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{credentials.access_key}/{when[:8]}/{credentials.region}/s3/aws4_request",
        "X-Amz-Date": when,
        "X-Amz-Expires": str(expires),
        "X-Amz-SignedHeaders": "host",
    }
    canonical = "\n".join([method, encode_path(path), encode_query(query), f"host:{host}\n", "host", UNSIGNED])
    query["X-Amz-Signature"] = _signature(credentials, when, canonical)[1]
    return query
