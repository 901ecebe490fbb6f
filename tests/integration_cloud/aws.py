# SPDX-License-Identifier: GPL-3.0-or-later
"""Refusals of AWS in front of moto, which looks at no signature and no rights: the next answers are errors of EC2, the rest is moto's."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ERROR = '<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors><RequestID>1</RequestID></Response>'


class Refusals:
    """C(next) is a list of status, code, message and the action that it waits for (empty: whatever comes)."""

    def __init__(self, backend: str) -> None:
        self.backend, self.url = backend, ""
        self.next: list[tuple[int, str, str, str]] = []
        self.actions: list[str] = []


@contextlib.contextmanager
def refusing(backend: str) -> Iterator[Refusals]:
    state = Refusals(backend)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            action = parse_qs(body.decode())["Action"][0]
            state.actions.append(action)
            if state.next and state.next[0][3] in ("", action):
                status, code, message, _action = state.next.pop(0)
                data, kind = ERROR.format(code, message).encode(), "text/xml"
            else:
                connection = http.client.HTTPConnection(str(urlsplit(state.backend).netloc))
                connection.request("POST", self.path, body, {name: value for name, value in self.headers.items() if name.lower() != "host"})
                answer = connection.getresponse()
                status, data, kind = answer.status, answer.read(), answer.headers.get("Content-Type", "text/xml")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_arguments: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
