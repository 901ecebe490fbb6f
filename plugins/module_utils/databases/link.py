# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to a database server: bytes in, bytes out, in the clear or by TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

SECONDS = 10.0
_MOST = 1 << 20


class NoAnswer(Exception):
    """Why a server did not tell what was asked, in a few words. ``kind`` is C(reach), C(certificate), C(login) or C(protocol)."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind


@dataclass(frozen=True)
class ServerFacts:
    """What a server says of itself."""

    product: str
    version: str
    tls: str = ""
    """Version of TLS that it agreed to, such as C(TLSv1.3); empty for a connection in the clear."""
    extensions: Mapping[str, str] = field(default_factory=dict)
    """Extensions of PostgreSQL that were asked for and could be installed, with their versions."""


class Link:
    """One connection. Every read is of an exact length, and none is unbounded."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        try:
            self._socket: socket.socket = socket.create_connection((host, port), timeout=SECONDS)
        except OSError as error:
            raise NoAnswer("reach", error.strerror or str(error)) from error

    def secure(self, ca_certificate: str = "", *, verify: bool = True) -> str:
        """Begin TLS; the version that was agreed on."""
        context = ssl.create_default_context()
        if ca_certificate:
            try:
                context.load_verify_locations(cadata=ca_certificate)
            except (OSError, ValueError) as error:
                raise NoAnswer("certificate", "circleci_ca_certificate holds no certificate in PEM form") from error
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            self._socket = context.wrap_socket(self._socket, server_hostname=self.host)
        except ssl.SSLCertVerificationError as error:
            raise NoAnswer("certificate", error.verify_message or str(error)) from error
        except OSError as error:
            raise NoAnswer("protocol", f"it does not agree on TLS: {getattr(error, 'reason', '') or error}") from error
        return str(self._socket.version()) if isinstance(self._socket, ssl.SSLSocket) else ""

    def send(self, data: bytes) -> None:
        with _told():
            self._socket.sendall(data)

    def receive(self, size: int) -> bytes:
        if not 0 <= size <= _MOST:
            raise NoAnswer("protocol", "it answers in another protocol")
        found = b""
        with _told():
            while len(found) < size:
                part = self._socket.recv(size - len(found))
                if not part:
                    raise NoAnswer("protocol", "it ended the connection before it said anything of itself")
                found += part
        return found

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NoAnswer("protocol", f"it said nothing of itself: {error.strerror or error}") from error
