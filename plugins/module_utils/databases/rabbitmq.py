# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RabbitMQ: by AMQP 0-9-1 the server names itself and its version before anybody logs in."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

from .link import Link, NoAnswer, ServerFacts

_HEADER = b"AMQP\x00\x00\x09\x01"
_START = (10, 10)
# Types of a field table with the length of their values; S and F carry it themselves.
_FIXED = {"t": 1, "b": 1, "B": 1, "s": 2, "u": 2, "I": 4, "i": 4, "l": 8, "L": 8, "f": 4, "d": 8, "D": 5, "T": 8, "V": 0}


def ask_rabbitmq(host: str, port: int, *, tls: bool = False, ca_certificate: str = "") -> ServerFacts:
    """What the server says in Connection.Start."""
    with contextlib.closing(Link(host, port)) as link:
        agreed = link.secure(ca_certificate) if tls else ""
        link.send(_HEADER)
        kind, _channel, size = struct.unpack(">BHI", link.receive(7))
        if kind != 1:
            raise NoAnswer("protocol", "it does not speak AMQP 0-9-1")
        payload = link.receive(size)
    try:
        if struct.unpack(">HH", payload[:4]) != _START:
            raise NoAnswer("protocol", "it does not begin as AMQP 0-9-1 does")
        (length,) = struct.unpack(">I", payload[6:10])
        properties = _table(payload[10 : 10 + length])
    except (struct.error, LookupError, UnicodeDecodeError) as error:
        raise NoAnswer("protocol", "its answer is no AMQP 0-9-1") from error
    return ServerFacts(str(properties.get("product") or "a broker without a name"), str(properties.get("version") or ""), agreed)


def _table(data: bytes) -> dict[str, Any]:
    """Texts of a field table by name; values of other types are passed over."""
    found: dict[str, Any] = {}
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        name, kind = data[at + 1 : end].decode("utf-8"), chr(data[end])
        at = end + 1
        if kind in "SFAx":
            (length,) = struct.unpack(">I", data[at : at + 4])
            if kind == "S":
                found[name] = data[at + 4 : at + 4 + length].decode("utf-8")
            at += 4 + length
        else:
            at += _FIXED[kind]
    return found
