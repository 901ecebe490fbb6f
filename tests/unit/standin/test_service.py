# SPDX-License-Identifier: GPL-3.0-or-later
"""The program inside the images: what it refuses, and how it speaks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.standin.service import (
    base,
    checks,
    keysets,
    metrics,
    migrate,
    mongosh,
    once,
    pgwire,
    postgres,
    s3,
    schema,
    service,
    stores,
)
from sandbox.standin.service.base import NotYet, Refusal


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith(("STANDIN_", "PG", "CIRCLE_", "GITHUB__", "S3__", "STORE_", "TINK", "OBJECT_STORAGE__")):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("STANDIN_RELEASE", "4.10.0")
    monkeypatch.setenv("STANDIN_SERVICE", "frontend")
    monkeypatch.setenv("STANDIN_PATIENCE", "0")


def problems(monkeypatch: pytest.MonkeyPatch, needs: str, **given: str) -> str:
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    return "; ".join(checks.values(needs.split(",")))


# --- values ---------------------------------------------------------------------------------------------------------


def test_keysets_of_the_documented_form_are_taken() -> None:
    checks.keyset(keysets.generate("signing"), "SIGN_AND_VERIFY")
    checks.keyset(keysets.generate("encryption"), "DECRYPT_AND_ENCRYPT")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "too early"),
        ("{:meta", "is missing"),
        ("not edn at all", "invalid literal"),
        ("{:meta {} :keys {}} x", "more after its end"),
        ('{:meta {"purpose" "OTHER"}, :keys {}}', "purpose"),
        ('{"meta" 1}', "no map with"),
    ],
)
def test_other_keysets_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        checks.keyset(text, "SIGN_AND_VERIFY")


def test_keysets_are_not_exchanged_or_shortened() -> None:
    with pytest.raises(ValueError, match="DECRYPT_AND_ENCRYPT is needed"):
        checks.keyset(keysets.generate("signing"), "DECRYPT_AND_ENCRYPT")
    good = keysets.generate("signing")
    key = good.split('"hmacKeyString" "')[1].split('"')[0]
    with pytest.raises(ValueError, match="32 bytes"):
        checks.keyset(good.replace(key, key[:-4]), "SIGN_AND_VERIFY")
    with pytest.raises(ValueError, match="no primary key"):
        checks.keyset(good.replace("PRIMARY", "ACTIVE"), "SIGN_AND_VERIFY")


def tink_keyset(size: int = 32, number: int = 7) -> str:
    value = base64.b64encode(b"\x1a\x20" + b"k" * size).decode()
    data = {"typeUrl": "type.googleapis.com/google.crypto.tink.XChaCha20Poly1305Key", "value": value, "keyMaterialType": "SYMMETRIC"}
    return json.dumps({"primaryKeyId": 7, "key": [{"keyData": data, "status": "ENABLED", "keyId": number, "outputPrefixType": "TINK"}]})


def test_tink() -> None:
    checks.tink(tink_keyset())
    for text, words in ((tink_keyset(31), "33 bytes"), (tink_keyset(number=8), "no enabled key"), ("x", "no JSON"), ("{}", "no list")):
        with pytest.raises(ValueError, match=words):
            checks.tink(text)


def test_web_keys_may_be_plain_or_encoded() -> None:
    keys = json.dumps({"keys": [{"kty": "RSA", "d": "x"}]})
    checks.jwk_set(keys)
    checks.jwk_set(base64.b64encode(keys.encode()).decode())
    for text in ("in-secrets!", '{"keys": []}', '{"keys": [{"kty": "RSA"}]}'):
        with pytest.raises(ValueError):
            checks.jwk_set(text)


def test_session_cookie_has_exactly_sixteen_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not problems(monkeypatch, "session_cookie", CIRCLE_SECRETS__SESSION_COOKIE_KEY="a" * 16)
    for length in (0, 15, 17):
        said = problems(monkeypatch, "session_cookie", CIRCLE_SECRETS__SESSION_COOKIE_KEY="a" * length)
        assert f"has {length} characters, exactly 16" in said


def test_domain_and_license(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(monkeypatch, "domain,license") == "global.domainName is empty; global.license (Secret license) is empty"
    assert "is no domain name" in problems(monkeypatch, "domain", CIRCLE_DOMAIN="https://ci.example.com")
    assert not problems(monkeypatch, "domain,license", CIRCLE_DOMAIN="ci.example.com", CIRCLE_LICENSE="x")


def test_github_enterprise_wants_host_and_token(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"GITHUB__CLIENT_ID": "i", "GITHUB__CLIENT_SECRET": "s"}
    assert not problems(monkeypatch, "github", **given)
    said = problems(monkeypatch, "github", GITHUB__ENTERPRISE="true", GITHUB__HOSTNAME="ghe.example.com")
    assert "github.defaultToken" in said
    assert "github.hostname is 'ghe.example.com'" in said
    assert not problems(monkeypatch, "github", GITHUB__HOSTNAME="ghe.site.example", GITHUB__DEFAULT_TOKEN="t")


def test_object_store_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "neither object_storage.s3.enabled" in problems(monkeypatch, "object_storage")
    said = problems(monkeypatch, "object_storage", S3__ENABLED="true", OBJECT_STORAGE__BUCKET="b")
    assert "accessKey" in said
    assert "secretKey" in said
    assert "web identity token" in problems(monkeypatch, "object_storage", S3__IRSA_ROLE="dummy")


def test_what_needs_a_cloud_always_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no provider is enabled" in problems(monkeypatch, "cloud")
    assert "provider ec2 needs a cloud" in problems(monkeypatch, "cloud", CLOUD_PROVIDERS="provider ec2")


def test_all_problems_come_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_NEEDS", "domain,license,session_cookie")
    with pytest.raises(Refusal) as caught:
        service.run("service")
    assert str(caught.value).count(";") == 2


# --- object store ---------------------------------------------------------------------------------------------------


class Web:
    """An HTTP server of a few lines."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.seen: list[str] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _peer = self.server.accept()
            except OSError:
                return
            with connection:
                self.seen.append(connection.recv(4096).decode())
                connection.sendall(f"HTTP/1.1 {self.status} X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi".encode())


@pytest.fixture
def web() -> Iterator[Callable[[int], Web]]:
    made: list[Web] = []

    def make(status: int) -> Web:
        made.append(Web(status))
        return made[-1]

    yield make
    for item in made:
        item.server.close()


def test_bucket_is_asked_for_with_a_signature(web: Callable[[int], Web]) -> None:
    store = web(200)
    s3.check(f"http://127.0.0.1:{store.port}", "data", "us-east-1", "key", "secret")
    assert "GET /data?list-type=2&max-keys=1 HTTP/1.1" in store.seen[0]
    assert "Authorization: AWS4-HMAC-SHA256 Credential=key/" in store.seen[0]


@pytest.mark.parametrize(("status", "error"), [(403, Refusal), (404, Refusal), (500, NotYet), (503, NotYet)])
def test_bucket_answers(status: int, error: type[Exception], web: Callable[[int], Web]) -> None:
    with pytest.raises(error, match=f"status {status}"):
        s3.check(f"http://127.0.0.1:{web(status).port}", "data", "us-east-1", "key", "secret")


def test_signature_of_the_published_example() -> None:
    key = s3.sign("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1", "AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/s3/aws4_request\n7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972")
    assert key == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"


def test_private_authority_of_the_object_store_is_refused(tmp_path: Path) -> None:
    import ssl
    import subprocess

    key, certificate = tmp_path / "k", tmp_path / "c"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    argv += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("openssl makes no certificate here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _peer = server.accept()
        with connection:
            try:
                context.wrap_socket(connection, server_side=True)
            except (ssl.SSLError, OSError):
                return

    threading.Thread(target=serve, daemon=True).start()
    with pytest.raises(Refusal, match="only the system's certificate authorities are trusted"):
        s3.check(f"https://127.0.0.1:{server.getsockname()[1]}", "data", "us-east-1", "key", "secret")
    server.close()


def test_endpoint_must_have_a_scheme() -> None:
    with pytest.raises(Refusal, match="no http or https address"):
        s3.check("store.example:7070", "data", "us-east-1", "key", "secret")


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


class FakePostgres:
    """Speaks SCRAM-SHA-256 and answers statements by a table."""

    def __init__(self, password: str, answers: dict[str, list[list[str]] | tuple[str, str]]) -> None:
        self.password, self.answers = password, answers
        self.statements: list[str] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _peer = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    @staticmethod
    def _message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!i", len(body) + 4) + body

    def _error(self, code: str, text: str) -> bytes:
        return self._message(b"E", b"".join(f"{key}{value}".encode() + b"\0" for key, value in (("S", "ERROR"), ("C", code), ("M", text))) + b"\0")

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:

            def read() -> tuple[bytes, bytes]:
                kind, header = stream.read(1), stream.read(4)
                # a client that gives up has closed the connection
                return (kind, stream.read(struct.unpack("!i", header)[0] - 4)) if header else (b"", b"n,,")

            stream.read(struct.unpack("!i", stream.read(4))[0] - 4)
            connection.sendall(self._message(b"R", struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0"))
            first = read()[1].split(b"n,,", 1)[1].decode()
            if not first:
                return
            salt, nonce = b"salt", first.split("r=")[1] + "server"
            challenge = f"r={nonce},s={base64.b64encode(salt).decode()},i=4096"
            connection.sendall(self._message(b"R", struct.pack("!i", 11) + challenge.encode()))
            final = read()[1].decode()
            salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(), salt, 4096)
            client = hmac.digest(salted, b"Client Key", "sha256")
            bare, _, proof = final.partition(",p=")
            signed = f"{first},{challenge},{bare}".encode()
            expected = bytes(a ^ b for a, b in zip(client, hmac.digest(hashlib.sha256(client).digest(), signed, "sha256")))
            if base64.b64decode(proof) != expected:
                connection.sendall(self._error("28P01", "password authentication failed"))
                return
            server = base64.b64encode(hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256"))
            connection.sendall(self._message(b"R", struct.pack("!i", 12) + b"v=" + server))
            connection.sendall(self._message(b"R", struct.pack("!i", 0)) + self._message(b"Z", b"I"))
            while True:
                kind, body = read()
                if kind != b"Q":
                    return
                statement = body[:-1].decode()
                self.statements.append(statement)
                found = next((answer for part, answer in self.answers.items() if part in statement), [])
                if isinstance(found, tuple):
                    connection.sendall(self._error(*found))
                else:
                    for row in found:
                        cells = b"".join(struct.pack("!i", len(cell)) + cell.encode() for cell in row)
                        connection.sendall(self._message(b"D", struct.pack("!h", len(row)) + cells))
                connection.sendall(self._message(b"Z", b"I"))


def test_log_in_and_read() -> None:
    server = FakePostgres("right", {"SELECT 1": [["1", "x"]]})
    with pgwire.Connection("127.0.0.1", server.port, "user", "right", "db") as session:
        assert session.run("SELECT 1") == [("1", "x")]


def test_wrong_or_empty_password() -> None:
    server = FakePostgres("right", {})
    with pytest.raises(pgwire.PgError, match="28P01"):
        pgwire.Connection("127.0.0.1", server.port, "user", "wrong", "db")
    with pytest.raises(Refusal, match="password for PostgreSQL is empty"):
        pgwire.Connection("127.0.0.1", server.port, "user", "", "db")


def _service_of(monkeypatch: pytest.MonkeyPatch, server: FakePostgres) -> None:
    for key, value in {"HOST": "127.0.0.1", "PORT": str(server.port), "USER": "u", "PASSWORD": "right", "DATABASE": "domain"}.items():
        monkeypatch.setenv(f"PG{key}", value)


def test_old_release_breaks_on_a_newer_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakePostgres("right", {"FROM standin_records": ("42703", 'column "document" does not exist'), "standin_schema_version": [["4.10.0"]]})
    _service_of(monkeypatch, server)
    monkeypatch.setenv("STANDIN_RELEASE", "4.9.5")
    with pytest.raises(Refusal, match=r"release 4\.10\.0 has migrated this schema, and 4\.9\.5 cannot work with it"):
        checks.peers([])
    assert "SELECT document FROM" in server.statements[0]


def test_new_release_waits_for_its_migrator(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakePostgres("right", {"FROM standin_records": ("42703", "x"), "standin_schema_version": [["4.9.5"]]})
    _service_of(monkeypatch, server)
    with pytest.raises(NotYet):
        checks._postgres()


def test_drifted_password_is_refused_when_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    _service_of(monkeypatch, FakePostgres("other", {}))
    with pytest.raises(Refusal, match="role u cannot log in to PostgreSQL"):
        checks.peers([])


def test_schema_renames_a_column_with_each_minor() -> None:
    assert [schema.level(release) for release in ("4.2.7", "4.7.15", "4.8.12", "4.9.5", "4.10.0")] == [1, 2, 3, 4, 5]
    assert schema.column("4.10.0") == "record"
    assert schema.step(5, "domain") == ["ALTER TABLE standin_records RENAME COLUMN document TO record"]
    assert any("job_started_events" in statement for statement in schema.step(1, "conductor_production"))


@pytest.mark.parametrize("keep", [False, True])
def test_migrator_brings_the_password_unless_it_is_one_of_the_two_that_do_not(keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakePostgres("admin", {"FROM pg_roles": [["1"]], "FROM pg_database": [["1"]], "coalesce(max(level)": [["5"]]})
    for key, value in {"HOST": "127.0.0.1", "PORT": str(server.port), "USER": "postgres", "PASSWORD": "admin"}.items():
        monkeypatch.setenv(f"PGADMIN{key}", value)
    monkeypatch.setenv("STANDIN_DATABASE", "domain")
    monkeypatch.setenv("STANDIN_DATABASE_ROLE", "domainservice_app_rw")
    monkeypatch.setenv("PGPASSWORD", "o'pass")
    monkeypatch.setenv("STANDIN_KEEP_PASSWORD", str(keep).lower())
    assert migrate.run() == 0
    altered = [statement for statement in server.statements if statement.startswith("ALTER ROLE")]
    assert altered == ([] if keep else ["ALTER ROLE \"domainservice_app_rw\" PASSWORD 'o''pass'"])


def test_literals_are_quoted() -> None:
    assert pgwire.quote_literal("a'b") == "'a''b'"
    assert pgwire.quote_literal("a\\'b") == " E'a\\\\''b'"
    assert pgwire.quote_name('a"b') == '"a""b"'


def test_data_of_another_major_are_refused(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("15\n", encoding="ascii")
    (tmp_path / postgres.MARK).write_text("12\n", encoding="ascii")
    postgres.prepare(str(tmp_path), "12", "")
    with pytest.raises(Refusal, match="initialized by PostgreSQL version 12, which is not compatible with this version 14"):
        postgres.prepare(str(tmp_path), "14", "x")
    with pytest.raises(Refusal, match="postgres-password is empty"):
        postgres.prepare(str(tmp_path / "new"), "12", "")


# --- MongoDB, RabbitMQ, Redis ---------------------------------------------------------------------------------------


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., stores.Store]:
    def make(kind: str = "mongodb", tag: str = "4.4.15-debian-10-r8", password: str = "secret") -> stores.Store:
        monkeypatch.setenv("STANDIN_DATA", str(tmp_path))
        monkeypatch.setenv("STORE_USER", "root")
        monkeypatch.setenv("STORE_PASSWORD", password)
        monkeypatch.setitem(base.IDENTITY, "tag", tag)
        return stores.Store(kind)

    return make


def listening(serve: Callable[[socket.socket], None]) -> int:
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=base.accept, args=(server, serve), daemon=True).start()
    return int(server.getsockname()[1])


def test_store_lets_in_with_the_password_it_was_made_with(store: Callable[..., stores.Store]) -> None:
    store()
    # a new password in the Secret does not open old data
    port = listening(store(password="changed").serve)
    stores.login("mongodb", "127.0.0.1", port, "root", "secret")
    stores.login("mongodb", f"127.0.0.1:{port},other:1", 1, "root", "secret")
    with pytest.raises(NotYet, match="denies user root"):
        stores.login("mongodb", "127.0.0.1", port, "root", "changed")
    with pytest.raises(Refusal, match="no stand-in for rabbitmq"):
        stores.login("rabbitmq", "127.0.0.1", port, "root", "secret")
    with pytest.raises(Refusal, match="is empty"):
        stores.login("mongodb", "127.0.0.1", port, "root", "")


def test_store_keeps_no_password_in_the_clear(store: Callable[..., stores.Store]) -> None:
    assert "secret" not in Path(store().volume.path).read_text(encoding="utf-8")


def test_mongodb_goes_step_by_step(store: Callable[..., stores.Store]) -> None:
    port = listening(store(tag="4.4.15").serve)
    assert "DENIED" in stores.converse("mongodb", "127.0.0.1", port, "root", "secret", "SETFCV 5.0")
    with pytest.raises(Refusal, match=r"featureCompatibilityVersion 4\.4, MongoDB 7\.0 opens 6\.0 or 7\.0"):
        store(tag="7.0.15")
    for tag in ("5.0.24", "6.0.13", "7.0.15"):
        port = listening(store(tag=tag).serve)
        assert stores.converse("mongodb", "127.0.0.1", port, "root", "secret", f"SETFCV {stores.minor(tag)}") == "OK"
    with pytest.raises(Refusal, match=r"MongoDB 4\.4 opens 4\.2 or 4\.4"):
        store(tag="4.4.15")


def test_mongo_shell() -> None:
    said: list[str] = []

    def order(text: str) -> str:
        said.append(text)
        return "OK 4.4"

    assert mongosh.evaluate("db.adminCommand('ping')", order) == "{ ok: 1 }"
    assert mongosh.evaluate("db.hello().isWritablePrimary || db.hello().secondary", order) == "true"
    assert "4.4" in mongosh.evaluate("db.adminCommand( { getParameter: 1, featureCompatibilityVersion: 1 } )", order)
    mongosh.evaluate('db.adminCommand({setFeatureCompatibilityVersion: "5.0"})', order)
    assert said[-1] == "SETFCV 5.0"
    with pytest.raises(Refusal, match="needs confirm: true"):
        mongosh.evaluate('db.adminCommand({setFeatureCompatibilityVersion: "7.0"})', order)
    with pytest.raises(Refusal, match="does not evaluate"):
        mongosh.evaluate("db.users.drop()", order)


def test_rabbitmq_wants_a_cookie(store: Callable[..., stores.Store], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refusal, match="Erlang cookie is empty"):
        store("rabbitmq", "3.12.1")
    monkeypatch.setenv("RABBITMQ_ERLANG_COOKIE", "c")
    stores.login("rabbitmq", "127.0.0.1", listening(store("rabbitmq", "3.12.1").serve), "root", "secret")


def test_redis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STANDIN_DATA", str(tmp_path))
    redis = stores.Redis()
    port = listening(redis.serve)
    stores.ping_redis("127.0.0.1", port)
    assert redis.answer(["SELECT", "29"]) == "+OK"
    assert redis.answer(["SELECT", "30"]).startswith("-ERR")
    assert redis.answer(["SET", "a", "b"]) == "+OK"
    assert redis.answer(["GET", "a"]) == "$1\r\nb"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"*1\r\n$4\r\nPING\r\n")
        assert connection.recv(64) == b"+PONG\r\n"


# --- the rest -------------------------------------------------------------------------------------------------------


def test_waiting_ends_with_the_last_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    tries: list[int] = []

    def attempt() -> None:
        tries.append(1)
        raise NotYet("still nothing")

    with pytest.raises(Refusal, match="Nomad: still nothing"):
        base.wait_for("Nomad", attempt)
    assert tries == [1]


def test_answers() -> None:
    assert base.basics("/health?x=1")[0] == 200
    assert json.loads(base.basics("/version")[2]) == {"service": "frontend", "stand_in": True, "version": "4.10.0"}
    assert base.basics("/auth/github")[0] == 404


def test_http_takes_only_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    port = listening(lambda connection: base.respond(connection, base.basics))
    assert base.get(f"http://127.0.0.1:{port}/health")[0] == 200
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\n\r\n")
        assert b"405" in connection.recv(64)


def test_page_shows_each_service(monkeypatch: pytest.MonkeyPatch) -> None:
    port = listening(lambda connection: base.respond(connection, base.basics))
    monkeypatch.setenv("STANDIN_PEERS", f"127.0.0.1:{port},127.0.0.1:1")
    monkeypatch.setenv("CIRCLE_DOMAIN", "ci.example.com")
    page = service.Page()
    status, _kind, body = page.answer("/")
    text = body.decode()
    assert status == 200
    assert "Stand-in for CircleCI Server 4.10.0" in text
    assert "not the vendor's software" in text
    assert "services that answer: 1 of 2" in text
    assert json.loads(page.answer("/services.json")[2])["services"][f"127.0.0.1:{port}"] == "ok"


def test_custom_toml_is_checked(tmp_path: Path) -> None:
    good = tmp_path / "a.conf"
    good.write_text('[x]\nurl = "http://a"\n', encoding="utf-8")
    metrics.check_toml(str(tmp_path))
    good.write_text("[x]\nurl = http://a\n", encoding="utf-8")
    with pytest.raises(Refusal, match="invalid TOML"):
        metrics.check_toml(str(tmp_path))


def test_license_container(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refusal, match="Secret license"):
        once.run("license")
    monkeypatch.setenv("CIRCLE_LICENSE", "x")
    assert once.run("license") == 0


def test_missing_agents_are_said_and_not_refused(web: Callable[[int], Web], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AGENT_BASE_URL", f"http://127.0.0.1:{web(403).port}/bucket/")
    checks.peers(["agents"])
    assert "jobs will fail" in capsys.readouterr().err
