# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read one object of a store without credentials, from this host's own service; exit 1 when that fails.

The answer comes from the disk or the store behind the service, so that it is none of a process that only listens.
"""

import argparse
import http.client
import os
import socket
import ssl
import sys
from urllib.parse import urlsplit


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--address", required=True, help="where to connect to; name and certificate stay those of the URL")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca", default="", help="file with the authority of the certificate, empty when the system's do")
    parser.add_argument("--timeout", type=float, default=20)
    options = parser.parse_args()
    parts = urlsplit(options.url)
    try:
        connection = socket.create_connection((options.address, options.port), timeout=options.timeout)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            if options.ca and os.path.getsize(options.ca):
                context.load_verify_locations(options.ca)
            connection = context.wrap_socket(connection, server_hostname=parts.hostname)
        with connection:
            request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
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
