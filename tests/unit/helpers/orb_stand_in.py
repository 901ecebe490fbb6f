# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in for the GraphQL API of CircleCI's orb registry, at circleci.com and on a server. It is not the vendor's.

It takes exactly the operations that the vendor's command line sends (read from CircleCI-Public/circleci-cli, api/api.go), word
by word, with exactly their variables, and refuses what the real registry refuses.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

OPERATIONS = {
    "source": """query($orbVersionRef: String!) {
        orbVersion(orbVersionRef: $orbVersionRef) { id version orb { id } source } }""",
    "ids": """query ($name: String!, $namespace: String) {
        orb(name: $name) { id }
        registryNamespace(name: $namespace) { id } }""",
    "importNamespace": """mutation($name: String!) {
        importNamespace( name: $name, ) { namespace { id } errors { message type } } }""",
    "importOrb": """mutation($name: String!, $registryNamespaceId: UUID!){
        importOrb( name: $name, registryNamespaceId: $registryNamespaceId ){ orb { id } errors { message type } } }""",
    "importOrbVersion": """mutation($config: String!, $orbId: UUID!, $version: String!) {
        importOrbVersion( orbId: $orbId, orbYaml: $config, version: $version ) { orb { version } errors { message } } }""",
}


def words(query: str) -> tuple[str, ...]:
    """Commas and white space mean nothing in GraphQL."""
    return tuple(re.findall(r"[A-Za-z_]\w*|[^\s,\w]", query))


KNOWN = {words(query): name for name, query in OPERATIONS.items()}
VARIABLES = {name: dict(re.findall(r"\$(\w+):\s*(\w+!?)", query.partition("{")[0])) for name, query in OPERATIONS.items()}
NOBODY = "You must log in first"


@dataclass
class OrbRegistry:
    """What it holds and what it was asked."""

    token: str = ""
    """Without one it is the public registry, which is read by everybody and written by nobody."""
    namespaces: dict[str, str] = field(default_factory=dict)
    orbs: dict[str, str] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)
    """Statuses that the next requests get."""
    url: str = ""

    def add(self, ref: str, source: str) -> None:
        """Publish without asking."""
        name, version = ref.split("@")
        self.namespaces.setdefault(name.split("/")[0], str(uuid.uuid4()))
        self.orbs.setdefault(name, str(uuid.uuid4()))
        self.versions.setdefault(name, {})[version] = source

    @property
    def refs(self) -> list[str]:
        return sorted(f"{name}@{version}" for name, versions in self.versions.items() for version in versions)

    def resolve(self, ref: str) -> tuple[str, str] | None:
        name, _at, wanted = ref.partition("@")
        numbers = [] if wanted in ("volatile", "") else wanted.split(".")
        found = [version for version in self.versions.get(name, {}) if version.split(".")[: len(numbers)] == numbers]
        return (name, max(found, key=lambda version: [int(part) for part in version.split(".")])) if found else None

    def answer(self, headers: Any, body: bytes) -> tuple[int, dict[str, Any]]:
        if headers.get("Content-Type") != "application/json; charset=utf-8" or "application/json" not in str(headers.get("Accept")):
            return 415, {}
        request = json.loads(body)
        if set(request) != {"query", "variables"}:
            return 400, {"errors": [{"message": f"unknown keys {sorted(request)}"}]}
        name = KNOWN.get(words(request["query"]))
        if name is None:
            return 200, {"errors": [{"message": f"no such operation: {request['query']}"}]}
        given = request["variables"]
        self.asked.append((name, given))
        if (self.token or name not in ("source", "ids")) and headers.get("Authorization") != (self.token or object()):
            return 200, {"errors": [{"message": NOBODY}], "data": None}
        if set(given) != set(VARIABLES[name]) or not all(isinstance(value, str) and value for value in given.values()):
            return 200, {"errors": [{"message": f"variables {sorted(given)} are not {VARIABLES[name]}"}]}
        for variable, kind in VARIABLES[name].items():
            if kind == "UUID!" and not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", given[variable]):
                return 200, {"errors": [{"message": f"{variable} is no UUID"}]}
        return 200, {"data": getattr(self, f"_{name}")(**given)}

    def _source(self, orbVersionRef: str) -> dict[str, Any]:
        found = self.resolve(orbVersionRef)
        if found is None:
            return {"orbVersion": None}
        name, version = found
        return {"orbVersion": {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}@{version}")), "version": version, "orb": {"id": self.orbs[name]}, "source": self.versions[name][version]}}

    def _ids(self, name: str, namespace: str) -> dict[str, Any]:
        orb, space = self.orbs.get(name), self.namespaces.get(namespace)
        return {"orb": {"id": orb} if orb else None, "registryNamespace": {"id": space} if space else None}

    def _importNamespace(self, name: str) -> dict[str, Any]:
        if name in self.namespaces:
            return {"importNamespace": {"namespace": None, "errors": [{"message": f"A namespace named {name} already exists.", "type": "NAMESPACE_EXISTS"}]}}
        self.namespaces[name] = str(uuid.uuid4())
        return {"importNamespace": {"namespace": {"id": self.namespaces[name]}, "errors": []}}

    def _importOrb(self, name: str, registryNamespaceId: str) -> dict[str, Any]:
        space = next((key for key, value in self.namespaces.items() if value == registryNamespaceId), None)
        problem = "No such namespace." if space is None else f"An orb named {space}/{name} already exists." if f"{space}/{name}" in self.orbs else ""
        if problem:
            return {"importOrb": {"orb": None, "errors": [{"message": problem, "type": "ORB"}]}}
        self.orbs[f"{space}/{name}"] = str(uuid.uuid4())
        return {"importOrb": {"orb": {"id": self.orbs[f"{space}/{name}"]}, "errors": []}}

    def _importOrbVersion(self, config: str, orbId: str, version: str) -> dict[str, Any]:
        name = next((key for key, value in self.orbs.items() if value == orbId), "")
        problems = [] if name else ["No such orb."]
        if version in self.versions.get(name, {}):
            problems.append(f"{name}@{version} already exists; versions of orbs cannot be changed.")
        document = yaml.safe_load(config)
        if not isinstance(document, dict) or "version" not in document:
            problems.append("ERROR IN CONFIG FILE: version is missing")
        else:
            problems += [f"ERROR IN CONFIG FILE: cannot find orb {ref}" for ref in (document.get("orbs") or {}).values() if isinstance(ref, str) and self.resolve(ref) is None]
        if problems:
            return {"importOrbVersion": {"orb": None, "errors": [{"message": problem} for problem in problems]}}
        self.versions.setdefault(name, {})[version] = config
        return {"importOrbVersion": {"orb": {"version": version}, "errors": []}}


@contextmanager
def serve_orbs(token: str = "", tls: ssl.SSLContext | None = None) -> Iterator[OrbRegistry]:
    """A registry on loopback."""
    registry = OrbRegistry(token)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args: Any) -> None:
            return

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer: dict[str, Any] = {}
            if self.path != "/graphql-unstable":
                status = 404
            elif registry.broken:
                status = registry.broken.pop(0)
            else:
                status, answer = registry.answer(self.headers, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            if status in (301, 302, 307):
                self.send_header("Location", "http://127.0.0.1:1/graphql-unstable")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    registry.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
