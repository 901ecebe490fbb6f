# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of database servers, byte by byte as their protocols write them down; real servers are asked in tests/integration_databases."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.filter.values import external_databases
from ansible_collections.onprem.circleci_server.plugins.module_utils.databases import (
    Login,
    NoAnswer,
    ServerFacts,
    ask_mongodb,
    ask_postgres,
    ask_rabbitmq,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight import databases
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.findings import (
    OK,
    PROBLEM,
    WAIVABLE,
    WARNING,
)


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """STAND-IN for a server that reads once before each of its answers, then hangs up. It knows nothing."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _address = listener.accept()
        with connection:
            for answer in answers:
                connection.recv(4096)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield int(listener.getsockname()[1])
    thread.join()
    listener.close()


def start(*properties: bytes) -> bytes:
    """Connection.Start of AMQP 0-9-1 with these server properties."""
    table = b"".join(properties)
    payload = struct.pack(">HHBBI", 10, 10, 0, 9, len(table)) + table + struct.pack(">I", 5) + b"PLAIN" + struct.pack(">I", 5) + b"en_US"
    return struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce"


def text(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + b"S" + struct.pack(">I", len(value)) + value


def reply(*fields: bytes) -> bytes:
    """OP_MSG of MongoDB with one document."""
    body = b"".join(fields)
    message = struct.pack("<I", 0) + b"\x00" + struct.pack("<i", len(body) + 5) + body + b"\x00"
    return struct.pack("<iiii", len(message) + 16, 7, 1, 2013) + message


def bson_text(name: bytes, value: bytes) -> bytes:
    return b"\x02" + name + b"\x00" + struct.pack("<i", len(value) + 1) + value + b"\x00"


def bson_int(name: bytes, value: int) -> bytes:
    return b"\x10" + name + b"\x00" + struct.pack("<i", value)


CAPABILITIES = b"\x0ccapabilitiesF" + struct.pack(">I", 6) + b"\x03ackt\x01"
MODULES = b"\x04modules\x00\x05\x00\x00\x00\x00"
REFUSED = (bson_text(b"errmsg", b"command buildInfo requires authentication"), bson_int(b"code", 13))


def test_rabbitmq_is_read_past_properties_of_other_types() -> None:
    with answering(start(CAPABILITIES, text(b"product", b"RabbitMQ"), text(b"version", b"3.12.14"))) as port:
        assert ask_rabbitmq("127.0.0.1", port) == ServerFacts("RabbitMQ", "3.12.14")


def test_a_broker_of_others_is_told_by_its_own_name() -> None:
    with answering(start(text(b"product", b"qpid-cpp"), text(b"version", b"1.39"))) as port:
        assert ask_rabbitmq("127.0.0.1", port).product == "qpid-cpp"
    with answering(start()) as port:
        assert ask_rabbitmq("127.0.0.1", port) == ServerFacts("a broker without a name", "")


def test_mongodb_is_read_past_values_of_other_types() -> None:
    answer = reply(b"\x08debug\x00\x00", MODULES, bson_text(b"version", b"7.0.15"), b"\x01ok\x00" + struct.pack("<d", 1))
    with answering(answer) as port:
        assert ask_mongodb("127.0.0.1", port) == ServerFacts("MongoDB", "7.0.15")


@pytest.mark.parametrize(("wire", "version"), [(6, "3.6"), (9, "4.4"), (14, "5.0"), (21, "7.0"), (27, "8.0")])
def test_mongodb_that_hides_its_version_is_told_by_its_protocol(wire: int, version: str) -> None:
    with answering(reply(*REFUSED), reply(bson_int(b"maxWireVersion", wire))) as port:
        assert ask_mongodb("127.0.0.1", port).version == version


@pytest.mark.parametrize(
    ("ask", "answers", "words"),
    [
        (ask_rabbitmq, (b"AMQP\x01\x01\x00\x09",), "does not speak AMQP|another protocol"),
        (ask_rabbitmq, (struct.pack(">BHI", 1, 0, 12) + struct.pack(">HHBBI", 20, 40, 0, 9, 0) + b"\x00\x00",), "does not begin"),
        (ask_rabbitmq, (start(b"\x03odd?"),), "no AMQP"),
        (ask_rabbitmq, (start(b"\x7fshort"),), "no AMQP"),
        (ask_rabbitmq, (struct.pack(">BHI", 1, 0, 1 << 31),), "another protocol"),
        (ask_rabbitmq, (), "ended the connection|said nothing"),
        (ask_mongodb, (struct.pack("<iiii", 36, 7, 1, 1) + b"\x00" * 20,), "3.6 or later"),
        (ask_mongodb, (struct.pack("<iiii", 40, 7, 1, 2013) + b"\xff" * 24,), "no BSON"),
        (ask_mongodb, (reply(b"\x03inner\x00" + struct.pack("<i", -12) + b"\x00"),), "no BSON"),
        (ask_mongodb, (reply(b"\x02endless"),), "no BSON"),
        (ask_mongodb, (reply(*REFUSED), reply()), "does not tell its version: command buildInfo requires authentication"),
        (ask_mongodb, (reply(*REFUSED), reply(bson_int(b"maxWireVersion", 4))), "does not tell its version"),
    ],
)
def test_whatever_else_answers_is_told_and_ends_nothing(ask: Callable[..., ServerFacts], answers: Sequence[bytes], words: str) -> None:
    with answering(*answers) as port, pytest.raises(NoAnswer, match=words) as caught:
        ask("127.0.0.1", port)
    assert caught.value.kind == "protocol"


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">i", len(body) + 4) + body


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ((b"H",), "protocol of PostgreSQL"),
        ((b"N", message(b"R", struct.pack(">i", 3))), "no password is sent as it is"),
        ((b"N", message(b"R", struct.pack(">i", 11) + b"nonsense")), "not one of PostgreSQL"),
        ((b"N", message(b"R", struct.pack(">i", 11) + b"r=another,s=AAAA,i=4096")), "SCRAM"),
        ((b"N", message(b"R", struct.pack(">i", 10) + b"SCRAM-SHA-256\x00\x00"), message(b"R", struct.pack(">i", 12) + b"v=AAAA")), "does not know the password"),
        ((b"N", message(b"E", b"SFATAL\x00C3D000\x00Mdatabase does not exist\x00\x00")), "database does not exist"),
    ],
)
def test_postgresql_gets_no_password_as_it_is(answers: Sequence[bytes], words: str) -> None:
    with answering(*answers) as port, pytest.raises(NoAnswer, match=words):
        ask_postgres("127.0.0.1", port, Login("owner", "canary"))
    assert "canary" not in repr(Login("owner", "canary"))


def site(**facts: Any) -> list[dict[str, Any]]:
    return external_databases({"release": "4.10.0", "platform": "generic", "domain": "ci.example.com", **facts})


POSTGRES = {"internal": False, "host": "db.example.com", "username": "circleci", "secure_mode": True}
MONGODB = {"internal": False, "hosts": "a.example.com:27018, b.example.com,[2001:db8::1]:27019", "tls": True, "tls_insecure": True}
RABBITMQ = {"internal": False, "host": "mq.example.com", "port": 5671, "tls": True}


def test_databases_of_others_are_named_with_what_the_release_wants() -> None:
    assert site() == []
    postgres, mongodb, rabbitmq = site(postgres=POSTGRES, mongodb=MONGODB, rabbitmq=RABBITMQ)
    assert postgres["hosts"] == [{"host": "db.example.com", "port": 5432}] and postgres["secret"] == "postgresql"
    assert (postgres["wanted"]["lowest"], postgres["wanted"]["highest"], postgres["wanted"]["tls"]) == ("12", "14", "1.3")
    assert [tuple(host.values()) for host in mongodb["hosts"]] == [("a.example.com", 27018), ("b.example.com", 27017), ("2001:db8::1", 27019)]
    assert (mongodb["tls"], mongodb["verify"], mongodb["wanted"]["lowest"]) == (True, False, "7.0")
    assert rabbitmq["hosts"] == [{"host": "mq.example.com", "port": 5671}] and rabbitmq["wanted"]["lowest"] is None
    assert [row["wanted"]["lowest"] for row in site(release="4.9.5", mongodb=MONGODB)] == ["4.4"]
    assert site(release="4.8.12", postgres={**POSTGRES, "secure_mode": None})[0]["wanted"]["tls"] is None
    # Wrong facts have a finding of their own.
    assert site(postgres={"internal": "perhaps"}) == []


@pytest.mark.parametrize(
    ("facts", "answer", "expected"),
    [
        ({"postgres": POSTGRES}, ServerFacts("PostgreSQL", "12.22", "TLSv1.3", {"pg_partman": "4.5.1"}), (OK, OK, OK)),
        ({"postgres": POSTGRES}, ServerFacts("PostgreSQL", "14.9 (Debian 14.9-1)", "TLSv1.3", {"pg_partman": "4.5.1"}), (OK, OK, OK)),
        ({"postgres": POSTGRES}, ServerFacts("PostgreSQL", "11.22", "TLSv1.2", {"pg_partman": "5.0.1"}), (PROBLEM, PROBLEM, PROBLEM)),
        ({"postgres": {**POSTGRES, "secure_mode": False}}, ServerFacts("PostgreSQL", "15.1", "", {}), (PROBLEM, WARNING, PROBLEM)),
        ({"postgres": POSTGRES}, ServerFacts("PostgreSQL", "", "TLSv1.3"), (WARNING, OK)),
        ({"mongodb": {**MONGODB, "hosts": "a"}}, ServerFacts("MongoDB", "7.0.15"), (OK,)),
        ({"mongodb": {**MONGODB, "hosts": "a"}}, ServerFacts("MongoDB", "8.0.1"), (OK,)),
        ({"mongodb": {**MONGODB, "hosts": "a"}}, ServerFacts("MongoDB", "6.0.13"), (PROBLEM,)),
        ({"mongodb": {**MONGODB, "hosts": "c.docdb.amazonaws.com"}}, ServerFacts("MongoDB", "7.0.15"), (PROBLEM,)),
        ({"rabbitmq": RABBITMQ}, ServerFacts("RabbitMQ", "4.0.5"), (OK,)),
        ({"rabbitmq": RABBITMQ}, ServerFacts("qpid-cpp", "1.39"), (PROBLEM,)),
    ],
)
def test_each_answer_is_held_against_the_release(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], answer: ServerFacts, expected: tuple[str, ...]
) -> None:
    monkeypatch.setattr(databases, "_ask", lambda *_arguments: answer)
    found = databases.check_databases(site(**facts), {}, "")
    assert tuple(item.level for item in found) == expected
    assert all(item.remedy for item in found if item.level != OK)
    assert {item.check for item in found if item.level == PROBLEM} <= WAIVABLE


@pytest.mark.parametrize(("kind", "check", "level"), [
    ("reach", "external_database", WARNING), ("login", "external_database_login", PROBLEM), ("certificate", "external_database", WARNING),
    ("protocol", "external_database", WARNING),
])  # fmt: skip
def test_what_was_not_answered_says_why(monkeypatch: pytest.MonkeyPatch, kind: str, check: str, level: str) -> None:
    def refuse(*_arguments: Any) -> ServerFacts:
        raise NoAnswer(kind, "because")

    monkeypatch.setattr(databases, "_ask", refuse)
    (found,) = databases.check_databases(site(postgres=POSTGRES), {}, "")
    assert (found.check, found.level, found.found) == (check, level, "PostgreSQL db.example.com:5432: because")
    assert "external_database_login" not in WAIVABLE
