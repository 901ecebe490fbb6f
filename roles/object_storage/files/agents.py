# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serve the files below one folder to whoever asks: whole files, by GET and HEAD, and nothing else.

No listing, no hidden file, no link, no way out of the folder. It is the server of Python's standard library, one thread for each connection; how many
there can be, and what the process may touch, is the business of its systemd unit.
"""

import argparse
import os
import re
import shutil
import socket
import ssl
import stat
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO, Optional
from urllib.parse import unquote, urlsplit

PART = re.compile(r"[A-Za-z0-9_+=@~-][A-Za-z0-9._+=@~-]*")
"""A part of a path that is served: it begins with no dot."""


class Files:
    """The folder, opened once: what is outside of it cannot be named."""

    def __init__(self, folder: str) -> None:
        self.root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def open(self, path: str) -> Optional[BinaryIO]:
        """A regular file, or None. Links are followed at no part of the path."""
        parts = unquote(urlsplit(path).path).split("/")
        if parts[:1] != [""] or not all(PART.fullmatch(part) for part in parts[1:]):
            return None
        folder = os.dup(self.root)
        try:
            for part in parts[1:-1]:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = inner
            file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except OSError:
            return None
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            return None
        return os.fdopen(file, "rb")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "agents"
    sys_version = ""
    timeout = 60
    server: "Server"

    def do_GET(self) -> None:
        self._send(body=True)

    def do_HEAD(self) -> None:
        self._send(body=False)

    def _send(self, body: bool) -> None:
        found = self.server.files.open(self.path)
        if found is None:
            self.send_error(404, "Not Found")
            return
        with found:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; charset=utf-8" if self.path.endswith(".txt") else "application/octet-stream")
            self.send_header("Content-Length", str(os.fstat(found.fileno()).st_size))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if body:
                shutil.copyfileobj(found, self.wfile, 1 << 18)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Thousands of jobs load their agent; only what went wrong is told, see log_error."""


class Server(ThreadingHTTPServer):
    # A burst of jobs starts at once.
    request_queue_size = 128

    def __init__(self, address: str, port: int, folder: str, certificate: str, key: str) -> None:
        self.files = Files(folder)
        both = not address and socket.has_dualstack_ipv6()
        self.address_family = socket.AF_INET6 if both or ":" in address else socket.AF_INET
        self.context: Optional[ssl.SSLContext] = None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.minimum_version = ssl.TLSVersion.TLSv1_2
            self.context.load_cert_chain(certificate, key)
        super().__init__((address, port), Handler, bind_and_activate=False)
        if both:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.server_bind()
        self.server_activate()

    def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """In the thread of the connection, so that a client that says nothing keeps no other from its greeting."""
        request.settimeout(Handler.timeout)
        if self.context is None:
            super().finish_request(request, client_address)
            return
        with self.context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: object, client_address: object) -> None:  # type: ignore[override]
        error = sys.exc_info()[1]
        sys.stderr.write(f"{client_address}: {type(error).__name__}: {error}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--address", default="", help="where to listen, empty for all addresses")
    parser.add_argument("--certificate", default="", help="file with the chain; without one it speaks http")
    parser.add_argument("--key", default="")
    options = parser.parse_args()
    try:
        server = Server(options.address, options.port, options.folder, options.certificate, options.key)
    except OSError as error:
        sys.stderr.write(f"port {options.port}, folder {options.folder}: {error}\n")
        return 1
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
