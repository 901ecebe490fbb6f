# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of GitHub Enterprise against a server on loopback that answers as it does, with a certificate of a private authority."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight import vcs
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.site import (
    ask_object_storage,
    ask_registry,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets import pki

HOST_KEY = "ghe.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBJ2YK6NvF8gk1F0E8yQ4oA2a8Fv0m3q3w6v9bY0uVbC"


class Enterprise(http.server.BaseHTTPRequestHandler):
    """STAND-IN for the API of GitHub Enterprise Server: version, a token without scopes and one with."""

    def do_GET(self) -> None:
        said = self.headers.get("Authorization", "")
        status, headers, body = 404, {}, {}
        if self.path == "/api/v3/meta":
            status, body = 200, {"installed_version": "3.14.2"}
        elif self.path == "/api/v3/user":
            status = 200 if said in ("token good", "token mighty") else 401
            headers = {"X-OAuth-Scopes": "repo" if said == "token mighty" else ""} if status == 200 else {}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_arguments: Any) -> None:
        pass


AUTHORITY = pki.new_authority("corporate")


def served(handler: type[http.server.BaseHTTPRequestHandler], folder: Path, name: str) -> Iterator[str]:
    pair = pki.issue(AUTHORITY, pki.Subject(name, dns=(name,)))
    (folder / "pair.pem").write_text(pair.certificate + pair.key, encoding="utf-8")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pair.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"localhost:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def enterprise(tmp_path: Path) -> Iterator[str]:
    yield from served(Enterprise, tmp_path, "localhost")


@pytest.fixture
def misnamed(tmp_path: Path) -> Iterator[str]:
    yield from served(Enterprise, tmp_path, "other.example.com")


@pytest.fixture
def other(tmp_path: Path) -> Iterator[str]:
    yield from served(http.server.SimpleHTTPRequestHandler, tmp_path, "localhost")


class Sign(Enterprise):
    """A sign-on that sends everybody elsewhere, with all that they brought."""

    elsewhere = ""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", f"https://{self.elsewhere}{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()


class Listening(Enterprise):
    """Where they are sent; it notes what they brought."""

    heard: list[str] = []

    def do_GET(self) -> None:
        self.heard.append(self.headers.get("Authorization", ""))
        super().do_GET()


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "elsewhere").mkdir()
    for Sign.elsewhere in served(Listening, tmp_path / "elsewhere", "localhost"):
        yield from served(Sign, tmp_path, "localhost")


class Mute(http.server.BaseHTTPRequestHandler):
    """Something that speaks TLS and no HTTP, such as a message broker."""

    def handle(self) -> None:
        self.connection.recv(1024)
        self.connection.sendall(b"AMQP\x00\x00\x09\x01\r\n")


@pytest.fixture
def mute(tmp_path: Path) -> Iterator[str]:
    yield from served(Mute, tmp_path, "localhost")


def checked(hostname: str, **changes: Any) -> dict[str, tuple[str, str, str]]:
    site = {"hostname": hostname, "ca_certificate": AUTHORITY.certificate, "domain": "ci.example.com", "addresses": ["192.0.2.9"], **changes}
    return {item.check: (item.level, item.subject, item.found) for item in vcs.check_vcs(site)}


def test_good_server_token_key_and_way_back(enterprise: str) -> None:
    found = checked(enterprise, token="good", fingerprint=HOST_KEY)
    assert {name: row[0] for name, row in found.items()} == dict.fromkeys(("vcs", "vcs_token", "vcs_fingerprint", "vcs_webhooks"), "ok")
    assert "GitHub Enterprise Server 3.14.2" in found["vcs"][2]


def test_private_authority_must_be_given(enterprise: str) -> None:
    level, _subject, text = checked(enterprise, ca_certificate="", token="good")["vcs_certificate"]
    assert level == "problem"
    assert "certificate verify failed" in text
    assert "vcs_token" not in checked(enterprise, ca_certificate="", token="good")


def test_certificate_for_another_name_is_a_problem(misnamed: str) -> None:
    level, subject, text = checked(misnamed)["vcs_certificate"]
    assert (level, subject) == ("problem", "circleci_github_hostname")
    assert "localhost" in text


def test_authority_that_is_no_pem_is_told_by_its_variable(enterprise: str) -> None:
    assert checked(enterprise, ca_certificate="nonsense")["vcs_certificate"][:2] == ("problem", "circleci_github_ca_certificate")


def test_refused_token_is_a_problem_and_is_shown_nowhere(enterprise: str) -> None:
    findings = vcs.check_vcs({"hostname": enterprise, "ca_certificate": AUTHORITY.certificate, "domain": "d.example", "token": "canary"})
    (row,) = [item for item in findings if item.check == "vcs_token"]
    assert row.level == "problem"
    assert "refuses it (401)" in row.found
    assert "canary" not in "".join(item.sentence() for item in findings)


def test_token_with_scopes_is_a_warning(enterprise: str) -> None:
    level, _subject, text = checked(enterprise, token="mighty")["vcs_token"]
    assert (level, text) == ("warning", "it has the scopes repo")


def test_something_else_on_the_port_is_a_warning(other: str) -> None:
    level, _subject, text = checked(other)["vcs"]
    assert level == "warning"
    assert "which GitHub Enterprise does not" in text


def test_logins_are_carried_nowhere_else(moved: str) -> None:
    found = checked(moved, token="good")
    assert found["vcs"][2].endswith("answers 302 to /api/v3/meta, which GitHub Enterprise does not")
    assert ask_registry(moved, "user", "password", AUTHORITY.certificate).status == 302
    assert Listening.heard == []


def test_object_store_is_asked_without_a_login(enterprise: str, misnamed: str) -> None:
    assert ask_object_storage(f"https://{enterprise}/", AUTHORITY.certificate).status == 404
    assert "certificate verify failed" in ask_object_storage(f"https://{enterprise}", "").error
    assert "certificate verify failed" in ask_object_storage(f"https://{misnamed}", AUTHORITY.certificate).error


def test_what_speaks_no_http_is_told_and_ends_nothing(mute: str) -> None:
    level, subject, found = checked(mute)["vcs"]
    assert (level, subject) == ("warning", "circleci_github_hostname") and "AMQP" in found
    answer = ask_registry(mute, "user", "password", AUTHORITY.certificate)
    assert answer.status == 0 and "AMQP" in answer.error


def test_server_that_cannot_be_reached_is_a_warning_and_no_token_is_sent() -> None:
    found = checked("localhost:1", token="good")
    assert found["vcs"][0] == "warning"
    assert "vcs_token" not in found


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (HOST_KEY, True),
        (HOST_KEY.partition(" ")[2], True),
        (f"# comment\n{HOST_KEY}\n", True),
        ("SHA256:" + "A" * 43, True),
        ("ssh-ed25519 bm90aGluZw==", False),
        ("aa:bb:cc", False),
        (HOST_KEY.replace("ssh-ed25519", "ssh-rsa"), False),
        ("ssh-ed25519", False),
    ],
)
def test_host_keys(text: str, good: bool) -> None:
    assert vcs.good_fingerprint(text) is good
    finding = vcs.check_fingerprint(text, proxied=False)
    assert finding is not None
    assert finding.level == ("ok" if good else "problem")


def test_host_key_is_wanted_behind_a_proxy_only() -> None:
    assert vcs.check_fingerprint("", proxied=False) is None
    finding = vcs.check_fingerprint("", proxied=True)
    assert finding is not None
    assert finding.level == "warning"


def test_way_of_webhooks_wants_addresses() -> None:
    assert checked("localhost:1", addresses=[])["vcs_webhooks"][:2] == ("warning", "circleci_ports")
    assert "192.0.2.9" in checked("localhost:1")["vcs_webhooks"][2]


@pytest.mark.parametrize(
    ("hostname", "domain", "level"),
    [
        ("github.example.com", "ci.example.com", "ok"),
        ("GitHub.Corp.Example.com", "ci.example.com", "ok"),
        ("github.example.com", "ci.example.org", "warning"),
        ("github.corp.com", "ci.example.com", "warning"),
        ("192.0.2.4", "ci.example.com", None),
        ("github", "ci.example.com", None),
    ],
)
def test_names_below_one_domain_are_advised(hostname: str, domain: str, level: str | None) -> None:
    finding = vcs.check_parent(hostname, domain)
    assert (finding.level if finding else None) == level


def test_domain_is_looked_at_beside_the_rest() -> None:
    assert checked("github.invalid:1", domain="ci.example.com")["vcs_domain"][0] == "warning"


def test_github_com_is_not_asked_and_its_limit_is_told() -> None:
    (finding,) = vcs.check_vcs({"hostname": "github.com", "domain": "d"})
    assert (finding.check, finding.level, finding.found) == ("vcs", "warning", "GitHub.com")
    assert vcs.check_vcs({"hostname": "", "domain": "d"}) == []
