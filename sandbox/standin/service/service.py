# SPDX-License-Identifier: GPL-3.0-or-later
"""The ordinary service, and the two with something to show: frontend (page) and kong (gateway)."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

from . import base, checks

HTTP, HTTPS, STATUS = 8080, 8443, 8001


def _plain(path: str) -> base.Answer:
    if path.startswith("/tasks"):
        return base.as_json({"tasks": 0, **base.about()})
    return base.basics(path)


class Page:
    """The stand-in's web page: name, release, and what each service says of itself."""

    def __init__(self) -> None:
        self._peers = [peer for peer in base.env("STANDIN_PEERS").split(",") if peer]
        self._state: dict[str, str] = {}
        self._at = 0.0
        self._lock = threading.Lock()

    def _ask(self, peer: str) -> None:
        try:
            status, _body = base.get(f"http://{peer}/health", timeout=2)
            self._state[peer] = "ok" if status == 200 else f"status {status}"
        except OSError as exc:
            self._state[peer] = f"no answer ({type(exc).__name__})"

    def refresh(self) -> None:
        with self._lock:
            if time.monotonic() - self._at < 10 and self._state:
                return
            threads = [threading.Thread(target=self._ask, args=(peer,), daemon=True) for peer in self._peers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(3)
            self._at = time.monotonic()

    def answer(self, path: str) -> base.Answer:
        plain = path.split("?", 1)[0]
        if plain in ("/health", "/live", "/ready", "/status", "/version"):
            return base.basics(plain)
        if plain == "/services.json":
            self.refresh()
            return base.as_json({**base.about(), "services": dict(sorted(self._state.items()))})
        if plain == "/":
            self.refresh()
            return 200, "text/html; charset=utf-8", self._html().encode()
        return base.basics(plain)

    def _html(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><td>{escape(peer)}</td><td class={'ok' if state == 'ok' else 'bad'}>{escape(state)}</td></tr>"
            for peer, state in sorted(self._state.items())
        )
        good = sum(1 for state in self._state.values() if state == "ok")
        return (
            "<!doctype html><html lang=en><meta charset=utf-8><title>Stand-in for CircleCI Server</title>"
            "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}"
            "table{border-collapse:collapse}td{padding:.1rem 1rem .1rem 0}.ok{color:#176b2c}.bad{color:#a31515}</style>"
            f"<h1>Stand-in for CircleCI Server {escape(base.release())}</h1>"
            "<p>This is not the vendor's software. It stands where CircleCI Server would stand, so that an installation can be tried "
            "from end to end without a licence.</p>"
            f"<p>Domain: {escape(base.env('CIRCLE_DOMAIN'))} · services that answer: {good} of {len(self._peers)}</p>"
            f"<table>{rows}</table></html>\n"
        )


def _repl(connection: socket.socket) -> None:
    """Port 6005 is open as in the real one, and says at once that nothing is evaluated."""
    text = b"a stand-in evaluates nothing"
    with connection, contextlib.suppress(OSError):
        connection.sendall(b"d3:err%d:%se" % (len(text), text))


def _certificate() -> tuple[str, str]:
    """Kong has a certificate of its own behind the proxy; nobody is asked to trust it."""
    import subprocess

    key, certificate = "/tmp/kong.key", "/tmp/kong.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"]
    argv += ["-subj", "/CN=kong", "-addext", "subjectAltName=DNS:kong", "-keyout", key, "-out", certificate]
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode:
        raise base.Refusal(f"openssl made no certificate: {done.stderr.decode('utf-8', 'replace').strip()[-200:]}")
    return certificate, key


def _serve_tls(port: int, handler: base.Handler) -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*_certificate())

    def serve(connection: socket.socket) -> None:
        try:
            connection.settimeout(5)
            wrapped = context.wrap_socket(connection, server_side=True)
        except (OSError, ssl.SSLError):
            connection.close()
            return
        base.respond(wrapped, handler)

    base.accept(base.listen(port), serve)


def run(role: str) -> int:
    needs = [need for need in base.env("STANDIN_NEEDS").split(",") if need]
    checks.all_of(needs)
    handler = Page().answer if role == "frontend" else _plain
    for port in (int(text) for text in base.env("STANDIN_PORTS").split(",") if text):
        base.background(base.serve_http, port, handler)
    if base.flag("STANDIN_REPL"):
        base.background(lambda: base.accept(base.listen(6005), _repl))
    if role == "kong":
        base.background(_serve_tls, HTTPS, handler)
        base.background(base.serve_http, STATUS, handler)
    base.background(base.serve_http, HTTP, handler)
    base.log(f"ready (process {os.getpid()})")
    return base.until_told()
