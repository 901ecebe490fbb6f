# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import socket
import struct
from pathlib import Path

import pytest

from sandbox import layout
from sandbox.guest.names import Zone, parse_question


@pytest.fixture
def zone(tmp_path: Path) -> Zone:
    return Zone({"names": layout.site_names(), "domains": [layout.DOMAIN]}, str(tmp_path / "count.json"))


def query(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".") if part) + b"\0"
    return struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">HH", kind, 1)


def code(reply: bytes | None) -> int:
    assert reply is not None
    return reply[3] & 15


@pytest.mark.parametrize("name", ["node1.site.example", "NODE1.Site.Example", "app.ci.site.example"])
def test_own_names_are_answered(zone: Zone, name: str) -> None:
    reply = zone.answer(query(name), "10.93.0.10")
    assert reply is not None
    assert code(reply) == 0
    assert socket.inet_ntoa(reply[-4:]) == layout.site_names()[name.lower()]
    assert zone.outside == {}


def test_own_name_without_an_address_of_the_family_is_no_error(zone: Zone) -> None:
    reply = zone.answer(query("node1.site.example", 28), "10.93.0.10")
    assert code(reply) == 0
    assert reply is not None
    assert struct.unpack(">H", reply[6:8]) == (0,)


def test_reverse(zone: Zone) -> None:
    reply = zone.answer(query("21.0.93.10.in-addr.arpa", 12), "10.93.0.10")
    assert reply is not None
    assert b"\x05node1\x04site\x07example" in reply


def test_outside_names_are_refused_and_counted_by_source(zone: Zone, tmp_path: Path) -> None:
    for source, name in (("10.93.0.10", "github.com"), ("10.93.0.10", "GitHub.com"), ("10.93.0.21", "registry-1.docker.io")):
        assert code(zone.answer(query(name), source)) == 3
    assert zone.outside == {"10.93.0.10": {"github.com": 2}, "10.93.0.21": {"registry-1.docker.io": 1}}
    assert json.loads((tmp_path / "count.json").read_text())["outside"] == zone.outside
    zone.reset()
    assert json.loads((tmp_path / "count.json").read_text())["outside"] == {}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nothing.site.example", "own"),
        ("postgresql.circleci-server.svc.cluster.local", "local"),
        ("kong", "local"),
        ("kubernetes.default", "local"),
        ("postgresql.circleci-server", "local"),
        ("7.0.244.10.in-addr.arpa", "local"),
        ("8.8.8.8.in-addr.arpa", "outside"),
        ("xn--nxasmq6b.xn--j6w193g", "outside"),
        ("site.example.com", "outside"),
        ("notsite.example", "outside"),
        ("dl.k8s.io", "outside"),
    ],
)
def test_kinds(zone: Zone, name: str, kind: str) -> None:
    assert zone.kind(name) == kind


@pytest.mark.parametrize("packet", [b"", b"\0" * 5, b"\0" * 12, query("a.b")[:-3], struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1"])
def test_rubbish_is_no_answer(zone: Zone, packet: bytes) -> None:
    assert zone.answer(packet, "10.93.0.10") is None


def test_question() -> None:
    assert parse_question(query("A.b.C", 28))[2:4] == ("a.b.c", 28)
