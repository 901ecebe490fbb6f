# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to listeners of this process on the loopback."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.connectivity import (
    CertificateError,
    FlowError,
    Listener,
    days_left,
    listeners,
    not_after,
    parse_flows,
    probe,
    unexplained,
    with_contrast,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.connectivity.probe import judge
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Serve = Callable[[Callable[[socket.socket], None]], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers = []

    def start(handler: Callable[[socket.socket], None]) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def loop() -> None:
            while True:
                try:
                    connection, _peer = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        handler(connection)
                    except OSError:
                        continue

        threading.Thread(target=loop, daemon=True).start()
        return int(server.getsockname()[1])

    yield start
    for server in servers:
        server.close()


def certificate(tmp_path: Path, days: int, name: str = "site.example") -> tuple[ssl.SSLContext, str, bytes]:
    """Server context, its PEM (which is its own authority) and DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    built = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(7).not_valid_before(now - datetime.timedelta(days=400))
        .not_valid_after(now + datetime.timedelta(days=days, hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = built.public_bytes(serialization.Encoding.PEM)
    path = tmp_path / f"{days}.pem"
    path.write_bytes(
        pem + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, pem.decode(), built.public_bytes(serialization.Encoding.DER)


def secure(context: ssl.SSLContext) -> Callable[[socket.socket], None]:
    def handler(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as tls:
                tls.recv(1)
        except ssl.SSLError:
            return

    return handler


def one(port: int, expect: str, ca: str = "", **more: Any) -> Any:
    return probe(parse_flows([{"address": "127.0.0.1", "port": port, "expect": expect, **more}], 0.5), ca=ca)[0]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_open_refused_and_closed(serve: Serve) -> None:
    port = serve(lambda connection: None)
    assert (one(port, "open").found, one(port, "open").verdict) == ("open", "proved")
    assert one(port, "closed").verdict == "failed"
    gone = free_port()
    assert (one(gone, "open").found, one(gone, "open").verdict) == ("refused", "failed")
    assert one(gone, "reachable").verdict == "proved"
    assert one(gone, "closed").verdict == "unproved"


def test_http(serve: Serve) -> None:
    def answer(status: str) -> Callable[[socket.socket], None]:
        def handler(connection: socket.socket) -> None:
            connection.recv(1000)
            connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

        return handler

    assert one(serve(answer("301 Moved")), "http").verdict == "proved"
    broken = one(serve(answer("502 Bad Gateway")), "http")
    assert (broken.found, broken.verdict) == ("http 502", "failed")
    assert one(serve(answer("404 Not Found")), "http", status=[200]).verdict == "failed"
    assert one(serve(lambda connection: connection.sendall(b"SSH-2.0-x\r\n")), "http").found == "no http"


def test_tls_chain_and_end(serve: Serve, tmp_path: Path) -> None:
    context, pem, der = certificate(tmp_path, 20)
    port = serve(secure(context))
    good = one(port, "tls", pem, server_name="site.example")
    assert (good.found, good.verdict, good.days_left) == ("tls", "proved", 20)
    assert good.detail == "the certificate ends in 20 days"
    assert one(port, "tls", pem, server_name="other.example").found == "untrusted"
    unknown = one(port, "tls", server_name="site.example")
    assert (unknown.found, unknown.verdict, unknown.days_left) == ("untrusted", "failed", 20)
    assert one(serve(lambda connection: connection.sendall(b"hello\r\n")), "tls").found in ("no tls", "reset")
    assert days_left(not_after(der)) == 20
    ended, pem, _der = certificate(tmp_path, -5)
    over = one(serve(secure(ended)), "tls", pem, server_name="site.example")
    assert over.verdict == "failed" and over.detail == "the certificate ended 5 days ago"


def test_a_certificate_that_is_none() -> None:
    for data in (b"", b"\x30", b"\x30\x82\xff\xff", b"hello world", b"\x30\x03\x30\x01\x02"):
        with pytest.raises(CertificateError):
            not_after(data)


def test_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        silent = one(server.getsockname()[1], "reachable", protocol="udp")
        assert (silent.found, silent.verdict) == ("no answer", "unproved")
        port = server.getsockname()[1]
    assert one(port, "reachable", protocol="udp").found == "refused"


def heard(source: str, expect: str, found: str, **more: Any) -> dict[str, Any]:
    return {"from": source, "address": "10.0.0.1", "port": 4648, "protocol": "udp", "expect": expect, "found": found, "verdict": judge(expect, found), **more}


@pytest.mark.parametrize(("friend", "stranger", "verdict"), [
    ("open", "no answer", "proved"), ("refused", "no answer", "proved"), ("open", "refused", "proved"),
    # Both may have arrived, or both been refused on the way.
    ("refused", "refused", "unproved"), ("no answer", "no answer", "unproved"), ("no answer", "refused", "unproved"),
    # What is known without the other stays.
    ("open", "open", "failed"), ("no answer", "open", "failed"), ("no answer", "rejected", "proved"),
])  # fmt: skip
def test_udp_is_judged_beside_what_others_heard(friend: str, stranger: str, verdict: str) -> None:
    flows = [heard("stranger", "closed", stranger), heard("friend", "reachable", friend)]
    judged, kept = with_contrast(flows)
    assert judged["verdict"] == verdict and kept == flows[1]
    assert verdict != "proved" or stranger == "rejected" or "friend" in judged["detail"]


def test_silence_of_another_place_or_over_tcp_is_no_contrast() -> None:
    friend = heard("friend", "reachable", "open")
    for other in ({"port": 4649}, {"address": "10.0.0.2"}, {"protocol": "tcp"}):
        assert with_contrast([heard("stranger", "closed", "no answer", **other), friend])[0]["verdict"] == "unproved"
        assert with_contrast([heard("stranger", "closed", "no answer"), {**friend, **other}])[0]["verdict"] == "unproved"


def test_a_name_that_does_not_resolve() -> None:
    found = probe(parse_flows([{"address": "nowhere.invalid", "port": 1, "expect": "closed"}], 2))[0]
    assert (found.found, found.verdict) == ("name", "failed")


def test_many_at_once_keep_their_order(serve: Serve) -> None:
    port = serve(lambda connection: time.sleep(0))
    flows = parse_flows([{"name": str(n), "address": "127.0.0.1", "port": port} for n in range(300)], 5)
    assert [item.name for item in probe(flows, parallel=32)] == [str(n) for n in range(300)]
    assert probe([]) == []


def test_what_must_stay_closed_waits_beside_the_others(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """One place that is silent costs a time-out; a hundred of them must not cost a hundred in a row."""
    port = serve(lambda connection: time.sleep(0))
    real = asyncio.open_connection
    waiting: dict[str, int] = {"127.0.0.1": 0, "192.0.2.1": 0}
    most = dict(waiting)
    everyone = asyncio.Event()

    async def counted(address: str, *arguments: Any, **options: Any) -> Any:
        waiting[address] += 1
        most[address] = max(most[address], waiting[address])
        try:
            if address == "127.0.0.1":
                return await real(address, *arguments, **options)
            if waiting[address] == 100:
                everyone.set()
            await everyone.wait()
            raise TimeoutError
        finally:
            waiting[address] -= 1

    monkeypatch.setattr(asyncio, "open_connection", counted)
    closed = [{"address": "192.0.2.1", "port": number, "expect": "closed"} for number in range(1, 101)]
    found = probe(parse_flows([*closed, *({"address": "127.0.0.1", "port": port} for _number in range(20))], 60), parallel=2)
    assert {item.verdict for item in found} == {"proved"}
    assert most == {"127.0.0.1": 2, "192.0.2.1": 100}


@pytest.mark.parametrize(("expect", "found", "verdict"), [
    ("open", "timeout", "failed"), ("reachable", "timeout", "failed"), ("closed", "timeout", "proved"),
    ("closed", "rejected", "proved"), ("reachable", "rejected", "failed"), ("tls", "open", "failed"),
    ("closed", "no answer", "unproved"), ("closed", "name", "failed"),
])  # fmt: skip
def test_verdicts(expect: str, found: str, verdict: str) -> None:
    assert judge(expect, found) == verdict


def test_bad_flows_are_told_at_once() -> None:
    with pytest.raises(FlowError) as caught:
        parse_flows(
            [
                {"name": "a", "address": "no host", "port": 0},
                {"name": "b", "address": "10.0.0.1", "port": "x", "expect": "ajar"},
                {"name": "c", "address": "10.0.0.1", "port": 1, "protocol": "udp", "expect": "tls"},
                {"name": "d", "address": "10.0.0.1", "port": 1, "protocol": "sctp", "path": "x y", "colour": 1},
                {"name": "e", "address": "10.0.0.1", "port": 1, "datagram": "serf"},
                {"name": "f", "address": "10.0.0.1", "port": 1, "protocol": "udp", "datagram": "quic"},
            ],
            1,
        )
    assert len(caught.value.problems) == 10
    assert "c: expect tls needs tcp" in caught.value.problems


def test_listeners_and_what_explains_them(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    (tmp_path / "net/tcp").write_text(
        head
        + "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1\n"
        + "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1\n"
        + "   2: 0A00000A:C000 0B00000A:0016 01 00000000:00000000 00:00000000 00000000     0        0 13 1\n"
    )
    (tmp_path / "net/tcp6").write_text(
        head + "   0: 00000000000000000000000000000000:1BBC 00:0000 0A 0:0 00:0 0     0        0 14 1\n"
    )
    (tmp_path / "7/fd").mkdir(parents=True)
    (tmp_path / "7/comm").write_text("sshd\n")
    (tmp_path / "7/fd/3").symlink_to("socket:[11]")
    found = listeners(str(tmp_path))
    assert found == [Listener("tcp", "0.0.0.0", 22, "sshd"), Listener("tcp", "::", 7100, "")]
    rules = [{"direction": "ingress", "protocol": "tcp", "ports": ["20-30"]}, {"direction": "egress", "ports": ["7100"]}]
    assert unexplained(found, rules) == [Listener("tcp", "::", 7100, "")]
    assert unexplained(found, rules, [7100]) == []


def test_this_machine_can_be_listed() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert any(item.port == server.getsockname()[1] for item in listeners())
