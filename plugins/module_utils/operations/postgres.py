# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Dump, compare and bring back the PostgreSQL of the chart, with the programs of its own pod.

One dump for each database in PostgreSQL's custom format, and the roles with their passwords. The vendor says pg_dumpall; dumps of
single databases hold the same and can be checked, compared and brought back one by one.
"""

from __future__ import annotations

import hashlib
import re
from typing import IO, Callable, Optional

from .kubectl import OperationError, Place, Pods

_LOGIN = "read -r PGPASSWORD; export PGPASSWORD PGCONNECT_TIMEOUT=10; export PGHOST=127.0.0.1 PGUSER=postgres; "
_NAMES = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY 1"
_COUNTS = """SELECT format('SELECT %L, count(*) FROM %I.%I', n.nspname || '.' || c.relname, n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1 \\gexec
"""
_ROLES = re.compile(r"^(CREATE|ALTER) ROLE postgres\b")
_EXISTS = re.compile(r"ERROR:\s+(42710: )?role \"[^\"]*\" already exists")


class Postgres:
    """One server, reached through its pod. *password* is that of the role postgres."""

    def __init__(self, pods: Pods, place: Place, password: str) -> None:
        self._pods = pods
        self._place = place
        self._password = password

    def _run(
        self, script: str, *arguments: str, source: Optional[IO[bytes]] = None, sink: Optional[Callable[[bytes], object]] = None
    ) -> str:
        return self._pods.run(self._place, _LOGIN + script, arguments, secret=self._password, source=source, sink=sink)

    def query(self, sql: str, database: str = "postgres") -> list[str]:
        """Rows of one column."""
        text = self._run('exec psql -XqAt -v ON_ERROR_STOP=1 -d "$1" -c "$2"', database, sql)
        return [line for line in text.splitlines() if line]

    def major(self) -> str:
        return str(int(self.query("SHOW server_version_num")[0]) // 10000)

    def databases(self) -> list[str]:
        return self.query(_NAMES)

    # -- out ----------------------------------------------------------------------------------------------------------

    def dump(self, database: str, sink: Callable[[bytes], object]) -> None:
        self._run('exec pg_dump --format=custom --dbname "$1"', database, sink=sink)

    def dump_roles(self, sink: Callable[[bytes], object]) -> None:
        self._run("exec pg_dumpall --globals-only", sink=sink)

    def schema(self, database: str) -> str:
        """A fingerprint of tables, columns and all else that a migration changes. Comments and one-time keys of pg_dump are left out."""
        digest = hashlib.sha256()
        text = self._run('exec pg_dump --schema-only --dbname "$1"', database)
        for line in text.splitlines():
            if line and not line.startswith(("--", "\\restrict", "\\unrestrict")):
                digest.update(line.encode() + b"\n")
        return digest.hexdigest()

    def schemas(self) -> dict[str, str]:
        return {name: self.schema(name) for name in self.databases()}

    def rows(self) -> dict[str, int]:
        """Rows of each table, by database, schema and name."""
        found: dict[str, int] = {}
        for name in self.databases():
            with _buffer(_COUNTS.encode()) as stream:
                text = self._run('exec psql -XqAt -v ON_ERROR_STOP=1 -d "$1" -f -', name, source=stream)
            for line in filter(None, text.splitlines()):
                table, _bar, count = line.rpartition("|")
                found[f"{name}.{table}"] = int(count)
        return found

    def analyze(self) -> None:
        """Statistics for the planner. No dump holds them."""
        for name in self.databases():
            self.query("ANALYZE", name)

    # -- back ---------------------------------------------------------------------------------------------------------

    def drop(self, database: str) -> None:
        """Nobody may be connected: those who still are, are cut off."""
        name, literal = database.replace('"', '""'), database.replace("'", "''")
        connected = f"FROM pg_stat_activity WHERE datname = '{literal}' AND pid <> pg_backend_pid()"
        self.query(f"SELECT count(pg_terminate_backend(pid)) {connected}")
        self.query(f'DROP DATABASE IF EXISTS "{name}"')

    def restore_roles(self, source: IO[bytes]) -> None:
        """Roles with their passwords. postgres keeps the one that it has, since this very session uses it."""
        lines = [line for line in source.read().decode("utf-8").splitlines() if not _ROLES.match(line)]
        with _buffer("\n".join(lines).encode() + b"\n") as stream:
            said = self._run("exec psql -Xq -d postgres -f - 2>&1 >/dev/null", source=stream)
        wrong = [line for line in said.splitlines() if "ERROR:" in line and not _EXISTS.search(line)]
        if wrong:
            raise OperationError("roles", f"roles of PostgreSQL cannot be brought back: {'; '.join(wrong[:5])}")

    def restore(self, source: IO[bytes]) -> None:
        """Make the database of a dump anew, and fill it."""
        self._run("exec pg_restore --create --exit-on-error --dbname postgres", source=source)


def _buffer(data: bytes) -> IO[bytes]:
    import io

    return io.BytesIO(data)
