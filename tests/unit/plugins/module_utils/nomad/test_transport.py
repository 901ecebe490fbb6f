# SPDX-License-Identifier: GPL-3.0-or-later
"""Both ways to Nomad: what is asked, and what a refusal says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Optional

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import KubeError
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.client import NomadClient
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.transport import (
    AddressTransport,
    ClusterTransport,
    NomadError,
)


class Api:
    """The API server: one answer, and what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, Any, Any]] = []

    def request(self, method: str, path: str, query: Optional[dict[str, str]] = None, body: Any = None, content_type: str = "application/json") -> Any:
        self.asked.append((method, path, query, body))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def in_cluster(answer: Any) -> tuple[Api, NomadClient]:
    api = Api(answer)
    return api, NomadClient(ClusterTransport(api, "circleci-server", "nomad-server:4646"))


BASE = "/api/v1/namespaces/circleci-server/services/nomad-server:4646/proxy/v1"


def test_the_api_server_passes_requests_on() -> None:
    api, client = in_cluster({"EvalID": "e"})
    assert client.register({"ID": "j"}) == "e"
    client.purge("onprem-circleci-probe-1")
    assert api.asked == [("POST", f"{BASE}/jobs", None, {"Job": {"ID": "j"}}), ("DELETE", f"{BASE}/job/onprem-circleci-probe-1", {"purge": "true"}, None)]
    _api, client = in_cluster(json.dumps([{"ID": "a"}]))
    assert client.jobs("a") == ["a"], "an answer that is declared as text is read all the same"
    _api, client = in_cluster("curl: (60) no")
    assert client.log("alloc", "probe") == "curl: (60) no"


@pytest.mark.parametrize(
    ("error", "sentence", "passing"),
    [
        (KubeError(404, 'services "nomad-server" not found'), "the cluster has no service nomad-server:4646 in namespace circleci-server: install the release", False),
        (KubeError(503, 'no endpoints available for service "nomad-server:4646"'), "no Nomad server is ready behind service", True),
        (KubeError(403, 'services "nomad-server:4646" is forbidden: User "ops" cannot create resource "services/proxy"'), "get, create and delete on services/proxy", False),
        (KubeError(403, "Permission denied"), "demands an ACL token", False),
        (KubeError(401, "Unauthorized"), "refused the credentials in circleci_kubeconfig", False),
        (KubeError(0, "timed out"), "the Kubernetes API cannot be reached (timed out)", True),
        (KubeError(500, "No cluster leader"), "Nomad answered 500 to GET /v1/nodes: No cluster leader", True),
        (KubeError(500, "1 error occurred: job is invalid"), "job is invalid", False),
        (KubeError(502, ""), "Nomad answered 502 to GET /v1/nodes: no reason", True),
    ],
)
def test_refusals_are_sentences(error: KubeError, sentence: str, passing: bool) -> None:
    _api, client = in_cluster(error)
    with pytest.raises(NomadError) as caught:
        client.nodes()
    assert sentence in str(caught.value) and caught.value.passing is passing


def test_a_job_that_is_gone_already_is_purged() -> None:
    _api, client = in_cluster(KubeError(404, "job not found"))
    client.purge("j")
    with pytest.raises(NomadError):
        client.job("j")


@pytest.mark.parametrize("answer", ["<html>welcome</html>", {"message": "hello"}])
def test_what_is_no_nomad_is_told(answer: Any) -> None:
    _api, client = in_cluster(answer)
    for question in (client.nodes, lambda: client.register({"ID": "j"})):
        with pytest.raises(NomadError, match="something else behind that address"):
            question()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = {"/v1/nodes": (200, b"[]"), "/v1/jobs?prefix=a": (200, b'[{"ID": "a"}]')}.get(self.path, (500, b"No cluster leader"))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_address_is_asked_directly(address: str) -> None:
    client = NomadClient(AddressTransport(address))
    assert client.nodes() == [] and client.jobs("a") == ["a"]
    with pytest.raises(NomadError, match="No cluster leader") as caught:
        client.job("x")
    assert caught.value.passing


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"address": "nomad.example.com:4646"}, "must be http(s)://host"),
        ({"address": "https://nomad.example.com/ui"}, "nothing behind it"),
        ({"address": "https://nomad.example.com", "certificate": "x"}, "both the certificate and its key"),
        ({"address": "https://nomad.example.com", "ca": "nonsense"}, "no PEM that fits together"),
    ],
)
def test_bad_addresses_and_certificates(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(NomadError) as caught:
        AddressTransport(**options)
    assert sentence in str(caught.value) and not caught.value.passing
