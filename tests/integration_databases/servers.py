# SPDX-License-Identifier: GPL-3.0-or-later
"""What the servers of these tests have in common."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets import pki

POSTGRES = max(
    Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nowhere"), key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0
)
RABBITMQ = Path("/usr/lib/rabbitmq/bin")
PASSWORD = "canary-of-databases"
AUTHORITY = pki.new_authority("database owners")


@dataclass
class Server:
    """Where a server listens: in the clear and, where it has two ports, by TLS."""

    port: int
    tls_port: int
    folder: Path
    process: subprocess.Popen[bytes]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def listening(port: int, process: subprocess.Popen[bytes]) -> None:
    while True:
        assert process.poll() is None, "the server has ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return


def write_pair(folder: Path) -> None:
    pair = pki.issue(AUTHORITY, pki.Subject("localhost", dns=("localhost",)))
    (folder / "server.crt").write_text(pair.certificate, encoding="ascii")
    (folder / "server.key").write_text(pair.key, encoding="ascii")
    (folder / "server.key").chmod(0o600)
    (folder / "ca.crt").write_text(AUTHORITY.certificate, encoding="ascii")


def as_nobody(argv: list[str]) -> list[str]:
    """PostgreSQL does not run as root."""
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *argv] if getpass.getuser() == "root" else argv


def open_to_nobody(folder: Path) -> None:
    for path in (folder, *folder.parents):
        if path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(0o755)
    if getpass.getuser() == "root":
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "nobody", "nogroup")


def sql(server: Server, text: str) -> None:
    environment = {**os.environ, "PGPASSWORD": PASSWORD}
    psql = [str(POSTGRES / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(server.port), "-U", "owner", "-d", "postgres", "-f", "-"]
    done = subprocess.run(psql, input=text.encode(), check=False, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
