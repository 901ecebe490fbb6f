# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a host of the sandbox with nothing but Python: what TCP connections to the addresses and ports on standard input meet, all at once."""

from __future__ import annotations

import errno
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

# A dropped packet is told from a slow answer by waiting: TCP sends its SYN again after 1 s and after 3 s.
PATIENCE = 5
REJECTED = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES)


def meets(target: list[str]) -> str:
    """open, refused (nothing listens and nothing filters), rejected (a filter says no) or silent (a filter drops)."""
    try:
        socket.create_connection((target[0], int(target[1])), PATIENCE).close()
    except socket.timeout:
        return "silent"
    except OSError as error:
        return "refused" if error.errno == errno.ECONNREFUSED else "rejected" if error.errno in REJECTED else str(error)
    return "open"


def main() -> None:
    targets = json.load(sys.stdin)
    with ThreadPoolExecutor(max_workers=64) as pool:
        json.dump(list(pool.map(meets, targets)), sys.stdout)


if __name__ == "__main__":
    main()
