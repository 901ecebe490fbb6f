# SPDX-License-Identifier: GPL-3.0-or-later
"""`mongosh` and `mongo` of the stand-in: the handful of expressions that probes and upgrade scripts evaluate."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable

from . import base, stores

_SET = re.compile(r"setFeatureCompatibilityVersion['\"]?\s*:\s*['\"]([0-9.]+)['\"]([^}]*)")


def _say(text: str) -> int:
    sys.stdout.write(text + "\n")
    return 0


def evaluate(expression: str, order: Callable[[str], str]) -> str:
    """The answer to an expression; `order` speaks to the server."""
    compact = re.sub(r"\s+", "", expression)
    if "ping" in compact:
        order("PING")
        return "{ ok: 1 }"
    if "hello()" in compact or "isMaster()" in compact:
        order("PING")
        return "true" if "." in compact.split("()", 1)[1] else "{ isWritablePrimary: true, secondary: false, ok: 1 }"
    if "getParameter" in compact and "featureCompatibilityVersion" in compact:
        version = order("FCV").partition(" ")[2]
        return f"{{ featureCompatibilityVersion: {{ version: '{version}' }}, ok: 1 }}"
    if found := _SET.search(expression):
        if found.group(1) == "7.0" and "confirm" not in found.group(2):
            raise base.Refusal("setFeatureCompatibilityVersion 7.0 needs confirm: true")
        answer = order(f"SETFCV {found.group(1)}")
        if not answer.startswith("OK"):
            raise base.Refusal(answer)
        return "{ ok: 1 }"
    if "db.version()" in compact:
        return stores.minor(base.IDENTITY.get("tag", "0"))
    raise base.Refusal(f"a stand-in does not evaluate {expression!r}")


def run(arguments: list[str]) -> int:
    options: dict[str, str] = {}
    place = 0
    while place < len(arguments):
        word = arguments[place]
        if word in ("--eval", "-u", "--username", "-p", "--password", "--host", "--port", "--authenticationDatabase"):
            options[word.lstrip("-")[0] if word in ("--username", "--password") else word.lstrip("-")] = arguments[min(place + 1, len(arguments) - 1)]
            place += 1
        place += 1
    expression = options.get("eval", "")
    user = options.get("u") or os.environ.get("STORE_USER", "root")
    # probes give no password: the pod's own is used for them, and only for reading
    password = options.get("p") or (os.environ.get("STORE_PASSWORD", "") if "setFeature" not in expression else "")

    def order(text: str) -> str:
        return stores.converse("mongodb", options.get("host", "127.0.0.1"), int(options.get("port", "27017")), user, password, text)

    try:
        return _say(evaluate(expression, order))
    except (base.Refusal, base.NotYet, OSError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
