# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make the JSON files and the reference pages from the YAML sources.

From the top of the tree::

    python -m plugins.plugin_utils.catalog.generate          # write
    python -m plugins.plugin_utils.catalog.generate --check  # exit 1 when a checked-in file is out of date

It may be started by its path as well.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

if not __package__:
    # Started by its path: start again as a part of its package, so that the imports below work.
    import runpy

    sys.path[0] = str(Path(__file__).resolve().parents[3])
    runpy.run_module("plugins.plugin_utils.catalog.generate", run_name="__main__", alter_sys=True)

from . import model
from .codec import check, shorten
from .docs import pages
from .errors import CatalogDataError
from .loader import FORMAT, GENERATED, Catalog
from .versions import MinorRange, MinorTuple, parse_minor, parse_release

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
DOCS = HERE.parents[2] / "docs" / "reference"

# Section of a release's file → the class of its rows. The order is the order in the file.
TABLES: dict[str, type[Any]] = {
    "services": model.Service,
    "ports": model.PortRule,
    "internal_ports": model.InternalPort,
    "images": model.Image,
    "files": model.FileSpec,
    "secrets": model.SecretSpec,
    "requirements": model.Requirement,
    "sizing": model.Sizing,
    "databases": model.ExternalDatabase,
    "failure_modes": model.FailureMode,
    "upgrade_steps": model.UpgradeStep,
    "nomad_layouts": model.NomadLayout,
    "values_keys": model.ValuesKey,
    "retired_values_keys": model.RetiredValuesKey,
}
INDEX_TABLES: dict[str, type[Any]] = {
    "host_groups": model.HostGroup,
    "platforms": model.Platform,
    "object_storage": model.ObjectStorageOption,
}

_FLOAT_LIKE = re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+[eE][-+]?\d+)$")


# libyaml is ten times as fast, and not everywhere.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class StrictLoader(_SafeLoader):
    """Plain scalars that YAML takes for a float or a date are refused: a version must be quoted, a number tagged."""


StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _construct_scalar(loader: StrictLoader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    if not node.style and _FLOAT_LIKE.match(text):
        raise CatalogDataError(f"{node.start_mark.name}:{node.start_mark.line + 1}: {text} must be quoted (or !!float).")
    return text


StrictLoader.add_constructor("tag:yaml.org,2002:str", _construct_scalar)


def read_yaml(path: Path) -> Any:
    """Read one source file."""
    with path.open(encoding="utf-8") as stream:
        loader = StrictLoader(stream)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()


class Sources:
    """All YAML sources of a data directory."""

    def __init__(self, directory: Path = DATA) -> None:
        self.directory = directory
        self._documents: dict[Path, dict[str, Any]] = {}
        self.releases: dict[str, Any] = self.document("releases")
        self.minors: list[str] = sorted(self.releases["minors"], key=parse_minor)

    def rows(self, stem: str, section: str | None = None) -> list[dict[str, Any]]:
        """The rows of a file, or of all files of a directory of that name, with the file's defaults filled in."""
        path = self.directory / f"{stem}.yml"
        paths = [path] if path.exists() else sorted((self.directory / stem).glob("*.yml"))
        result: list[dict[str, Any]] = []
        for source in paths:
            content = self._content(source)
            defaults = content.get("defaults", {}).get(section or stem, {})
            result.extend({**defaults, **row} for row in content[section or stem])
        return result

    def document(self, stem: str) -> dict[str, Any]:
        """A whole file."""
        return self._content(self.directory / f"{stem}.yml")

    def _content(self, path: Path) -> dict[str, Any]:
        if path not in self._documents:
            self._documents[path] = read_yaml(path)
        return self._documents[path]


# -- releases -----------------------------------------------------------------------------------------------------


def last_patch(sources: Sources, minor: str) -> str:
    """The last documented patch of a minor."""
    patches: list[str] = sources.releases["minors"][minor]["patches"]
    return patches[-1]


def patch_rows(sources: Sources, minor: str) -> list[dict[str, Any]]:
    """One row for each known patch of a minor."""
    entry = sources.releases["minors"][minor]
    rows = []
    for version in entry["patches"]:
        if ".".join(version.split(".")[:2]) != minor:
            raise CatalogDataError(f"releases.yml: patch {version} stands under {minor}.")
        special = entry.get("special", {}).get(version, {})
        bad = special.get("known_bad")
        status = "known_bad" if bad else "last" if version == entry["patches"][-1] else "superseded"
        row = {
            "version": version,
            "status": status,
            "source": special.get("source", entry["source"]),
            "certainty": special.get("certainty", entry.get("patches_certainty", "documented")),
        }
        if bad or special.get("note"):
            row["reason"] = bad or special["note"]
        rows.append(row)
    return rows


def fact_at(timeline: Sequence[Mapping[str, Any]], minor: str, where: str) -> dict[str, Any]:
    """The entry of a timeline that holds for a minor."""
    found = [entry for entry in timeline if minor in MinorRange.parse(entry["versions"])]
    if len(found) != 1:
        raise CatalogDataError(f"{where}: {len(found)} entries hold for {minor}, expected one.")
    return {name: value for name, value in found[0].items() if name != "versions"}


def release_row(sources: Sources, minor: str) -> dict[str, Any]:
    """The facts of a minor, as the row of its last patch."""
    entry = sources.releases["minors"][minor]
    version = last_patch(sources, minor)
    row: dict[str, Any] = {
        "version": version,
        "minor": minor,
        "data_of": version,
        "status": "last",
        "status_reason": None,
        "patches": patch_rows(sources, minor),
        "composition": entry["composition"],
        "kubernetes_older": entry["kubernetes_older"],
    }
    for name, timeline in sources.releases["facts"].items():
        row[name] = fact_at(timeline, minor, f"releases.yml facts.{name}")
    predecessors = upgrade_from(sources)[minor]
    row["upgrade_from"] = {
        "value": [last_patch(sources, previous) for previous in predecessors],
        "source": entry["upgrade_source"],
        "certainty": entry.get("upgrade_certainty", "documented"),
    }
    if entry.get("upgrade_note"):
        row["upgrade_from"]["note"] = entry["upgrade_note"]
    return {field: row[field] for field in model.Release.__dataclass_fields__ if field in row} | row


def upgrade_from(sources: Sources) -> dict[str, list[str]]:
    """Minor → minors it may be upgraded from."""
    return {minor: sources.releases["minors"][minor]["upgrade_from"] for minor in sources.minors}


# -- rows of a release --------------------------------------------------------------------------------------------


def in_minor(row: Mapping[str, Any], minor: str) -> bool:
    """Whether a row holds for a minor."""
    return minor in MinorRange.parse(row["versions"])


def without(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A copy without some fields."""
    return {name: value for name, value in row.items() if name not in names}


def simple_rows(sources: Sources, stem: str, minor: str, section: str | None = None) -> list[dict[str, Any]]:
    """Rows that need nothing but their range of versions taken away."""
    return [without(row, "versions") for row in sources.rows(stem, section) if in_minor(row, minor)]


def service_rows(sources: Sources, minor: str) -> list[dict[str, Any]]:
    """Services with those workloads and values prefixes that the minor has."""
    rows = []
    for row in sources.rows("services"):
        if not in_minor(row, minor):
            continue
        span = MinorRange.parse(row["versions"])
        result = without(row, "versions", "overview_versions")
        result["first"], result["last"] = span.first, span.last
        overview = row.get("overview_versions")
        result["in_overview"] = overview is not None and minor in MinorRange.parse(overview)
        result["workloads"] = [
            without(workload, "versions")
            for workload in row["workloads"]
            if "versions" not in workload or in_minor(workload, minor)
        ]
        result["values_prefixes"] = [
            prefix["prefix"] for prefix in row["values_prefixes"] if "versions" not in prefix or in_minor(prefix, minor)
        ]
        rows.append(result)
    return rows


def split_reference(reference: str) -> tuple[str, str | None]:
    """``host:5000/name:tag`` → (``host:5000/name``, ``tag``)."""
    head, colon, tag = reference.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (reference, None)


def image_rows(sources: Sources, minor: str) -> list[dict[str, Any]]:
    """The chart's list of a minor, described by the catalogue, and the images that no list has."""
    document = sources.document("images")
    described = {row["repository"]: row for row in document["catalogue"]}
    rows = []
    listing = document["lists"][minor]
    for item in listing["images"]:
        entry = {"reference": item} if isinstance(item, str) else dict(item)
        repository, tag = split_reference(entry.pop("reference"))
        if repository not in described:
            raise CatalogDataError(f"images.yml lists.{minor}: {repository} is not in the catalogue.")
        rows.append(image_row(described[repository], minor, tag, {**without(listing, "images"), **entry}))
    for extra in document["extras"]:
        if not in_minor(extra, minor):
            continue
        repository, tag = split_reference(extra["reference"])
        rows.append(image_row(without(extra, "reference", "versions") | {"repository": repository}, minor, tag, {}))
    return rows


def image_row(
    description: Mapping[str, Any], minor: str, tag: str | None, override: Mapping[str, Any]
) -> dict[str, Any]:
    """One image as it stands in a minor."""
    row = {
        "name": description["repository"].rpartition("/")[2],
        "tag": tag,
        "group": "chart",
        "pulled_by": "cluster",
        "services": [],
        "condition": None,
        **without(description, "values_keys"),
        **override,
    }
    keys = [entry for entry in description.get("values_keys", []) if in_minor(entry, minor)]
    if len(keys) > 1:
        raise CatalogDataError(f"images.yml {row['repository']}: two sets of values keys hold for {minor}.")
    row["values_keys"] = (
        {
            "registry": None,
            "org": None,
            "repository": None,
            "tag": None,
            "certainty": "documented",
            **without(keys[0], "versions"),
        }
        if keys
        else None
    )
    return row


def values_key_rows(sources: Sources, minor: str) -> list[dict[str, Any]]:
    """The values keys of a minor, each with the default it has there."""
    rows: dict[str, dict[str, Any]] = {}
    for row in sources.rows("values_keys"):
        if not in_minor(row, minor):
            continue
        if row["key"] in rows:
            raise CatalogDataError(f"values_keys: {row['key']} stands twice for {minor}.")
        result = without(row, "versions", "defaults", "after")
        for step in row.get("defaults", []):
            if parse_minor(step["since"]) <= parse_minor(minor):
                result["default"] = step["value"]
        copied = sources.releases["minors"][minor].get("values_table_copied_from")
        if copied and MinorRange.parse(row["versions"]).first == minor and result["certainty"] == "documented":
            result["certainty"] = "disputed"
            result["note"] = f"First seen here, and the values table of {minor} is that of {copied}."
        rows[row["key"]] = {"default": None, **result}
    return [rows[key] for key in sorted(rows)]


def retired_rows(sources: Sources, minor: str) -> list[dict[str, Any]]:
    """Keys that an earlier minor had and this one has not, with their fate."""
    present = {row["key"] for row in values_key_rows(sources, minor)}
    latest: dict[str, tuple[MinorTuple, dict[str, Any]]] = {}
    for row in sources.rows("values_keys"):
        spans = MinorRange.parse(row["versions"]).spans
        ended = [last for _first, last in spans if last < parse_minor(minor)]
        if row["key"] in present or not ended:
            continue
        # A hole in the middle of a range is a slip of the vendor's tables, not the end of the key.
        after = row.get("after", {}) if ended[-1] == spans[-1][1] else {}
        entry = {
            "key": row["key"],
            "fate": after.get("fate", "unlisted"),
            "since": f"{ended[-1][0]}.{ended[-1][1] + 1}",
            "renamed_to": after.get("renamed_to", []),
            "source": after.get("source", row["source"]),
            "certainty": after.get("certainty", "inferred"),
            **({"note": after["note"]} if "note" in after else {}),
        }
        if row["key"] not in latest or latest[row["key"]][0] < ended[-1]:
            latest[row["key"]] = (ended[-1], entry)
    return [latest[key][1] for key in sorted(latest)]


def secret_rows(sources: Sources, minor: str) -> list[dict[str, Any]]:
    """Secrets, each key of their data with all its fields."""
    blank = {"required": True, "length": None, "alphabet": None, "form": None}
    return [
        {**row, "keys": [{**blank, **key} for key in row["keys"]]} for row in simple_rows(sources, "secrets", minor)
    ]


def upgrade_rows(sources: Sources, minor: str) -> list[dict[str, Any]]:
    """Steps of the upgrade to a minor: those of every upgrade, then its own, by phase and order."""
    rows = []
    for row in sources.rows("upgrade_steps"):
        if row["to"] == minor or (row["to"] == "any" and in_minor(row, minor)):
            rows.append({**without(row, "versions"), "to": minor})
    phases = ("before", "during", "after")
    return sorted(rows, key=lambda row: (phases.index(row["phase"]), row["order"], row["id"]))


def release_document(sources: Sources, minor: str) -> dict[str, Any]:
    """Everything about one minor."""
    row = release_row(sources, minor)
    check(model.Release, row, f"release {minor}")
    tables: dict[str, list[dict[str, Any]]] = {
        "services": service_rows(sources, minor),
        "ports": simple_rows(sources, "ports", minor),
        "internal_ports": simple_rows(sources, "ports", minor, "internal_ports"),
        "images": image_rows(sources, minor),
        "files": simple_rows(sources, "files", minor),
        "secrets": secret_rows(sources, minor),
        "requirements": simple_rows(sources, "requirements", minor),
        "sizing": simple_rows(sources, "requirements", minor, "sizing"),
        "databases": simple_rows(sources, "requirements", minor, "databases"),
        "failure_modes": simple_rows(sources, "failure_modes", minor),
        "upgrade_steps": upgrade_rows(sources, minor),
        "nomad_layouts": simple_rows(sources, "nomad_layouts", minor),
        "values_keys": values_key_rows(sources, minor),
        "retired_values_keys": retired_rows(sources, minor),
    }
    document: dict[str, Any] = {"format": FORMAT, "release": row}
    for section, cls in TABLES.items():
        for number, entry in enumerate(tables[section]):
            name = entry.get("id") or entry.get("name") or entry.get("key") or number
            check(cls, entry, f"{section} {minor} {name}")
        document[section] = [shorten(cls, entry) for entry in tables[section]]
    return document


def index_document(sources: Sources) -> dict[str, Any]:
    """What does not depend on a release, and the list of releases."""
    releases = {}
    for minor in sources.minors:
        for row in patch_rows(sources, minor):
            releases[row["version"]] = {
                "minor": minor,
                "data_of": last_patch(sources, minor),
                "status": row["status"],
                **({"reason": row["reason"]} if "reason" in row else {}),
            }
    ports = sources.document("ports")
    document: dict[str, Any] = {
        "format": FORMAT,
        "releases": dict(sorted(releases.items(), key=lambda item: parse_release(item[0]))),
        "last_patches": {minor: last_patch(sources, minor) for minor in sources.minors},
        "upgrade_from": upgrade_from(sources),
        "peers": ports["peers"],
        "infrastructure_services": ports["infrastructure_services"],
        "port_conditions": ports["conditions"],
        "named_ports": ports["named_ports"],
        "seed_ports": ports["seed_ports"],
        "helm_metadata": sources.document("secrets")["helm_metadata"],
    }
    tables = {
        "host_groups": sources.rows("ports", "host_groups"),
        "platforms": sources.rows("platforms"),
        "object_storage": sources.rows("object_storage"),
    }
    for section, cls in INDEX_TABLES.items():
        for entry in tables[section]:
            check(cls, entry, f"{section} {entry['id']}")
        document[section] = [shorten(cls, entry) for entry in tables[section]]
    return document


# -- writing ------------------------------------------------------------------------------------------------------


def dump(document: Mapping[str, Any]) -> str:
    """JSON with one row a line: small, and a change of one fact is a change of one line."""
    lines = []
    for name, value in document.items():
        head = json.dumps(name) + ": "
        if isinstance(value, list) and value:
            body = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in value)
            lines.append(f"{head}[\n{body}\n ]")
        elif isinstance(value, dict) and value:
            body = ",\n".join(
                f"  {json.dumps(key)}: {json.dumps(entry, ensure_ascii=False)}" for key, entry in value.items()
            )
            lines.append(f"{head}{{\n{body}\n }}")
        else:
            lines.append(head + json.dumps(value, ensure_ascii=False))
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def outputs(data: Path = DATA) -> dict[str, str]:
    """File name → content of everything under ``generated/``."""
    sources = Sources(data)
    result = {"index.json": dump(index_document(sources))}
    for minor in sources.minors:
        result[f"{last_patch(sources, minor)}.json"] = dump(release_document(sources, minor))
    return result


def drift(directory: Path, wanted: Mapping[str, str], pattern: str) -> list[str]:
    """Names of files that are missing, different, or no longer wanted."""
    present = {path.name: path for path in directory.glob(pattern)}
    return sorted(
        name
        for name in present.keys() | wanted.keys()
        if name not in wanted or name not in present or present[name].read_text(encoding="utf-8") != wanted[name]
    )


def write(directory: Path, wanted: Mapping[str, str], pattern: str) -> None:
    """Make a directory hold exactly the wanted files of this pattern."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in drift(directory, wanted, pattern):
        if name in wanted:
            (directory / name).write_text(wanted[name], encoding="utf-8")
        else:
            (directory / name).unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the generated files."""
    parser = argparse.ArgumentParser(prog="catalog", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is out of date")
    options = parser.parse_args(arguments)
    try:
        generated = outputs()
        if options.check:
            late = [f"generated/{name}" for name in drift(GENERATED, generated, "*.json")]
            late += [f"docs/reference/{name}" for name in drift(DOCS, pages(Catalog(GENERATED)), "catalog-*.md")]
            for name in late:
                sys.stdout.write(f"out of date: {name}\n")
            return 1 if late else 0
        write(GENERATED, generated, "*.json")
        write(DOCS, pages(Catalog(GENERATED)), "catalog-*.md")
    except CatalogDataError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
