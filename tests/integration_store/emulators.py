# SPDX-License-Identifier: GPL-3.0-or-later
"""Emulators of cloud stores on loopback. Each test that uses one says what it cannot show."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .stores import free_port, program, wait_for_port

EMAIL = "circleci@example-project.iam.gserviceaccount.com"


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[dict[str, Any]]:
    """S3 of AWS as moto has it: policies and anonymous access are enforced, signatures are not looked at."""
    python = os.environ.get("MOTO_PYTHON", "")
    if not python or not Path(python).is_file():
        pytest.skip("MOTO_PYTHON names no Python with moto: make test-store sets it up")
    port, log = free_port(), folder / "moto.log"
    # Keys are not checked, so that the environment of the machine must not lead it anywhere.
    environment = {"PATH": os.environ["PATH"], "MOTO_ALLOW_NONEXISTENT_REGION": "true"}
    command = [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        wait_for_port(port, process, log)
        yield {"endpoint": f"http://127.0.0.1:{port}", "account": "AKIAEXAMPLE", "key": "secret of aws", "process": process}
    finally:
        process.kill()
        process.wait()


class Google:
    """fake-gcs-server with what it lacks: tokens that are traded for signed claims, and rights of IAM.

    Both are additions of these tests. A request without a token of theirs is refused by the JSON interface; what everybody may read by a plain URL is
    decided by the rights of the bucket. Signed URLs are checked against the key of the service account.
    """

    def __init__(self, backend: int, prevention: bool = False) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.tokens: set[str] = set()
        self.rights: dict[str, dict[str, Any]] = {}
        self.backend, self.prevention = backend, prevention
        self.revoked = False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def service_account(self) -> str:
        pem = self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
        return json.dumps({"client_email": EMAIL, "private_key": pem, "project_id": "example-project", "token_uri": f"{self.endpoint}/token"})

    def token(self, form: str) -> tuple[int, Any]:
        claims = parse_qs(form).get("assertion", [""])[0]
        head, _dot, signature = claims.rpartition(".")
        try:
            self.key.public_key().verify(_unb64(signature), head.encode(), padding.PKCS1v15(), hashes.SHA256())
            data = json.loads(_unb64(head.split(".")[1]))
        except Exception:
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        if self.revoked or data["iss"] != EMAIL or data["aud"] != f"{self.endpoint}/token":
            return 400, {"error": "invalid_grant", "error_description": "Invalid grant: account not found"}
        if abs(data["iat"] - time.time()) > 300:
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe"}
        token = f"token-{len(self.tokens)}"
        self.tokens.add(token)
        return 200, {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}

    def everybody(self, bucket: str, listing: bool) -> bool:
        roles = {row["role"] for row in self.rights.get(bucket, {}).get("bindings", ()) if "allUsers" in row["members"]}
        return bool(roles & ({"roles/storage.objectViewer"} if listing else {"roles/storage.objectViewer", "roles/storage.legacyObjectReader"}))

    def signed(self, method: str, path: str, query: str, host: str) -> str:
        """Empty when a signed URL holds, else why not."""
        pairs = dict(part.split("=", 1) for part in query.split("&"))
        signature = pairs.pop("X-Goog-Signature")
        moment = pairs["X-Goog-Date"]
        text = "&".join(f"{name}={value}" for name, value in sorted(pairs.items()))
        request = "\n".join((method, path, text, f"host:{host}", "", "host", "UNSIGNED-PAYLOAD"))
        digest = hashes.Hash(hashes.SHA256())
        digest.update(request.encode())
        signed = "\n".join(("GOOG4-RSA-SHA256", moment, f"{moment[:8]}/auto/storage/goog4_request", digest.finalize().hex()))
        try:
            self.key.public_key().verify(bytes.fromhex(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except Exception:
            return "SignatureDoesNotMatch"
        begin = time.mktime(time.strptime(moment, "%Y%m%dT%H%M%SZ")) - time.timezone
        return "ExpiredToken" if time.time() > begin + int(pairs["X-Goog-Expires"]) else ""

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status: int, data: Any, kind: str = "application/json") -> None:
                body = data if isinstance(data, bytes) else json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def refuse(self, status: int, code: str) -> None:
                self.answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode(), "application/xml")

            def handle_one(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if parts.path.startswith("/computeMetadata/"):
                    # The metadata server of a machine with an identity; it answers nobody who does not say that he means it.
                    asked = self.headers.get("Metadata-Flavor") == "Google" and not outer.revoked
                    outer.tokens.add("token-of-the-machine")
                    self.answer(200 if asked else 403, {"access_token": "token-of-the-machine", "expires_in": 3600})
                elif parts.path == "/token":
                    self.answer(*outer.token(body.decode()))
                elif parts.path.startswith(("/storage/", "/upload/")):
                    self.json_interface(parts.path, body)
                else:
                    self.plain_url(parts.path, parts.query, body)

            def json_interface(self, path: str, body: bytes) -> None:
                if self.headers.get("Authorization", "").removeprefix("Bearer ") not in outer.tokens:
                    self.answer(401, {"error": {"message": "Invalid Credentials", "errors": [{"reason": "authError"}]}})
                    return
                if path.endswith("/iam"):
                    bucket = path.split("/")[4]
                    if self.command == "PUT":
                        wish = json.loads(body)
                        if outer.prevention and any("allUsers" in row["members"] for row in wish["bindings"]):
                            message = "The member bindings allUsers and allAuthenticatedUsers are not allowed since public access prevention is enforced."
                            self.answer(412, {"error": {"message": message, "errors": [{"reason": "conditionNotMet"}]}})
                            return
                        outer.rights[bucket] = wish
                    self.answer(200, outer.rights.get(bucket, {"kind": "storage#policy", "bindings": []}))
                    return
                self.pass_on(self.path, body)

            def plain_url(self, path: str, query: str, body: bytes) -> None:
                bucket, _slash, key = path.lstrip("/").partition("/")
                if "X-Goog-Signature" in query:
                    wrong = outer.signed(self.command, path, query, self.headers["Host"])
                    if wrong:
                        self.refuse(403 if wrong == "SignatureDoesNotMatch" else 400, wrong)
                        return
                    if self.command == "PUT":
                        self.command = "POST"
                        self.pass_on(f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={key}", body)
                    else:
                        self.pass_on(f"/storage/v1/b/{bucket}/o/{key.replace('/', '%2F')}?alt=media", body)
                elif self.command == "GET" and outer.everybody(bucket, listing=not key):
                    self.pass_on(f"/storage/v1/b/{bucket}/o/{key.replace('/', '%2F')}?alt=media" if key else f"/storage/v1/b/{bucket}/o", body)
                else:
                    self.refuse(403, "AccessDenied")

            def pass_on(self, path: str, body: bytes) -> None:
                connection = http.client.HTTPConnection("127.0.0.1", outer.backend)
                headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
                connection.request(self.command, path, body, headers)
                found = connection.getresponse()
                data = found.read()
                self.send_response(found.status)
                for name, value in found.getheaders():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                connection.close()

            do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_OPTIONS = handle_one

            def log_message(self, *_words: object) -> None:
                return

        return Handler

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@contextlib.contextmanager
def google(folder: Path, *, prevention: bool = False) -> Iterator[Google]:
    """Cloud Storage as fake-gcs-server has it, with the additions of :class:`Google`."""
    binary = program("fake-gcs-server")
    port, log = free_port(), folder / "gcs.log"
    command = [str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-public-host", "storage.invalid"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={"PATH": os.environ["PATH"], "HOME": str(folder)})
    found = None
    try:
        wait_for_port(port, process, log)
        found = Google(port, prevention)
        yield found
    finally:
        if found is not None:
            found.close()
        process.kill()
        process.wait()
