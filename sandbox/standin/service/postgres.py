# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts a real PostgreSQL (Debian's 15, whatever the image's tag says) the way the vendor's image does it.

Data lie in /bitnami/postgresql/data, the password counts when the folder is new and never again. The major version of the tag is
kept beside the data: PostgreSQL of another major refuses them, as the real one would.
"""

from __future__ import annotations

import os
import subprocess

from . import base
from .base import Refusal, env, log

BIN = "/usr/lib/postgresql/15/bin"
MARK = "standin_major"


def major(tag: str) -> str:
    found = tag.split(".", 1)[0]
    if not found.isdigit():
        raise Refusal(f"tag {tag!r} names no version")
    return found


def _run(argv: list[str], what: str) -> None:
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        raise Refusal(f"{what}: {said[-1] if said else done.returncode}")


def prepare(data: str, mine: str, password: str) -> None:
    """A new data folder, or the proof that this one may be opened."""
    mark = os.path.join(data, MARK)
    if os.path.exists(os.path.join(data, "PG_VERSION")):
        with open(mark, encoding="utf-8") as stream:
            theirs = stream.read().strip()
        if theirs != mine:
            raise Refusal(
                f"database files are incompatible with server: the data directory was initialized by PostgreSQL version {theirs}, "
                f"which is not compatible with this version {mine}"
            )
        return
    if not password:
        raise Refusal("postgres-password is empty")
    os.makedirs(data, mode=0o700, exist_ok=True)
    os.chmod(data, 0o700)
    secret = "/tmp/.pw"
    handle = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, password.encode() + b"\n")
        os.close(handle)
        argv = [f"{BIN}/initdb", "-D", data, "-U", "postgres", "--pwfile", secret, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"]
        _run([*argv, "--no-sync"], "initdb")
    finally:
        os.unlink(secret)
    with open(os.path.join(data, "pg_hba.conf"), "w", encoding="utf-8") as stream:
        stream.write("local all all scram-sha-256\nhost all all 0.0.0.0/0 scram-sha-256\nhost all all ::/0 scram-sha-256\n")
    with open(os.path.join(data, "postgresql.conf"), "a", encoding="utf-8") as stream:
        stream.write("listen_addresses = '*'\nunix_socket_directories = '/tmp'\ninclude_if_exists = '/opt/standin-config/extended.conf'\n")
    with open(mark, "w", encoding="utf-8") as stream:
        stream.write(mine + "\n")
    log("made a new data folder")


def run(role: str) -> int:
    data = env("STANDIN_DATA") or "/bitnami/postgresql/data"
    tag = base.IDENTITY.get("tag", "")
    if role == "postgres-upgrade":
        old, _, new = tag.partition("-")
        mark = os.path.join(data, MARK)
        with open(mark, encoding="utf-8") as stream:
            theirs = stream.read().strip()
        if theirs != old:
            raise Refusal(f"the data are of PostgreSQL {theirs}, not {old}")
        with open(mark, "w", encoding="utf-8") as stream:
            stream.write(new + "\n")
        log(f"data of PostgreSQL {old} are now of {new} (stand-in: only the mark has changed)")
        return 0
    prepare(data, major(tag), env("POSTGRES_PASSWORD"))
    argv = [f"{BIN}/postgres", "-D", data]
    if env("POSTGRESQL_TLS_CERT_FILE"):
        # mounted keys are readable by the group, PostgreSQL wants them private
        for variable, name in (("POSTGRESQL_TLS_CERT_FILE", "server.crt"), ("POSTGRESQL_TLS_KEY_FILE", "server.key")):
            with open(env(variable), "rb") as source:
                content = source.read()
            handle = os.open(f"/tmp/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.write(handle, content)
            os.close(handle)
        argv += ["-c", "ssl=on", "-c", "ssl_cert_file=/tmp/server.crt", "-c", "ssl_key_file=/tmp/server.key"]
    log(f"starts PostgreSQL 15 of Debian in place of {tag}")
    os.execv(argv[0], argv)
    return 1
