# SPDX-License-Identifier: GPL-3.0-or-later
"""What preflight is told by real servers: PostgreSQL by SCRAM and MD5, RabbitMQ before a login, and MongoDB's protocol as FerretDB speaks it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.filter.values import external_databases
from ansible_collections.onprem.circleci_server.plugins.module_utils.databases import (
    Login,
    NoAnswer,
    ask_mongodb,
    ask_postgres,
    ask_rabbitmq,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.databases import check_databases
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets import pki
from ansible_collections.onprem.circleci_server.tests.integration_databases.servers import (
    AUTHORITY,
    PASSWORD,
    POSTGRES,
    Server,
    sql,
)

STRANGER = pki.new_authority("somebody else").certificate


def printed(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("role", ["owner", "md5_role"])
def test_postgresql_tells_its_version_to_who_logs_in(postgres: Server, role: str) -> None:
    facts = ask_postgres("localhost", postgres.port, Login(role, PASSWORD), ["plpgsql", "pg_partman"])
    assert printed(str(POSTGRES / "postgres"), "--version").split()[2] == facts.version.split()[0]
    assert (facts.product, facts.tls, facts.extensions) == ("PostgreSQL", "TLSv1.3", {"plpgsql": "1.0"})


def test_postgresql_without_a_password_tells_its_tls_only(postgres: Server) -> None:
    facts = ask_postgres("localhost", postgres.port, None)
    assert (facts.version, facts.tls) == ("", "TLSv1.3")


@pytest.mark.parametrize(
    ("role", "password", "kind", "words"),
    [
        ("owner", "wrong", "login", "password authentication failed"),
        ("md5_role", "wrong", "login", "password authentication failed"),
        ("nobody_such", PASSWORD, "login", "password authentication failed"),
        ("plain_role", PASSWORD, "protocol", "no password is sent as it is"),
        ("barred_role", PASSWORD, "protocol", "pg_hba.conf rejects"),
    ],
)
def test_logins_that_are_not_let_in_are_told_apart(postgres: Server, role: str, password: str, kind: str, words: str) -> None:
    with pytest.raises(NoAnswer, match=words) as caught:
        ask_postgres("localhost", postgres.port, Login(role, password))
    assert caught.value.kind == kind and PASSWORD not in str(caught.value)


def test_rabbitmq_tells_its_version_before_anybody_logs_in(rabbitmq: Server) -> None:
    installed = printed("dpkg-query", "-W", "-f=${Version}", "rabbitmq-server").partition("-")[0]
    plain, secure = ask_rabbitmq("localhost", rabbitmq.port), ask_rabbitmq("localhost", rabbitmq.tls_port, tls=True, ca_certificate=AUTHORITY.certificate)
    assert (plain.product, plain.version, plain.tls) == ("RabbitMQ", installed, "")
    assert (secure.version, secure.tls) == (installed, "TLSv1.3")
    with pytest.raises(NoAnswer) as caught:
        ask_rabbitmq("localhost", rabbitmq.tls_port, tls=True, ca_certificate=STRANGER)
    assert caught.value.kind == "certificate"


def test_what_speaks_the_protocol_of_mongodb_tells_its_version_without_a_login(ferretdb: Server) -> None:
    assert (ferretdb.folder / "log").exists()
    plain = ask_mongodb("localhost", ferretdb.port)
    assert (plain.product, plain.tls) == ("MongoDB", "") and plain.version.startswith("7.")
    secure = ask_mongodb("localhost", ferretdb.tls_port, tls=True, ca_certificate=AUTHORITY.certificate)
    assert (secure.version, secure.tls) == (plain.version, "TLSv1.3")
    with pytest.raises(NoAnswer) as caught:
        ask_mongodb("localhost", ferretdb.tls_port, tls=True, ca_certificate=STRANGER)
    assert caught.value.kind == "certificate"


def test_servers_of_another_product_are_told_and_end_nothing(postgres: Server, rabbitmq: Server) -> None:
    for ask, port in ((ask_mongodb, rabbitmq.port), (ask_rabbitmq, postgres.port), (ask_mongodb, postgres.port)):
        with pytest.raises(NoAnswer) as caught:
            ask("localhost", port)
        assert caught.value.kind == "protocol"
    with pytest.raises(NoAnswer, match="protocol of PostgreSQL"):
        ask_postgres("localhost", rabbitmq.port, None)


def findings(facts: dict[str, Any], password: str = "") -> dict[str, tuple[str, str]]:
    databases = external_databases({"release": "4.10.0", "platform": "generic", "domain": "ci.example.com", **facts})
    assert databases, "the facts name a database of others"
    found = check_databases(databases, {"circleci_postgresql": password}, AUTHORITY.certificate)
    assert PASSWORD not in "".join(item.sentence() for item in found)
    return {item.check: (item.level, item.found) for item in found}


def test_a_postgresql_that_is_too_new_and_lacks_the_extension(postgres: Server) -> None:
    block = {"internal": False, "host": "localhost", "port": postgres.port, "username": "owner", "secure_mode": True}
    found = findings({"postgres": block}, PASSWORD)
    assert found["external_database"][0] == "problem" and "PostgreSQL 15" in found["external_database"][1]
    assert found["external_database_tls"] == ("ok", "localhost agrees on TLSv1.3")
    assert found["external_database_extension"] == ("problem", "no pg_partman on localhost")
    assert findings({"postgres": block})["external_database"][0] == "warning"
    assert findings({"postgres": block}, "wrong")["external_database_login"][0] == "problem"


def test_a_server_that_speaks_no_new_tls(postgres: Server) -> None:
    try:
        sql(postgres, "ALTER SYSTEM SET ssl_max_protocol_version = 'TLSv1.2'; SELECT pg_reload_conf()")
        block = {"internal": False, "host": "localhost", "port": postgres.port, "username": "owner"}
        seen = findings({"postgres": block}, PASSWORD)
        # Every session of PostgreSQL is a process that reads its settings when it begins.
        while seen["external_database_tls"][1] != "localhost agrees on TLSv1.2":
            seen = findings({"postgres": block}, PASSWORD)
        assert seen["external_database_tls"][0] == "warning"
        assert findings({"postgres": {**block, "secure_mode": True}}, PASSWORD)["external_database_tls"][0] == "problem"
    finally:
        sql(postgres, "ALTER SYSTEM RESET ssl_max_protocol_version; SELECT pg_reload_conf()")


def test_a_rabbitmq_of_others_is_named_and_judged_by_nobody(rabbitmq: Server) -> None:
    found = findings({"rabbitmq": {"internal": False, "host": "localhost", "port": rabbitmq.tls_port, "tls": True}})
    assert found["external_database"][0] == "ok" and found["external_database"][1].startswith("RabbitMQ 3.")


def test_nobody_there(tmp_path: Path) -> None:
    found = findings({"mongodb": {"internal": False, "hosts": "localhost:1,127.0.0.1:2"}})
    assert found == {"external_database": ("warning", "MongoDB 127.0.0.1:2: Connection refused")}
