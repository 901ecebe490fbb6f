# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL client of the size a stand-in needs: log in with SCRAM-SHA-256, run statements, read rows as text."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import socket
import struct
from types import TracebackType

from .base import NotYet, Refusal

Row = tuple["str | None", ...]


class PgError(Exception):
    """What the server said."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.code = fields.get("C", "")
        super().__init__(f"{fields.get('S', 'ERROR')} {self.code}: {fields.get('M', 'no message')}")


def quote_literal(text: str) -> str:
    doubled = text.replace("'", "''")
    return "'" + doubled + "'" if "\\" not in text else " E'" + doubled.replace("\\", "\\\\") + "'"


def quote_name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


class Connection:
    """One session."""

    def __init__(self, host: str, port: int, user: str, password: str, database: str, *, secure: bool = False, timeout: float = 10) -> None:
        self._socket = socket.create_connection((host, port), timeout=timeout)
        self._buffer = b""
        self._password = password
        try:
            if secure:
                self._start_tls(host)
            body = b"".join(
                part.encode() + b"\0" for part in ("user", user, "database", database, "application_name", "stand-in", "client_encoding", "UTF8")
            )
            body = struct.pack("!i", 196608) + body + b"\0"
            self._socket.sendall(struct.pack("!i", len(body) + 4) + body)
            self._authenticate()
            self._until_ready()
        except BaseException:
            self._socket.close()
            raise

    def _start_tls(self, host: str) -> None:
        import ssl

        self._socket.sendall(struct.pack("!ii", 8, 80877103))
        if self._socket.recv(1) != b"S":
            raise Refusal("PostgreSQL offers no TLS and postgresql.secureMode or postgresql.tls asks for it")
        # like libpq's sslmode=require: encrypted, the name is not compared
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._socket = context.wrap_socket(self._socket, server_hostname=host)

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            block = self._socket.recv(65536)
            if not block:
                raise NotYet("PostgreSQL closed the connection")
            self._buffer += block
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _receive(self) -> tuple[bytes, bytes]:
        kind = self._exactly(1)
        (size,) = struct.unpack("!i", self._exactly(4))
        body = self._exactly(size - 4)
        if kind == b"E":
            fields = {chr(part[0]): part[1:].decode("utf-8", "replace") for part in body.split(b"\0") if part}
            if fields.get("C", "").startswith(("57P", "53")):
                raise NotYet(fields.get("M", "PostgreSQL is not ready"))
            raise PgError(fields)
        return kind, body

    def _send(self, kind: bytes, body: bytes) -> None:
        self._socket.sendall(kind + struct.pack("!i", len(body) + 4) + body)

    def _authenticate(self) -> None:
        _kind, body = self._receive()
        (method,) = struct.unpack("!i", body[:4])
        if method == 0:
            raise Refusal("PostgreSQL lets anyone in without a password")
        if method != 10:
            raise Refusal(f"PostgreSQL asks for login method {method}, only SCRAM-SHA-256 is known here")
        if not self._password:
            raise Refusal("the password for PostgreSQL is empty")
        nonce = base64.b64encode(os.urandom(18)).decode()
        first = f"n=,r={nonce}"
        message = ("n,," + first).encode()
        self._send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(message)) + message)
        _kind, body = self._receive()
        answer = body[4:].decode()
        fields = dict(part.split("=", 1) for part in answer.split(","))
        if not fields["r"].startswith(nonce):
            raise Refusal("PostgreSQL answers with a foreign nonce")
        salted = hashlib.pbkdf2_hmac("sha256", self._password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
        key = hmac.digest(salted, b"Client Key", "sha256")
        bare = f"c=biws,r={fields['r']}"
        signed = ",".join((first, answer, bare)).encode()
        signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
        proof = base64.b64encode(bytes(one ^ other for one, other in zip(key, signature))).decode()
        self._send(b"p", f"{bare},p={proof}".encode())
        _kind, body = self._receive()
        expected = base64.b64encode(hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")).decode()
        if body[4:].decode() != f"v={expected}":
            raise Refusal("PostgreSQL does not know the password itself")
        self._receive()

    def _until_ready(self) -> None:
        while self._receive()[0] != b"Z":
            pass

    def run(self, statements: str) -> list[Row]:
        """Run statements (several are one transaction) and return the rows of all of them."""
        self._send(b"Q", statements.encode() + b"\0")
        rows: list[Row] = []
        problem: PgError | None = None
        while True:
            try:
                kind, body = self._receive()
            except PgError as exc:
                problem = exc
                continue
            if kind == b"D":
                (count,) = struct.unpack("!h", body[:2])
                place, row = 2, []
                for _ in range(count):
                    (size,) = struct.unpack("!i", body[place : place + 4])
                    place += 4
                    row.append(None if size < 0 else body[place : place + size].decode())
                    place += max(size, 0)
                rows.append(tuple(row))
            elif kind == b"Z":
                if problem:
                    raise problem
                return rows

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._send(b"X", b"")
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def from_environment(prefix: str = "PG", database: str | None = None) -> Connection:
    """Connect as the chart's variables say. A wrong password may be one that a migrator is about to set: worth a wait."""
    host, user = os.environ.get(f"{prefix}HOST", ""), os.environ.get(f"{prefix}USER", "")
    if not host or not user:
        raise Refusal(f"{prefix}HOST or {prefix}USER is empty")
    try:
        return Connection(
            host,
            int(os.environ.get(f"{prefix}PORT") or 5432),
            user,
            os.environ.get(f"{prefix}PASSWORD", ""),
            database or os.environ.get(f"{prefix}DATABASE", "postgres"),
            secure=os.environ.get(f"{prefix}SSLMODE") == "require",
        )
    except PgError as exc:
        if exc.code in ("28P01", "28000", "3D000", "42501"):
            raise NotYet(f"role {user} cannot log in to PostgreSQL at {host} ({exc})") from exc
        raise Refusal(f"PostgreSQL at {host}: {exc}") from exc
