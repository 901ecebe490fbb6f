# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in which image: layers, program, labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import artifacts
from . import chart, layers
from .oci import Entry, Layer, Layout, normalise

SERVICE = Path(__file__).parent / "service"
# Python is started isolated, so the folder of the program has to be named
LAUNCHER = b"""import sys

sys.path.insert(0, "/opt/standin")
from service.main import main

raise SystemExit(main())
"""
# stays, as the real one does, and takes its options
DOCKER_GC = b"""#!/bin/sh
echo "stand-in for docker-gc: collects nothing ($*)" >&2
trap 'exit 0' TERM INT
while :; do sleep 3600 & wait $!; done
"""
PYTHON = ["/usr/bin/python3", "-ISB", "/opt/standin/main.py"]
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# kinds that hold programs of the artifact catalogue: the real ones, only their images are made here
PROGRAMS = {
    "nomad": ("nomad", "1.11.3", {"usr/bin/nomad": "nomad"}),
    "metallb-controller": ("metallb", "0.15.2", {"controller": "controller"}),
    "metallb-speaker": ("metallb", "0.15.2", {"speaker": "speaker"}),
    "versitygw": ("versitygw", "1.8.0", {"usr/local/bin/versitygw": "versitygw"}),
    "local-path": ("local-path-provisioner", "0.0.30", {"usr/bin/local-path-provisioner": "local-path-provisioner"}),
}
_KINDS = {
    "cciserver.azurecr.io/nomad": "nomad",
    "cciserver.azurecr.io/server-mongodb": "mongodb",
    "cciserver.azurecr.io/server-postgres": "postgres",
    "cciserver.azurecr.io/server-postgres-upgrade": "postgres-upgrade",
    "cciserver.azurecr.io/server-rabbitmq": "rabbitmq",
    "cciserver.azurecr.io/server-redis": "redis",
    "cciserver.azurecr.io/vault-cci": "vault",
    "docker.io/bitnami/mongodb": "mongodb",
    "docker.io/bitnami/postgresql": "postgres",
    "docker.io/bitnami/rabbitmq": "rabbitmq",
    "docker.io/bitnami/redis": "redis",
    "docker.io/circleci/docker-gc": "docker-gc",
    "docker.io/circleci/server-keysets": "keysets",
    "docker.io/hashicorp/nomad": "nomad",
    "docker.io/library/busybox": "shell",
    "docker.io/library/mongo": "mongodb",
    "docker.io/library/nginx": "nginx",
    "docker.io/nginxinc/nginx-unprivileged": "nginx",
    "docker.io/library/telegraf": "telegraf",
    "docker.io/library/kong": "kong",
    "docker.io/rancher/local-path-provisioner": "local-path",
    "ghcr.io/versity/versitygw": "versitygw",
    "quay.io/metallb/controller": "metallb-controller",
    "quay.io/metallb/speaker": "metallb-speaker",
    "registry.k8s.io/pause": "pause",
}
_SHELLS = ("docker.io/cimg/", "docker.io/library/", "docker.io/alpine/", "docker.io/circleci/")
# what is real in an image that is called a stand-in all the same
_REAL = {
    "nomad": "Nomad 1.11.3",
    "postgres": "PostgreSQL 15 of Debian",
    "postgres-upgrade": "PostgreSQL 15 of Debian",
    "nginx": "nginx of Debian",
    "metallb-controller": "MetalLB 0.15.2",
    "metallb-speaker": "MetalLB 0.15.2",
    "local-path": "local-path-provisioner 0.0.30",
    "versitygw": "versitygw 1.8.0",
}


def kind_of(ref: str) -> str:
    repository = ref.rpartition(":")[0]
    if repository in _KINDS:
        return _KINDS[repository]
    if repository.startswith("docker.io/otel/"):
        return "otel"
    return "shell" if repository.startswith(_SHELLS) else "service"


def wanted(releases: list[str]) -> dict[str, list[str]]:
    """Full reference → the releases whose list holds it (none: it is needed beyond the charts)."""
    found: dict[str, list[str]] = {}
    for release in releases:
        for ref in chart.references(release):
            found.setdefault(ref, []).append(release)
    for entry in chart.source("images.yml")["beyond_the_chart"]:
        found.setdefault(normalise(entry["ref"]), [])
    return dict(sorted(found.items()))


def certainty(ref: str) -> str:
    """Whether the vendor prints this reference anywhere."""
    said = {chart.references(release).get(ref) for release in chart.known_releases()}
    if "documented" in said:
        return "documented"
    return "constructed" if "constructed" in said else "documented"


def program_layers(cache: Path, kinds: set[str]) -> dict[str, Layer]:
    """The layers of the wanted kinds that carry a program of the artifact catalogue."""
    made = {}
    for kind in sorted(kinds & set(PROGRAMS)):
        name, version, members = PROGRAMS[kind]
        folder = artifacts.ensure(artifacts.find(name, version))
        made[kind] = layers.program(cache, kind, {target: folder / member for target, member in members.items()})
    return made


def service_layer(cache: Path) -> Layer:
    """The program that stands in for the services."""
    sources = [Entry(f"opt/standin/service/{path.name}", path.read_bytes()) for path in sorted(SERVICE.glob("*.py"))]
    return layers.files(cache, "service", [Entry("opt/standin/main.py", LAUNCHER), *sources])


def _config(kind: str) -> dict[str, Any]:
    config: dict[str, Any] = {"Env": [PATH], "WorkingDir": "/"}
    fixed = {
        "nomad": ["/usr/bin/nomad"],
        "metallb-controller": ["/controller"],
        "metallb-speaker": ["/speaker"],
        "local-path": ["/usr/bin/local-path-provisioner"],
        "versitygw": ["/usr/local/bin/versitygw"],
        "pause": ["/usr/bin/sleep", "infinity"],
        "docker-gc": ["/usr/local/bin/docker-gc"],
        "keysets": ["server-keysets"],
        "nginx": ["/usr/sbin/nginx", "-g", "daemon off;"],
    }
    if kind == "shell":
        config["Cmd"] = ["/bin/sh"]
    elif kind in fixed:
        config["Entrypoint"] = fixed[kind]
    else:
        config["Entrypoint"] = PYTHON
        config["User"] = "1001"
    return config


def add(layout: Layout, ref: str, shared: Mapping[str, Layer]) -> str:
    """Write one image; its own layer is small and names it, so that each has a digest of its own."""
    kind = kind_of(ref)
    repository, _, tag = ref.rpartition(":")
    name = repository.rsplit("/", 1)[-1]
    stack = [shared["base"]]
    if kind in ("postgres", "postgres-upgrade"):
        stack.append(shared["postgres"])
    if kind == "nginx":
        stack.append(shared["nginx"])
    if kind in PROGRAMS:
        stack.append(shared[kind])
    if kind == "keysets" or _config(kind).get("Entrypoint", [])[:3] == PYTHON:
        stack.append(shared["service"])
    identity = {"service": name, "tag": tag, "ref": ref, "role": kind, "stand-in": "yes", "reference": certainty(ref)}
    top = [Entry("etc/standin.json", json.dumps(identity, indent=1, sort_keys=True).encode() + b"\n")]
    if kind == "mongodb":
        for command, role in {"mongo": "mongosh", "mongosh": "mongosh", "mongodump": "mongodump", "mongorestore": "mongorestore"}.items():
            wrapper = f'#!/bin/sh\nexec /usr/bin/python3 -ISB /opt/standin/main.py {role} "$@"\n'
            top.append(Entry(f"usr/bin/{command}", wrapper.encode(), 0o755))
    if kind == "postgres":
        # Debian's own wrappers want Perl
        for command in ("pg_dump", "pg_dumpall", "pg_restore", "psql"):
            wrapper = f'#!/bin/sh\nexec /usr/lib/postgresql/15/bin/{command} "$@"\n'
            top.append(Entry(f"usr/local/bin/{command}", wrapper.encode(), 0o755))
    if kind == "keysets":
        wrapper = '#!/bin/sh\nexec /usr/bin/python3 -ISB /opt/standin/main.py keysets "$@"\n'
        top.append(Entry("usr/local/bin/server-keysets", wrapper.encode(), 0o755))
    if kind == "docker-gc":
        top.append(Entry("usr/local/bin/docker-gc", DOCKER_GC, 0o755))
    if kind == "pause":
        top.append(Entry("pause", b"#!/bin/sh\nexec /usr/bin/sleep infinity\n", 0o755))
    inside = _REAL.get(kind)
    title = f"Stand-in for {ref}" + (f" (holds {inside})" if inside else "")
    labels = {
        "org.opencontainers.image.title": title,
        "org.opencontainers.image.description": "Made for tests; not the software whose name it carries" if not inside else f"Made for tests from {inside}",
        "org.opencontainers.image.version": tag,
        "onprem.circleci_server.stand-in": "true",
        "onprem.circleci_server.reference": identity["reference"],
    }
    return layout.image(ref, stack, top, _config(kind), labels)
