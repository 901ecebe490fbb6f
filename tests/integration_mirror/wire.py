# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy on the wire: counts requests and bytes, and breaks things at an exact place."""

from __future__ import annotations

import base64
import json
import re
import secrets
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Fault:
    """What happens to the requests that match, *times* times, after the first *skip* of them."""

    method: str = ".*"
    path: str = ".*"
    times: int = 1
    skip: int = 0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_answer_at: int = -1
    cut_request_at: int = -1
    stall_answer_at: int = -1
    stall_request_at: int = -1
    stall_seconds: float = 30.0  # as long as nobody closes
    reset: bool = False  # what is cut ends with a reset instead of an orderly end
    drop: bool = False
    flip: int = -1
    longest_body: int = -1
    chance: Callable[[], bool] | None = None

    def takes(self, method: str, path: str, length: int) -> bool:
        if self.times == 0 or not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        if self.longest_body >= 0 and length <= self.longest_body:
            return False
        if self.chance is not None and not self.chance():
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    length: int


class Wire:
    """Listens on a port of its own and forwards to *upstream*."""

    def __init__(self, upstream: tuple[str, int] | None, tls: ssl.SSLContext | None = None) -> None:
        self.upstream = upstream
        self.tls = tls
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.down = self.up = 0
        self.latency = 0.0
        self.watch: list[tuple[int, Callable[[], None]]] = []  # called when the body bytes in both directions reach a number
        self.handler: Callable[[Request], tuple[int, dict[str, str], bytes] | None] | None = None
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}" if self.tls is None else f"localhost:{self.port}"

    @property
    def count(self) -> int:
        return len(self.requests)

    def kinds(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for request in self.requests:
            kind = "manifest" if "/manifests/" in request.path else "upload" if "/blobs/uploads" in request.path else "blob" if "/blobs/" in request.path else "other"
            found[f"{request.method} {kind}"] += 1
        return found

    def reset(self) -> None:
        with self.lock:
            self.requests.clear()
            self.down = self.up = 0

    def close(self) -> None:
        self.closing.set()
        self.server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _moved(self, up: int, down: int) -> None:
        with self.lock:
            self.up += up
            self.down += down
            due = [action for at, action in self.watch if self.up + self.down >= at]
            self.watch = [(at, action) for at, action in self.watch if self.up + self.down < at]
        for action in due:
            action()

    def _serve(self, client: socket.socket) -> None:
        upstream: socket.socket | None = None
        try:
            if self.tls is not None:
                client = self.tls.wrap_socket(client, server_side=True)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            left = b""
            while not self.closing.is_set():
                head, left = _head(client, left)
                if head is None:
                    return
                lines = head.decode("latin-1").split("\r\n")
                method, path, _version = lines[0].split(" ", 2)
                headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
                request = Request(method, path, headers, int(headers.get("content-length", "0")))
                if method == "CONNECT":
                    self._tunnel(client, left, request)
                    return
                with self.lock:
                    self.requests.append(request)
                    fault = next((item for item in self.faults if item.takes(method, path, request.length)), None)
                if self.latency:
                    time.sleep(self.latency)
                if fault is not None and fault.drop:
                    return
                answer = self.handler(request) if self.handler is not None else None
                if answer is None and fault is not None and fault.status:
                    answer = (fault.status, fault.headers, fault.body)
                if answer is not None:
                    # Like a real gateway: the body is read first, unless it is the body that is refused.
                    if fault is None or fault.longest_body < 0:
                        left = self._swallow(client, left, request.length)
                    status, extra, body = answer
                    lines = [f"HTTP/1.1 {status} Made", f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in extra.items())]
                    if fault is not None and fault.longest_body >= 0:
                        lines.append("Connection: close")
                    client.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + (b"" if method == "HEAD" else body))
                    if fault is not None and fault.longest_body >= 0:
                        return
                    continue
                if upstream is None:
                    assert self.upstream is not None
                    upstream = socket.create_connection(self.upstream)
                    upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if not self._forward(client, upstream, head, left, request, fault):
                    if fault is not None and fault.reset:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                left = b""
        except OSError:
            return
        finally:
            client.close()
            if upstream is not None:
                upstream.close()

    def _tunnel(self, client: socket.socket, left: bytes, request: Request) -> None:
        """What a proxy for https does: bytes both ways, unseen."""
        assert self.upstream is not None
        with self.lock:
            self.requests.append(request)
        with socket.create_connection(self.upstream) as upstream:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            upstream.sendall(left)

            def pump(source: socket.socket, sink: socket.socket) -> None:
                try:
                    while data := source.recv(1 << 16):
                        sink.sendall(data)
                    sink.shutdown(socket.SHUT_WR)
                except OSError:
                    return

            back = threading.Thread(target=pump, args=(upstream, client), daemon=True)
            back.start()
            pump(client, upstream)
            back.join()

    def _swallow(self, client: socket.socket, left: bytes, length: int) -> bytes:
        while len(left) < length:
            data = client.recv(1 << 16)
            if not data:
                return b""
            length -= len(left)
            left = data
        return left[length:]

    def _forward(self, client: socket.socket, upstream: socket.socket, head: bytes, left: bytes, request: Request, fault: Fault | None) -> bool:
        upstream.sendall(head + b"\r\n\r\n")
        sent, length = 0, request.length
        if fault is not None and max(fault.cut_request_at, fault.stall_request_at) >= 0:
            length = min(length, max(fault.cut_request_at, fault.stall_request_at))
        while sent < length:
            data = left or client.recv(1 << 18)
            left = b""
            if not data:
                return False
            data = data[: length - sent]
            upstream.sendall(data)
            sent += len(data)
            self._moved(len(data), 0)
        if length < request.length:
            if fault is not None and fault.stall_request_at >= 0:
                # Nothing more is read, nothing is answered, and the line stays open.
                self.closing.wait(fault.stall_seconds)
            return False
        rest = b""
        while True:
            answer, rest = _head(upstream, rest)
            if answer is None:
                return False
            if answer.split(b" ", 2)[1] != b"100":
                break
        lines = answer.decode("latin-1").split("\r\n")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        status = int(lines[0].split(" ")[1])
        # What the registry says about itself must lead back through here.
        text = "\r\n".join(re.sub(r"(?i)^(location: )https?://[^/]+", r"\1", line) for line in lines)
        client.sendall(text.encode("latin-1") + b"\r\n\r\n")
        if request.method == "HEAD" or status in (204, 304):
            return True
        chunked = "chunked" in fields.get("transfer-encoding", "")
        total = None if chunked else int(fields.get("content-length", "0"))
        done = 0
        tail = b""
        while total is None or done < total:
            data = rest or upstream.recv(1 << 18)
            rest = b""
            if not data:
                return False
            if fault is not None and fault.flip >= 0 and done <= fault.flip < done + len(data):
                place = fault.flip - done
                data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            for place, action in ((fault.cut_answer_at, "cut"), (fault.stall_answer_at, "stall")) if fault is not None else ():
                if 0 <= place < done + len(data):
                    client.sendall(data[: max(0, place - done)])
                    self._moved(0, max(0, place - done))
                    if action == "stall":
                        while not self.closing.wait(0.05):
                            client.settimeout(0.01)
                            try:
                                if client.recv(1) == b"":
                                    break
                            except TimeoutError:
                                continue
                    return False
            client.sendall(data)
            done += len(data)
            self._moved(0, len(data))
            if chunked:
                tail = (tail + data)[-7:]
                if tail.endswith(b"0\r\n\r\n"):
                    break
        return True


def _head(sock: socket.socket, data: bytes) -> tuple[bytes | None, bytes]:
    while b"\r\n\r\n" not in data:
        piece = sock.recv(1 << 16)
        if not piece:
            return None, b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


class TokenService:
    """Bearer tokens in front of a registry: each lives for a number of requests."""

    def __init__(self, wire: Wire, user: str, password: str, uses: int = 10**9) -> None:
        self.wire, self.user, self.password, self.uses = wire, user, password, uses
        self.tokens: dict[str, tuple[set[str], int]] = {}
        self.issued = 0
        wire.handler = self.handle

    def handle(self, request: Request) -> tuple[int, dict[str, str], bytes] | None:
        if request.path.startswith("/token"):
            expected = "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            if request.headers.get("authorization") != expected:
                return 401, {}, b"{}"
            token = secrets.token_hex(16)
            scopes = set(re.findall(r"scope=([^&]+)", request.path))
            self.tokens[token] = (scopes, self.uses)
            self.issued += 1
            return 200, {"Content-Type": "application/json"}, json.dumps({"token": token, "expires_in": 300}).encode()
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        scopes, left = self.tokens.get(token, (set(), 0))
        if left > 0:
            self.tokens[token] = (scopes, left - 1)
            return None
        challenge = f'Bearer realm="http://{self.wire.host}/token",service="test",scope="repository:x:pull"'
        return 401, {"WWW-Authenticate": challenge}, b'{"errors":[{"code":"UNAUTHORIZED","message":"token"}]}'
