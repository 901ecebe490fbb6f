# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""What listens on this host, and what of it no rule explains."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

TABLES = (("tcp", "tcp", "0A"), ("tcp", "tcp6", "0A"), ("udp", "udp", "07"), ("udp", "udp6", "07"))


@dataclass(frozen=True)
class Listener:
    """A socket that others can reach."""

    protocol: str
    address: str
    port: int
    process: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def _address(text: str) -> str:
    data = bytes.fromhex(text)
    # The kernel prints words of four bytes in the order of the machine.
    words = [data[start : start + 4][::-1] for start in range(0, len(data), 4)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _processes(proc: str) -> dict[str, str]:
    """Names of processes by socket inode; what cannot be read is left out."""
    result: dict[str, str] = {}
    try:
        pids = [name for name in os.listdir(proc) if name.isdigit()]
    except OSError:
        return result
    for pid in pids:
        try:
            with open(f"{proc}/{pid}/comm", encoding="utf-8", errors="replace") as handle:
                name = handle.read().strip()
            for entry in os.scandir(f"{proc}/{pid}/fd"):
                try:
                    target = os.readlink(entry.path)
                except OSError:
                    continue
                if target.startswith("socket:["):
                    result.setdefault(target[8:-1], name)
        except OSError:
            continue
    return result


def listeners(proc: str = "/proc") -> list[Listener]:
    """Listening TCP sockets and bound UDP sockets, those of the loopback left out."""
    found: dict[tuple[str, str, int], str] = {}
    for protocol, table, state in TABLES:
        try:
            with open(f"{proc}/net/{table}", encoding="ascii") as handle:
                lines = handle.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if len(words) < 10 or words[3] != state:
                continue
            host, port = words[1].split(":")
            address = _address(host)
            if not ipaddress.ip_address(address).is_loopback:
                found.setdefault((protocol, address, int(port, 16)), words[9])
    names = _processes(proc) if found else {}
    return [Listener(protocol, address, port, names.get(inode, "")) for (protocol, address, port), inode in sorted(found.items())]


def unexplained(found: Iterable[Listener], rules: Sequence[Mapping[str, Any]], known: Sequence[int] = ()) -> list[Listener]:
    """Listeners on ports that neither an incoming rule nor ``known`` names."""
    spans: list[tuple[str, int, int]] = [("any", port, port) for port in known]
    for rule in rules:
        if str(rule.get("direction", "ingress")) != "ingress":
            continue
        for part in rule.get("ports") or []:
            low, _dash, high = str(part).partition("-")
            if low.isdigit():
                spans.append((str(rule.get("protocol", "tcp")), int(low), int(high or low)))
    return [
        item
        for item in found
        if not any(protocol in ("any", item.protocol) and low <= item.port <= high for protocol, low, high in spans)
    ]
