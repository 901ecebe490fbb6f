# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Catalog and chart, table by table. Each table adds its differences and its part of the overlay."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ...module_utils.discovery.references import parse_or_none, place
from ...module_utils.discovery.walk import without_path
from ...module_utils.helm.objects import SECRET_NAME
from ..catalog import Catalog, Image, Service, plain
from ..catalog.overlay import FORMAT, OBSERVED, parse_overlay
from ..catalog.versions import minor_of
from ..values import compose
from ..values.compose import key_book
from ..values.knowledge import FREE_NAMES, KeyBook, KeyFact
from ..values.model import Path, dotted, parse_path
from ..values.schema import Schema
from .request import sample_facts

BREAKS, DIFFERS, NEW, GONE, OPEN = "breaks", "differs", "new", "gone", "open"
LEVELS = {
    BREAKS: "composed values or their proof fail on it",
    DIFFERS: "the catalog says something else than the chart",
    GONE: "the catalog has it, the chart does not show it",
    NEW: "the chart has it, the catalog does not",
    OPEN: "the catalog left it open, the chart tells",
}
SECTIONS = {"keys": "Values keys", "images": "Images", "workloads": "Workloads", "services": "Services and ports", "secrets": "Secrets", "chart": "Chart"}
_TYPES = {"string": "string", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "object"}
_SCALARS = ("string", "int", "float", "bool")
_KINDS = {"deployment": "Deployment", "statefulset": "StatefulSet", "job": "Job"}
_TELLING = 4  # a default this long tells two keys apart


@dataclasses.dataclass(frozen=True)
class Difference:
    """One row of the report."""

    section: str
    level: str
    what: str
    catalog: str
    chart: str
    note: str = ""


@dataclasses.dataclass
class Comparison:
    """All differences, and the overlay. ``values`` are those of a plain site with it, ``left`` the problems that it does not mend."""

    release: str
    chart: dict[str, Any]
    differences: list[Difference]
    overlay: dict[str, Any]
    values: dict[str, Any]
    left: list[str]

    def counts(self) -> dict[str, int]:
        return {level: sum(item.level == level for item in self.differences) for level in LEVELS}


class _Overlay:
    """Rows for the tables of the catalog."""

    def __init__(self, release: str, facts: Mapping[str, Any]) -> None:
        self.release = release
        self.source = f"chart {facts['name']}-{facts['version']}, {facts['digest']}"
        self.chart = {key: facts[key] for key in ("name", "version", "digest", "stand_in")}
        self.put: dict[str, dict[str, dict[str, Any]]] = {}
        self.gone: dict[str, set[str]] = {}

    def set(self, section: str, name: str, row: Mapping[str, Any]) -> None:
        self.put.setdefault(section, {})[name] = {**row, "source": self.source, "certainty": OBSERVED}

    def remove(self, section: str, name: str) -> None:
        self.gone.setdefault(section, set()).add(name)

    def document(self) -> dict[str, Any]:
        sections = {
            name: {"set": [row for _key, row in sorted(self.put.get(name, {}).items())], "remove": sorted(self.gone.get(name, ()))}
            for name in sorted({*self.put, *self.gone})
        }
        return {"format": FORMAT, "release": self.release, "chart": self.chart, "sections": sections}


def compare_chart(catalog: Catalog, release: str, facts: Mapping[str, Any], values: Mapping[str, Any] | None = None) -> Comparison:
    """Compare what the module chart_facts read with the catalog's facts of a release."""
    work = _Work(catalog, release, facts)
    work.about_the_chart()
    work.images()
    work.keys()
    work.composition(values)
    work.workloads()
    work.services()
    work.secrets()
    document = work.overlay.document()
    with_overlay = Catalog(catalog.directory, parse_overlay(document, "the overlay"))
    schema = facts["schema"] or None
    composed = compose(sample_facts(release, values), with_overlay, schema)
    order = {level: index for index, level in enumerate(LEVELS)}
    rows = sorted(dict.fromkeys(work.rows), key=lambda row: (list(SECTIONS).index(row.section), order[row.level], row.what))
    chart = {key: facts[key] for key in ("name", "version", "app_version", "digest", "stand_in")}
    return Comparison(release, chart, rows, document, composed.values, composed.errors)


class _Work:
    def __init__(self, catalog: Catalog, release: str, facts: Mapping[str, Any]) -> None:
        self.catalog = catalog
        self.release = release
        self.facts = facts
        self.book: KeyBook = key_book(catalog, release)
        self.schema = Schema(facts["schema"]) if facts["schema"] else None
        self.overlay = _Overlay(release, facts)
        self.rows: list[Difference] = []
        self.renamed: dict[Path, Path] = {}
        # What the catalog knows only as a part of the default of a block is a key as well.
        self.told = {
            **{
                (*fact.path, *below): KeyFact((*fact.path, *below), _value_type(value) or "any", value, fact.secret)
                for fact in self.book.facts.values()
                if isinstance(fact.default, Mapping) and fact.path[-1] not in FREE_NAMES
                for below, value in _leaves(fact.default)
            },
            **self.book.facts,
        }
        self.services_now: dict[str, Service] = {}

    def note(self, section: str, level: str, what: str, catalog: Any, chart: Any, note: str = "") -> None:
        self.rows.append(Difference(section, level, what, _shown(catalog), _shown(chart), note))

    # -- the chart as a whole ----------------------------------------------------------------------------------------

    def about_the_chart(self) -> None:
        if self.facts["stand_in"]:
            self.note("chart", DIFFERS, "origin", "the vendor's chart", "a stand-in", "It proves nothing about the vendor's chart.")
        if self.facts["version"] != self.release:
            self.note("chart", DIFFERS, "version", self.release, self.facts["version"], "Give the chart of the release, or set circleci_release.")
        if not self.facts["schema"]:
            self.note("chart", OPEN, "values.schema.json", "", "not there", "Helm takes any value then; types were taken from the defaults.")
        for text in self.facts["problems"]:
            self.note("chart", OPEN, "rendering", "", text, "What only shows then was not compared.")

    # -- values keys -------------------------------------------------------------------------------------------------

    def _in_chart(self, path: Path) -> bool:
        """Whether values.yaml, the schema or a template knows a key."""
        here: Any = self.facts["values"]
        for index, part in enumerate(path):
            if part.startswith("["):
                return True
            if not isinstance(here, Mapping) or part not in here:
                if isinstance(here, Mapping) and not here and index:
                    return True  # an empty mapping takes what it is given
                break
            here = here[part]
        else:
            return True
        cut = next((index for index, part in enumerate(path) if part.startswith("[")), len(path))
        wanted = path[:cut]
        if self.schema is not None and self.schema.knows(wanted):
            return True
        return any(tuple(read)[: len(wanted)] == wanted or wanted[: len(read)] == tuple(read) for read in self.facts["reads"] if len(read) > 1)

    def _refused(self, path: Path) -> bool:
        if self.schema is None:
            return False
        tree: Any = {}
        for part in reversed(path):
            tree = {part: tree}
        return any(text == "is not a key of this chart" for _place, text in self.schema.check(tree))

    def _chart_keys(self) -> dict[Path, tuple[str, Any]]:
        """Leaf keys of the chart with type (empty when nothing says it) and default."""
        found: dict[Path, tuple[str, Any]] = {}
        if self.schema is not None:
            for path, part in self.schema.leaves().items():
                found[path] = (_schema_type(part), None)
        for path, value in _leaves(self.facts["values"]):
            kind = found[path][0] if path in found else ""
            found[path] = (kind or _value_type(value), value)
        return found

    def keys(self) -> None:
        chart = self._chart_keys()
        gone = [path for path in self.told if not self._in_chart(path)]
        new = [path for path in sorted(chart) if not self.book.look_up(path)[0]]
        self.renamed.update(self._renames([path for path in gone if path not in self.renamed], new, chart))
        for path in sorted(gone):
            self._gone_key(path)
        for path in new:
            self._new_key(path, *chart[path])
        for path, (kind, default) in chart.items():
            fact = self.book.fact(path)
            if fact is not None and path not in gone:
                self._known_key(path, kind, default)

    def _gone_key(self, path: Path) -> None:
        key = dotted(path)
        row: dict[str, Any] = {"key": key, "since": minor_of(self.release), "fate": "unlisted", "renamed_to": []}
        target = self.renamed.get(path)
        if target is not None:
            certain = any(path == old for old in self._image_keys())
            note = "" if certain else "Taken for a rename, since type and default are the same: look at it."
            self.note("keys", DIFFERS, key, key, dotted(target), note or "Seen to move the same image.")
            row = {**row, "fate": "renamed", "renamed_to": [dotted(target)], "note": note or None}
        elif self._refused(path):
            self.note("keys", GONE, key, "known", "refused by the schema")
            row["fate"] = "removed"
        else:
            self.note("keys", GONE, key, "known", "in no values.yaml, schema or template")
        self.overlay.remove("values_keys", key)
        self.overlay.set("retired_values_keys", key, row)
        for end in range(1, len(path)):
            self._without(path[:end], path[end:])

    def _without(self, block: Path, below: Path) -> None:
        """Take a key out of the documented default of a block around it."""
        fact = self.book.fact(block)
        if fact is None or not isinstance(fact.default, Mapping):
            return
        row = self.overlay.put.get("values_keys", {}).get(dotted(block)) or plain(self.catalog.values_key(self.release, dotted(block)))
        default = json.loads(json.dumps(row["default"]))
        without_path(default, below)
        self.overlay.set("values_keys", dotted(block), {**row, "default": default})

    def _image_keys(self) -> set[Path]:
        return {parse_path(key) for image in self.catalog.images(self.release) if image.values_keys for key in image.values_keys.names()}

    def _new_key(self, path: Path, kind: str, default: Any) -> None:
        key = dotted(path)
        secret = bool(SECRET_NAME.search("_".join(path).upper())) and not isinstance(default, (bool, Mapping, list))
        old = next((old for old, target in self.renamed.items() if target == path), None)
        if old is None:
            retired = self.book.retired_at(path)
            shown = f"{kind or 'any'}, {'not shown' if secret and default else _shown(default) or 'no default'}"
            self.note("keys", NEW, key, f"{retired.fate} since {retired.since}" if retired else "unknown", shown)
        fact = self.told.get(old) if old else None
        row = {"key": key, "type": kind or "any", "default": None if secret else default, "meaning": "Seen in the chart.", "secret": secret}
        if fact is not None:
            documented = next((entry for entry in self.catalog.values_keys(self.release) if entry.key == dotted(fact.path)), None)
            row.update(meaning=documented.meaning if documented else "Seen in the chart.", secret=fact.secret)
        self.overlay.set("values_keys", key, row)
        self.overlay.remove("retired_values_keys", key)

    def _known_key(self, path: Path, kind: str, default: Any) -> None:
        entry = self.catalog.values_key(self.release, dotted(path)) if dotted(path) in self._names() else None
        if entry is None:
            return
        changed: dict[str, Any] = {}
        if kind and not _same_type(entry.type, kind):
            self.note("keys", DIFFERS, f"{entry.key}: type", entry.type, kind)
            changed["type"] = kind
        if default is not None and not entry.secret and not isinstance(default, Mapping):
            if entry.default is None:
                self.note("keys", OPEN, f"{entry.key}: default", "not printed", default)
                changed["default"] = default
            elif not _same_value(entry.default, default):
                self.note("keys", DIFFERS, f"{entry.key}: default", entry.default, default)
                changed["default"] = default
        if changed:
            self.overlay.set("values_keys", entry.key, {**plain(entry), **changed})

    def _names(self) -> set[str]:
        return {entry.key for entry in self.catalog.values_keys(self.release)}

    def _renames(self, gone: Iterable[Path], new: Iterable[Path], chart: Mapping[Path, tuple[str, Any]]) -> dict[Path, Path]:
        """Pairs of a key that went and one that came, where nothing else can be meant."""
        pairs: list[tuple[Path, Path]] = []
        taken = set(self.renamed.values())
        for old in gone:
            fact = self.told[old]
            for path in new:
                kind, default = chart[path]
                if path in taken or (kind and not _same_type(fact.type, kind)):
                    continue
                if not _same_value(fact.default, default) and fact.default is not None:
                    continue
                # The same name in a block of another name, or another name in the same block that looks alike.
                moved = old[-1] == path[-1] and len(old) == len(path) > 1 and sum(a != b for a, b in zip(old, path)) == 1
                close = old[:-1] == path[:-1] and difflib.SequenceMatcher(None, old[-1], path[-1]).ratio() >= 0.6
                if moved or close or (old[:-1] == path[:-1] and len(str(fact.default or "")) >= _TELLING):
                    pairs.append((old, path))
        olds, news = [old for old, _path in pairs], [path for _old, path in pairs]
        return {old: path for old, path in pairs if olds.count(old) == 1 and news.count(path) == 1}

    def composition(self, values: Mapping[str, Any] | None) -> None:
        """What the composer and the proof would stumble over today."""
        for text in compose(sample_facts(self.release, values), self.catalog, self.facts["schema"] or None).errors:
            self.note("keys", BREAKS, "composing", "", text)
        for item in self.facts["outside"]:
            self.note("images", BREAKS, f"{item['kind']} {item['what']}", "inside the site", item["problem"], f"Used by {_names(item['where'])}.")

    # -- images ------------------------------------------------------------------------------------------------------

    def images(self) -> None:
        seen = {item["repository"]: item for item in self.facts["images"]}
        known: dict[str, list[Image]] = {}
        for image in self.catalog.images(self.release):
            reference = parse_or_none(image.repository)
            if image.group == "chart" and reference is not None:
                known.setdefault(place(reference), []).append(image)
        build = {place(reference) for name in self.facts["build_images"] if (reference := parse_or_none(name))}
        for repository, images in sorted(known.items()):
            if repository not in seen and repository not in build:
                self.note("images", GONE, repository, ", ".join(image.tag or "tag open" for image in images), "in no rendered pod", images[0].condition or "")
                if not images[0].condition:
                    self.overlay.remove("images", images[0].repository)
        for repository, item in sorted(seen.items()):
            if repository in known:
                self._known_image(known[repository], item)
            else:
                self._new_image(repository, item)

    def _chosen(self, item: Mapping[str, Any], role: str, told: str | None) -> str | None:
        """The key that moves a part of an image; what the catalog says stays when it was seen to work."""
        paths = [tuple(path) for path in item["keys"].get(role, ())]
        keys = [dotted(path) for path in sorted(paths, key=lambda path: (-len(path), path))]
        return told if told in keys else keys[0] if keys else None

    def _known_image(self, images: list[Image], item: Mapping[str, Any]) -> None:
        image = images[0]
        told = image.values_keys
        keys = {role: self._chosen(item, role, getattr(told, role) if told else None) for role in ("registry", "org", "repository", "tag")}
        moved = False
        if not item["keys"]:
            self.note("images", DIFFERS, image.repository, ", ".join(told.names()) if told else "no key known", "no key moves it", "A post-renderer is needed.")
        for role, key in keys.items():
            before = getattr(told, role) if told else None
            if not item["keys"] or before == key:
                continue
            moved = True
            if before is None:
                self.note("images", OPEN, f"{image.repository}: key of {role}", "not known", key)
            elif key is None:
                self.note("images", DIFFERS, f"{image.repository}: key of {role}", before, "has no effect")
            else:
                self.note("images", DIFFERS, f"{image.repository}: key of {role}", before, key)
                if not self._in_chart(parse_path(before)):
                    self.renamed[parse_path(before)] = parse_path(key)
        tags = [tag for tag in item["tags"] if tag]
        told_tags = {entry.tag for entry in images if entry.tag}
        changed_tag = bool(tags) and not set(tags) & told_tags
        if changed_tag:
            self.note("images", DIFFERS if told_tags else OPEN, f"{image.repository}: tag", ", ".join(sorted(told_tags)) or "open", ", ".join(tags))
        if moved or changed_tag:
            row = plain(image)
            row.pop("reference", None)
            row["tag"] = tags[0] if changed_tag else image.tag
            row["values_keys"] = {**keys, "certainty": OBSERVED} if item["keys"] else row["values_keys"]
            self.overlay.set("images", image.repository, row)

    def _new_image(self, repository: str, item: Mapping[str, Any]) -> None:
        keys = {role: self._chosen(item, role, None) for role in ("registry", "org", "repository", "tag")}
        by = ", ".join(f"{role} by {key}" for role, key in keys.items() if key) or "no key moves it"
        self.note("images", NEW, repository, "unknown", f"{', '.join(item['tags']) or 'no tag'}; {by}", f"Used by {_names(item['used_by'])}.")
        vendors = repository.startswith("cciserver.azurecr.io/")
        self.overlay.set(
            "images",
            repository,
            {
                "name": repository.rpartition("/")[2],
                "repository": repository,
                "tag": next(iter(item["tags"]), "") or None,
                "owner": "circleci" if vendors else "third_party",
                "group": "chart",
                "pulled_by": "cluster",
                "role": "service",
                "services": [],
                "condition": None,
                "values_keys": {**keys, "certainty": OBSERVED} if item["keys"] else None,
            },
        )

    # -- workloads ---------------------------------------------------------------------------------------------------

    def workloads(self) -> None:
        chart = {item["name"]: item for item in self.facts["workloads"]}
        services = {service.name: service for service in self.catalog.services(self.release)}
        known = {work.name: service for service in services.values() for work in service.workloads}
        owners = {image.name: image.services for image in self.catalog.images(self.release) if image.group == "chart"}
        changed: dict[str, list[dict[str, Any]]] = {}

        def rows_of(service: Service) -> list[dict[str, Any]]:
            return changed.setdefault(service.name, [plain(work) for work in service.workloads])

        for name, service in known.items():
            work = next(item for item in service.workloads if item.name == name)
            if name not in chart:
                note = f"Optional: {service.needs or 'see its row'}." if service.optional else ""
                self.note("workloads", GONE, name, f"{work.kind} of {service.name}", "not rendered", note)
                if not service.optional:
                    changed[service.name] = [row for row in rows_of(service) if row["name"] != name]
                continue
            seen = chart[name]
            if work.kind != "unknown" and _KINDS.get(work.kind) != seen["kind"]:
                self.note("workloads", DIFFERS, f"{name}: kind", work.kind, seen["kind"])
            missing = set(work.containers) - {*seen["containers"], *seen["init_containers"]}
            if missing:
                self.note("workloads", DIFFERS, f"{name}: containers", ", ".join(work.containers), ", ".join([*seen["containers"], *seen["init_containers"]]))
            if work.certainty != "documented" or missing or (work.kind != "unknown" and _KINDS.get(work.kind) != seen["kind"]):
                changed[service.name] = [self._workload(seen) if row["name"] == name else row for row in rows_of(service)]
            layer = seen["labels"].get("layer")
            if layer and service.layer and layer != service.layer:
                self.note("workloads", DIFFERS, f"{name}: label layer", service.layer, layer)
        for name, seen in chart.items():
            if name in known:
                continue
            images = {image.rpartition("/")[2].partition(":")[0] for image in seen["images"]}
            owner = next((services[one] for image in sorted(images) for one in owners.get(image, ()) if one in services), services.get(name))
            counted = f"Counted to {owner.name}." if owner else ""
            self.note("workloads", NEW, name, "unknown", f"{seen['kind']}, containers {', '.join(seen['containers'])}", counted)
            if owner is not None:
                rows_of(owner).append(self._workload(seen))
            else:
                self._new_service(name, seen)
        for name, rows in changed.items():
            self.overlay.set("services", name, {**plain(services[name]), "workloads": rows})

    @staticmethod
    def _workload(seen: Mapping[str, Any]) -> dict[str, Any]:
        kind = {text: word for word, text in _KINDS.items()}.get(seen["kind"], "unknown")
        return {"name": seen["name"], "kind": kind, "certainty": OBSERVED, "containers": [*seen["containers"], *seen["init_containers"]]}

    def _new_service(self, name: str, seen: Mapping[str, Any]) -> None:
        minor = minor_of(self.release)
        self.overlay.set(
            "services",
            name,
            {
                "name": name, "aka": [], "component": None, "description": "Seen in the chart; no page of the vendor describes it.", "failure_impact": None,
                "first": minor, "last": minor, "in_seed": False, "in_overview": False, "workloads": [self._workload(seen)], "values_prefixes": [],
                # Whether every site has it is not known, so that its absence is no failure.
                "layer": seen["labels"].get("layer"), "optional": True, "needs": None,
            },
        )  # fmt: skip

    # -- Services and ports ------------------------------------------------------------------------------------------

    def services(self) -> None:
        chart = {item["name"]: item for item in self.facts["services"]}
        known: set[tuple[str, str, str]] = set()
        for row in self.catalog.internal_ports(self.release):
            known.add((row.kubernetes_service, row.port, row.protocol))
            what = f"{row.kubernetes_service}:{row.port}/{row.protocol}"
            seen = chart.get(row.kubernetes_service)
            ports = {(port["port"], port["protocol"]) for port in seen["ports"]} if seen else set()
            if (row.port, row.protocol) in ports:
                continue
            said = ", ".join(f"{port}/{protocol}" for port, protocol in sorted(ports)) if seen else "no such Service"
            self.note("services", DIFFERS if seen else GONE, what, row.purpose, said, row.condition or "It may be a port of the pod only." if seen else "")
            if row.condition is None and not seen:
                self.overlay.remove("internal_ports", what)
        exposed = self._exposed()
        for name, seen in sorted(chart.items()):
            for port in seen["ports"]:
                number, protocol = port["port"], port["protocol"]
                if seen["type"] != "ClusterIP" and (number, protocol) not in exposed:
                    note = "No port rule opens it: see docs/how-to/firewall.md."
                    self.note("services", DIFFERS, f"{name}:{number}/{protocol}: exposed", "not exposed", seen["type"], note)
                if (name, number, protocol) in known:
                    continue
                what = f"{name}:{number}/{protocol}"
                self.note("services", NEW, what, "not listed", f"{seen['type']} {port['name']}".strip())
                self.overlay.set(
                    "internal_ports",
                    what,
                    {
                        "service": self._owner(name, seen["app"]), "kubernetes_service": name, "port": number, "protocol": protocol,
                        "name": port["name"] or None, "purpose": "Seen in the chart.", "condition": None,
                    },
                )  # fmt: skip

    def _exposed(self) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for rule in self.catalog.ports(self.release):
            if rule.group == "load_balancer" and rule.direction == "ingress":
                found |= {(str(port), str(protocol).lower()) for port in rule.ports for protocol in rule.protocols}
        return found

    def _owner(self, name: str, app: str) -> str:
        for service in self.catalog.services(self.release):
            if {name, app} & {service.name, *service.aka, *(work.name for work in service.workloads)}:
                return service.name
        return name

    # -- Secrets -----------------------------------------------------------------------------------------------------

    def secrets(self) -> None:
        known = {name: secret for secret in self.catalog.secrets(self.release) for name in (secret.name, *secret.aliases)}
        seen_names = set()
        for item in self.facts["secrets"]:
            secret = known.get(item["name"])
            seen_names.add(item["name"])
            if secret is None:
                self._new_secret(item)
                continue
            missing = sorted(set(item["keys"]) - {key.name for key in secret.keys})
            if missing:
                level = BREAKS if not item["made"] and item["with_site_values"] else DIFFERS
                told = ", ".join(key.name for key in secret.keys)
                self.note("secrets", level, f"{item['name']}: keys", told, ", ".join(item["keys"]), f"Used by {_names(item['used_by'])}.")
                row = plain(secret)
                row["keys"] = [*row["keys"], *({"name": key, "required": True, "length": None, "alphabet": None, "form": None} for key in missing)]
                self.overlay.set("secrets", secret.name, row)
        for secret in self.catalog.secrets(self.release):
            if not {secret.name, *secret.aliases} & seen_names:
                self.note("secrets", GONE, secret.name, f"made by {secret.made_by}", "named by no rendered pod", secret.condition or "")

    def _new_secret(self, item: Mapping[str, Any]) -> None:
        used = f"Used by {_names(item['used_by'])}." if item["used_by"] else ""
        if item["made"]:
            self.note("secrets", NEW, item["name"], "unknown", f"made by the chart, keys {', '.join(item['keys'])}", used)
        else:
            level = BREAKS if item["with_site_values"] else NEW
            self.note("secrets", level, item["name"], "unknown", f"the operator must bring it, keys {', '.join(item['keys']) or 'not named'}", used)
        self.overlay.set(
            "secrets",
            item["name"],
            {
                "name": item["name"], "aliases": [], "name_is_free": False, "type": "Opaque",
                "keys": [{"name": key, "required": True, "length": None, "alphabet": None, "form": None} for key in item["keys"]],
                "made_by": "chart" if item["made"] else "operator", "helm_metadata": item["made"], "labels": {}, "annotations": {},
                "values_keys": [], "name_values_keys": [], "condition": None if item["with_site_values"] else "not with the values of this collection",
            },
        )  # fmt: skip


def _names(names: Iterable[str], most: int = 3) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 200 else text[:200] + "…"


def _leaves(values: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    if isinstance(values, Mapping) and (values or not path) and not (len(path) > 1 and path[-1] in FREE_NAMES):
        return [leaf for key, item in values.items() for leaf in _leaves(item, (*path, str(key)))]
    return [(path, values)]


def _value_type(value: Any) -> str:
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float"), (str, "string"), (list, "list"), (Mapping, "object")):
        if isinstance(value, kind):
            return name
    return ""


def _schema_type(part: Any) -> str:
    """The one type that a schema wants beside null; empty when it leaves a choice."""
    kinds = part.get("type") if isinstance(part, Mapping) else None
    listed = [kinds] if isinstance(kinds, str) else list(kinds or ())
    names = {_TYPES[kind] for kind in listed if kind in _TYPES}
    return names.pop() if len(names) == 1 else ""


def _same_type(catalog: str, chart: str) -> bool:
    # 1 and 1.0 are one thing to a template, and quantities are documented as numbers here and there.
    return catalog == chart or "any" in (catalog, chart) or {catalog, chart} in ({"int", "float"},)


def _same_value(left: Any, right: Any) -> bool:
    if left == right:
        return True
    if left in (None, "", [], {}) and right in (None, "", [], {}):
        return True
    return not isinstance(left, (Mapping, list)) and not isinstance(right, (Mapping, list)) and _shown(left) == _shown(right)
