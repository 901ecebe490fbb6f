# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in chart of a release: one set of templates, and data that say what the release is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ..common import SandboxError, write_atomic
from . import documented
from .oci import Entry, gzip_bytes, normalise, tar_bytes

HERE = Path(__file__).parent
NAME = "circleci-server"
OWN = "cciserver.azurecr.io"
DESCRIPTION = "STAND-IN for the CircleCI Server chart, not the vendor's"


def minor(release: str) -> str:
    return ".".join(release.split(".")[:2])


def _key(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


@cache
def source(name: str) -> dict[str, Any]:
    found = yaml.safe_load((HERE / name).read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise SandboxError(f"{HERE / name} is no mapping")
    return found


def known_releases() -> list[str]:
    return list(source("images.yml")["releases"])


def images_of(release: str) -> dict[str, Any]:
    table = source("images.yml")["releases"]
    if release not in table:
        raise SandboxError(f"release {release} has no stand-in; known: {', '.join(table)}")
    found: dict[str, Any] = table[release]
    return found


def in_release(entry: Mapping[str, Any], release: str) -> bool:
    """Whether `first` and `last` of an entry let it be in a release."""
    mine = _key(minor(release))
    return _key(entry.get("first", "0")) <= mine <= _key(entry.get("last", "99"))


def references(release: str) -> dict[str, str]:
    """Every image of a release: full reference → `documented` or `constructed`."""
    table = images_of(release)
    found = {normalise(ref): "documented" for ref in table["documented"]}
    for name in table["constructed"]:
        repository = name if "/" in name else f"{OWN}/{name}"
        found.setdefault(normalise(f"{repository}:{table['constructed_tag']}"), "constructed")
    picard = f"circleci/picard:{table['binaries']['circleci/picard']}"
    found.setdefault(normalise(picard), "constructed")
    return found


def own_tags(release: str) -> dict[str, str]:
    """Name → tag of the images below the vendor's registry."""
    chosen = source("releases.yml")["tags"]
    found: dict[str, str] = {}
    for ref in references(release):
        repository, _, tag = ref.rpartition(":")
        host, _, name = repository.partition("/")
        if host == OWN:
            found[name] = chosen.get(name, tag)
    return dict(sorted(found.items()))


def third_party(release: str) -> dict[str, dict[str, str]]:
    """Values prefix → registry, repository, tag of the images that are not CircleCI's own (as the release writes them)."""
    facts = source("releases.yml")
    table = images_of(release)
    written: dict[str, str] = {}
    for ref in [*table["documented"], *(f"{name}:{table['constructed_tag']}" for name in table["constructed"] if "/" in name)]:
        repository, _, tag = ref.rpartition(":")
        written.setdefault(repository, tag)
    found: dict[str, dict[str, str]] = {}
    for prefix, candidates in facts["third_party"].items():
        repository = next((name for name in candidates if name in written), None)
        if repository is None:
            continue
        tag = facts["tags"].get(repository.rsplit("/", 1)[-1], written[repository])
        registry = ""
        if prefix in facts["split_registry"]:
            registry, _, repository = repository.partition("/")
        found[prefix] = {"registry": registry, "repository": repository, "tag": tag}
    return found


def facts(release: str) -> dict[str, Any]:
    """What releases.yml says of a release."""
    found: dict[str, Any] = {}
    for first, entry in sorted(source("releases.yml")["from"].items(), key=lambda pair: _key(pair[0])):
        if _key(first) <= _key(minor(release)):
            found.update(entry)
    return found


def databases(release: str) -> dict[str, dict[str, Any]]:
    own = own_tags(release)
    found = {}
    for name, entry in source("workloads.yml")["databases"].items():
        if in_release(entry, release) and entry["image"] in own:
            found[name] = {
                "database": entry["database"],
                "role": entry["role"],
                "image": entry["image"],
                "container": entry.get("container", "dbmigrator-" + name.removesuffix("-db-app").replace("-", "")),
                "sets_password": entry.get("sets_password", True),
            }
    return found


def workloads(release: str) -> list[dict[str, Any]]:
    """The ordinary services of a release, complete."""
    own, known = own_tags(release), databases(release)
    found = []
    for entry in source("workloads.yml")["workloads"]:
        if not in_release(entry, release):
            continue
        made = {key: value for key, value in entry.items() if key not in ("first", "last", "row", "inferred")}
        made.setdefault("container", made["name"])
        made.setdefault("layer", "application")
        if "third_party" not in made:
            candidates = made.get("image", made["name"])
            candidates = [candidates] if isinstance(candidates, str) else candidates
            image = next((name for name in candidates if name in own), None)
            if image is None:
                raise SandboxError(f"{made['name']} of {release}: none of the images {', '.join(candidates)} is in images.yml")
            made["image"] = image
        made["migrates"] = [name for name in made.get("migrates", []) if name in known]
        if made.get("database") not in known:
            made.pop("database", None)
        made["init"] = [name for name in made.get("init", []) if name != "table_rename" or "workflows-conductor" in known]
        found.append(made)
    return found


def rows(release: str) -> dict[str, list[tuple[str, str]]]:
    """The vendor's row of a service → kinds and names of its workloads here."""
    found: dict[str, list[tuple[str, str]]] = {}
    for entry in source("workloads.yml")["workloads"]:
        if in_release(entry, release):
            found.setdefault(entry["row"], []).append(("Deployment", entry["name"]))
    for entry in source("workloads.yml")["special"]:
        if in_release(entry, release):
            found.setdefault(entry["row"], []).append((entry["kind"], entry["name"]))
    return found


def _pulls(values: dict[str, Any], release: str) -> None:
    """The tags of values.yaml are those of images.yml, so that the chart asks for nothing that is not there."""
    for prefix, image in third_party(release).items():
        name = {"nomad": "nomad.server", "mongo": "mongodb.injectBotToken"}.get(prefix, prefix)
        here = values
        for part in name.split("."):
            if not isinstance(here.get(part), dict):
                here = {}
                break
            here = here[part]
        place = here.get("image") if isinstance(here.get("image"), dict) else None
        if place:
            place.update({key: image[key] for key in ("registry", "repository", "tag") if key in place})


def values(release: str) -> dict[str, Any]:
    entries = documented_keys(release)
    tree = documented.defaults(entries)
    _pulls(tree, release)
    return tree


def documented_keys(release: str) -> tuple[documented.Key, ...]:
    entries = documented.keys(release)
    known = {entry.key for entry in entries}
    more = tuple(documented.Key(extra["key"], extra["type"], extra["default"]) for extra in source("releases.yml")["also_documented"] if extra["key"] not in known)
    return (*entries, *more)


def files(release: str) -> dict[str, bytes]:
    """The chart as paths below its folder."""
    said = facts(release)
    metadata = metadata_of(release)

    def dump(value: Any) -> bytes:
        return str(yaml.safe_dump(value, sort_keys=False, width=160, allow_unicode=True)).encode()

    label = said["chart_label"].replace("VERSION", release)
    about = {
        "own": own_tags(release),
        "thirdParty": third_party(release),
        "databases": databases(release),
        "pullSecrets": said["pull_secrets"],
        "makesSecrets": said["makes_secrets"],
        "chartLabel": label,
        "telegraf": said["telegraf"],
        "otel": said["otel"],
        "ownNomad": said["own_nomad"],
        "bottoken": said["bottoken"],
        "proxyPorts": said["proxy_ports"],
        "accounts": said["accounts"],
    }
    head = f"# {DESCRIPTION}. Documented keys and defaults of release {release}.\n".encode()
    made = {
        "Chart.yaml": dump(metadata),
        "values.yaml": head + dump(values(release)),
        "values.schema.json": json.dumps(documented.schema(documented_keys(release), said["pull_secrets"]), indent=1).encode() + b"\n",
        "images.yaml": dump(images_of(release)["binaries"]),
        "standin/release.yaml": dump(about),
    }
    for workload in workloads(release):
        name = workload["name"]
        made[f"standin/workloads/{name}.yaml"] = dump(workload)
        made[f"templates/{name}/workload.yaml"] = f'{{{{- include "standin.workload" (list . "{name}") }}}}\n'.encode()
    templates = HERE / "chart"
    for path in sorted(templates.rglob("*")):
        if path.is_file():
            made[str(path.relative_to(templates))] = path.read_bytes()
    return dict(sorted(made.items()))


def metadata_of(release: str) -> dict[str, Any]:
    return {
        "apiVersion": "v2",
        "name": NAME,
        "version": release,
        "appVersion": release,
        "type": "application",
        "description": f"{DESCRIPTION}. Release {release} with documented values, names and ports.",
        "annotations": {"onprem.circleci_server/stand-in": "true"},
    }


def archive(release: str) -> bytes:
    """The chart as `helm package` would write it, with one date."""
    return gzip_bytes(tar_bytes(Entry(f"{NAME}/{path}", data) for path, data in files(release).items()))


def unpack(release: str, target: Path) -> Path:
    """The chart as a folder, for helm lint and helm template."""
    folder = target / NAME
    shutil.rmtree(folder, ignore_errors=True)
    for path, data in files(release).items():
        write_atomic(folder / path, data)
    return folder


def small_values(release: str) -> dict[str, Any]:
    """Values that let a release run on two cores: requests of next to nothing, three Nomad servers, a small PostgreSQL.

    Limits stay as documented, except where a tenth of a core would make the start of a program slow.
    """
    tree: dict[str, Any] = {}
    documented_values = values(release)

    def put(path: str, value: Any) -> None:
        here = tree
        *parents, last = path.split(".")
        for part in parents:
            here = here.setdefault(part, {})
        here[last] = value

    def at(path: str) -> Any:
        here: Any = documented_values
        for part in path.split("."):
            here = here.get(part) if isinstance(here, dict) else None
        return here

    def cores(text: str) -> float:
        return float(text[:-1]) / 1000 if text.endswith("m") else float(text)

    prefixes = {workload["values"] for workload in workloads(release)} | {"nginx", "rabbitmq", "nomad.server"}
    prefixes |= {"telegraf"} if facts(release)["telegraf"] else set()
    prefixes -= {"nomad.auto_scaler"}
    for prefix in sorted(prefixes):
        if at(f"{prefix}.resources"):
            put(f"{prefix}.resources.requests.cpu", "1m")
            put(f"{prefix}.resources.requests.memory", "8Mi")
            if at(f"{prefix}.resources.requests.ephemeral-storage") is not None:
                # a node in a container has none to give away
                put(f"{prefix}.resources.requests.ephemeral-storage", "0")
            limit = at(f"{prefix}.resources.limits.cpu")
            if limit is not None and cores(str(limit)) < 0.5:
                put(f"{prefix}.resources.limits.cpu", "1")
    put("nomad.server.replicas", 3)
    put("postgresql.primary.extendedConfiguration", "max_connections = 300\nshared_buffers = 32MB\n")
    return tree


def small_values_file(release: str) -> str:
    head = (
        "# SPDX-License-Identifier: GPL-3.0-or-later\n"
        f"# Made by `python3 -m sandbox.standin small {release}`: the stand-in of {release} on two cores.\n"
    )
    return head + str(yaml.safe_dump(small_values(release), sort_keys=True, width=160))
