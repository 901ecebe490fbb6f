# SPDX-License-Identifier: GPL-3.0-or-later
"""Refusals of AWS in front of moto, which looks at no signature and no rights: the next answers are errors of EC2 or S3, the rest is moto's."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

S3_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>{}</Message><RequestId>1</RequestId></Error>'
ERROR = '<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors><RequestID>1</RequestID></Response>'


class Refusals:
    """C(next) is a list of status, code, message and the action that it waits for (empty: whatever comes).

    An action of S3 is its method, the bucket, and what of it is asked for, such as C(PUT example-data policy).
    """

    def __init__(self, backend: str) -> None:
        self.backend, self.url = backend, ""
        self.next: list[tuple[int, str, str, str]] = []
        self.actions: list[str] = []


@contextlib.contextmanager
def refusing(backend: str) -> Iterator[Refusals]:
    state = Refusals(backend)

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            form = parse_qs(body.decode()) if self.command == "POST" and "form" in self.headers.get("Content-Type", "") else {}
            action = form["Action"][0] if form else " ".join(filter(None, (self.command, parts.path.strip("/"), parts.query.partition("=")[0])))
            state.actions.append(action)
            if state.next and state.next[0][3] in ("", action):
                status, code, message, _action = state.next.pop(0)
                data, kind = (ERROR if form else S3_ERROR).format(code, message).encode(), "text/xml"
            else:
                connection = http.client.HTTPConnection(str(urlsplit(state.backend).netloc))
                connection.request(self.command, self.path, body, {name: value for name, value in self.headers.items() if name.lower() != "host"})
                answer = connection.getresponse()
                status, data, kind = answer.status, answer.read(), answer.headers.get("Content-Type", "text/xml")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data if self.command != "HEAD" else b"")

        do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = _serve

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
