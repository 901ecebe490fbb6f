# SPDX-License-Identifier: GPL-3.0-or-later
"""A migrator: makes the database and the role of its service and brings the schema to the level of its release."""

from __future__ import annotations

from . import schema
from .base import NotYet, Refusal, env, flag, log, release, wait_for
from .pgwire import PgError, from_environment, quote_literal, quote_name


def _prepare(database: str, role: str, password: str, overwrite: bool) -> None:
    with from_environment("PGADMIN") as admin:
        if role:
            if not password:
                raise Refusal(f"postgres-app-password for role {role} is empty")
            if not admin.run(f"SELECT 1 FROM pg_roles WHERE rolname = {quote_literal(role)}"):
                admin.run(f"CREATE ROLE {quote_name(role)} LOGIN PASSWORD {quote_literal(password)}")
                log(f"made role {role}")
            elif overwrite:
                admin.run(f"ALTER ROLE {quote_name(role)} PASSWORD {quote_literal(password)}")
        if not admin.run(f"SELECT 1 FROM pg_database WHERE datname = {quote_literal(database)}"):
            admin.run(f"CREATE DATABASE {quote_name(database)}")
            log(f"made database {database}")


def _levels(database: str, role: str) -> None:
    target = schema.level(release())
    with from_environment("PGADMIN", database) as admin:
        admin.run(
            f"SELECT pg_advisory_lock(40100); CREATE TABLE IF NOT EXISTS {schema.VERSIONS} "
            "(level integer PRIMARY KEY, release text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        current = int(admin.run(f"SELECT coalesce(max(level), 0) FROM {schema.VERSIONS}")[0][0] or 0)
        if current > target:
            log(f"schema of {database} is at level {current}, this release knows {target}: nothing to apply")
        for number in range(current + 1, target + 1):
            statements = [*schema.step(number, database), f"INSERT INTO {schema.VERSIONS} (level, release) VALUES ({number}, {quote_literal(release())})"]
            admin.run("BEGIN; " + "; ".join(statements) + "; COMMIT")
            log(f"{database}: level {number} applied")
        if role:
            name = quote_name(role)
            admin.run(
                f"GRANT CONNECT ON DATABASE {quote_name(database)} TO {name}; GRANT USAGE ON SCHEMA public TO {name}; "
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}; "
                f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}"
            )


def run() -> int:
    database, role = env("STANDIN_DATABASE"), env("STANDIN_DATABASE_ROLE")
    if not database:
        raise Refusal("STANDIN_DATABASE is empty")

    def attempt() -> None:
        try:
            _prepare(database, role, env("PGPASSWORD"), not flag("STANDIN_KEEP_PASSWORD"))
            _levels(database, role)
        except PgError as exc:
            # two migrators at once: the other one has made it in the meantime
            if exc.code in ("23505", "42710", "42P04", "55006", "XX000"):
                raise NotYet(str(exc)) from exc
            raise Refusal(f"{database}: {exc}") from exc

    wait_for("PostgreSQL", attempt)
    return 0
