# SPDX-License-Identifier: GPL-3.0-or-later
"""Real stores on loopback, started with the arguments and the environment that the role object_storage writes for systemd."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import hmac
import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.client import S3Client
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.health import wait_until_healthy
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.signature import Credentials
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets import pki
from ansible_collections.onprem.circleci_server.plugins.plugin_utils import object_storage

from sandbox import artifacts

ROOT = Path(__file__).resolve().parents[2]
HEALTH = ROOT / "roles/object_storage/files/health.py"
NAME = "store.site.example"
"""What pods, Nomad clients and browsers would call the store. It resolves to nothing here: clients connect by address."""

AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def program(artifact: str) -> Path:
    """The program of an artifact: out of the sandbox's cache, or, for the gateways of 2022, from where a variable says."""
    variable = {"minio-gateway-azure": "MINIO_GATEWAY_AZURE", "minio-gateway-s3": "MINIO_GATEWAY_S3", "minio-nas": "MINIO_GATEWAY_NAS"}.get(artifact)
    if variable is not None:
        if not os.environ.get(variable):
            pytest.skip(f"{variable} names no binary; docs/reference/catalog-object-storage.md says which release it must be")
        return Path(os.environ[variable])
    item = artifacts.find(artifact)
    if not artifacts.is_ready(item):
        pytest.skip(f"{item.label} is not in the cache: python -m sandbox artifacts {artifact} --build")
    return Path(item.folder()) / artifact


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path, address: str = "127.0.0.1") -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode}: {log.read_text(errors='replace')[-2000:]}")
        with contextlib.suppress(OSError):
            socket.create_connection((address, port), timeout=1).close()
            return
        time.sleep(0.05)
    raise RuntimeError(f"does not listen on port {port}: {log.read_text(errors='replace')[-2000:]}")


@dataclass
class Store:
    """One kind of store, as a host of circleci_object_storage would run it."""

    kind: str
    folder: Path
    tls: bool = False
    behind: dict[str, str] = field(default_factory=dict)
    versioning: bool = False
    access_key: str = "circleci"
    # What systemd and shells are touchy about is in it on purpose.
    secret_key: str = "se\"cret $key' `with` \\ 100%"
    environment: dict[str, str] = field(default_factory=dict)
    origins: list[str] = field(default_factory=list)
    port: int = 0
    address: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.port = self.port or free_port()
        self.log = self.folder / "log"
        self.authority = pki.new_authority("authority of the test", bits=2048) if self.tls else None

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.tls else 'http'}://{NAME}:{self.port}"

    @property
    def ca(self) -> str:
        return self.authority.certificate if self.authority else ""

    def service(self) -> dict[str, Any]:
        return object_storage.service(
            self.kind,
            {
                "access_key": self.access_key,
                "secret_key": self.secret_key,
                "region": "us-east-1",
                "port": self.port,
                "address": self.address,
                "tls": self.tls,
                "data_dir": str(self.folder / "data"),
                "config_dir": str(self.folder / "config"),
                "policies": "circleci-data-gateway",
                "versioning": self.versioning,
                "environment": self.environment,
                "origins": self.origins,
                "backend_endpoint": self.behind.get("endpoint", ""),
                "backend_account": self.behind.get("account", ""),
                "backend_key": self.behind.get("key", ""),
                "backend_region": "us-east-1",
            },
        )

    def start(self, *, wait: bool = True) -> None:
        service = self.service()
        binary = program(service["artifact"])
        for item in service["directories"]:
            if item["path"].startswith(str(self.folder)):
                Path(item["path"]).mkdir(parents=True, exist_ok=True)
        if self.authority is not None:
            pair = pki.issue(self.authority, pki.Subject(NAME, (NAME, "localhost")), bits=2048)
            Path(service["certificate"]).write_text(pair.certificate)
            Path(service["private_key"]).write_text(pair.key)
        if service["policies"]:
            client = S3Client(self.behind["endpoint"], Credentials(self.behind["account"], self.behind["key"], "us-east-1"))
            if not client.bucket_exists(service["policies"]):
                client.create_bucket(service["policies"])
            client.close()
        environment = read_environment_file(service["environment_file"])
        assert environment == service["environment"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([str(binary), *service["arguments"]], env=environment, cwd="/", stdout=log, stderr=log)
        wait_for_port(self.port, self.process, self.log, self.address)
        if wait:
            client = self.client()
            wait_until_healthy(client, "circleci-data", 30)
            client.close()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def options(self, **more: Any) -> dict[str, Any]:
        """Options of the modules; they reach the store by its address, as if the name led there."""
        return {
            "endpoint": f"{'https' if self.tls else 'http'}://{'localhost' if self.tls else '127.0.0.1'}:{self.port}",
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "store_ca_certificate": self.ca,
            **more,
        }

    def client(self, secret_key: str = "") -> S3Client:
        return S3Client(self.endpoint, Credentials(self.access_key, secret_key or self.secret_key, "us-east-1"), ca_data=self.ca, address=self.address)

    def look(self) -> subprocess.CompletedProcess[str]:
        """What the health unit does."""
        ca = self.folder / "ca.crt"
        ca.write_text(self.ca)
        command = ["--url", f"{self.endpoint}/circleci-agents/.onprem-circleci-site", "--address", "127.0.0.1", "--port", str(self.port), "--ca", str(ca), "--timeout", "5"]
        return subprocess.run([sys.executable, str(HEALTH), *command], check=False, capture_output=True, text=True)


def read_environment_file(text: str) -> dict[str, str]:
    """As systemd.exec(5) says of double quotes: a backslash before one of four characters goes, everything else stays."""
    found = {}
    for line in text.splitlines():
        name, _, quoted = line.partition("=")
        assert quoted[0] == quoted[-1] == '"'
        value, rest = "", iter(quoted[1:-1])
        for letter in rest:
            if letter == "\\":
                following = next(rest)
                value += following if following in '"\\`$' else f"\\{following}"
            else:
                assert letter != '"'
                value += letter
        found[name] = value
    return found


def azure_container(behind: dict[str, Any], name: str, metadata: dict[str, str]) -> int:
    """Make a container as Azure Resource Manager leaves it: private, with metadata and nothing that a gateway keeps there. The status is the answer."""
    parts = urllib.parse.urlsplit(behind["endpoint"])
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06", **{f"x-ms-meta-{key}": value for key, value in metadata.items()}}
    lines = "".join(f"{key}:{headers[key]}\n" for key in sorted(headers))
    resource = f"/{behind['account']}{parts.path}/{name}\nrestype:container"
    text = "\n".join(["PUT", *[""] * 11, lines + resource])
    signature = base64.b64encode(hmac.new(base64.b64decode(behind["key"]), text.encode(), hashlib.sha256).digest()).decode()
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("PUT", f"{parts.path}/{name}?restype=container", headers={**headers, "Authorization": f"SharedKey {behind['account']}:{signature}", "Content-Length": "0"})
    return connection.getresponse().status


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[dict[str, Any]]:
    """Azure Blob as its vendor's emulator has it."""
    node, script = shutil.which("node"), os.environ.get("AZURITE", "")
    if node is None or not script or not Path(script).is_file():
        pytest.skip("AZURITE names no azurite-blob, or there is no node: make test-store sets both up")
    port = free_port()
    log = folder / "azurite.log"
    command = [node, script, "--silent", "--disableTelemetry", "--loose", "--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_for_port(port, process, log)
        yield {"endpoint": f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}", "account": AZURITE_ACCOUNT, "key": AZURITE_KEY, "process": process}
    finally:
        process.kill()
        process.wait()
