# SPDX-License-Identifier: GPL-3.0-or-later
"""Real distribution registries on loopback, for tests and benchmarks."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BINARY = next((path for path in (shutil.which("docker-registry"), shutil.which("registry")) if path), None)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass(frozen=True)
class Certificates:
    """A certificate authority and a certificate for 127.0.0.1 and localhost."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        folder.mkdir(parents=True, exist_ok=True)
        made = cls(folder / "ca.pem", folder / "server.pem", folder / "server.key")
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        authority = ["-subj", "/CN=test authority", "-addext", "keyUsage=critical,keyCertSign", "-keyout", str(folder / "ca.key"), "-out", str(made.ca)]
        server = ["-CA", str(made.ca), "-CAkey", str(folder / "ca.key"), "-subj", "/CN=localhost", "-keyout", str(made.key), "-out", str(made.certificate)]
        names = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        for arguments in ([*new, *authority], [*new, *server, *names]):
            subprocess.run(arguments, check=True, capture_output=True)
        return made


class Registry:
    """One distribution process with a storage folder."""

    def __init__(self, root: Path, folder: Path, **options: Any) -> None:
        assert BINARY is not None
        self.root, self.port = root, free_port()
        root.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        delete = "true" if options.get("delete", True) else "false"
        readonly = "\n  maintenance: {readonly: {enabled: true}}" if options.get("readonly") else ""
        auth = f"\nauth: {{htpasswd: {{realm: test, path: {options['htpasswd']}}}}}" if options.get("htpasswd") else ""
        certificates: Certificates | None = options.get("certificates")
        tls = f", tls: {{certificate: {certificates.certificate}, key: {certificates.key}}}" if certificates else ""
        # One line for each request, where somebody counts them.
        self.access_log: Path | None = folder / f"access-{self.port}.log" if options.get("access_log") else None
        self.config = folder / f"registry-{self.port}.yml"
        self.config.write_text(
            f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: {'false' if self.access_log else 'true'}}}}}\n"
            f"storage:\n  filesystem: {{rootdirectory: {root}}}\n  delete: {{enabled: {delete}}}{readonly}{auth}\n"
            f"http: {{addr: '127.0.0.1:{self.port}', secret: for-tests{tls}}}\n"
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert BINARY is not None
        with open(self.access_log or os.devnull, "ab") as out:
            self.process = subprocess.Popen([BINARY, "serve", str(self.config)], stdout=out, stderr=subprocess.DEVNULL)
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("the registry does not answer")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def requests(self) -> int:
        """How many requests were answered so far."""
        assert self.access_log is not None
        return sum('"' in line for line in self.access_log.read_text(encoding="utf-8", errors="replace").splitlines())

    @property
    def cpu(self) -> float:
        """CPU seconds so far."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
