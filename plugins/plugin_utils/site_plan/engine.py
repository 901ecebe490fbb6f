# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sections of the change-request document, in the shape that module_utils/report/plan_document.py renders."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ...module_utils import cloud, cloud_firewall
from ...module_utils.preflight.findings import PROBLEM, WARNING, Finding, apply_waivers
from .. import cloud_request
from ..bundle_contents import VENDOR_REGISTRY, bundle_contents
from ..catalog import Catalog
from ..catalog.versions import minor_of
from ..object_storage import KEEP_DATA, unproven
from ..port_model import PortModel, Problem, SiteHost, by_hand, rule_table
from ..site_names import SiteName, site_names
from ..values import compose_data, site_facts
from ..values.secret_plan import foreseen, secret_plan, secrets_in_values
from .ownership import CONTROLLER, Ownership, Thing, filled

GROUPS = {
    "circleci_sites": "control host",
    "circleci_registry": "private registry",
    "circleci_object_storage": "object storage",
    "circleci_cluster_nodes": "Kubernetes node",
    "circleci_nomad_clients": "Nomad client",
    "circleci_nomad_servers": "Nomad server",
    "circleci_runners_linux": "runner on Linux",
    "circleci_runners_macos": "runner on macOS",
    "circleci_runners_windows": "runner on Windows",
}
GATE_WHO = {
    "dns": "whoever keeps the DNS zone",
    "oauth_application": "an administrator of GitHub Enterprise",
    "first_administrator": "the first administrator of CircleCI Server",
    "personal_token": "the first administrator of CircleCI Server",
    "organization_namespace": "an administrator of the organization",
    "runner_tokens": "an administrator of the organization",
}
RUNNER_PROGRAM = "machine-runner-linux-amd64"
UNKNOWN = "unknown until the bundle is made"
SHOWN_HOSTS = 3
_GIB = 1024**3
_WORKLOADS = {"deployment": "Deployment", "statefulset": "StatefulSet", "job": "Job"}
_IN_EVERY_CHART = (None, "mongodb.internal", "postgresql.internal", "rabbitmq.internal", "nomad.server.internal")
"""Conditions of images that hold when the values are those of this collection."""
_PACKAGES = {"packages": "archive of the distribution"}
_LEVELS = {PROBLEM: 0, WARNING: 1, "waived": 2}


@dataclass(frozen=True)
class Request:
    """Everything that the inventory says about one site. ``facts`` has the shape of SiteFacts; no secret is in it."""

    site: str
    facts: Mapping[str, Any]
    model: PortModel
    port_problems: Sequence[Problem] = ()
    storage_class: str = ""
    gateway_in_cluster: bool = False
    gateway_address: str = ""
    firewall: str = "managed"
    state_dir: str = "/var/lib/onprem-circleci"
    plan_dir: str = ""
    bundle_dir: str = ""
    accepted_risks: Sequence[str] = ()
    extra_images: Sequence[str] = ()
    gates: Sequence[Mapping[str, Any]] = ()
    gates_passed: Sequence[str] = ()
    waivers: Sequence[Mapping[str, Any]] = ()
    findings: Sequence[Mapping[str, Any]] = ()
    bundle: Mapping[str, Any] = field(default_factory=dict)
    explain: str = ""
    cloud: Mapping[str, Any] = field(default_factory=dict)
    """Site variables by name that say what is asked of the cloud beside its firewall."""

    @property
    def release(self) -> str:
        return str(self.facts["release"])

    @property
    def store(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.facts["object_storage"]
        return found

    @property
    def load_balancer(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.facts["load_balancer"]
        return found

    def hosts(self, *groups: str) -> tuple[SiteHost, ...]:
        """Hosts of the site that are in one of the groups."""
        return self.model.inventory.members(*groups)

    @property
    def own_store(self) -> bool:
        """Whether the site runs its object store itself."""
        return self.gateway_in_cluster or bool(self.hosts("circleci_object_storage"))

    @property
    def texts(self) -> dict[str, str]:
        """Facts for the table of ownership."""
        return {
            "bundle_dir": self.bundle_dir,
            "escrow": "circleci_secrets_store_path",
            "load_balancer_address": str(self.load_balancer.get("address") or ""),
            "gateway_address": self.gateway_address or "that the platform gives",
            "gateway_namespace": f"{self.facts['namespace']}-object-storage",
            "namespace": str(self.facts["namespace"]),
            "plan_dir": self.plan_dir or f"{self.state_dir}/plan",
            "rancher": "{k3s,rke2}",
            "registry": str(self.facts["registry"]["host"]),
            "release": self.release,
            "release_name": str(self.facts["release_name"]),
            "state_dir": self.state_dir,
        }


def plan_site(request: Request, catalog: Catalog, ownership: Ownership) -> dict[str, Any]:
    """``plan`` for the module site_plan, and the rules as CSV for a network team."""
    rules = _rules(request)
    things = _Things(request, ownership, {row["host"] for row in rules if row["state"] == "apply"})
    contents = bundle_contents(
        catalog,
        request.release,
        load_balancer=str(request.load_balancer.get("kind") or ""),
        storage_class=request.storage_class,
        object_storage_kind=str(request.store.get("kind") or ""),
        object_storage_placement="cluster" if request.gateway_in_cluster else "hosts",
    )
    composed = _compose(request, catalog)
    plan = {
        "site": request.site,
        "release": request.release,
        "platform": str(request.facts["platform"]),
        "domain": str(request.facts["domain"]),
        "summary": _summary(request, catalog),
        "findings": _findings(request, catalog, composed),
        "irreversible": _irreversible(request, catalog),
        "gates": _gates(request),
        "hosts": _hosts(request, catalog),
        "ports": _ports(request, rules),
        "by_hand": by_hand(request.model),
        "dns": _dns(request),
        "packages": things.packages(),
        "files": things.files(),
        "services": things.units(),
        "kubernetes": _kubernetes(request, catalog, things),
        "buckets": _buckets(request),
        "values": _values(composed),
        "secrets_in_values": secrets_in_values(dict(request.facts), catalog),
        "downloads": _downloads(request, catalog, contents),
        "sizes": _sizes(request, catalog),
        "waivers": [{"name": str(item.get("name")), "reason": str(item.get("reason"))} for item in request.waivers],
    }
    return {"plan": plan, "ports_csv": rule_table(request.model, "csv"), "explained": _explained(composed, request.explain), **_cloud_tables(request, catalog)}


def _cloud_tables(request: Request, catalog: Catalog) -> dict[str, str]:
    """The rules as a cloud holds them and what else is asked of it, empty where the platform is none. Its limits are the business of whoever sets them."""
    provider = cloud.PROVIDERS.get(str(request.facts["platform"]))
    if provider is None:
        return {f"{name}_{form}": "" for name in ("cloud", "cloud_requests") for form in ("csv", "markdown")}
    groups = cloud_firewall.constructs(provider, request.site, [rule.as_dict() for rule in request.model.rules], limited=False)
    rows = cloud_request.requests(catalog, request.cloud, _site_names(request))
    tables = {f"cloud_{form}": cloud_firewall.table(provider, groups, form) for form in ("csv", "markdown")}
    return {**tables, **{f"cloud_requests_{form}": cloud_request.table(rows, form) for form in ("csv", "markdown")}}


# --- what the table of ownership says about this site ---------------------------------------------------------------


class _Things:
    """The table of ownership, filled with the facts of a site."""

    def __init__(self, request: Request, ownership: Ownership, filtered: set[str]) -> None:
        self.request = request
        self.ownership = ownership
        self.filtered = filtered
        kind = str(request.store.get("kind") or "")
        self.holds = {
            "own_registry": bool(request.hosts("circleci_registry")),
            "versitygw": kind.startswith("versitygw"),
            "minio": kind.startswith("minio"),
            "store_keeps_data": kind in KEEP_DATA,
            "store_tls": str(request.store.get("endpoint") or "").startswith("https:"),
            "served_agents": bool(request.store.get("agent_base_url")),
            "gateway_in_cluster": request.gateway_in_cluster,
            "gateway_tls": request.gateway_in_cluster and str(request.store.get("endpoint") or "").startswith("https:"),
            "metallb": request.load_balancer.get("kind") == "metallb",
            "rancher": request.facts["platform"] == "rancher",
            "containerd": request.facts["platform"] != "rancher",
            "local_path": request.storage_class == "local_path",
            # The document is about an install.
            "later": False,
        }

    def applies(self, when: str, host: str = "") -> bool:
        """Whether a condition holds, for a host where it is about one."""
        if when == "packet_filter":
            return host in self.filtered
        return not when or self.holds[when]

    def _where(self, thing: Thing) -> str:
        if thing.hosts == (CONTROLLER,):
            return "where ansible-playbook runs" if self.applies(thing.when) else ""
        return _named(self.request, [host.name for host in self.request.hosts(*thing.hosts) if self.applies(thing.when, host.name)])

    def _rows(self, *kinds: str) -> Iterable[tuple[Thing, str, str]]:
        for thing in self.ownership.hosts:
            where = self._where(thing) if thing.kind in kinds else ""
            if where:
                yield thing, filled(thing.name, self.request.texts), where

    def files(self) -> list[dict[str, Any]]:
        """Files, folders, programs, links and users."""
        action = {"file": "written", "folder": "made", "program": "installed", "link": "made", "user": "made"}
        return [
            {
                "path": name,
                "host": where,
                "action": f"{thing.kind} {action[thing.kind]}" + (", holds a secret" if thing.secret else ""),
                "owner": thing.role,
                "why": thing.why,
            }
            for thing, name, where in self._rows(*action)
        ]

    def packages(self) -> list[dict[str, Any]]:
        """Packages; their versions are those of the bundle."""
        return [{"name": name, "host": where, "source": "the bundle", "why": thing.why} for thing, name, where in self._rows("package")]

    def units(self) -> list[dict[str, Any]]:
        """systemd units."""
        return [{"name": name, "host": where, "action": "enabled and started", "why": thing.why} for thing, name, where in self._rows("unit")]

    def cluster(self) -> list[dict[str, Any]]:
        """Objects in Kubernetes that a role of ours makes."""
        texts = self.request.texts
        return [
            {
                "kind": item.kind,
                "name": filled(item.name, texts),
                "namespace": filled(item.namespace, texts),
                "action": f"made by {'the verb secrets' if item.role == 'secrets' else 'the role ' + item.role}",
                "why": filled(item.why, texts),
            }
            for item in self.ownership.cluster
            if self.applies(item.when)
        ]


# --- sections -------------------------------------------------------------------------------------------------------


def _summary(request: Request, catalog: Catalog) -> str:
    release = catalog.release(request.release)
    end = f", supported by its vendor until {release.support_end.value}" if release.support_end.value else ""
    count = len(request.model.inventory.hosts)
    compared = catalog.comparison(request.release)
    return (
        f"CircleCI Server {request.release}{end}, is installed into an existing Kubernetes cluster and onto {count} host{'s' if count != 1 else ''} "
        "of this site. The document is worked out from the inventory and the catalog of the collection; no host and no cluster was asked. "
        "What hosts and cluster really look like is what the verb preflight says. "
        + (compared["detail"] if compared["compared"] else f"The catalog was not compared with the vendor's chart: {compared['detail']}.")
    )


def _named(request: Request, names: Sequence[str]) -> str:
    """Hosts by name while they are few, else by what they are."""
    if len(names) > SHOWN_HOSTS:
        for group, title in GROUPS.items():
            if {host.name for host in request.hosts(group)} == set(names):
                return f"all {len(names)} {title}s"
    return ", ".join(names)


def _rules(request: Request) -> list[dict[str, Any]]:
    """Every rule of every host, with what becomes of it."""
    rows: list[dict[str, Any]] = rule_table(request.model, "rows")
    if request.firewall == "reported":
        told = "told only: circleci_firewall is reported, whoever owns the packet filters sets it"
        return [{**row, "state": told if row["state"] == "apply" else row["state"]} for row in rows]
    return rows


def _ports(request: Request, rules: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rules that are the same on several hosts as one row; ports.csv has them one by one."""
    hosts: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    for row in rules:
        hosts.setdefault(tuple((key, value) for key, value in row.items() if key != "host"), []).append(row["host"])
    rows = [{"host": _named(request, names), **dict(row)} for row, names in hosts.items()]
    return sorted(rows, key=lambda row: 0 if row["state"] == "apply" else 1 if "network team" in row["state"] else 2)


def _hosts(request: Request, catalog: Catalog) -> list[dict[str, Any]]:
    waived = any(item.get("name") == "cgroup_version" for item in request.waivers)
    old_cgroup = "v1" in str(catalog.release(request.release).cgroup.value or "") and not waived
    rows = []
    for host in request.model.inventory.hosts:
        reboot = old_cgroup and "circleci_nomad_clients" in host.groups
        rows.append(
            {
                "name": host.name,
                "addresses": list(host.addresses),
                "roles": [title for group, title in GROUPS.items() if group in host.groups],
                "reboot": "when it runs cgroup v2" if reboot else False,
                "reboot_reason": "jobs need cgroup v1: kernel argument systemd.unified_cgroup_hierarchy=0; install never reboots a host itself"
                if reboot
                else "",
            }
        )
    return rows


def _site_names(request: Request) -> list[SiteName]:
    def addresses(group: str) -> list[str]:
        return [text for host in request.hosts(group) for text in host.addresses]

    return site_names(request.facts, addresses, request.gateway_in_cluster, request.gateway_address)


def _dns(request: Request) -> list[dict[str, Any]]:
    return [{"name": item.name, "type": item.type, "value": ", ".join(item.values) or item.unknown, "why": item.why} for item in _site_names(request)]


def _gates(request: Request) -> list[dict[str, Any]]:
    return [
        {
            "name": str(gate["name"]),
            "text": str(gate["sentence"]) + ("" if str(gate["name"]) not in request.gates_passed else " (answered in advance by circleci_gates_passed)"),
            "who": GATE_WHO.get(str(gate["name"]), ""),
        }
        for gate in request.gates
    ]


def _irreversible(request: Request, catalog: Catalog) -> list[dict[str, Any]]:
    rows = [
        {
            "step": "The verb secrets makes keysets and passwords of databases, once",
            "why": "What is stored is encrypted with them; other ones cannot read it.",
            "way_back": f"Keep a copy of the Secrets of namespace {request.facts['namespace']} in escrow.",
        }
    ]
    if request.storage_class == "local_path":
        rows.append(
            {
                "step": "The databases are put on disks of single nodes (local-path)",
                "why": "A volume lives and dies with its node, and cannot move.",
                "way_back": "A backup; or circleci_storage_class: provided with a class that survives a node.",
            }
        )
    before = ", ".join(catalog.release(request.release).upgrade_from.value) or "an older release"
    rows += [
        {
            "step": f"Only when {before} is there already: {step.title}",
            "why": f"{step.action} ({step.condition or 'always'})",
            "way_back": "A restore from the backup that was taken before.",
        }
        for step in catalog.upgrade_steps(request.release)
        if step.irreversible
    ]
    return rows


def _kubernetes(request: Request, catalog: Catalog, things: _Things) -> list[dict[str, Any]]:
    namespace = str(request.facts["namespace"])
    facts, _problems = site_facts(dict(request.facts))
    secrets = secret_plan(
        facts,
        catalog,
        own_registry=bool(request.hosts("circleci_registry")),
        own_object_storage=request.own_store and str(request.store.get("endpoint") or "").startswith("https:"),
    )["secrets"]
    rows = things.cluster()
    rows += [
        {"kind": "Secret", "name": item["name"], "namespace": namespace, "action": "made once by the verb secrets", "why": item["purpose"]}
        for item in secrets
    ]
    rows += [
        {"kind": _WORKLOADS.get(work.kind, "workload"), "name": work.name, "namespace": namespace, "action": "made by the chart", "why": service.description}
        for service in catalog.services(request.release)
        if not service.optional
        for work in service.workloads
    ]
    return rows


def _buckets(request: Request) -> list[dict[str, Any]]:
    agents = {"name": str(request.store.get("agent_bucket") or ""), "action": "made, read by everybody who reaches the store", "why": "agents that jobs load"}
    return [
        {
            "name": str(request.store.get("bucket") or ""),
            "action": "made, read and written with the keys of the site",
            "why": "artifacts, caches, workspaces, logs",
        },
        # Where hosts serve the agents themselves, their files are among those of the hosts.
        *([] if request.store.get("agent_base_url") else [agents]),
    ]


def _compose(request: Request, catalog: Catalog) -> dict[str, Any]:
    # The verb secrets makes what is secret before values are composed for good; here it is only shown where it comes from.
    return compose_data(foreseen(dict(request.facts)), catalog)


def _values(composed: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "key": str(item["key"]),
            "value": _shown(item["value"]),
            "rule": str(item["rule"]),
            "source": f"{item['source']} ({item['certainty']})",
        }
        for item in composed["explanations"]
    ]


def _explained(composed: Mapping[str, Any], asked: str) -> list[str]:
    """What set the values whose key has the text in it, for the screen."""
    lines: list[str] = []
    for item in composed["explanations"] if asked else ():
        if asked != "all" and asked not in item["key"]:
            continue
        lines.append(f"{item['key']}: {_shown(item['value'])}")
        lines.append(f"    set by the rule {item['rule']}, from {item['source']} ({item['certainty']})" + (f". {item['note']}" if item["note"] else ""))
    if asked and not lines:
        lines.append(f"No Helm value of this site has {asked!r} in its key; circleci_explain: all shows every value.")
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if value == "":
        return '""'
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(item) for item in value) or "[]"
    return str(value)


def _downloads(request: Request, catalog: Catalog, contents: Mapping[str, Any]) -> list[dict[str, Any]]:
    items = request.bundle.get("items") or []
    if items:
        # The bundle is there: this is what crosses the gap, no more and no less.
        origins = {f"onprem/files/{item['name']}": item["url"].split("/")[2] for item in contents["files"]}
        return [
            {
                "what": item["target"],
                "from": item["source"] or origins.get(item["target"].partition(":")[0], "") or _PACKAGES.get(item["kind"], "the connected side"),
                "size": "unknown, a part is missing" if item["bytes"] is None else item["bytes"],
                "why": item["why"],
            }
            for item in items
        ]
    rows = [{"what": contents["chart"], "from": VENDOR_REGISTRY, "size": UNKNOWN, "why": "chart of the release; it names the exact images"}]
    listed = {image["ref"]: image["why"] for image in contents["images"]}
    for image in catalog.images(request.release):
        if image.group == "chart" and image.condition in _IN_EVERY_CHART:
            listed.setdefault(image.reference or f"{image.repository} (tag as the chart says)", image.role)
    listed.update(dict.fromkeys(request.extra_images, "asked for by circleci_extra_images"))
    rows += [{"what": ref, "from": _registry_of(ref), "size": UNKNOWN, "why": why} for ref, why in listed.items()]
    rows += [
        {"what": f"{item['name']} {item['version']}".strip(), "from": item["url"].split("/")[2], "size": UNKNOWN, "why": item["why"]}
        for item in contents["files"]
    ]
    rows += [
        {
            "what": f"packages {', '.join(wanted['names'])} and what they depend on",
            "from": f"archive of {wanted['target']}",
            "size": UNKNOWN,
            "why": "container engine, registry and packet filter of the hosts",
        }
        for wanted in _bundled_packages()
    ]
    return rows


def _registry_of(ref: str) -> str:
    first, slash, _rest = ref.partition("/")
    return first if slash and ("." in first or ":" in first) else "docker.io"


def _bundled_packages() -> list[dict[str, Any]]:
    path = Path(__file__).resolve().parents[3] / "roles/bundle/defaults/main.yml"
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["circleci_bundle_packages"]
    return found


def _sizes(request: Request, catalog: Catalog) -> list[dict[str, Any]]:
    total = request.bundle.get("bytes_total")
    control = ", ".join(host.name for host in request.hosts("circleci_sites"))
    rows: list[dict[str, Any]] = []
    if request.bundle_dir:
        rows.append({"what": f"bundle in {request.bundle_dir}", "host": control, "size": total or UNKNOWN})
    registry = ", ".join(host.name for host in request.hosts("circleci_registry")) or f"{request.facts['registry']['host']} (not ours)"
    rows.append({"what": "private registry: images, chart, programs, packages", "host": registry, "size": total or UNKNOWN})
    smallest = catalog.sizing(request.release)[0]
    rows.append(
        {
            "what": f"cluster, {smallest.users} users a day",
            "host": "Kubernetes",
            "size": f"{smallest.nodes} nodes, together {smallest.cpu} CPUs and {smallest.memory_gb} GB of memory",
        }
    )
    rows += [{"what": f"volume {name}", "host": "Kubernetes", "size": size} for name, size in _volumes(request, catalog)]
    advice = next((item for item in catalog.requirements(request.release) if item.id == "nomad_client_size"), None)
    if advice is not None and request.hosts("circleci_nomad_clients"):
        rows.append({"what": "disk, memory and CPUs for jobs", "host": "each Nomad client", "size": f"{advice.value} (vendor)"})
    if str(request.store.get("kind")) in KEEP_DATA:
        store = ", ".join(host.name for host in request.hosts("circleci_object_storage"))
        rows.append({"what": "artifacts, caches, workspaces and logs", "host": store or "object storage", "size": "grows with the jobs"})
    return rows


def _volumes(request: Request, catalog: Catalog) -> Iterable[tuple[str, Any]]:
    overlay = request.facts.get("overlay") or {}
    for key in catalog.values_keys(request.release):
        if not key.key.endswith(".persistence.size") or not key.default:
            continue
        value: Any = overlay
        for part in key.key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        yield key.key.removesuffix(".persistence.size"), _bytes(str(value or key.default))


def _bytes(quantity: str) -> Any:
    number = quantity.removesuffix("Gi")
    return int(number) * _GIB if number != quantity and number.isdigit() else quantity


# --- findings -------------------------------------------------------------------------------------------------------


def _findings(request: Request, catalog: Catalog, composed: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [*_given(request.findings), *_of_ports(request), *_of_site(request), *_of_vendor(request, catalog)]
    found += [Finding("values", PROBLEM, "Helm values", text, "values that can be composed", "values composer") for text in composed["errors"]]
    found += [Finding("values", WARNING, "Helm values", text, "", "values composer") for text in composed["warnings"]]
    judged = apply_waivers(found, request.waivers)
    return [
        {
            "subject": item.subject,
            "severity": item.level,
            "found": item.found,
            "expected": item.expected,
            "remedy": item.remedy,
            "source": item.source,
        }
        for item in sorted(judged, key=lambda item: _LEVELS.get(item.level, 9))
    ]


def _given(findings: Iterable[Mapping[str, Any]]) -> Iterable[Finding]:
    """What others found. What is only not given yet stands in nobody's way today."""
    for data in findings:
        item = Finding(**{str(name): str(value) for name, value in data.items()})
        yield replace(item, level=WARNING) if item.found == "not set" else item


def _of_ports(request: Request) -> Iterable[Finding]:
    for problem in request.port_problems:
        yield Finding("ports", PROBLEM, problem.field, problem.found, problem.expected, "port model", problem.remedy)


def _of_site(request: Request) -> Iterable[Finding]:
    controls = [host.name for host in request.hosts("circleci_sites")]
    if len(controls) != 1:
        yield Finding(
            "control_host", PROBLEM, "circleci_sites", f"{', '.join(controls) or 'no host'}", "exactly one control host a site", "site model",
            "Put the bastion there, or the hosts of each site into a group site_<name>.",
        )  # fmt: skip
    if not request.hosts("circleci_nomad_clients"):
        yield Finding(
            "nomad_clients", PROBLEM, "circleci_nomad_clients", "no host", "at least one host that runs jobs", "site model",
            "Put hosts into the group circleci_nomad_clients.",
        )  # fmt: skip
    else:
        yield Finding(
            "nomad_clients", WARNING, "circleci_nomad_clients", "Docker is restarted with user namespaces: containers that run there today stop, "
            "and Docker no longer shows their images", "hosts that do nothing else", "role container_engine", "Take hosts of their own for the jobs.",
        )  # fmt: skip
    yield from _of_runners(request)
    address = str(request.load_balancer.get("address") or "")
    if not address:
        brought = request.load_balancer.get("kind") == "metallb"
        yield Finding(
            "load_balancer", PROBLEM if brought else WARNING, "circleci_load_balancer_address", "empty",
            "a free address in the network of the nodes" if brought else "the address that the platform gives to circleci-proxy", "site model",
            "Set circleci_load_balancer_address." if brought else "Set it when the platform has given one; DNS needs it.",
        )  # fmt: skip
    for host in request.model.inventory.hosts:
        for text in host.addresses:
            if address and text == str(ipaddress.ip_address(address)):
                yield Finding(
                    "load_balancer", PROBLEM, "circleci_load_balancer_address", f"{address}, which {host.name} has", "an address that no host has",
                    "site model", "Choose a free address.",
                )  # fmt: skip


def _of_runners(request: Request) -> Iterable[Finding]:
    """Whether the program of the runners crosses the gap; a run would miss it only when all else is done."""
    if not request.hosts("circleci_runners_linux"):
        return
    items = request.bundle.get("items") or []
    if any(str(item["target"]).startswith(f"onprem/files/{RUNNER_PROGRAM}:") for item in items):
        return
    yield Finding(
        "runner_program", PROBLEM if items else WARNING, "circleci_bundle_optional_files",
        f"no {RUNNER_PROGRAM} in the bundle of {request.bundle_dir}" if items else "no bundle yet", "the program of the hosts in circleci_runners_linux",
        "site model", 'Make the bundle with circleci_bundle_optional_files: {machine-runner: ""}.',
    )  # fmt: skip


def _of_vendor(request: Request, catalog: Catalog) -> Iterable[Finding]:
    platform = catalog.platform(str(request.facts["platform"]))
    verdict = platform.verdict(minor_of(request.release))
    if platform.installer_action.value == "refuse":
        yield Finding(
            "platform", PROBLEM, "circleci_platform", f"{platform.id}: {verdict.status}", "a platform on which CircleCI Server works",
            verdict.source, "Use another cluster.",
        )  # fmt: skip
    for fact in (*platform.blockers, *platform.warnings):
        yield Finding("platform", WARNING, f"circleci_platform {platform.id}", fact.value, "to be known before the site is built", fact.source)
    kind = str(request.store.get("kind") or "")
    endpoint = str(request.store.get("endpoint") or "")
    own_certificate = request.own_store and endpoint.startswith("https:")
    yield from (Finding(**item) for item in unproven(kind, endpoint, own_certificate))
    option = next((item for item in catalog.object_storage_options() if kind == item.id or kind in item.aliases), None)
    if option is not None and option.maintained is False:
        accepted = kind in request.accepted_risks
        known = f" with the open vulnerabilities {', '.join(option.security)}" if option.security else ""
        yield Finding(
            "object_storage", WARNING if accepted else PROBLEM, "circleci_object_storage_kind", f"{kind}, which nobody maintains{known}",
            "a maintained object store, or the risk accepted by name", option.source,
            "" if accepted else f"Use a versitygw_* kind, or add {kind} to circleci_object_storage_accepted_risks.",
        )  # fmt: skip
