# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry in memory: as much of the distribution API as mirroring needs, over plain HTTP, with a login when asked for."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
HELM_CONFIG = "application/vnd.cncf.helm.config.v1+json"
HELM_CONTENT = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"


def digest_of(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


class Stub:
    """What the registry holds, and every request that it saw."""

    def __init__(self, login: str = "") -> None:
        self.login = login
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.numbers = itertools.count(1)
        self.files: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.requests: list[str] = []
        self.host = ""

    def put_blob(self, repository: str, body: bytes) -> dict[str, Any]:
        self.blobs[repository, digest_of(body)] = body
        return {"digest": digest_of(body), "size": len(body)}

    def put_manifest(self, repository: str, tag: str, document: dict[str, Any], media_type: str = OCI_MANIFEST) -> str:
        body = json.dumps(document).encode()
        for name in (tag, digest_of(body)):
            self.manifests[repository, name] = (media_type, body)
        return digest_of(body)

    def image(self, repository: str, tag: str, layer: bytes = b"layer") -> str:
        config = self.put_blob(repository, json.dumps({"architecture": "amd64", "os": "linux"}).encode())
        return self.put_manifest(
            repository,
            tag,
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
                "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **self.put_blob(repository, layer)}],
            },
        )

    def chart(self, repository: str, tag: str, archive: bytes) -> str:
        return self.put_manifest(
            repository,
            tag,
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": HELM_CONFIG, **self.put_blob(repository, b"{}")},
                "layers": [{"mediaType": HELM_CONTENT, **self.put_blob(repository, archive)}],
            },
        )

    def artifact(self, repository: str, tag: str, files: dict[str, bytes]) -> str:
        layers = [
            {"mediaType": "application/octet-stream", "annotations": {"org.opencontainers.image.title": name}, **self.put_blob(repository, body)} for name, body in files.items()
        ]
        config = {"mediaType": "application/vnd.oci.empty.v1+json", **self.put_blob(repository, b"{}")}
        return self.put_manifest(repository, tag, {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers})


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_args: Any) -> None:
            return

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def handle_one(self) -> None:
            stub.requests.append(f"{self.command} {self.path}")
            body = self.body()
            parts = urlsplit(self.path)
            if not parts.path.startswith("/v2/"):
                found = stub.files.get(parts.path)
                if found is None:
                    return self.answer(404)
                return self.answer(200, found[0], **found[1])
            wanted = "Basic " + base64.b64encode(stub.login.encode()).decode()
            if stub.login and self.headers.get("Authorization") != wanted:
                return self.answer(401, Www_Authenticate='Basic realm="stub"')
            if parts.path == "/v2/":
                return self.answer(200)
            if match := re.fullmatch(r"/v2/(.+)/manifests/(.+)", parts.path):
                return self.manifest(match[1], match[2], body)
            if match := re.fullmatch(r"/v2/(.+)/blobs/(sha256:\w+)", parts.path):
                blob = stub.blobs.get((match[1], match[2]))
                return self.answer(404) if blob is None else self.answer(200, blob)
            if match := re.fullmatch(r"/v2/(.+)/blobs/uploads/(.*)", parts.path):
                return self.upload(match[1], match[2], parse_qs(parts.query), body)
            return self.answer(404)

        def manifest(self, repository: str, name: str, body: bytes) -> None:
            if self.command == "PUT":
                stub.manifests[repository, name] = stub.manifests[repository, digest_of(body)] = (self.headers["Content-Type"], body)
                return self.answer(201, Docker_Content_Digest=digest_of(body))
            found = stub.manifests.get((repository, name))
            if found is None:
                return self.answer(404)
            return self.answer(200, found[1], Content_Type=found[0], Docker_Content_Digest=digest_of(found[1]))

        def upload(self, repository: str, session: str, query: dict[str, list[str]], body: bytes) -> None:
            place = f"/v2/{repository}/blobs/uploads/"
            if self.command == "POST":
                mount, source = query.get("mount", [""])[0], query.get("from", [""])[0]
                if (source, mount) in stub.blobs:
                    stub.blobs[repository, mount] = stub.blobs[source, mount]
                    return self.answer(201, Docker_Content_Digest=mount)
                # never one that another upload still has
                number = str(next(stub.numbers))
                stub.uploads[number] = b""
                return self.answer(202, Location=place + number)
            if session not in stub.uploads:
                return self.answer(404)
            if self.command == "GET":
                return self.answer(204, Location=place + session, Range=f"0-{max(0, len(stub.uploads[session]) - 1)}")
            stub.uploads[session] += body
            if self.command == "PATCH":
                return self.answer(202, Location=place + session, Range=f"0-{len(stub.uploads[session]) - 1}")
            digest, whole = query["digest"][0], stub.uploads.pop(session)
            if digest_of(whole) != digest:
                return self.answer(400, json.dumps({"errors": [{"code": "DIGEST_INVALID"}]}).encode())
            stub.blobs[repository, digest] = whole
            return self.answer(201, Docker_Content_Digest=digest)

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = handle_one

    return Handler


def serve(login: str = "", context: ssl.SSLContext | None = None) -> Iterator[Stub]:
    """A running stub, with TLS when it is given a context; use it as ``yield from serve()`` in a fixture."""
    stub = Stub(login)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(stub))
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    stub.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
