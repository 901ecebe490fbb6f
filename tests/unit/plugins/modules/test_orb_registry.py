# SPDX-License-Identifier: GPL-3.0-or-later
"""Orbs of a bundle into a server: the module against a registry in memory and a stand-in for the server's GraphQL API."""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.health import judge_site
from ansible_collections.onprem.circleci_server.plugins.module_utils.report import build_report
from ansible_collections.onprem.circleci_server.plugins.modules import orb_registry
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module
from ansible_collections.onprem.circleci_server.tests.unit.helpers.orb_stand_in import OrbRegistry, serve_orbs
from ansible_collections.onprem.circleci_server.tests.unit.helpers.registry_stub import Stub, serve

TOKEN = "administrators-personal-token"
CLI = "version: 2.1\ncommands: {}\n"
ECR = "version: 2.1\norbs: {cli: circleci/aws-cli@5.1}\n"
ORBS = {"circleci/aws-cli@5.1.3": CLI, "circleci/aws-ecr@9.5.0": ECR}


def index(orbs: dict[str, str], **changed: str) -> bytes:
    entries = [
        {
            "orb": ref.split("@")[0], "version": ref.split("@")[1], "file": f"{ref}.yml", "imports": [], "why": ["circleci_orbs"],
            "sha256": changed.get(ref) or hashlib.sha256(text.encode()).hexdigest(),
        }
        for ref, text in orbs.items()
    ]  # fmt: skip
    return json.dumps({"format": "onprem.circleci_server/orbs/1", "orbs": entries}).encode()


class Site:
    def __init__(self, registry: Stub, server: OrbRegistry, capsys: pytest.CaptureFixture[str]) -> None:
        self.registry, self.server, self.capsys = registry, server, capsys
        self.bring(ORBS)

    def bring(self, orbs: dict[str, str], **changed: str) -> None:
        self.registry.artifact("onprem/orbs", "4.10.0", {"orbs.json": index(orbs, **changed), **{f"{ref}.yml": text.encode() for ref, text in orbs.items()}})

    def run(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {
            "registry": self.registry.host, "username": "site", "password": "secret-password", "plain_http": True, "version": "4.10.0",
            "server": self.server.url, "token": TOKEN, **options,
        }  # fmt: skip
        result = run_module(orb_registry, self.capsys, check=check, **given)
        assert TOKEN not in json.dumps({key: value for key, value in result.items() if key != "invocation"})
        return result


@pytest.fixture
def site(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    for registry in serve("site:secret-password"):
        with serve_orbs(TOKEN) as server:
            yield Site(registry, server, capsys)


def test_publishes_what_is_missing_in_order_and_nothing_again(site: Site) -> None:
    predicted = site.run(check=True)
    assert predicted["changed"] and site.server.refs == [] and site.server.namespaces == {}
    result = site.run()
    assert result["changed"] and result["state"] == "published" and result["published"] == predicted["published"] == list(ORBS)
    assert result["diff"] == predicted["diff"] and result["diff"]["after"] == "".join(f"{ref}\n" for ref in ORBS)
    assert site.server.refs == list(ORBS) and site.server.versions["circleci/aws-ecr"]["9.5.0"] == ECR
    # The namespace is made once, though two orbs lie in it.
    assert [name for name, _given in site.server.asked].count("importNamespace") == 1
    site.server.asked.clear()
    again = site.run()
    assert not again["changed"] and again["published"] == [] and again["state"] == "published" and again["diff"]["before"] == again["diff"]["after"]
    assert [name for name, _given in site.server.asked] == ["source", "source"]


def test_goes_on_where_namespace_and_orb_are_there_already(site: Site) -> None:
    site.server.add("circleci/aws-cli@4.0.0", CLI)
    assert site.run()["published"] == list(ORBS)
    assert "importNamespace" not in [name for name, _given in site.server.asked]


def test_without_a_token_nothing_is_asked_and_it_is_said(site: Site) -> None:
    result = site.run(token="")
    assert not result["changed"] and result["state"] == "not run" and site.server.asked == [] and site.registry.requests == []
    (found,) = result["findings"]
    _site, reasons = judge_site({"site": "one"}, {}, {}, {}, [], [], True, [], {}, [found])
    (warning,) = [item for item in build_report(_site)["warnings"] if item["subject"] == "orbs"]
    # It stands in the report among what was not proved, and does not fail the run.
    assert warning["urgency"] == 4 and warning["text"].startswith("orbs: found not run, circleci_personal_token is missing, expected the orbs of the bundle")
    assert not [reason for reason in reasons if "orbs" in reason]


@pytest.mark.parametrize("status", [0, 401, 403])
def test_a_refused_token_is_told_with_its_variable(site: Site, status: int) -> None:
    site.server.broken = [status] if status else []
    result = site.run(token="of-somebody-else")
    assert result["failed"] and result["state"] == "failed" and "circleci_personal_token" in result["msg"] and site.server.refs == []
    site.server.broken = [status] if status else []
    quiet = site.run(token="of-somebody-else", fail=False)
    assert "failed" not in quiet and quiet["findings"][0]["urgency"] == 1


def test_a_version_with_another_source_stays_and_is_told(site: Site) -> None:
    site.server.add("circleci/aws-cli@5.1.3", "version: 2.1\ndescription: ours\n")
    result = site.run(fail=False)
    assert site.server.versions["circleci/aws-cli"]["5.1.3"] == "version: 2.1\ndescription: ours\n"
    assert result["published"] == ["circleci/aws-ecr@9.5.0"] and result["findings"][0]["urgency"] == 2
    assert "circleci/aws-cli@5.1.3 is published on this server with another source" in result["findings"][0]["found"]
    again = site.run()
    assert again["failed"] and not again["changed"] and "another source" in again["msg"]


def test_a_last_line_feed_makes_no_other_source(site: Site) -> None:
    site.server.add("circleci/aws-cli@5.1.3", CLI.rstrip())
    assert site.run()["published"] == ["circleci/aws-ecr@9.5.0"]


def test_a_refused_orb_stops_there_and_the_rest_is_kept(site: Site) -> None:
    site.bring({**ORBS, "acme/old@1.0.0": "orbs: {}\n", "acme/new@1.0.0": CLI})
    result = site.run()
    assert result["failed"] and result["changed"] and result["published"] == list(ORBS) == site.server.refs
    assert "does not take acme/old@1.0.0: ERROR IN CONFIG FILE" in result["msg"]
    site.bring({**ORBS, "acme/new@1.0.0": CLI})
    assert site.run()["published"] == ["acme/new@1.0.0"]


def test_an_orb_whose_import_did_not_travel_is_refused_by_the_server(site: Site) -> None:
    site.bring({"circleci/aws-ecr@9.5.0": ECR})
    result = site.run()
    assert result["failed"] and "cannot find orb circleci/aws-cli@5.1" in result["msg"] and site.server.refs == []


def test_a_source_that_is_not_what_the_index_says_is_not_published(site: Site) -> None:
    site.bring(ORBS, **{"circleci/aws-cli@5.1.3": "0" * 64})
    result = site.run()
    assert result["failed"] and "its index says sha256:0000" in result["msg"] and site.server.asked == []


def test_a_damaged_source_is_not_published(site: Site) -> None:
    damaged = [key for key, body in site.registry.blobs.items() if body == CLI.encode()]
    site.registry.blobs[damaged[0]] = CLI.replace("{}", "[]").encode()
    result = site.run()
    assert result["failed"] and site.server.asked == [], result


@pytest.mark.parametrize("gone", ["server", "registry", "artifact"])
def test_in_check_mode_what_the_run_brings_may_be_missing(site: Site, gone: str) -> None:
    options: dict[str, Any] = {"server": {"server": "http://127.0.0.1:1"}, "registry": {"registry": "127.0.0.1:1"}, "artifact": {"version": "4.9.5"}}[gone]
    result = site.run(check=True, peers_may_be_missing=True, **options)
    assert "failed" not in result and result["changed"] and result["findings"] == []
    # The engine is patient with a registry that does not answer, so only the others are tried in earnest here.
    refused = site.run(check=gone == "registry", **options)
    assert refused["failed"] and not refused["changed"]


def test_a_proxy_of_the_control_host_is_not_asked_for_the_server(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", site.registry.host.partition(":")[0])
    with serve_orbs(TOKEN) as server:
        # The registry is spared by no_proxy; the server has a name that it does not cover.
        result = site.run(server=server.url.replace("127.0.0.1", "localhost"))
        assert result.get("published") == list(ORBS), result


def test_the_certificate_of_the_server_must_be_trusted(site: Site, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=server"]
    subprocess.run([*argv, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serve_orbs(TOKEN, context) as server:
        refused = site.run(server=server.url)
        assert refused["failed"] and "certificate verify failed" in refused["msg"] and "circleci_ca_certificate" in refused["msg"] and server.asked == []
        assert site.run(server=server.url, server_ca_certificate=certificate.read_text())["published"] == list(ORBS)
    assert "not given as PEM" in site.run(server_ca_certificate="no PEM")["msg"]
