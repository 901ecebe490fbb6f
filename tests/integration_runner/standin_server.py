# SPDX-License-Identifier: GPL-3.0-or-later
"""STAND-IN for the runner API of a CircleCI server, and a registry in memory for the program: both on loopback of the lab, both over TLS.

Files in its folder say what it knows (``tokens.json``: token to resource class; ``jobs/<id>``: the file that ends the job when it is there) and what it saw (``seen.jsonl``, without tokens).
"""

from __future__ import annotations

import datetime
import io
import json
import ssl
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ansible_collections.onprem.circleci_server.tests.unit.helpers.registry_stub import Stub, _handler

FOLDER = Path(sys.argv[1])
PERSONAL = "personal-token-of-the-lab"
LOCK = threading.Lock()
HEARD: dict[str, dict[str, Any]] = {}


def seen(**event: Any) -> None:
    with (FOLDER / "seen.jsonl").open("a") as stream:
        stream.write(json.dumps(event) + "\n")


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: Any) -> None:
        return

    def answer(self, status: int, body: Any = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        tokens = json.loads((FOLDER / "tokens.json").read_text())
        known = tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if known is None:
            seen(refused=self.path)
            return self.answer(401, {"message": "unauthorized"})
        if self.path == "/standin/done":
            seen(done=body["id"], status=body["status"], result=body["result"], token=known["nickname"])
            return self.answer(200, {})
        if self.path != "/api/v3/runner/claim":
            return self.answer(404, {})
        with LOCK:
            HEARD[body["name"]] = {"class": known["class"], "when": datetime.datetime.now(datetime.timezone.utc), "version": body["version"]}
            jobs = sorted((FOLDER / "jobs").iterdir())
            seen(claim=body["name"], token=known["nickname"], job=jobs[0].name if jobs else "")
            if not jobs:
                return self.answer(200, {})
            until = jobs[0].read_text()
            jobs[0].unlink()
        return self.answer(200, {"id": jobs[0].name, "until": until})

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path != "/api/v3/runner":
            return self.answer(404, {})
        if self.headers.get("Circle-Token") != PERSONAL:
            return self.answer(401, {"message": "You must log in first."})
        wanted = parse_qs(parts.query).get("resource-class", [""])[0]
        if not wanted:
            return self.answer(400, {"message": "resource-class or namespace is needed"})
        items = [
            {"resource_class": item["class"], "hostname": name, "name": name, "version": item["version"], "last_connected": item["when"].isoformat().replace("+00:00", "Z")}
            for name, item in HEARD.items()
            if item["class"] == wanted
        ]
        return self.answer(200, {"items": items})


def archive(program: bytes) -> bytes:
    """The vendor's tarball holds the program alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        info = tarfile.TarInfo("circleci-runner")
        info.size, info.mode = len(program), 0o755
        bundle.addfile(info, io.BytesIO(program))
    return buffer.getvalue()


def main() -> None:
    registry = Stub("site:registry-password")
    program = Path(__file__).with_name("standin_runner.py").read_bytes()
    for version, more in (("3.1.11", b""), ("3.1.12", b"# another version\n")):
        registry.artifact("onprem/files/machine-runner-linux-amd64", version, {"circleci-runner_linux_amd64.tar.gz": archive(program + more)})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(FOLDER / "server.crt", FOLDER / "server.key")
    for port, handler in ((443, Api), (5000, _handler(registry))):
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    (FOLDER / "ready").touch()
    threading.Event().wait()


if __name__ == "__main__":
    main()
