# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
"""Against a real PostgreSQL, by the very command that runs in its pod."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import KubeError
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets import database_roles as roles
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets.database_roles import (
    DatabaseError,
    Login,
    PodDatabase,
    PodExec,
    compare,
    find_database,
    mend,
    read_logins,
)
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.helm.fake_kube import FakeKube
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.secrets import pod_exec_standin

NS = "circleci-server"
PASSWORD = "superuser-4711"
LOGINS = [
    Login("policy-service", "policyservice_app_rw", "of-the-secret"),
    Login("orb-service", "orbservice_app_rw", "same"),
    Login("cron-service", "cronservice_app_rw", "md5-of-the-secret"),
    Login("branch-service", "branchservice_app_rw", "first-one"),
    Login("new-service", "newservice_app_rw", "x"),
]
FOLDERS = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *(Path(name).resolve().parent for name in [shutil.which("initdb") or ""] if name)]


class LocalExec:
    """What the Kubernetes API does in a pod, here: the same command with the same standard input."""

    def __init__(self, port: int) -> None:
        self.environment = {**os.environ, "PGPORT": str(port)}
        self.seen: list[str] = []

    def run(self, namespace: str, pod: str, container: str, command: Sequence[str], stdin: str) -> tuple[int, str, str]:
        self.seen.append(" ".join(command))
        done = subprocess.run(list(command), input=stdin, capture_output=True, text=True, check=False, env=self.environment)
        return done.returncode, done.stdout, done.stderr


class Server:
    def __init__(self, home: Path) -> None:
        self.home, self.log = home, home / "log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.runs = LocalExec(self.port)

    def tool(self, *arguments: str) -> None:
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        subprocess.run([*user, *arguments], check=True, cwd=self.home, stdout=subprocess.DEVNULL)

    def database(self, password: str = PASSWORD) -> PodDatabase:
        return PodDatabase(self.runs, NS, "postgresql-0", "postgresql", password)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = next((folder for folder in FOLDERS if (folder / "initdb").is_file()), None)
    if folder is None or not shutil.which("psql"):
        pytest.skip("no PostgreSQL on this machine: install the Debian package postgresql")
    # PostgreSQL refuses to run as root, and folders of pytest are closed to others.
    home = Path(tempfile.mkdtemp(prefix="onprem-circleci-postgresql-"))
    if os.geteuid() == 0:
        shutil.chown(home, "postgres")
    found = Server(home)
    (home / "pw").write_text(PASSWORD, encoding="utf-8")
    (home / "pw").chmod(0o644)
    found.tool(str(folder / "initdb"), "-D", f"{home}/data", "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={home}/pw", "--no-sync")
    options = f"-p {found.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c log_statement=all -c fsync=off"
    found.tool(str(folder / "pg_ctl"), "-D", f"{home}/data", "-l", str(found.log), "-w", "-o", options, "start")
    yield found
    found.tool(str(folder / "pg_ctl"), "-D", f"{home}/data", "-m", "immediate", "stop")
    shutil.rmtree(home)


@pytest.fixture
def database(server: Server) -> PodDatabase:
    found = server.database()
    names = ", ".join(f'"{login.role}"' for login in LOGINS)
    found.rows(
        f"""DROP ROLE IF EXISTS {names}; SET password_encryption = 'scram-sha-256';
        CREATE ROLE policyservice_app_rw LOGIN PASSWORD 'older'; CREATE ROLE orbservice_app_rw LOGIN PASSWORD 'same'; CREATE ROLE branchservice_app_rw LOGIN;
        SET password_encryption = 'md5'; CREATE ROLE cronservice_app_rw LOGIN PASSWORD 'older';"""
    )
    return found


def states(database: PodDatabase) -> dict[str, str]:
    return {verdict.secret: verdict.state for verdict in compare(database, LOGINS)}


def logs_in(server: Server, role: str, password: str) -> bool:
    environment = {**server.runs.environment, "PGPASSWORD": password}
    command = ["psql", "-X", "-w", "-h", "127.0.0.1", "-U", role, "-d", "postgres", "-c", "SELECT 1"]
    return subprocess.run(command, check=False, capture_output=True, env=environment).returncode == 0


def test_differences_are_found_and_mended_to_what_the_secrets_say(server: Server, database: PodDatabase) -> None:
    before = {
        "policy-service": "differs", "orb-service": "same", "cron-service": "differs", "branch-service": "no_password", "new-service": "no_role",
    }  # fmt: skip
    assert states(database) == before
    assert not logs_in(server, "policyservice_app_rw", "of-the-secret")
    server.runs.seen.clear()
    mend(database, LOGINS, compare(database, LOGINS))
    assert states(database) == {**dict.fromkeys(before, "same"), "new-service": "no_role"}
    for login in LOGINS[:4]:
        assert logs_in(server, login.role, login.password) or login.role == "cronservice_app_rw"
    kinds = dict(database.rows("SELECT rolname, left(rolpassword, 5) FROM pg_authid WHERE rolname LIKE '%_app_rw';"))
    assert kinds["cronservice_app_rw"].startswith("md5") and kinds["policyservice_app_rw"] == "SCRAM", "each keeps the form it had"


def test_a_second_repair_writes_nothing_and_others_stay(server: Server, database: PodDatabase) -> None:
    mend(database, LOGINS, compare(database, LOGINS))
    kept = database.rows("SELECT rolname, rolpassword FROM pg_authid ORDER BY 1;")
    mend(database, LOGINS, compare(database, LOGINS))
    assert database.rows("SELECT rolname, rolpassword FROM pg_authid ORDER BY 1;") == kept


def test_no_password_in_argument_lists_or_in_the_log_of_the_server(server: Server, database: PodDatabase) -> None:
    """The server logs every statement here."""
    mend(database, LOGINS, compare(database, LOGINS))
    log = server.log.read_text(encoding="utf-8")
    assert "ALTER ROLE" in log
    for text in ("of-the-secret", "first-one", PASSWORD):
        assert text not in log and text not in "".join(server.runs.seen)


def test_a_wrong_superuser_and_a_broken_statement_are_told(server: Server) -> None:
    with pytest.raises(DatabaseError, match=r"pod postgresql-0: .*password authentication failed"):
        compare(server.database("wrong"), LOGINS)
    with pytest.raises(DatabaseError, match="syntax error"):
        server.database().rows("SELEKT;")


def test_all_or_none_when_a_repair_breaks_off(server: Server, database: PodDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = compare(database, LOGINS)
    real = roles.new_verifier
    monkeypatch.setattr(roles, "new_verifier", lambda password, role, *, md5: "'" if role.startswith("cron") else real(password, role, md5=md5))
    with pytest.raises(DatabaseError):
        mend(database, LOGINS, seen)
    assert states(database)["policy-service"] == "differs"


@pytest.mark.parametrize("md5", [True, False])
def test_verifiers(md5: bool) -> None:
    made = roles.new_verifier("pässword", "role", md5=md5)
    assert roles.matches("pässword", "role", made)
    assert not roles.matches("password", "role", made)
    assert not roles.matches("x", "role", "SCRAM-SHA-256$4096:???$a:b")


def api() -> FakeKube:
    fake = FakeKube(NS)
    fake.secret(NS, "postgresql", {"postgres-password": PASSWORD})
    fake.secret(NS, "policy-service", {"postgres-app-password": "of-the-secret"})
    return fake


def test_pod_and_logins_are_found(server: Server, database: PodDatabase) -> None:
    fake = api()
    with pytest.raises(DatabaseError, match="no pod of PostgreSQL runs"):
        find_database(fake, server.runs, NS, ("postgresql", "postgres-password"))
    pod = {
        "metadata": {"name": "postgresql-0", "labels": {"app.kubernetes.io/name": "postgresql"}},
        "spec": {"containers": [{"name": "metrics"}, {"name": "postgresql"}]}, "status": {"phase": "Running"},
    }  # fmt: skip
    fake.put(f"/api/v1/namespaces/{NS}/pods/postgresql-0", pod)
    found = find_database(fake, server.runs, NS, ("postgresql", "postgres-password"))
    logins = read_logins(fake, NS, {"policy-service": "policyservice_app_rw", "gone": "gone_app_rw"})
    assert [(one.secret, one.state) for one in compare(found, logins)] == [("policy-service", "differs")]
    with pytest.raises(DatabaseError, match="lacks the key password"):
        find_database(fake, server.runs, NS, ("postgresql", "password"))
    with pytest.raises(DatabaseError, match="no name of a role"):
        read_logins(fake, NS, {"policy-service": "x'; DROP"})


def kubeconfig(folder: Path, url: str) -> str:
    users = [{"name": "u", "user": {"token": "t"}}]
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": users, "clusters": [{"name": "c", "cluster": {"server": url}}]}
    config["contexts"] = [{"name": "c", "context": {"cluster": "c", "user": "u"}}]
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config), encoding="utf-8")
    return str(path)


def test_over_the_exec_of_the_api_with_the_kubernetes_library(server: Server, database: PodDatabase, tmp_path: Path) -> None:
    with pod_exec_standin.serving(server.runs.environment) as (url, asked):
        runs = PodExec(kubeconfig(tmp_path, url))
        remote = PodDatabase(runs, NS, "postgresql-0", "postgresql", PASSWORD)
        assert states(remote)["policy-service"] == "differs"
        mend(remote, LOGINS, compare(remote, LOGINS))
        assert states(database)["policy-service"] == "same"
        with pytest.raises(DatabaseError, match="password authentication failed"):
            compare(PodDatabase(runs, NS, "postgresql-0", "postgresql", "wrong"), LOGINS)
    assert all(path.startswith(f"/api/v1/namespaces/{NS}/pods/postgresql-0/exec?") for path in asked)
    for text in (PASSWORD, "of-the-secret", "wrong"):
        assert text not in "".join(asked)


def test_why_exec_cannot_be_used(tmp_path: Path) -> None:
    with pod_exec_standin.serving({}, forbidden=True) as (url, _asked):
        with pytest.raises(KubeError) as refused:
            PodExec(kubeconfig(tmp_path, url)).run(NS, "postgresql-0", "postgresql", ["true"], "")
    assert refused.value.status == 403
    with pod_exec_standin.serving({}, breaks_off=True) as (url, _asked):
        with pytest.raises(KubeError, match="ended before the program did"):
            PodExec(kubeconfig(tmp_path, url)).run(NS, "postgresql-0", "postgresql", ["true"], "x")
    with pytest.raises(KubeError) as dead:
        PodExec(kubeconfig(tmp_path, "http://127.0.0.1:1")).run(NS, "postgresql-0", "postgresql", ["true"], "x")
    assert dead.value.status == 0
