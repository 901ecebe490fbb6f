# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials as the libraries of Google and Azure find them on the control host, traded at stand-ins of their token services."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .azure import CLIENT, SECRET, TENANT, Azure
from .google import Google
from .harness import PORTS, Cloud
from .standin import running


@pytest.fixture
def libraries() -> str:
    """Python with what requirements/cloud.txt names."""
    python = os.environ.get("CLOUD_PYTHON", "")
    if not Path(python).is_file():
        pytest.skip("CLOUD_PYTHON names no Python with google-auth and azure-identity: make test-cloud sets it up")
    return python


@pytest.fixture
def on_google(tmp_path: Path, libraries: str) -> Iterator[tuple[Cloud, Google]]:
    account = Google()
    with running(account):
        yield Cloud(tmp_path, "gke", libraries, {"circleci_cloud_endpoint": account.url}, {}), account


@pytest.fixture
def on_azure(tmp_path: Path, libraries: str) -> Iterator[tuple[Cloud, Azure]]:
    account = Azure()
    with running(account):
        yield Cloud(tmp_path, "azure", libraries, {"circleci_cloud_endpoint": account.url}, {}), account


def test_key_file_of_a_service_account_of_google(on_google: tuple[Cloud, Google], tmp_path: Path) -> None:
    cloud, account = on_google
    key = tmp_path / "key.json"
    key.write_text(json.dumps(account.key_file))
    cloud.environment = {"GOOGLE_APPLICATION_CREDENTIALS": str(key)}
    cloud.hidden = account.key_file["private_key"].splitlines()[1:3]
    run = cloud.run(circleci_ports=PORTS)
    assert (run["code"], run["changed"]) == (0, 1), run["said"]
    assert run["endpoints"] == [[account.url, "https://oauth2.googleapis.com", "http://metadata.google.internal", "http://169.254.169.254"]]
    assert cloud.run(circleci_ports=PORTS)["changed"] == 0
    key.write_text(json.dumps({**account.key_file, "client_email": "gone@example-project.iam.gserviceaccount.com"}))
    found = cloud.run(circleci_ports=PORTS)
    assert "Google gives no token for gone@example-project" in found["last"]["msg"] and "account not found" in found["last"]["msg"]
    # The token service of a key file is where a signed claim goes.
    key.write_text(json.dumps({**account.key_file, "token_uri": "https://198.51.100.1/token"}))
    assert "https://198.51.100.1/token, which was not named before" in cloud.run(circleci_ports=PORTS)["last"]["msg"]


def test_each_api_of_google_gets_a_token_of_its_own_scope(on_google: tuple[Cloud, Google], tmp_path: Path) -> None:
    cloud, account = on_google
    key = tmp_path / "key.json"
    key.write_text(json.dumps(account.key_file))
    cloud.environment = {"GOOGLE_APPLICATION_CREDENTIALS": str(key)}
    asked = {"circleci_ports": PORTS, "circleci_cloud_object_storage": True, "circleci_object_storage_endpoint": account.url,
             "circleci_cloud_dns_zone": "projects/example-project/managedZones/example-zone", "circleci_cloud_dns_endpoint": account.url,
             "circleci_cloud_registry": account.repositories.name, "circleci_registry_path": account.repositories.path, "circleci_cloud_registry_endpoint": account.url,
             "circleci_cloud_registry_nodes": ["nodes@example-project.iam.gserviceaccount.com"]}  # fmt: skip
    run = cloud.run(**asked)
    assert (run["code"], run["changed"]) == (0, 4), run["said"]
    scopes = {scope.rpartition("/")[2] for token, scope in account.scopes.items() if token.startswith("ya29.")}
    assert scopes == {"compute", "devstorage.full_control", "ndev.clouddns.readwrite", "cloud-platform"}
    assert cloud.run(**asked)["changed"] == 0


def test_identity_of_a_machine_of_google(on_google: tuple[Cloud, Google]) -> None:
    cloud, account = on_google
    where = account.url.removeprefix("http://")
    cloud.environment = {"GCE_METADATA_HOST": where, "GCE_METADATA_IP": where, "NO_GCE_CHECK": "false"}
    run = cloud.run(circleci_ports=PORTS)
    assert (run["code"], run["changed"]) == (0, 1), run["said"]


def test_managed_identity_of_azure(on_azure: tuple[Cloud, Azure]) -> None:
    cloud, account = on_azure
    cloud.environment = {"IDENTITY_ENDPOINT": f"{account.url}/msi/token", "IDENTITY_HEADER": account.identity_header, "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential"}
    cloud.hidden = [account.identity_header]
    run = cloud.run(circleci_ports=PORTS)
    assert (run["code"], run["changed"]) == (0, 1), run["said"]
    assert run["endpoints"] == [[account.url, "https://login.microsoftonline.com", "http://169.254.169.254"]]


def test_service_principal_of_azure(on_azure: tuple[Cloud, Azure], tmp_path: Path) -> None:
    cloud, account = on_azure
    certificate = _certificate(tmp_path)
    login = Azure()
    login.tokens = account.tokens
    with running(login, certificate):
        cloud.environment = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT, "AZURE_CLIENT_SECRET": SECRET, "AZURE_AUTHORITY_HOST": login.url,
                             "REQUESTS_CA_BUNDLE": str(certificate[0])}  # fmt: skip
        cloud.hidden = [SECRET, "another canary"]
        run = cloud.run(circleci_ports=PORTS)
        assert (run["code"], run["changed"]) == (0, 1), run["said"]
        assert cloud.run(circleci_ports=PORTS)["changed"] == 0
        cloud.environment["AZURE_CLIENT_SECRET"] = "another canary"
        found = cloud.run(circleci_ports=PORTS)
        assert "Azure gives no token" in found["last"]["msg"] and "AADSTS7000215" in found["last"]["msg"]
        cloud.environment["AZURE_AUTHORITY_HOST"] = "https://198.51.100.1"
        assert "https://198.51.100.1, which was not named before" in cloud.run(circleci_ports=PORTS)["last"]["msg"]


@pytest.mark.parametrize("example, name, library", [("gke", "Google", "google-auth"), ("azure", "Azure", "azure-identity")])
def test_no_credentials_and_no_library_are_told(tmp_path: Path, libraries: str, example: str, name: str, library: str) -> None:
    cloud = Cloud(tmp_path, example, libraries, {"circleci_cloud_endpoint": "http://127.0.0.1:9"}, {})
    found = cloud.run(circleci_ports=PORTS)
    assert name in found["last"]["msg"] and "control host" in found["last"]["msg"] and "circleci_cloud_token" in found["last"]["msg"], found["said"]
    cloud.python = sys.executable
    found = cloud.run(circleci_ports=PORTS)
    assert f"{library} is missing" in found["last"]["msg"] and "circleci_cloud_token" in found["last"]["msg"]


@pytest.fixture
def outside() -> Iterator[tuple[dict[str, str], set[str]]]:
    """A proxy that lets nothing out, as variables of the environment, and the hosts that it was asked for."""
    asked: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.add(self.path)
            self.send_error(502)

        def do_GET(self) -> None:
            asked.add(self.path)
            self.send_error(502)

        do_POST = do_GET

        def log_message(self, *_arguments: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    where = f"http://127.0.0.1:{server.server_address[1]}"
    yield {"HTTPS_PROXY": where, "https_proxy": where, "HTTP_PROXY": where, "http_proxy": where}, asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("example, variables, asks", [
    ("gke", {}, "oauth2.googleapis.com:443"),
    ("gke", {"circleci_cloud_token": "token"}, "compute.googleapis.com:443"),
    ("azure", {}, "login.microsoftonline.com:443"),
    ("azure", {"circleci_cloud_endpoint": "https://management.usgovcloudapi.net"}, "login.microsoftonline.us:443"),
    ("azure", {"circleci_cloud_token": "token"}, "management.azure.com:443"),
    ("digitalocean", {"circleci_cloud_token": "token"}, "api.digitalocean.com:443"),
])  # fmt: skip
def test_only_addresses_that_were_named_are_asked(
    tmp_path: Path, libraries: str, outside: tuple[dict[str, str], set[str]], example: str, variables: dict[str, Any], asks: str
) -> None:
    environment, asked = outside
    key = tmp_path / "key.json"
    key.write_text(json.dumps({**Google().key_file, "token_uri": "https://oauth2.googleapis.com/token"}))
    cloud = Cloud(tmp_path, example, libraries, variables, {
        **environment, "GOOGLE_APPLICATION_CREDENTIALS": str(key), "AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT, "AZURE_CLIENT_SECRET": SECRET,
    })  # fmt: skip
    found = cloud.run(circleci_ports=PORTS)
    assert found["code"] == 2 and asked == {asks}, found["said"]
    assert f"https://{asks.removesuffix(':443')}" in found["endpoints"][0]


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in of a login")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    files = folder / "login.pem", folder / "login.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return files
