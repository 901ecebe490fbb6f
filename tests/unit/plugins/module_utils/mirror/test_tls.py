# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS that is read in long pieces: a real peer on the other end, and a wire that knows what is still to come."""

from __future__ import annotations

import random
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror import transport
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.errors import Broken
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.transport import (
    BUFFER,
    Connection,
    HttpOptions,
    TlsStream,
)

RECORD = 1 << 14


class Wire:
    """What a socket of ours sees of a peer in the same process. A read that would wait for ever fails instead."""

    def __init__(self, folder: Path, version: ssl.TLSVersion, piece: int) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "crt", folder / "key")
        context.minimum_version = context.maximum_version = version
        self.input, output = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.output = output
        self.peer = context.wrap_bio(self.input, output, server_side=True)
        self.piece = piece
        self.ready = False
        self.ended = False
        self.fails: OSError | None = None
        self.reads = self.sends = 0
        self.got = b""

    def gettimeout(self) -> float:
        return 20.0

    def settimeout(self, _seconds: float | None) -> None:
        return

    def setsockopt(self, *_words: object) -> None:
        return

    def close(self) -> None:
        return

    def sendall(self, data: bytes) -> None:
        self.sends += 1
        self.input.write(data)
        try:
            if not self.ready:
                self.peer.do_handshake()
                self.ready = True
            while True:
                data = self.peer.read(1 << 20)
                if not data:
                    return
                self.got += data
        except ssl.SSLWantReadError:
            return

    def recv_into(self, view: memoryview, most: int, flags: int = 0) -> int:
        self.reads += 1
        there = self.output.pending
        if flags & socket.MSG_WAITALL:
            assert there >= most or self.ended or self.fails, f"waits for {most} bytes and {there} are to come"
        elif there:
            most = min(most, self.piece)
        if not there and self.fails:
            raise self.fails
        assert there or self.ended, "waits for a peer that has said everything"
        data = self.output.read(most)
        view[: len(data)] = data
        return len(data)

    def say(self, data: bytes, record: int = RECORD) -> None:
        for place in range(0, len(data), record):
            assert self.peer.write(data[place : place + record]) == len(data[place : place + record])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls")
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=registry"]
    names = ["-addext", "subjectAltName=DNS:registry.example.com"]
    subprocess.run([*argv, *names, "-keyout", str(path / "key"), "-out", str(path / "crt")], check=True, capture_output=True)
    return path


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def wire(folder: Path, request: pytest.FixtureRequest) -> Wire:
    return Wire(folder, request.param, 1 << 30)


def connect(wire: Wire, folder: Path, host: str = "registry.example.com") -> Connection:
    stream = TlsStream(wire, transport.tls_context(HttpOptions(ca_file=str(folder / "crt"))), host)  # type: ignore[arg-type]
    return Connection(wire, stream, False, "", HttpOptions())  # type: ignore[arg-type]


def bodies() -> Iterator[tuple[int, int]]:
    """Sizes of a body and of its records, about all borders."""
    for size in (1, 21, 22, RECORD - 1, RECORD, RECORD + 1, 16_640, 16_645, 16_646, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER + 7):
        for record in (RECORD, 1200, 1):
            if size // record < 20_000:
                yield size, record


@pytest.mark.parametrize(("size", "record"), list(bodies()))
@pytest.mark.parametrize("piece", [1 << 30, 1000])
def test_a_body_comes_whole_and_nobody_waits_for_what_is_not_sent(folder: Path, wire: Wire, size: int, record: int, piece: int) -> None:
    connection = connect(wire, folder)
    body = random.Random(size).randbytes(size)
    wire.piece = piece
    wire.say(body, record)
    got = b""
    while len(got) < size:
        view = memoryview(bytearray(min(BUFFER, size - len(got))))
        count = connection.receive_into(view)
        assert count
        got += view[:count]
    assert got == body


def test_many_records_come_in_one_read_and_two_go_in_one_write(folder: Path, wire: Wire) -> None:
    connection = connect(wire, folder)
    body = random.Random(1).randbytes(64 * BUFFER)
    before = wire.reads
    calls, left = 0, len(body)
    wire.say(body)
    while left:
        count = connection.receive_into(memoryview(bytearray(min(BUFFER, left))))
        calls, left = calls + 1, left - count
    # A socket of the module ssl reads twice for each of the 1024 records.
    assert wire.reads - before <= 64 * 3 and calls <= 64 * 1.2
    before = wire.sends
    connection.send(body)
    assert wire.got == body and wire.sends - before == len(body) // RECORD // 2


def test_a_head_is_read_with_what_came_behind_it(folder: Path, wire: Wire) -> None:
    connection = connect(wire, folder)
    wire.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    assert connection.receive_head() == b"HTTP/1.1 200 OK\r\nContent-Length: 5"
    view = memoryview(bytearray(5))
    assert connection.receive_into(view) == 5 and bytes(view) == b"hello"
    assert connection.tls is not None and connection.tls.idle
    wire.say(b"unasked")
    wire.say(b"for")
    assert connection.receive_into(memoryview(bytearray(7))) == 7
    assert not connection.tls.idle


@pytest.mark.parametrize("goodbye", [True, False])
def test_a_peer_that_closes_is_noticed_and_what_came_is_kept(folder: Path, wire: Wire, goodbye: bool) -> None:
    connection = connect(wire, folder)
    wire.say(bytes(3 * RECORD))
    if goodbye:
        with pytest.raises(ssl.SSLWantReadError):
            wire.peer.unwrap()
    else:
        # In the middle of a record.
        wire.say(bytes(RECORD))
        kept = wire.output.read()[:-100]
        wire.output.write(kept)
    wire.ended = True
    assert connection.receive_into(memoryview(bytearray(BUFFER))) == 3 * RECORD
    assert [connection.receive_into(memoryview(bytearray(BUFFER))) for _ in range(2)] == [0, 0]


@pytest.mark.parametrize("error", [BlockingIOError(11, "again"), ConnectionResetError(104, "reset"), TimeoutError("timed out")])
def test_a_line_that_breaks_is_told_after_what_came_before(folder: Path, wire: Wire, error: OSError) -> None:
    connection = connect(wire, folder)
    wire.say(bytes(3 * RECORD))
    wire.fails = error
    assert connection.receive_into(memoryview(bytearray(BUFFER))) == 3 * RECORD
    with pytest.raises(Broken):
        connection.receive_into(memoryview(bytearray(BUFFER)))


def test_a_changed_byte_is_refused(folder: Path, wire: Wire) -> None:
    connection = connect(wire, folder)
    wire.say(bytes(RECORD))
    data = bytearray(wire.output.read())
    data[-1] ^= 1
    wire.output.write(data)
    with pytest.raises(Broken, match="receiving failed"):
        connection.receive_into(memoryview(bytearray(RECORD)))


def test_a_record_that_drips_is_given_up(folder: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = connect(wire, folder)
    wire.say(bytes(RECORD))
    wire.piece = 1
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(time, "monotonic", clock)
    with pytest.raises(Broken, match="stalled"):
        connection.receive_into(memoryview(bytearray(RECORD)))
    assert wire.output.pending > RECORD // 2


def test_a_certificate_for_another_name_is_refused_and_the_peer_is_told(folder: Path, wire: Wire) -> None:
    before = wire.sends
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(wire, folder, "other.example.com")
    assert wire.sends - before == 2


def test_tickets_of_the_peer_are_gone_past(folder: Path) -> None:
    wire = Wire(folder, ssl.TLSVersion.TLSv1_3, 1 << 30)
    connection = connect(wire, folder)
    assert wire.output.pending, "the peer has sent no tickets"
    wire.say(b"x" * 100)
    view = memoryview(bytearray(100))
    assert connection.receive_into(view) == 100 and bytes(view) == b"x" * 100
