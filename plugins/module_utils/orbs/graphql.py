# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GraphQL API for orbs, the same at circleci.com and on a server.

Operations, variables and fields are those that the vendor's command line sends for ``circleci orb source`` and for
``circleci admin import-orb``. The latter's mutations ``import…`` need an administrator and, other than ``createNamespace``, no
organization that owns the namespace, so that a server can have the namespaces of other publishers.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Optional

from ..url_openers import token_opener

PATH = "/graphql-unstable"
LIMIT = 32 << 20

_SOURCE = "query($orbVersionRef: String!) { orbVersion(orbVersionRef: $orbVersionRef) { id version orb { id } source } }"
_IDS = "query($name: String!, $namespace: String) { orb(name: $name) { id } registryNamespace(name: $namespace) { id } }"
_IMPORT_NAMESPACE = "mutation($name: String!) { importNamespace(name: $name) { namespace { id } errors { message type } } }"
_IMPORT_ORB = (
    "mutation($name: String!, $registryNamespaceId: UUID!) { importOrb(name: $name, registryNamespaceId: $registryNamespaceId) "
    "{ orb { id } errors { message type } } }"
)
_IMPORT_VERSION = (
    "mutation($config: String!, $orbId: UUID!, $version: String!) { importOrbVersion(orbId: $orbId, orbYaml: $config, version: $version) "
    "{ orb { version } errors { message } } }"
)
_NO_LOGIN = re.compile(r"log ?in|unauthori[sz]ed|not authori[sz]ed|permission|forbidden", re.IGNORECASE)


class OrbError(Exception):
    """One sentence or two for the operator."""


class Unreachable(OrbError):
    """Nobody answers at the API."""


class Unauthorized(OrbError):
    """The API wants another token."""


class Api:
    """The orb registry behind one host."""

    def __init__(self, host: str, token: str = "", ca_certificate: str = "", *, tries: int = 3, inside: bool = False) -> None:
        """*inside* asks without a proxy, as a server of the site is never behind one."""
        self.url = host.rstrip("/") + PATH
        self._token = token
        self._tries = tries
        self.changes = 0
        """How much was made so far."""
        try:
            self._opener = token_opener(ca_certificate, proxy=not inside)
        except ValueError as error:
            raise OrbError(str(error)) from error

    def version(self, ref: str) -> Optional[tuple[str, str]]:
        """Version and source of an orb by ``namespace/orb@version``; None when the registry has no such version."""
        found = self._ask(_SOURCE, {"orbVersionRef": ref}).get("orbVersion")
        return (str(found["version"]), str(found["source"])) if found and found.get("id") else None

    def ids(self, namespace: str, orb: str) -> tuple[str, str]:
        """Ids of a namespace and of an orb in it, each empty when there is none."""
        data = self._ask(_IDS, {"name": f"{namespace}/{orb}", "namespace": namespace})
        return str((data.get("registryNamespace") or {}).get("id") or ""), str((data.get("orb") or {}).get("id") or "")

    def import_namespace(self, name: str) -> str:
        """Make a namespace that no organization of the server owns; returns its id."""
        answer = self._change("importNamespace", _IMPORT_NAMESPACE, {"name": name}, f"the namespace {name}")
        return str((answer.get("namespace") or {}).get("id") or "")

    def import_orb(self, namespace: str, namespace_id: str, name: str) -> str:
        """Make an orb without versions; returns its id."""
        answer = self._change("importOrb", _IMPORT_ORB, {"name": name, "registryNamespaceId": namespace_id}, f"the orb {namespace}/{name}")
        return str((answer.get("orb") or {}).get("id") or "")

    def import_version(self, ref: str, orb_id: str, version: str, source: str) -> None:
        """Publish a version."""
        self._change("importOrbVersion", _IMPORT_VERSION, {"config": source, "orbId": orb_id, "version": version}, ref)

    def _change(self, name: str, query: str, variables: Mapping[str, Any], what: str) -> dict[str, Any]:
        answer = self._ask(query, variables).get(name) or {}
        if answer.get("errors"):
            raise self._refusal([str(item.get("message")) for item in answer["errors"]], f"does not take {what}")
        self.changes += 1
        return dict(answer)

    def _refusal(self, messages: list[str], what: str) -> OrbError:
        text = " ".join("; ".join(messages).split())[:500]
        return (Unauthorized if _NO_LOGIN.search(text) else OrbError)(f"{self.url} {what}: {text}")

    def _ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json; charset=utf-8", "Accept": "application/json; charset=utf-8", "User-Agent": "onprem-circleci-orbs/1"}
        if self._token:
            headers["Authorization"] = self._token
        try:
            answer = json.loads(self._send(urllib.request.Request(self.url, body, headers, method="POST")))  # noqa: S310 - the gate demands http or https
        except ValueError as error:
            raise OrbError(f"{self.url} answers with something else than JSON; is this the address of CircleCI?") from error
        if not isinstance(answer, dict) or answer.get("errors"):
            problems = answer.get("errors") if isinstance(answer, dict) else None
            raise self._refusal([str(item.get("message")) for item in problems or [{"message": "an answer of no known shape"}]], "refuses")
        return dict(answer.get("data") or {})

    def _send(self, request: urllib.request.Request) -> bytes:
        reason = ""
        for attempt in range(self._tries):
            if attempt:
                time.sleep(attempt)
            try:
                with self._opener.open(request, timeout=60) as answer:
                    data = bytes(answer.read(LIMIT + 1))
                if len(data) > LIMIT:
                    raise OrbError(f"{self.url} answers with more than {LIMIT >> 20} MiB, which no orb has")
                return data
            except urllib.error.HTTPError as error:
                error.close()
                if error.code in (401, 403):
                    raise Unauthorized(f"{self.url} refuses the token (status {error.code})") from error
                reason = f"status {error.code}"
                if error.code < 500 and error.code != 429:
                    raise OrbError(f"{self.url} answers with {reason}; is this the address of CircleCI?") from error
            except (OSError, ValueError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", error))
        raise Unreachable(f"{self.url} cannot be reached: {reason}")
