# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for MongoDB, RabbitMQ, Redis and Vault: a login, a file on the volume, and nothing stored for anyone but the few
documents with which a test shows that MongoDB was dumped and brought back.

MongoDB and RabbitMQ take the password that was set when the volume was new, like the real ones: a password changed later only
in a Secret does not open them. MongoDB refuses data of a version that is more than one step away.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import threading
from collections.abc import Callable

from . import base
from .base import NotYet, Refusal, env, log

PLACES = {"mongodb": ("/bitnami/mongodb/data/db", 27017), "rabbitmq": ("/bitnami/rabbitmq/mnesia", 5672)}
# the steps that MongoDB is upgraded in
MONGO_STEPS = ("3.6", "4.0", "4.2", "4.4", "5.0", "6.0", "7.0")


def proof(password: str, nonce: str) -> str:
    return hmac.digest(hashlib.sha256(password.encode()).hexdigest().encode(), nonce.encode(), "sha256").hex()


def _line(connection: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\n") and len(data) < 1 << 20:
        block = connection.recv(8192)
        if not block:
            break
        data += block
    return data.decode("utf-8", "replace").strip()


def converse(kind: str, host: str, port: int, user: str, password: str, order: str = "") -> str:
    """Log in, give one order, return the answer."""
    with socket.create_connection((host, port), timeout=5) as connection:
        greeting = _line(connection).split(" ")
        if len(greeting) != 4 or greeting[:2] != ["STANDIN/1", kind]:
            raise Refusal(f"{host}:{port} is no stand-in for {kind}: a real one is not spoken to")
        connection.sendall(f"LOGIN {user} {proof(password, greeting[3])}\n".encode())
        answer = _line(connection)
        if not answer.startswith("OK"):
            raise NotYet(f"{kind} at {host}:{port} denies user {user}: {answer}")
        if order:
            connection.sendall(f"{order}\n".encode())
            answer = _line(connection)
        return answer


def login(kind: str, host: str, port: int, user: str, password: str) -> None:
    if not host:
        raise Refusal(f"no host is given for {kind}")
    if not password:
        raise Refusal(f"the password for {kind} is empty")
    # mongodb.hosts may be a list; the first one is asked
    first = host.split(",")[0]
    if ":" in first:
        first, _, text = first.partition(":")
        port = int(text)
    converse(kind, first, port, user, password)


def ping_redis(host: str, port: int) -> None:
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        if _line(connection) != "+PONG":
            raise NotYet(f"Redis at {host}:{port} does not answer PING")


class Volume:
    """The one file that is kept."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "standin.json")
        os.makedirs(folder, exist_ok=True)
        self._lock = threading.Lock()

    def read(self) -> dict[str, str]:
        try:
            with open(self.path, encoding="utf-8") as stream:
                return {str(key): str(value) for key, value in json.load(stream).items()}
        except FileNotFoundError:
            return {}
        except ValueError:
            raise Refusal(f"{self.path} is damaged") from None

    def write(self, content: dict[str, str]) -> None:
        with self._lock:
            temporary = f"{self.path}.new"
            with open(temporary, "w", encoding="utf-8") as stream:
                json.dump(content, stream, sort_keys=True)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, self.path)


def minor(version: str) -> str:
    return ".".join(version.split("-")[0].split(".")[:2])


def open_mongo(content: dict[str, str], version: str) -> dict[str, str]:
    """MongoDB's rule: the data's feature compatibility version is that of the binary or of the step before."""
    mine = minor(version)
    if mine not in MONGO_STEPS:
        raise Refusal(f"version {version} is none of {', '.join(MONGO_STEPS)}")
    step = MONGO_STEPS.index(mine)
    theirs = content.setdefault("featureCompatibilityVersion", mine)
    allowed = MONGO_STEPS[max(step - 1, 0) : step + 1]
    if theirs not in allowed:
        raise Refusal(
            f"the data files have featureCompatibilityVersion {theirs}, MongoDB {mine} opens {' or '.join(allowed)}: "
            "upgrade step by step and set it after each"
        )
    return {**content, "version": version}


class Store:
    """MongoDB or RabbitMQ."""

    def __init__(self, kind: str) -> None:
        folder, self.port = PLACES[kind]
        self.kind = kind
        self.volume = Volume(env("STANDIN_DATA") or folder)
        self.version = base.IDENTITY.get("tag", "0")
        content = self.volume.read()
        given = {env("STORE_USER"): env("STORE_PASSWORD")}
        if not content:
            if not all(given) or not all(given.values()):
                raise Refusal("user or password is empty")
            content = {"users": json.dumps({user: hashlib.sha256(text.encode()).hexdigest() for user, text in given.items()})}
        if kind == "mongodb":
            content = open_mongo(content, self.version)
        else:
            cookie = env("RABBITMQ_ERLANG_COOKIE")
            if not cookie:
                raise Refusal("the Erlang cookie is empty")
            content["version"] = self.version
        self.content = content
        self.volume.write(content)

    def _order(self, text: str) -> str:
        words = text.split(" ")
        if words[0] == "PING":
            return "OK"
        if words[0] == "FCV":
            return f"OK {self.content.get('featureCompatibilityVersion', '')}"
        if words[0] == "DUMP" and self.kind == "mongodb":
            return "OK " + json.dumps({"version": self.version, "documents": json.loads(self.content.get("documents", "{}"))})
        if words[0] == "LOAD" and self.kind == "mongodb":
            self._keep(json.loads(text.partition(" ")[2]))
            return "OK"
        if words[0] == "PUT" and self.kind == "mongodb" and len(words) == 3:
            self._keep({**json.loads(self.content.get("documents", "{}")), words[1]: words[2]})
            return "OK"
        if words[0] == "SETFCV" and self.kind == "mongodb" and len(words) == 2:
            step = MONGO_STEPS.index(minor(self.version))
            if words[1] not in MONGO_STEPS[max(step - 1, 0) : step + 1]:
                return f"DENIED MongoDB {minor(self.version)} cannot set featureCompatibilityVersion {words[1]}"
            self.content["featureCompatibilityVersion"] = words[1]
            self.volume.write(self.content)
            return "OK"
        return "DENIED unknown order"

    def _keep(self, documents: dict[str, str]) -> None:
        self.content["documents"] = json.dumps(documents, sort_keys=True)
        self.volume.write(self.content)

    def serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.settimeout(10)
                nonce = os.urandom(12).hex()
                connection.sendall(f"STANDIN/1 {self.kind} {minor(self.version)} {nonce}\n".encode())
                words = _line(connection).split(" ")
                if len(words) != 3 or words[0] != "LOGIN":
                    return
                kept = json.loads(self.content["users"]).get(words[1])
                good = kept is not None and hmac.compare_digest(hmac.digest(kept.encode(), nonce.encode(), "sha256").hex(), words[2])
                connection.sendall(b"OK\n" if good else b"DENIED wrong user or password\n")
                while good and (order := _line(connection)):
                    connection.sendall(f"{self._order(order)}\n".encode())
            except OSError:
                pass


class Redis:
    """Enough of the protocol for PING, SELECT, GET, SET, INFO."""

    def __init__(self) -> None:
        self.volume = Volume(env("STANDIN_DATA") or "/data")
        self.volume.write({"version": base.IDENTITY.get("tag", "0")})
        self.values: dict[str, str] = {}

    def answer(self, words: list[str]) -> str:
        order = words[0].upper() if words else ""
        if order == "PING":
            return "+PONG"
        if order == "SELECT" and len(words) == 2:
            return "+OK" if words[1].isdigit() and int(words[1]) < 30 else "-ERR DB index is out of range"
        if order == "SET" and len(words) >= 3:
            self.values[words[1]] = words[2]
            return "+OK"
        if order == "GET" and len(words) == 2:
            found = self.values.get(words[1])
            return "$-1" if found is None else f"${len(found.encode())}\r\n{found}"
        if order == "INFO":
            text = f"# stand-in\r\nrole:{'slave' if 'slave' in base.name() else 'master'}"
            return f"${len(text)}\r\n{text}"
        return f"-ERR a stand-in does not know {order}"

    def serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                connection.settimeout(60)
                while line := stream.readline(4096):
                    if line.startswith(b"*"):
                        words = []
                        for _ in range(int(line[1:])):
                            size = int(stream.readline(64)[1:])
                            words.append(stream.read(size + 2)[:-2].decode("utf-8", "replace"))
                    else:
                        words = line.decode("utf-8", "replace").split()
                    connection.sendall(self.answer(words).encode() + b"\r\n")
            except (OSError, ValueError):
                pass


def _vault(path: str) -> base.Answer:
    if path.split("?", 1)[0] == "/v1/sys/health":
        return base.as_json({"initialized": True, "sealed": False, "stand_in": True})
    return base.basics(path)


def run(role: str) -> int:
    serve: Callable[[socket.socket], None]
    if role == "redis":
        serve, port = Redis().serve, 6379
    elif role == "vault":
        volume = Volume(env("STANDIN_DATA") or "/vault/file")
        volume.write({**volume.read(), "version": base.IDENTITY.get("tag", "0")})
        base.background(base.serve_http, 8200, _vault)
        log("vault ready")
        return base.until_told()
    elif role == "vault-agent":
        return base.until_told()
    else:
        store = Store(role)
        serve, port = store.serve, store.port
        if role == "rabbitmq":
            base.background(base.serve_http, 15672, base.basics)
    base.background(base.accept, base.listen(port), serve)
    log(f"ready on port {port}")
    return base.until_told()
