# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
"""A stand-in for the exec of the Kubernetes API (WebSocket, v4.channel.k8s.io) that runs the program here instead of in a pod."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import struct
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any
from urllib.parse import parse_qs, urlsplit

PROTOCOL = "v4.channel.k8s.io"


def _read_frame(stream: BufferedIOBase) -> tuple[int, bytes]:
    first, second = stream.read(2)
    size = second & 127
    if size == 126:
        (size,) = struct.unpack("!H", stream.read(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", stream.read(8))
    mask = stream.read(4)  # clients always mask
    return first & 15, bytes(byte ^ mask[index % 4] for index, byte in enumerate(stream.read(size)))


def _write_frame(stream: BufferedIOBase, kind: int, payload: bytes) -> None:
    size = len(payload)
    head = bytes([128 | kind, size]) if size < 126 else bytes([128 | kind, 126]) + struct.pack("!H", size)
    stream.write(head + payload)
    stream.flush()


@contextlib.contextmanager
def serving(environment: dict[str, str], *, forbidden: bool = False, breaks_off: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Address, and the paths with their queries that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            url = urlsplit(self.path)
            query = parse_qs(url.query)
            if forbidden or not url.path.endswith("/exec") or self.headers.get("Upgrade", "").lower() != "websocket":
                text = json.dumps({"kind": "Status", "status": "Failure", "message": "pods is forbidden", "code": 403}).encode()
                self.send_response(403, "Forbidden")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
                return
            assert (PROTOCOL in self.headers["Sec-WebSocket-Protocol"] and query["stdin"] == ["True"]) or query["stdin"] == ["true"]
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode(), usedforsecurity=False).digest()).decode())
            self.send_header("Sec-WebSocket-Protocol", PROTOCOL)
            self.end_headers()
            self.close_connection = True
            if breaks_off:
                return
            self._run(query["command"])

        def _run(self, command: list[str]) -> None:
            pipe = subprocess.PIPE
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as program:
                kind, payload = _read_frame(self.rfile)
                assert kind in (1, 2) and payload[:1] == b"\x00" and program.stdin and program.stdout and program.stderr
                # As in a pod: the standard input stays open.
                program.stdin.write(payload[1:])
                program.stdin.flush()
                out, err = program.stdout.read(), program.stderr.read()
                code = program.wait()
            status: dict[str, Any] = {"metadata": {}, "status": "Success"}
            if code:
                causes = [{"reason": "ExitCode", "message": str(code)}]
                status = {"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
            for channel, data in ((1, out), (2, err), (3, json.dumps(status).encode())):
                if data:
                    _write_frame(self.wfile, 2, bytes([channel]) + data)
            _write_frame(self.wfile, 8, struct.pack("!H", 1000))

        def log_message(self, *_rest: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
