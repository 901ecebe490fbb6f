# SPDX-License-Identifier: GPL-3.0-or-later
"""The module site_preflight with a cluster that has Secrets already: where the password for an external PostgreSQL comes from."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.filter.values import external_databases
from ansible_collections.onprem.circleci_server.plugins.module_utils.databases import Login, ServerFacts
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight import databases, site
from ansible_collections.onprem.circleci_server.plugins.modules import site_preflight
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.helm.fake_kube import FakeKube
from ansible_collections.onprem.circleci_server.tests.unit.plugins.modules.test_only_looking import RELEASE

CANARY = "canary-of-the-secret"


def kept(**keys: str) -> dict[str, Any]:
    return {"metadata": {"name": "postgresql"}, "data": {name.replace("_", "-"): base64.b64encode(text.encode()).decode() for name, text in keys.items()}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Login | None]:
    """Logins with which PostgreSQL was asked."""
    seen: list[Login | None] = []

    def ask(_host: str, _port: int, login: Login | None, _extensions: Any = ()) -> ServerFacts:
        seen.append(login)
        return ServerFacts("PostgreSQL", "13.4" if login else "", "TLSv1.3", {"pg_partman": "4.5.1"})

    monkeypatch.setattr(databases, "ask_postgres", ask)
    return seen


def look(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], secret: dict[str, Any] | None, **options: Any) -> dict[str, Any]:
    api = FakeKube("ns")
    if secret is not None:
        api.put("/api/v1/namespaces/ns/secrets/postgresql", secret)
    monkeypatch.setattr(site_preflight, "KubernetesClient", lambda *_arguments, **_options: api)
    monkeypatch.setattr(site, "read_cluster", lambda *_arguments, **_options: site.ClusterFacts(version="v1.33.0"))
    block = {"internal": False, "host": "db.example.com", "username": "circleci", "secure_mode": True}
    wanted = external_databases({"release": "4.10.0", "platform": "generic", "domain": "ci.example.com", "postgres": block})
    given = {"kubeconfig": "/k", "namespace": "ns", "release": RELEASE, "registry_host": "r", "databases": wanted, "fail": False, **options}
    result = run_module(site_preflight, capsys, **given)
    assert CANARY not in json.dumps(result)
    return {item["check"]: item["level"] for item in result["findings"] if item["check"].startswith("external_database")}


@pytest.mark.parametrize(
    ("secret", "given", "password"),
    [
        (kept(postgres_password=CANARY), {}, CANARY),
        (kept(postgres_password="of-the-superuser", password=CANARY), {}, CANARY),
        (kept(postgres_password=CANARY), {"postgresql_password": "of-the-inventory"}, "of-the-inventory"),
    ],
)
def test_password_is_the_given_one_or_that_of_the_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: list[Login | None], secret: dict[str, Any], given: dict[str, str], password: str
) -> None:
    levels = look(monkeypatch, capsys, secret, **given)
    assert asked == [Login("circleci", password)]
    assert levels == {"external_database": "ok", "external_database_tls": "ok", "external_database_extension": "ok"}


@pytest.mark.parametrize("secret", [None, kept(), {"metadata": {"name": "postgresql"}, "data": {"password": "no base64!"}}])
def test_without_a_password_only_tls_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: list[Login | None], secret: dict[str, Any] | None
) -> None:
    assert look(monkeypatch, capsys, secret) == {"external_database": "warning", "external_database_tls": "ok"}
    assert asked == [None]
