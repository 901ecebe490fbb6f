# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read one object of a store from this host's own service; exit 1 when that fails.

The answer comes from the disk or the store behind the service, so that it is none of a process that only listens. It is read without credentials, as
clients read the agents; where these lie elsewhere, with the keys out of the environment of the service.
"""

import argparse
import hashlib
import hmac
import http.client
import os
import socket
import ssl
import sys
import time
from urllib.parse import SplitResult, urlsplit

NOTHING = hashlib.sha256(b"").hexdigest()


def keys() -> "tuple[str, str]":
    """Access and secret key out of the environment that the service has as well."""
    for access, secret in (("ROOT_ACCESS_KEY_ID", "ROOT_SECRET_ACCESS_KEY"), ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")):
        if access in os.environ and secret in os.environ:
            return os.environ[access], os.environ[secret]
    raise OSError("the environment holds no pair of keys")


def signed(parts: SplitResult, region: str, access: str, secret: str, moment: str) -> "dict[str, str]":
    """Headers of a GET that S3 takes for signed (version 4)."""
    headers = {"host": parts.netloc, "x-amz-content-sha256": NOTHING, "x-amz-date": moment}
    names = ";".join(headers)
    request = "\n".join(("GET", parts.path, "", *(f"{name}:{value}" for name, value in headers.items()), "", names, NOTHING))
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    key = f"AWS4{secret}".encode()
    for word in (*scope.split("/"), ""):
        text = word or f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return {**headers, "authorization": f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={key.hex()}"}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--address", required=True, help="where to connect to; name and certificate stay those of the URL")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca", default="", help="file with the authority of the certificate, empty when the system's do")
    parser.add_argument("--signed", action="store_true", help="read with the keys of the service, which the environment holds")
    parser.add_argument("--region", default="us-east-1", help="region that a request with keys is signed for")
    parser.add_argument("--timeout", type=float, default=20)
    options = parser.parse_args()
    parts = urlsplit(options.url)
    try:
        headers = {"host": parts.netloc}
        if options.signed:
            headers = signed(parts, options.region, *keys(), time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
        connection = socket.create_connection((options.address, options.port), timeout=options.timeout)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            if options.ca and os.path.getsize(options.ca):
                context.load_verify_locations(options.ca)
            connection = context.wrap_socket(connection, server_hostname=parts.hostname)
        with connection:
            request = f"GET {parts.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "Connection: close\r\n\r\n"
            connection.sendall(request.encode())
            answer = http.client.HTTPResponse(connection, method="GET")
            answer.begin()
            body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"unhealthy: {options.url} at {options.address} port {options.port}: {error}\n")
        return 1
    if answer.status != 200 or not body:
        sys.stdout.write(f"unhealthy: {options.url} answers {answer.status}: {body[:300].decode('utf-8', 'replace')}\n")
        return 1
    sys.stdout.write(f"healthy: {options.url}, {len(body)} bytes read\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
