# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
"""A strict stand-in for the KV engine, version 2, of HashiCorp Vault: check-and-set, policies, sealing, and engines of version 1."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "token-of-the-test"


class Kv2:
    def __init__(self) -> None:
        self.entries: dict[str, list[dict[str, Any]]] = {}
        self.requests: list[tuple[str, str]] = []
        self.sealed = self.read_only = self.forgets = self.version1 = False

    def writes(self) -> list[tuple[str, str]]:
        return [entry for entry in self.requests if entry[0] != "GET"]

    def answer(self, method: str, target: str, token: str, body: Any) -> tuple[int, Any]:
        url = urlsplit(target)
        path = unquote(url.path)
        self.requests.append((method, path))
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if token != TOKEN or (method != "GET" and self.read_only):
            return 403, {"errors": ["permission denied"]}
        if not path.startswith("/v1/kv/"):
            return 404, {"errors": [f"no handler for route {path!r}"]}
        kind, _slash, name = path[len("/v1/kv/") :].partition("/")
        if kind == "metadata" and method == "GET" and "list=true" in url.query:
            prefix = name.rstrip("/") + "/"
            keys = sorted({entry[len(prefix) :] for entry in self.entries if entry.startswith(prefix)})
            return (200, {"data": {"keys": keys}}) if keys else (404, {"errors": []})
        if kind != "data":
            return 405, {"errors": ["unsupported operation"]}
        versions = self.entries.get(name, [])
        if method == "GET":
            if not versions:
                return 404, {"errors": []}
            if self.version1:
                return 200, {"data": {"data": versions[-1]}}
            return 200, {"data": {"data": versions[-1], "metadata": {"version": len(versions)}}}
        if method == "POST":
            cas = (body.get("options") or {}).get("cas")
            if cas is not None and cas != len(versions):
                return 400, {"errors": ["check-and-set parameter did not match the current version"]}
            self.entries.setdefault(name, []).append({**body["data"], "data": {}} if self.forgets else body["data"])
            return (204, {}) if self.version1 else (200, {"data": {"version": len(self.entries[name])}})
        return 405, {"errors": ["unsupported operation"]}


@contextlib.contextmanager
def serving(engine: Kv2) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            status, answer = engine.answer(self.command, self.path, self.headers.get("X-Vault-Token") or "", body)
            text = json.dumps(answer).encode() if status != 204 else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_DELETE = _answer

        def log_message(self, *_rest: Any) -> None:
            """Tokens are in no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
