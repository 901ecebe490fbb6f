# SPDX-License-Identifier: GPL-3.0-or-later
"""Emulators of cloud stores on loopback. Each test that uses one says what it cannot show."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sandbox.standin import google as standin

from .stores import free_port, program, wait_for_port

EMAIL = "circleci@example-project.iam.gserviceaccount.com"


@contextlib.contextmanager
def moto(folder: Path, **more: str) -> Iterator[dict[str, Any]]:
    """AWS as moto has it: of S3, policies and anonymous access are enforced, signatures are not looked at. *more* are settings of it."""
    python = os.environ.get("MOTO_PYTHON", "")
    if not python or not Path(python).is_file():
        pytest.skip("MOTO_PYTHON names no Python with moto: make test-store sets it up")
    port, log = free_port(), folder / "moto.log"
    # Keys are not checked, so that the environment of the machine must not lead it anywhere.
    environment = {"PATH": os.environ["PATH"], "MOTO_ALLOW_NONEXISTENT_REGION": "true", **more}
    command = [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        wait_for_port(port, process, log)
        yield {"endpoint": f"http://127.0.0.1:{port}", "account": "AKIAEXAMPLE", "key": "secret of aws", "process": process}
    finally:
        process.kill()
        process.wait()


class Google(standin.Google):
    """fake-gcs-server with the additions of the sandbox, and the key of a service account."""

    def __init__(self, backend: int, prevention: bool = False) -> None:
        self.private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self.private_key.public_key().public_numbers()
        super().__init__(backend, standin.PublicKey(numbers.n, numbers.e), EMAIL, prevention=prevention)
        self.server = self.listen("127.0.0.1", 0)
        self.port = self.server.server_address[1]
        self.audience = f"{self.endpoint}/token"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def service_account(self) -> str:
        pem = self.private_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
        return json.dumps({"client_email": EMAIL, "private_key": pem, "project_id": "example-project", "token_uri": f"{self.endpoint}/token"})

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


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
