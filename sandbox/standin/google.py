# SPDX-License-Identifier: GPL-3.0-or-later
"""What fake-gcs-server lacks of Google's Cloud Storage, in front of it: tokens for signed claims, rights of IAM, signed URLs.

A request without a token of this stand-in is refused by the JSON interface; what everybody may read by a plain URL is decided by the rights of the
bucket. Claims and URLs are checked against the key of the service account. Its certificate, the project and limits of Google are not here.

It runs by itself on a host that has nothing but Python: python3 google.py CONFIG.json
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")
"""What PKCS #1 puts before a digest of SHA-256."""


class PublicKey:
    """An RSA key that checks signatures of SHA-256 (PKCS #1, v1.5)."""

    def __init__(self, modulus: int, exponent: int = 65537) -> None:
        self.modulus, self.exponent = modulus, exponent
        self.size = (modulus.bit_length() + 7) // 8

    def accepts(self, signature: bytes, text: bytes) -> bool:
        wanted = SHA256 + hashlib.sha256(text).digest()
        padded = b"\0\1" + b"\xff" * (self.size - 3 - len(wanted)) + b"\0" + wanted
        found = pow(int.from_bytes(signature, "big"), self.exponent, self.modulus)
        return len(signature) == self.size and found.to_bytes(self.size, "big") == padded


class Google:
    """The additions, before an emulator that listens on the port *backend* of this host."""

    def __init__(self, backend: int, key: PublicKey, email: str, *, audience: str = "", prevention: bool = False) -> None:
        self.backend, self.key, self.email, self.audience, self.prevention = backend, key, email, audience, prevention
        self.tokens: set[str] = set()
        self.rights: dict[str, dict[str, Any]] = {}
        self.revoked = False

    def listen(self, address: str, port: int, context: ssl.SSLContext | None = None) -> ThreadingHTTPServer:
        """Answer on one more port."""
        server = ThreadingHTTPServer((address, port), self._handler())
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def token(self, form: str) -> tuple[int, Any]:
        claims = parse_qs(form).get("assertion", [""])[0]
        head, _dot, signature = claims.rpartition(".")
        try:
            data = json.loads(_unb64(head.split(".")[1]))
            good = self.key.accepts(_unb64(signature), head.encode())
        except (ValueError, IndexError):
            good = False
        if not good:
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        if self.revoked or data["iss"] != self.email or data["aud"] != self.audience:
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
        digest = hashlib.sha256(request.encode()).hexdigest()
        signed = "\n".join(("GOOG4-RSA-SHA256", moment, f"{moment[:8]}/auto/storage/goog4_request", digest))
        try:
            good = self.key.accepts(bytes.fromhex(signature), signed.encode())
        except ValueError:
            good = False
        if not good:
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

            do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_OPTIONS = handle_one  # noqa: N815 - names that http.server calls

            def log_message(self, *_words: object) -> None:
                return

        return Handler


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def main(path: str) -> None:
    """Listen on 443 with a certificate, and on 80 without one for who asks for a token."""
    with open(path, encoding="utf-8") as stream:
        config = json.load(stream)
    google = Google(config["backend"], PublicKey(int(config["modulus"], 16)), config["email"], audience=config["audience"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(config["certificate"], config["key"])
    google.listen("0.0.0.0", 80)
    google.listen("0.0.0.0", 443, context)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
