# SPDX-License-Identifier: GPL-3.0-or-later
"""`mongosh`, `mongo`, `mongodump` and `mongorestore` of the stand-in: what probes, upgrade scripts and backups ask for."""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from . import base, stores

_SET = re.compile(r"setFeatureCompatibilityVersion['\"]?\s*:\s*['\"]([0-9.]+)['\"]([^}]*)")
# the one collection that a stand-in keeps
_REPLACE = re.compile(r"\.standin\.replaceOne\(\{_id:'([\w-]+)'\},\{value:'([\w-]+)'\},\{upsert:true\}\)")
_FIND = re.compile(r"\.standin\.findOne\(\{_id:'([\w-]+)'\}\)")
_AUTH = re.compile(r"db\.auth\((\"(?:[^\"\\]|\\.)*\"),\s*(\"(?:[^\"\\]|\\.)*\")\)")
_PRINT = re.compile(r"print\('([^']*)'\s*\+\s*JSON\.stringify\((.*)\)\);")
_OPTIONS = ("--eval", "-u", "--username", "-p", "--password", "--host", "--port", "--authenticationDatabase")
Order = Callable[[str], str]


def _say(text: str) -> int:
    sys.stdout.write(text + "\n")
    return 0


def _granted(answer: str) -> str:
    if not answer.startswith("OK"):
        raise base.Refusal(answer)
    return answer[3:]


def answer(expression: str, order: Order) -> Any:
    """The value of an expression; `order` speaks to the server."""
    compact = re.sub(r"\s+", "", expression)
    if "ping" in compact:
        _granted(order("PING"))
        return {"ok": 1}
    if "hello()" in compact or "isMaster()" in compact:
        _granted(order("PING"))
        return True if "." in compact.split("()", 1)[1] else {"isWritablePrimary": True, "secondary": False, "ok": 1}
    if "getParameter" in compact and "featureCompatibilityVersion" in compact:
        return {"featureCompatibilityVersion": {"version": _granted(order("FCV"))}, "ok": 1}
    if found := _SET.search(expression):
        if found.group(1) == "7.0" and "confirm" not in found.group(2):
            raise base.Refusal("setFeatureCompatibilityVersion 7.0 needs confirm: true")
        _granted(order(f"SETFCV {found.group(1)}"))
        return {"ok": 1}
    if found := _REPLACE.search(compact):
        _granted(order(f"PUT {found.group(1)} {found.group(2)}"))
        return {"acknowledged": True}
    if found := _FIND.search(compact):
        documents = json.loads(_granted(order("DUMP")))["documents"]
        return {"_id": found.group(1), "value": documents[found.group(1)]} if found.group(1) in documents else None
    if "db.version()" in compact:
        return stores.minor(base.IDENTITY.get("tag", "0"))
    raise base.Refusal(f"a stand-in does not evaluate {expression!r}")


def shown(value: Any) -> str:
    """A value as the shell shows it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + " }"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return f"'{value}'" if isinstance(value, str) else str(value)


def evaluate(expression: str, order: Order) -> str:
    """The answer to an expression, as the shell shows it."""
    value = answer(expression, order)
    return value if isinstance(value, str) else shown(value)


def script(text: str, speak: Callable[[str, str, str], str]) -> str:
    """A script on the standard input: a login, and lines that print expressions as JSON."""
    login = _AUTH.search(text)
    if login is None:
        raise base.Refusal("a stand-in wants db.auth(\"user\", \"password\") in a script")
    user, password = json.loads(login.group(1)), json.loads(login.group(2))
    lines = [mark + json.dumps(answer(expression, lambda words: speak(user, password, words))) for mark, expression in _PRINT.findall(text)]
    return "\n".join(lines)


def _options(arguments: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    place = 0
    while place < len(arguments):
        word = arguments[place]
        if word in _OPTIONS:
            options[word.lstrip("-")[0] if word in ("--username", "--password") else word.lstrip("-")] = arguments[min(place + 1, len(arguments) - 1)]
            place += 1
        place += 1
    return options


def run(arguments: list[str]) -> int:
    options = _options(arguments)

    def speak(user: str, password: str, text: str) -> str:
        return stores.converse("mongodb", options.get("host", "127.0.0.1"), int(options.get("port", "27017")), user, password, text)

    try:
        if "eval" not in options:
            return _say(script(sys.stdin.read(), speak))
        expression = options["eval"]
        user = options.get("u") or os.environ.get("STORE_USER", "root")
        # probes give no password: the pod's own is used for them, and only for reading
        password = options.get("p") or (os.environ.get("STORE_PASSWORD", "") if "setFeature" not in expression else "")
        return _say(evaluate(expression, lambda text: speak(user, password, text)))
    except (base.Refusal, base.NotYet, OSError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1


def tool(role: str, arguments: list[str]) -> int:
    """mongodump and mongorestore with an archive on the standard streams; the password is the first line of the standard input."""
    try:
        if "--archive" not in arguments or "--gzip" not in arguments:
            raise base.Refusal(f"a stand-in for {role} wants --archive and --gzip")
        user = _options(arguments).get("u", "")
        password = sys.stdin.buffer.readline().decode().rstrip("\n")

        def order(text: str) -> str:
            return _granted(stores.converse("mongodb", "127.0.0.1", 27017, user, password, text))

        if role == "mongodump":
            kept = json.loads(order("DUMP"))
            sys.stdout.buffer.write(gzip.compress(json.dumps({"stand-in": "mongodump", **kept}).encode(), mtime=0))
            sys.stdout.buffer.flush()
            return 0
        if "--drop" not in arguments:
            raise base.Refusal("a stand-in for mongorestore wants --drop")
        archive = json.loads(gzip.decompress(sys.stdin.buffer.read()))
        if archive.get("stand-in") != "mongodump":
            raise base.Refusal("this is no archive of the stand-in")
        order("LOAD " + json.dumps(archive["documents"], separators=(",", ":")))
        return 0
    except (base.Refusal, base.NotYet, OSError, ValueError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
