# SPDX-License-Identifier: GPL-3.0-or-later
"""Nomad servers outside a cluster, which want a client certificate for their API."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.client import NomadClient
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.transport import AddressTransport, NomadError

from .conftest import Process, free_port, program, until


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@dataclass(frozen=True)
class Secured:
    """A server with an authority of its own, and what a client needs."""

    address: str
    ca: str
    certificate: str
    key: str


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority", "-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem")
    (folder / "extensions").write_text("subjectAltName=DNS:server.global.nomad,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=server", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/request")
    openssl("x509", "-req", "-days", "2", "-in", f"{folder}/request", "-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key", "-CAcreateserial",
            "-extfile", f"{folder}/extensions", "-out", f"{folder}/cert.pem")  # fmt: skip
    port = free_port()
    config = folder / "server.hcl"
    config.write_text(
        f"""
name = "server"
data_dir = "{folder}/data"
bind_addr = "127.0.0.1"
disable_update_check = true
advertise {{
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}}
ports {{
  http = {port}
  rpc  = {free_port()}
  serf = {free_port()}
}}
server {{
  enabled          = true
  bootstrap_expect = 1
}}
tls {{
  http = true
  rpc  = true
  ca_file   = "{folder}/ca.pem"
  cert_file = "{folder}/cert.pem"
  key_file  = "{folder}/key.pem"
  verify_server_hostname = true
  verify_https_client    = true
}}
"""
    )
    server = Process([str(program("nomad", "1.11.3")), "agent", "-config", str(config)], folder / "log")
    made = Secured(f"https://127.0.0.1:{port}", *((folder / name).read_text() for name in ("ca.pem", "cert.pem", "key.pem")))
    try:
        until(lambda: transport(made).request("GET", "status/leader"), "a leader")
        yield made
    finally:
        server.stop(signal.SIGINT)


def transport(server: Secured) -> AddressTransport:
    return AddressTransport(server.address, server.ca, server.certificate, server.key)


def test_a_client_certificate_opens_the_api(secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    client = NomadClient(transport(secured))
    assert client.nodes() == [] and client.jobs() == []
    assert list(tmp_path.iterdir()) == [], "the key lies in a file no longer than Python needs it"


def test_without_it_the_api_stays_closed(secured: Secured) -> None:
    with pytest.raises(NomadError, match=r"cannot be reached .* client certificate of its authority"):
        AddressTransport(secured.address, secured.ca).request("GET", "nodes")


def test_an_authority_that_is_not_given(secured: Secured) -> None:
    with pytest.raises(NomadError, match=r"has a certificate that is not trusted here .* give the PEM of its authority"):
        AddressTransport(secured.address, "", secured.certificate, secured.key).request("GET", "nodes")
