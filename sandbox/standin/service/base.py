# SPDX-License-Identifier: GPL-3.0-or-later
"""What all roles share: identity, log lines, waiting, a very small HTTP server and client."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

Answer = tuple[int, str, bytes]
Handler = Callable[[str], Answer]


class Refusal(Exception):
    """What a service cannot do without."""


class NotYet(Exception):
    """Something that other pods may still bring: worth waiting for."""


def _identity() -> dict[str, str]:
    try:
        with open(os.environ.get("STANDIN_IDENTITY", "/etc/standin.json"), encoding="utf-8") as stream:
            found = json.load(stream)
    except OSError:
        return {}
    return {str(key): str(value) for key, value in found.items()}


IDENTITY = _identity()


def name() -> str:
    return os.environ.get("STANDIN_SERVICE") or IDENTITY.get("service", "unknown")


def release() -> str:
    return os.environ.get("STANDIN_RELEASE") or IDENTITY.get("release", "unknown")


def log(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} stand-in {name()} {release()}: {text}\n")
    sys.stderr.flush()


def env(variable: str) -> str:
    return os.environ.get(variable, "")


def flag(variable: str) -> bool:
    return env(variable).lower() in ("1", "true", "yes")


def patience() -> float:
    return float(env("STANDIN_PATIENCE") or 180)


def wait_for(what: str, attempt: Callable[[], None]) -> None:
    """Try once a second until it works; refuse when patience is at an end. The reason is said once per change."""
    end = time.monotonic() + patience()
    said = ""
    while True:
        try:
            attempt()
            return
        except (NotYet, OSError) as exc:
            reason = str(exc) or type(exc).__name__
        if time.monotonic() >= end:
            raise Refusal(f"{what}: {reason}")
        if reason != said:
            log(f"waits for {what}: {reason}")
            said = reason
        time.sleep(1)


def about() -> dict[str, Any]:
    return {"service": name(), "version": release(), "stand_in": True}


def as_json(value: Any, status: int = 200) -> Answer:
    return status, "application/json", json.dumps(value, sort_keys=True).encode() + b"\n"


def basics(path: str) -> Answer:
    """What every service answers."""
    plain = path.split("?", 1)[0]
    if plain in ("/health", "/live", "/ready", "/status"):
        return as_json({**about(), "status": "ok"})
    if plain == "/version":
        return as_json(about())
    return as_json({**about(), "error": "a stand-in has no such page"}, 404)


_REASON = {200: "OK", 301: "Moved Permanently", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


def respond(connection: socket.socket, handler: Handler) -> None:
    try:
        connection.settimeout(5)
        data = b""
        while b"\r\n\r\n" not in data and len(data) < 65536:
            block = connection.recv(8192)
            if not block:
                return
            data += block
        words = data.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) < 2 or words[0] not in ("GET", "HEAD"):
            status, kind, body = as_json({**about(), "error": "a stand-in only answers GET"}, 405)
        else:
            status, kind, body = handler(words[1])
        head = f"HTTP/1.1 {status} {_REASON.get(status, 'Status')}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode("latin-1") + (b"" if words and words[0] == "HEAD" else body))
    except OSError:
        pass
    finally:
        connection.close()


def listen(port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET6 if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6") else socket.AF_INET)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if server.family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("", port))
    server.listen(64)
    return server


def accept(server: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    while True:
        try:
            connection, _peer = server.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def serve_http(port: int, handler: Handler) -> None:
    accept(listen(port), lambda connection: respond(connection, handler))


def background(work: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


def until_told() -> int:
    """As process 1 signals are ignored unless one listens for them."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_unused: told.set())
    told.wait()
    log("stops")
    return 0


def get(url: str, timeout: float = 5, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """GET with the trust of the system and nothing else; redirects are not followed."""
    from http.client import HTTPConnection, HTTPSConnection
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refusal(f"{url!r} is no http or https address")
    connection = (HTTPSConnection if parts.scheme == "https" else HTTPConnection)(parts.hostname, parts.port, timeout=timeout)
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def knock(host: str, port: int, timeout: float = 5) -> None:
    socket.create_connection((host, port), timeout=timeout).close()
