# SPDX-License-Identifier: GPL-3.0-or-later
"""What the STAND-INS of the clouds' APIs share: a server on loopback whose requests and answers are held against the vendor's own schema.

A stand-in refuses what the schema does not have, and what the vendor's text beside it forbids. It filters no packet and knows no other service.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema
import yaml

TOKEN = "canary_of_the_token"
Answer = tuple[int, Any, dict[str, str]]


class Refused(Exception):
    """What is answered instead: a status, its words (the cloud's own form is made of them), and headers."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


def _no_read_only(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if value:
        yield jsonschema.ValidationError("is read-only")


Sent = jsonschema.validators.extend(jsonschema.Draft7Validator, {"readOnly": _no_read_only})


class Schema:
    """Definitions of one vendor."""

    def __init__(self, name: str) -> None:
        self.all = yaml.safe_load((Path(__file__).parent / "schemas" / f"{name}.yml").read_text())

    def wrong(self, definition: str, value: Any, sent: bool) -> list[str]:
        schema = {"$ref": f"#/definitions/{definition}", **self.all}
        found = (Sent if sent else jsonschema.Draft7Validator)(schema).iter_errors(value)
        return sorted(f"{'/'.join(map(str, error.absolute_path))}: {error.message}"[:300] for error in found)

    def answer(self, definition: str, value: Any) -> Any:
        """An answer that the vendor could give; anything else is a mistake of the stand-in."""
        assert not (wrong := self.wrong(definition, value, sent=False)), wrong
        return json.loads(json.dumps(value))


class StandIn:
    """One API. C(serve) answers what is asked; C(refusal) puts a refusal into the form of the cloud."""

    url = ""
    port = 0
    bad_request = 400

    def __init__(self, schema: str) -> None:
        self.schema = Schema(schema)
        self.tokens = {TOKEN}
        self.calls: list[tuple[str, str]] = []
        self.next: list[Refused] = []
        """Refusals for the next requests, in their order, whatever is asked."""
        self.next_writes: list[Refused] = []
        """The same for requests that change something."""
        self.fail_operation = ""
        """Code of an error that the next long-running operation ends with."""

    @property
    def writes(self) -> int:
        return sum(method in ("PUT", "PATCH", "DELETE") or (method == "POST" and "/wait" not in path and not path.endswith("/checkNameAvailability")) for method, path in self.calls)

    def serve(self, method: str, path: str, query: dict[str, str], body: Any, headers: Message[str, str]) -> Answer:
        raise NotImplementedError

    def refusal(self, refused: Refused) -> Any:
        raise NotImplementedError

    def public(self, method: str, path: str, text: bytes, headers: Message[str, str]) -> Answer | None:
        """What needs no token, for instance where one is got."""
        return None

    def parsed(self, path: str, text: bytes, headers: Message[str, str]) -> Any:
        """The body of a request."""
        if text and headers.get("Content-Type") != "application/json":
            raise Refused(415, "unsupported", "JSON is needed")
        return json.loads(text) if text else None

    def allowed(self, path: str, token: str) -> bool:
        """Whether a token opens this."""
        return token in self.tokens

    def sent(self, definition: str, body: Any) -> Any:
        if wrong := self.schema.wrong(definition, body, sent=True):
            raise Refused(self.bad_request, "invalid", "; ".join(wrong))
        return body

    def _answer(self, method: str, target: str, text: bytes, headers: Message[str, str]) -> Answer:
        parts = urlsplit(target)
        public = self.public(method, target, text, headers)
        if public:
            return public
        self.calls.append((method, parts.path))
        try:
            if not self.allowed(parts.path, headers.get("Authorization", "").removeprefix("Bearer ")):
                raise Refused(401, "unauthenticated", "The credentials are not valid")
            body = self.parsed(parts.path, text, headers)
            if self.next:
                raise self.next.pop(0)
            if self.next_writes and method != "GET":
                raise self.next_writes.pop(0)
            return self.serve(method, parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), body, headers)
        except Refused as refused:
            return refused.status, self.refusal(refused), {name.replace("_", "-"): value for name, value in refused.headers.items()}


@contextlib.contextmanager
def running(account: StandIn, certificate: tuple[Path, Path] | None = None) -> Iterator[StandIn]:
    """The stand-in on loopback; with a certificate and its key by TLS."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer, headers = account._answer(self.command, self.path, text, self.headers)
            data = b"" if answer is None else answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        def log_message(self, *_arguments: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_address[1]}"
    account.url, account.port = account.url or url, server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield account
    finally:
        server.shutdown()
        server.server_close()
