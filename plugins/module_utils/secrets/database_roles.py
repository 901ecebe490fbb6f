# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the roles of PostgreSQL have the passwords that their services read from Secrets, and the repair.

No password goes to the database: the verifiers that it keeps are compared here, and a repair writes a verifier that was
computed here. So no log of the server can hold a password, and the rules of pg_hba.conf cannot hide a difference.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..helm.kube import KubeApi, KubeError, core, get_or_none
from .store import APP_PASSWORD, decode

SUPERUSER = "postgres"
_ITERATIONS = 4096  # what PostgreSQL itself takes
_NAME = re.compile(r"[a-z_][a-z0-9_]*$")
_LABEL = "app.kubernetes.io/name=postgresql"
# Read by the shell of the pod from its standard input: the password is in no argument list and in no file.
PSQL = (
    "IFS= read -r PGPASSWORD && export PGPASSWORD && "
    f"exec psql -X -q -A -t -w -F '|' -v ON_ERROR_STOP=1 -h 127.0.0.1 -U {SUPERUSER} -d {SUPERUSER}"
)


class DatabaseError(Exception):
    """Why the database could not be asked, in one sentence."""


class Exec(Protocol):
    """Runs a program in a pod."""

    def run(self, namespace: str, pod: str, container: str, command: Sequence[str], stdin: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""


@dataclass(frozen=True)
class Login:
    """A role of the database and the password that its service has."""

    secret: str
    role: str
    password: str


@dataclass(frozen=True)
class Verdict:
    """C(state): same, differs, no_password, no_login or no_role."""

    secret: str
    role: str
    state: str
    verifier: str = ""


def _prepared(password: str) -> bytes:
    return unicodedata.normalize("NFKC", password).encode()


def _md5(password: str, role: str) -> str:
    return "md5" + hashlib.md5(f"{password}{role}".encode(), usedforsecurity=False).hexdigest()


def _scram(password: str, salt: bytes, iterations: int) -> str:
    salted = hashlib.pbkdf2_hmac("sha256", _prepared(password), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{parts[0]}${parts[1]}:{parts[2]}"


def matches(password: str, role: str, verifier: str) -> bool:
    """Whether a verifier of PostgreSQL was made from this password."""
    if verifier.startswith("md5"):
        return hmac.compare_digest(verifier, _md5(password, role))
    found = re.match(r"SCRAM-SHA-256\$(\d+):([^$]+)\$", verifier)
    if not found:
        return False
    try:
        salt = base64.b64decode(found.group(2), validate=True)
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(verifier, _scram(password, salt, int(found.group(1))))


def new_verifier(password: str, role: str, *, md5: bool) -> str:
    """A verifier in the form that the database keeps now: old drivers cannot log in with another."""
    return _md5(password, role) if md5 else _scram(password, secrets.token_bytes(16), _ITERATIONS)


class PodDatabase:
    """PostgreSQL in a pod of the namespace, as its superuser."""

    def __init__(self, runs: Exec, namespace: str, pod: str, container: str, password: str) -> None:
        self._runs, self._place, self._password = runs, (namespace, pod, container), password

    def rows(self, sql: str) -> list[list[str]]:
        """The answer, field by field. No field may hold a line feed or a vertical bar."""
        code, out, err = self._runs.run(*self._place, ["sh", "-c", PSQL], f"{self._password}\n{sql}\n\\q\n")
        if code:
            said = " ".join(line.strip() for line in err.splitlines() if line.strip()) or f"exit code {code}"
            raise DatabaseError(f"PostgreSQL in pod {self._place[1]}: {said}")
        return [line.split("|") for line in out.splitlines() if line]


def find_database(api: KubeApi, runs: Exec, namespace: str, superuser: tuple[str, str]) -> PodDatabase:
    """The pod of the database and its superuser's password. DatabaseError when there is none to ask."""
    pods = (api.request("GET", core(namespace, "pods"), {"labelSelector": _LABEL}) or {}).get("items", [])
    running = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]
    if not running:
        raise DatabaseError(f"no pod of PostgreSQL runs in namespace {namespace}: an external database is not looked at here")
    pod = sorted(running, key=lambda one: str(one["metadata"]["name"]))[0]
    containers = [str(item["name"]) for item in pod["spec"]["containers"]]
    container = "postgresql" if "postgresql" in containers else containers[0]
    secret, key = superuser
    data = (get_or_none(api, core(namespace, "secrets", secret)) or {}).get("data") or {}
    if key not in data:
        raise DatabaseError(f"Secret {secret} in namespace {namespace} lacks the key {key}: run the verb secrets first")
    return PodDatabase(runs, namespace, str(pod["metadata"]["name"]), container, decode(data[key], "plain"))


def read_logins(api: KubeApi, namespace: str, roles: Mapping[str, str]) -> list[Login]:
    """Passwords of services by Secret and role; Secrets that are missing are the matter of the verb secrets."""
    found = []
    for secret, role in sorted(roles.items()):
        if not _NAME.match(role):
            raise DatabaseError(f"{role!r} is no name of a role: allowed are small letters, digits and underscores")
        data = (get_or_none(api, core(namespace, "secrets", secret)) or {}).get("data") or {}
        if APP_PASSWORD in data:
            found.append(Login(secret, role, decode(data[APP_PASSWORD], "plain")))
    return found


def compare(database: PodDatabase, logins: Sequence[Login]) -> list[Verdict]:
    """What the database says of each role."""
    if not logins:
        return []
    names = ", ".join(f"'{login.role}'" for login in logins)
    # read_logins() lets names of small letters, digits and underscores through only.
    rows = database.rows(f"SELECT rolname, coalesce(rolpassword, ''), rolcanlogin FROM pg_authid WHERE rolname IN ({names});")  # noqa: S608
    known = {row[0]: (row[1], row[2] == "t") for row in rows}
    return [_judge(login, known.get(login.role)) for login in logins]


def _judge(login: Login, found: Any) -> Verdict:
    if found is None:
        return Verdict(login.secret, login.role, "no_role")
    verifier, can_login = found
    if not can_login:
        state = "no_login"
    elif not verifier:
        state = "no_password"
    else:
        state = "same" if matches(login.password, login.role, verifier) else "differs"
    return Verdict(login.secret, login.role, state, verifier)


def drifted(verdicts: Sequence[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.state in ("differs", "no_password")]


def mend(database: PodDatabase, logins: Sequence[Login], verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Give roles the passwords of their Secrets, all or none, and look again."""
    passwords = {login.role: login.password for login in logins}
    wanted = drifted(verdicts)
    if not wanted:
        return list(verdicts)
    default_md5 = database.rows("SHOW password_encryption;")[0][0] in ("md5", "on")
    statements = ["BEGIN;"]
    for verdict in wanted:
        md5 = verdict.verifier.startswith("md5") if verdict.verifier else default_md5
        statements.append(f"ALTER ROLE \"{verdict.role}\" PASSWORD '{new_verifier(passwords[verdict.role], verdict.role, md5=md5)}';")
    database.rows("\n".join([*statements, "COMMIT;"]))
    after = compare(database, logins)
    left = [verdict.role for verdict in drifted(after)]
    if left:
        raise DatabaseError(f"PostgreSQL did not keep the passwords of {', '.join(left)}: something else sets them")
    return after


class PodExec:
    """The exec of the Kubernetes API, over the kubernetes library."""

    def __init__(self, kubeconfig: str, context: str = "") -> None:
        try:
            from kubernetes import client, config
            from kubernetes.stream import stream
            from websocket import WebSocketException
        except ImportError as error:
            raise KubeError(0, f"the Python library kubernetes is missing on this host ({error}): install it") from error
        loader: Any = config
        self._stream: Any = stream
        self._broken: Any = (WebSocketException, TypeError, KeyError, IndexError, ValueError)
        self._errors: Any = (client.exceptions.ApiException, OSError)
        try:
            self._api: Any = client.CoreV1Api(loader.new_client_from_config(config_file=kubeconfig, context=context or None))
        except loader.ConfigException as error:
            raise KubeError(0, f"{kubeconfig}: {error}") from error

    def run(self, namespace: str, pod: str, container: str, command: Sequence[str], stdin: str) -> tuple[int, str, str]:
        try:
            link = self._stream(
                self._api.connect_get_namespaced_pod_exec, pod, namespace, container=container, command=list(command),
                stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False,
            )  # fmt: skip
            link.write_stdin(stdin)
            # The protocol cannot close the standard input alone; programs end by what they read.
            link.run_forever()
            out, err = link.read_stdout(timeout=0), link.read_stderr(timeout=0)
            code = link.returncode
        except self._errors as error:
            # The library gives a refusal of the WebSocket no status, only this text with all headers behind it.
            text = str(getattr(error, "reason", "") or error).splitlines()[0]
            refused = re.match(r"Handshake status (\d+) ([^-]*)", text)
            status = int(refused.group(1)) if refused else int(getattr(error, "status", 0) or 0)
            raise KubeError(status, f"{refused.group(2).strip()} (pods/exec)" if refused else text, f"exec in pod {pod}") from error
        except self._broken as error:
            raise KubeError(0, "the connection ended before the program did", f"exec in pod {pod}") from error
        return int(code), str(out or ""), str(err or "")
