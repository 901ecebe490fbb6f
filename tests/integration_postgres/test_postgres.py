# SPDX-License-Identifier: GPL-3.0-or-later
"""Dump, migrate, bring back, on a real PostgreSQL on loopback: what a restore point rests on. The migration is that of the stand-in's services."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.objects import Masker
from ansible_collections.onprem.circleci_server.plugins.module_utils.operations import kubectl
from ansible_collections.onprem.circleci_server.plugins.module_utils.operations.kubectl import OperationError, Place
from ansible_collections.onprem.circleci_server.plugins.module_utils.operations.postgres import Postgres

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sandbox.standin.service import schema

BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nowhere"), key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0)
PASSWORD = "canary-of-postgres"


class LocalPods:
    """What kubectl exec would do in the pod, done on this machine."""

    def __init__(self, port: int) -> None:
        self._environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PGPORT": str(port)}

    def run(
        self,
        place: Place,
        script: str,
        arguments: Sequence[str] = (),
        *,
        secret: str = "",
        source: IO[bytes] | None = None,
        sink: Callable[[bytes], object] | None = None,
    ) -> str:
        assert PASSWORD not in script and PASSWORD not in " ".join(arguments)
        environment = [f"{name}={self._environment[name]}" for name in ("PATH", "PGPORT")]
        return kubectl.run(["env", *environment, "sh", "-c", script, "sh", *arguments], place.pod, secret, source, sink, Masker())


def as_postgres(argv: list[str]) -> list[str]:
    """PostgreSQL does not run as root."""
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *argv] if getpass.getuser() == "root" else argv


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    if not (BIN / "initdb").exists():
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = tmp_path_factory.mktemp("postgres")
    for path in (folder, *folder.parents):
        if path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(0o755)
    data = folder / "data"
    data.mkdir(mode=0o700)
    (folder / "password").write_text(PASSWORD + "\n", encoding="ascii")
    if getpass.getuser() == "root":
        for path in (data, folder / "password"):
            shutil.chown(path, "nobody", "nogroup")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    made = [str(BIN / "initdb"), "-D", str(data), "-U", "postgres", f"--pwfile={folder / 'password'}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"]
    subprocess.run(as_postgres(made), check=True, capture_output=True, cwd="/")
    options = ["-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
    process = subprocess.Popen(as_postgres([str(BIN / "postgres"), *options]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    try:
        ready = [str(BIN / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        while subprocess.run(ready, check=False).returncode:
            assert process.poll() is None, "PostgreSQL has ended"
        yield Postgres(LocalPods(port), Place("postgresql-0", "postgresql"), PASSWORD)
    finally:
        process.terminate()
        process.wait()


def migrate(server: Postgres, database: str, release: str) -> None:
    """The migrator of the stand-in's services, level by level."""
    done = int(server.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename = 'standin_schema_version'", database)[0])
    if not done:
        server.query(f"CREATE TABLE {schema.VERSIONS} (level integer PRIMARY KEY, release text NOT NULL)", database)
    current = int(server.query(f"SELECT coalesce(max(level), 0) FROM {schema.VERSIONS}", database)[0])
    for level in range(current + 1, schema.level(release) + 1):
        server.query("; ".join([*schema.step(level, database), f"INSERT INTO {schema.VERSIONS} VALUES ({level}, '{release}')"]), database)


@pytest.fixture
def site(server: Postgres) -> Postgres:
    """Two databases of 4.9.5 with a role of their own and a row each."""
    server.query("CREATE ROLE app_rw LOGIN PASSWORD 'old-password'")
    for name in ("conductor_production", "odd-name"):
        server.query(f'CREATE DATABASE "{name}" OWNER app_rw')
        migrate(server, name, "4.9.5")
        server.query("INSERT INTO standin_records (document, written_by) VALUES ('before', 'test')", name)
    return server


def dumps(server: Postgres, folder: Path) -> dict[str, str]:
    for name in server.databases():
        with (folder / f"{name}.dump").open("wb") as stream:
            server.dump(name, stream.write)
    with (folder / "roles.sql").open("wb") as stream:
        server.dump_roles(stream.write)
    return server.schemas()


def restore(server: Postgres, folder: Path, names: Sequence[str]) -> None:
    for name in sorted({*server.databases(), *names}):
        server.drop(name)
    with (folder / "roles.sql").open("rb") as stream:
        server.restore_roles(stream)
    for name in names:
        with (folder / f"{name}.dump").open("rb") as stream:
            server.restore(stream)


def test_a_dump_brings_back_what_a_migration_took(site: Postgres, tmp_path: Path) -> None:
    before = dumps(site, tmp_path)
    assert set(before) == {"conductor_production", "odd-name"}
    assert b"PGDMP" in (tmp_path / "odd-name.dump").read_bytes()[:8], "a dump is a dump"

    migrate(site, "conductor_production", "4.10.0")
    site.query("INSERT INTO standin_records (record, written_by) VALUES ('after', 'test')", "conductor_production")
    site.query("ALTER ROLE app_rw PASSWORD 'new-password'")
    site.query("CREATE DATABASE new_service")
    assert {name for name, mark in site.schemas().items() if before.get(name) != mark} == {"conductor_production", "new_service"}
    with pytest.raises(OperationError, match="document"):
        site.query("SELECT document FROM standin_records", "conductor_production")

    restore(site, tmp_path, sorted(before))
    assert site.schemas() == before
    assert site.query("SELECT document FROM standin_records ORDER BY id", "conductor_production") == ["first start", "before"]
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'odd-name'"
    assert site.query(owner) == ["app_rw"]


def test_rows_alone_are_no_migration(site: Postgres) -> None:
    before = site.schemas()
    site.query("INSERT INTO standin_records (document, written_by) VALUES ('more', 'test')", "odd-name")
    assert site.schemas() == before


def test_passwords_of_roles_come_back(site: Postgres, tmp_path: Path) -> None:
    hashes = "SELECT rolpassword FROM pg_authid WHERE rolname IN ('app_rw', 'postgres') ORDER BY rolname"
    before = site.query(hashes)
    dumps(site, tmp_path)
    site.query("ALTER ROLE app_rw PASSWORD 'new-password'")
    with (tmp_path / "roles.sql").open("rb") as stream:
        site.restore_roles(stream)
    assert site.query(hashes) == before


def test_who_is_still_connected_is_cut_off(site: Postgres) -> None:
    done: list[str] = []

    def sleep() -> None:
        try:
            site.query("SELECT pg_sleep(600)", "odd-name")
        except OperationError as error:
            done.append(str(error))

    thread = threading.Thread(target=sleep)
    thread.start()
    while not site.query("SELECT 1 FROM pg_stat_activity WHERE datname = 'odd-name'"):
        pass
    site.drop("odd-name")
    thread.join()
    assert "odd-name" not in site.databases() and done


def test_a_damaged_dump_is_an_error(site: Postgres, tmp_path: Path) -> None:
    dumps(site, tmp_path)
    path = tmp_path / "odd-name.dump"
    path.write_bytes(path.read_bytes()[:200])
    site.drop("odd-name")
    with path.open("rb") as stream, pytest.raises(OperationError):
        site.restore(stream)


def test_a_wrong_password_is_told_without_it(site: Postgres) -> None:
    wrong = Postgres(site._pods, Place("postgresql-0", "postgresql"), "another-canary")
    with pytest.raises(OperationError) as caught:
        wrong.databases()
    assert "password authentication failed" in str(caught.value) and "another-canary" not in str(caught.value)


def test_rows_are_counted_in_every_table_and_statistics_are_made(site: Postgres) -> None:
    site.query('CREATE SCHEMA "od.d"; CREATE TABLE "od.d"."a|b" (x int); INSERT INTO "od.d"."a|b" SELECT generate_series(1, 7)', "odd-name")
    site.query("CREATE TABLE parts (x int) PARTITION BY RANGE (x); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)", "odd-name")
    site.query("INSERT INTO parts VALUES (1), (2)", "odd-name")
    found = site.rows()
    assert found["conductor_production.public.standin_records"] == 2, "first start, and one"
    assert (found["odd-name.od.d.a|b"], found["odd-name.public.parts_1"]) == (7, 2)
    assert not [name for name in found if "pg_catalog" in name or "information_schema" in name]
    known = "SELECT reltuples FROM pg_class WHERE relname = 'a|b'"
    assert site.query(known, "odd-name") == ["-1"]
    site.analyze()
    assert site.query(known, "odd-name") == ["7"]
