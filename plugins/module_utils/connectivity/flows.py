# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Connections to try, checked before the first one is made."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EXPECTATIONS = ("open", "reachable", "closed", "tls", "http", "https")
KNOWN = {"name", "address", "port", "protocol", "expect", "server_name", "path", "status", "timeout", "datagram", "rule", "from", "to", "reason"}
# Serf, and Nomad with it, answers a ping that names nobody: a byte for the kind of message, then MessagePack.
DATAGRAMS = {"": b"\0", "serf": b"\0\x82\xa5SeqNo\x01\xa4Node\xa0"}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")


class FlowError(Exception):
    """Every problem of the list of connections at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Flow:
    """One connection: where to, and what must be found there."""

    name: str
    address: str
    port: int
    protocol: str
    expect: str
    server_name: str
    path: str
    status: tuple[int, ...]
    timeout: float
    extra: Mapping[str, Any]
    datagram: bytes = DATAGRAMS[""]


def _address(value: Any) -> str:
    text = str(value).strip()
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text if _HOST.fullmatch(text) else ""


def parse_flows(items: Sequence[Mapping[str, Any]], timeout: float) -> list[Flow]:
    """Flows out of plain data; what is wrong is told all together."""
    problems: list[str] = []
    result: list[Flow] = []
    for number, item in enumerate(items):
        name = str(item.get("name") or f"flow {number + 1}")
        unknown = sorted(set(item) - KNOWN)
        if unknown:
            problems.append(f"{name}: unknown {', '.join(unknown)}; known are {', '.join(sorted(KNOWN))}")
        address = _address(item.get("address", ""))
        if not address:
            problems.append(f"{name}: address {item.get('address')!r} is neither an IP address nor a host name")
        raw = item.get("port")
        port = int(str(raw)) if str(raw).isdigit() else 0
        if not 1 <= port <= 65535:
            problems.append(f"{name}: port {raw!r} is not a number from 1 to 65535")
        protocol = str(item.get("protocol", "tcp"))
        expect = str(item.get("expect", "open"))
        if protocol not in ("tcp", "udp"):
            problems.append(f"{name}: protocol {protocol!r}; known are tcp and udp")
        if expect not in EXPECTATIONS:
            problems.append(f"{name}: expect {expect!r}; known are {', '.join(EXPECTATIONS)}")
        elif protocol == "udp" and expect not in ("open", "reachable", "closed"):
            problems.append(f"{name}: expect {expect} needs tcp")
        datagram = str(item.get("datagram", ""))
        if datagram not in DATAGRAMS or (datagram and protocol != "udp"):
            problems.append(f"{name}: datagram {datagram!r}; known are {', '.join(filter(None, DATAGRAMS))}, with udp")
        path = str(item.get("path", "/"))
        if not re.fullmatch(r"/[!-~]*", path):
            problems.append(f"{name}: path {path!r} must begin with / and hold no spaces")
        status = tuple(int(code) for code in item.get("status") or ())
        extra = {key: str(item[key]) for key in ("rule", "from", "to", "reason") if key in item}
        result.append(
            Flow(name, address, port, protocol, expect, str(item.get("server_name") or address), path, status,
                 float(item.get("timeout", timeout)), extra, DATAGRAMS.get(datagram, b""))
        )  # fmt: skip
    if problems:
        raise FlowError(problems)
    return result
