# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL: it tells its version to whoever has logged in, so this is the beginning of a session by the protocol of version 3.

A password leaves as an answer to SCRAM or MD5 and never as it is: the certificate of the server may be one that nobody here knows.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
import struct
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Optional

from .link import Link, NoAnswer, ServerFacts

_SSL_REQUEST = struct.pack(">ii", 8, 80877103)
_VERSION_3 = 196608
_DATABASE = "postgres"
_PASSWORD_WRONG = "28P01"  # noqa: S105 - a code of the protocol
_MOST_ITERATIONS = 1_000_000


@dataclass(frozen=True)
class Login:
    """Who asks. The password is in no text that this makes."""

    username: str
    password: str = field(repr=False)


def ask_postgres(host: str, port: int, login: Optional[Login], extensions: Sequence[str] = ()) -> ServerFacts:
    """TLS of the server and, with a *login*, its version, and in which version it could bring each of *extensions*."""
    with contextlib.closing(Link(host, port)) as link:
        agreed = _tls(link)
        if login is None:
            return ServerFacts("PostgreSQL", "", agreed)
        link.send(_startup(login.username))
        try:
            version = _log_in(link, login)
            found = _available(link, extensions) if extensions else {}
        except (ValueError, KeyError, IndexError, struct.error) as error:
            raise NoAnswer("protocol", "its answer is not one of PostgreSQL") from error
        link.send(b"X" + struct.pack(">i", 4))
    return ServerFacts("PostgreSQL", version, agreed, found)


def _tls(link: Link) -> str:
    link.send(_SSL_REQUEST)
    answer = link.receive(1)
    if answer not in (b"S", b"N"):
        raise NoAnswer("protocol", "it does not speak the protocol of PostgreSQL")
    # Which authority the services trust is not documented, so nothing is said of the certificate here.
    return link.secure(verify=False) if answer == b"S" else ""


def _startup(username: str) -> bytes:
    words = b"".join(f"{text}\x00".encode() for text in ("user", username, "database", _DATABASE)) + b"\x00"
    return struct.pack(">ii", len(words) + 8, _VERSION_3) + words


def _messages(link: Link) -> Iterator[tuple[bytes, bytes]]:
    """Messages of the server; one that tells an error ends it."""
    while True:
        kind, size = struct.unpack(">ci", link.receive(5))
        body = link.receive(size - 4)
        if kind == b"E":
            parts = {part[:1]: part[1:].decode("utf-8", "replace") for part in body.split(b"\x00") if part}
            raise NoAnswer("login" if parts.get(b"C") == _PASSWORD_WRONG else "protocol", parts.get(b"M", "an error without words"))
        yield kind, body


def _log_in(link: Link, login: Login) -> str:
    """The version that the server tells once it has let us in."""
    version, scram = "", _Scram(login.password)
    for kind, body in _messages(link):
        if kind == b"S":
            name, value = body.split(b"\x00")[:2]
            version = value.decode("utf-8", "replace") if name == b"server_version" else version
        elif kind == b"Z":
            return version
        elif kind == b"R":
            (asked,) = struct.unpack(">i", body[:4])
            if asked == 5:
                _answer(link, _md5(login, body[4:8]))
            elif asked == 10 and b"SCRAM-SHA-256" in body[4:].split(b"\x00"):
                first = scram.first()
                _answer(link, b"SCRAM-SHA-256\x00" + struct.pack(">i", len(first)) + first)
            elif asked == 11:
                _answer(link, scram.final(body[4:]))
            elif asked == 12:
                scram.check(body[4:])
            elif asked != 0:
                raise NoAnswer("protocol", "it wants a login that is neither SCRAM nor MD5, and no password is sent as it is")
    raise NoAnswer("protocol", "it ended before it told its version")


def _answer(link: Link, content: bytes) -> None:
    link.send(b"p" + struct.pack(">i", len(content) + 4) + content)


def _md5(login: Login, salt: bytes) -> bytes:
    inner = hashlib.md5(f"{login.password}{login.username}".encode(), usedforsecurity=False).hexdigest()
    return b"md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest().encode() + b"\x00"


class _Scram:
    """SCRAM-SHA-256 of RFC 7677, without channel binding."""

    def __init__(self, password: str) -> None:
        self._password = unicodedata.normalize("NFKC", password).encode()
        self._nonce = base64.b64encode(secrets.token_bytes(18)).decode()
        self._wanted = b""

    def first(self) -> bytes:
        return f"n,,n=,r={self._nonce}".encode()

    def final(self, challenge: bytes) -> bytes:
        parts = dict(part.split("=", 1) for part in challenge.decode("utf-8").split(","))
        rounds = int(parts["i"])
        if not parts["r"].startswith(self._nonce) or not 0 < rounds <= _MOST_ITERATIONS:
            raise NoAnswer("protocol", "its answer to SCRAM is not one to ours")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, base64.b64decode(parts["s"]), rounds)
        client = hmac.digest(salted, b"Client Key", "sha256")
        mine = f"c=biws,r={parts['r']}"
        spoken = f"n=,r={self._nonce},{challenge.decode('utf-8')},{mine}".encode()
        signature = hmac.digest(hashlib.sha256(client).digest(), spoken, "sha256")
        proof = bytes(one ^ other for one, other in zip(client, signature))
        self._wanted = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), spoken, "sha256")
        return f"{mine},p={base64.b64encode(proof).decode()}".encode()

    def check(self, last: bytes) -> None:
        if not hmac.compare_digest(last, b"v=" + base64.b64encode(self._wanted)):
            raise NoAnswer("protocol", "it does not know the password itself")


def _available(link: Link, extensions: Sequence[str]) -> dict[str, str]:
    names = ", ".join(f"'{name}'" for name in extensions)
    text = f"SELECT name, default_version FROM pg_available_extensions WHERE name IN ({names})"  # noqa: S608 - of the catalog, letters and underscores
    query = text.encode() + b"\x00"
    link.send(b"Q" + struct.pack(">i", len(query) + 4) + query)
    found: dict[str, str] = {}
    for kind, body in _messages(link):
        if kind == b"D":
            fields, at = [], 2
            for _field in range(struct.unpack(">h", body[:2])[0]):
                (size,) = struct.unpack(">i", body[at : at + 4])
                fields.append(body[at + 4 : at + 4 + max(size, 0)].decode("utf-8"))
                at += 4 + max(size, 0)
            found[fields[0]] = fields[1]
        elif kind == b"Z":
            break
    return found
