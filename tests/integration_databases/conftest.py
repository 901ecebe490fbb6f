# SPDX-License-Identifier: GPL-3.0-or-later
"""Real database servers on loopback, with and without TLS. Each is started once, on ports of its own, and nothing of it stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest
from ansible_collections.onprem.circleci_server.tests.integration_databases.servers import (
    PASSWORD,
    POSTGRES,
    RABBITMQ,
    Server,
    as_nobody,
    free_port,
    listening,
    open_to_nobody,
    sql,
    write_pair,
)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Roles that log in by SCRAM, by MD5, and one that would have to send its password as it is."""
    if not (POSTGRES / "initdb").exists():
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = tmp_path_factory.mktemp("postgres")
    (folder / "password").write_text(PASSWORD + "\n", encoding="ascii")
    write_pair(folder)
    open_to_nobody(folder)
    data, port = folder / "data", free_port()
    made = [str(POSTGRES / "initdb"), "-D", str(data), "-U", "owner", f"--pwfile={folder / 'password'}", "--auth=scram-sha-256", "--locale=C.UTF-8"]
    subprocess.run(as_nobody(made), check=True, capture_output=True, cwd="/")
    rules = ("md5_role md5", "plain_role password", "barred_role reject", "all scram-sha-256")
    (data / "pg_hba.conf").write_text("".join(f"host all {role} 127.0.0.1/32 {method}\n" for role, method in map(str.split, rules)), encoding="ascii")
    options = [
        "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "ssl=on",
        "-c", f"ssl_cert_file={folder / 'server.crt'}", "-c", f"ssl_key_file={folder / 'server.key'}",
    ]  # fmt: skip
    process = subprocess.Popen(as_nobody([str(POSTGRES / "postgres"), *options]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    server = Server(port, port, folder, process)
    try:
        while subprocess.run([str(POSTGRES / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)], check=False).returncode:
            assert process.poll() is None, "PostgreSQL has ended"
        sql(
            server, f"SET password_encryption = md5; CREATE ROLE md5_role LOGIN PASSWORD '{PASSWORD}'; RESET password_encryption; "
            f"CREATE ROLE plain_role LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE barred_role LOGIN",
        )  # fmt: skip
        yield server
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not (RABBITMQ / "rabbitmq-server").exists():
        pytest.skip("RabbitMQ is not installed (Debian: apt-get install rabbitmq-server)")
    folder = tmp_path_factory.mktemp("rabbitmq")
    write_pair(folder)
    port, tls_port, names = free_port(), free_port(), free_port()
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\nlisteners.ssl.1 = 127.0.0.1:{tls_port}\nssl_options.cacertfile = {folder}/ca.crt\n"
        f"ssl_options.certfile = {folder}/server.crt\nssl_options.keyfile = {folder}/server.key\n",
        encoding="ascii",
    )
    environment = {
        **os.environ, "HOME": str(folder), "RABBITMQ_NODENAME": f"looked-at-{port}@localhost", "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"), "RABBITMQ_LOG_BASE": str(folder / "log"), "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"), "ERL_EPMD_PORT": str(names), "ERL_EPMD_ADDRESS": "127.0.0.1",
    }  # fmt: skip
    process = subprocess.Popen(
        [str(RABBITMQ / "rabbitmq-server")], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=folder
    )
    try:
        listening(tls_port, process)
        yield Server(port, tls_port, folder, process)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        # The name service of Erlang outlives its nodes.
        subprocess.run(["epmd", "-kill"], env=environment, check=False, capture_output=True)


@pytest.fixture(scope="session")
def ferretdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """MongoDB itself is in no repository of packages; FerretDB speaks its protocol by an implementation of others."""
    program = os.environ.get("FERRETDB") or shutil.which("ferretdb")
    if not program:
        pytest.skip("FerretDB is not installed (FERRETDB= names the program, 1.24 with its SQLite backend)")
    folder = tmp_path_factory.mktemp("ferretdb")
    write_pair(folder)
    (folder / "data").mkdir()
    port, tls_port = free_port(), free_port()
    process = subprocess.Popen(
        [
            program, "--handler=sqlite", f"--sqlite-url=file:{folder}/data/", f"--state-dir={folder}", f"--listen-addr=127.0.0.1:{port}",
            f"--listen-tls=127.0.0.1:{tls_port}", f"--listen-tls-cert-file={folder}/server.crt", f"--listen-tls-key-file={folder}/server.key",
            "--debug-addr=-", "--telemetry=disable",
        ],
        stdout=(folder / "log").open("wb"), stderr=subprocess.STDOUT, cwd=folder,
    )  # fmt: skip
    try:
        listening(port, process)
        yield Server(port, tls_port, folder, process)
    finally:
        process.terminate()
        process.wait()
