# SPDX-License-Identifier: GPL-3.0-or-later
"""DNS server of a sandbox network: answers its own zone, refuses and counts everything else. It never forwards."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import socketserver
import struct
import sys
import threading
import time
from typing import Any

TYPES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 65: "HTTPS", 255: "ANY"}
LOCAL_SUFFIXES = (".cluster.local", ".local", ".localhost", ".localdomain", ".home.arpa")
NAMESPACES = ("default", "svc")


def parse_question(packet: bytes) -> tuple[int, int, str, int, bytes]:
    """Query id, flags, name in lower case, type and the raw question."""
    ident, flags, count = struct.unpack(">HHH", packet[:6])
    if count != 1:
        raise ValueError("exactly one question is answered")
    labels: list[str] = []
    at = 12
    while (length := packet[at]) != 0:
        if length > 63:
            raise ValueError("compressed question")
        labels.append(packet[at + 1 : at + 1 + length].decode("ascii", "replace").lower())
        at += 1 + length
    (kind,) = struct.unpack(">H", packet[at + 1 : at + 3])
    return ident, flags, ".".join(labels), kind, packet[12 : at + 5]


class Zone:
    """Names of this network and the count of what was asked besides."""

    def __init__(self, config: dict[str, Any], counter_path: str) -> None:
        self.names: dict[str, str] = {name.lower(): address for name, address in config["names"].items()}
        self.domains: tuple[str, ...] = tuple(config["domains"])
        self.reverse = {ipaddress.ip_address(address).reverse_pointer: name for name, address in reversed(self.names.items())}
        self.counter_path = counter_path
        self.guard = threading.Lock()
        self.outside: dict[str, dict[str, int]] = {}
        self.first: dict[str, str] = {}
        self.write()

    def kind(self, name: str) -> str:
        """Own: ours to answer. Local: never leaves a site by its nature. Outside: somebody asks for the world."""
        if name in self.names or any(name == domain or name.endswith("." + domain) for domain in self.domains):
            return "own"
        if name.endswith(".in-addr.arpa") or name.endswith(".ip6.arpa"):
            if name in self.reverse:
                return "own"
            return "local" if self.private_pointer(name) else "outside"
        if "." not in name or name.endswith(LOCAL_SUFFIXES):
            return "local"
        # service.namespace, which resolvers in pods try as it stands when a search domain had no address of the wanted family:
        # no top-level domain of the internet is called so
        top = name.rsplit(".", 1)[1]
        if top in NAMESPACES or ("-" in top and not top.startswith("xn--")):
            return "local"
        return "outside"

    @staticmethod
    def private_pointer(name: str) -> bool:
        if name.endswith(".ip6.arpa"):
            return True
        parts = name.removesuffix(".in-addr.arpa").split(".")
        try:
            return len(parts) == 4 and not ipaddress.ip_address(".".join(reversed(parts))).is_global
        except ValueError:
            return False

    def count(self, source: str, name: str) -> None:
        with self.guard:
            names = self.outside.setdefault(source, {})
            names[name] = names.get(name, 0) + 1
            self.first.setdefault(f"{source} {name}", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
            self.write()

    def reset(self) -> None:
        with self.guard:
            self.outside.clear()
            self.first.clear()
            self.write()

    def write(self) -> None:
        temporary = self.counter_path + ".new"
        with open(temporary, "w", encoding="utf-8") as stream:
            json.dump({"outside": self.outside, "first": self.first}, stream, sort_keys=True)
        os.replace(temporary, self.counter_path)

    def answer(self, packet: bytes, source: str) -> bytes | None:
        try:
            ident, flags, name, kind, question = parse_question(packet)
        except (ValueError, IndexError, struct.error):
            return None
        category = self.kind(name)
        if category == "outside":
            self.count(source, name)
        records = b""
        address = self.names.get(name)
        if address is not None and kind in (1, 255):
            records = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(address)
        elif name in self.reverse and kind == 12:
            target = b"".join(bytes([len(part)]) + part.encode() for part in self.reverse[name].split(".")) + b"\0"
            records = b"\xc0\x0c" + struct.pack(">HHIH", 12, 1, 60, len(target)) + target
        exists = address is not None or name in self.reverse or name in self.domains
        code = 0 if exists else 3
        header = struct.pack(">HHHHHH", ident, 0x8480 | (flags & 0x0100) | code, 1, 1 if records else 0, 0, 0)
        return header + question + records


def serve(zone: Zone, address: str) -> None:
    class Udp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            packet, sock = self.request
            if (reply := zone.answer(packet, self.client_address[0])) is not None:
                sock.sendto(reply, self.client_address)

    class Tcp(socketserver.StreamRequestHandler):
        timeout = 5

        def handle(self) -> None:
            head = self.rfile.read(2)
            if len(head) == 2 and (reply := zone.answer(self.rfile.read(struct.unpack(">H", head)[0]), self.client_address[0])) is not None:
                self.wfile.write(struct.pack(">H", len(reply)) + reply)

    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer.daemon_threads = True
    tcp = socketserver.ThreadingTCPServer((address, 53), Tcp)
    threading.Thread(target=tcp.serve_forever, daemon=True).start()
    with socketserver.UDPServer((address, 53), Udp) as udp:
        udp.serve_forever()


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as stream:
        config = json.load(stream)
    zone = Zone(config, "/run/onprem-names.json")
    import signal

    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=zone.reset).start())
    serve(zone, config["listen"])


if __name__ == "__main__":
    main()
