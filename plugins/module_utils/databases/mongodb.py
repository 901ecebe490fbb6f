# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MongoDB: C(buildInfo) is answered to anybody; where it is not, C(hello) tells the version of the protocol, which each major version has its own of."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

from .link import Link, NoAnswer, ServerFacts

_OP_MSG = 2013
# maxWireVersion: the first release that speaks it.
_WIRE = {6: "3.6", 7: "4.0", 8: "4.2", 9: "4.4", 13: "5.0", 17: "6.0", 21: "7.0", 25: "8.0"}
_FIXED = {0x01: 8, 0x06: 0, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8, 0x13: 16, 0x7F: 0, 0xFF: 0}


def ask_mongodb(host: str, port: int, *, tls: bool = False, verify: bool = True, ca_certificate: str = "") -> ServerFacts:
    """What the server says without a login."""
    with contextlib.closing(Link(host, port)) as link:
        agreed = link.secure(ca_certificate, verify=verify) if tls else ""
        built = _command(link, "buildInfo")
        if isinstance(built.get("version"), str):
            return ServerFacts("MongoDB", built["version"], agreed)
        wire = _command(link, "hello").get("maxWireVersion")
    if not isinstance(wire, int) or wire < min(_WIRE):
        raise NoAnswer("protocol", f"it does not tell its version: {built.get('errmsg') or 'no answer to buildInfo'}")
    return ServerFacts("MongoDB", _WIRE[max(version for version in _WIRE if version <= wire)], agreed)


def _command(link: Link, name: str) -> dict[str, Any]:
    body = b"\x10" + _name(name) + struct.pack("<i", 1) + b"\x02" + _name("$db") + struct.pack("<i", 6) + b"admin\x00"
    document = struct.pack("<i", len(body) + 5) + body + b"\x00"
    message = struct.pack("<I", 0) + b"\x00" + document
    link.send(struct.pack("<iiii", len(message) + 16, 1, 0, _OP_MSG) + message)
    size, _request, _to, code = struct.unpack("<iiii", link.receive(16))
    if code != _OP_MSG or size < 26:
        raise NoAnswer("protocol", "it does not speak the protocol of MongoDB 3.6 or later")
    answer = link.receive(size - 16)
    try:
        return _document(answer[5:])
    except (struct.error, KeyError, ValueError) as error:
        raise NoAnswer("protocol", "its answer is no BSON") from error


def _name(text: str) -> bytes:
    return text.encode("ascii") + b"\x00"


def _document(data: bytes) -> dict[str, Any]:
    """Texts and whole numbers of a BSON document by name; values of other types are passed over."""
    found: dict[str, Any] = {}
    at, end = 4, _length(data, 0) - 1
    if end >= len(data):
        raise ValueError("a document that is longer than its message")
    while at < end:
        kind, stop = data[at], data.index(b"\x00", at + 1)
        name = data[at + 1 : stop].decode("utf-8")
        at = stop + 1
        if kind == 0x02:
            length = _length(data, at)
            found[name] = data[at + 4 : at + 3 + length].decode("utf-8")
            at += 4 + length
        elif kind in (0x03, 0x04):
            at += _length(data, at)
        elif kind == 0x05:
            at += 5 + _length(data, at)
        else:
            if kind == 0x10:
                (found[name],) = struct.unpack("<i", data[at : at + 4])
            at += _FIXED[kind]
    return found


def _length(data: bytes, at: int) -> int:
    length = int(struct.unpack("<i", data[at : at + 4])[0])
    if length < 0:
        raise ValueError("a length below nothing")
    return length
