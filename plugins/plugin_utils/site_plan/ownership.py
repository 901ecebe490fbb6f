# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection puts on hosts and into the cluster, each thing owned by exactly one role: ``ownership.yml`` as data.

This module imports nothing of the collection, so that ``tools/generate.py`` can load it by its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

KINDS = ("file", "folder", "program", "package", "unit", "user", "link")
CONTROLLER = "controller"
CONDITIONS = {
    "packet_filter": "`circleci_firewall: managed`, and the host has rules that its packet filter carries",
    "own_registry": "`circleci_registry` has a host",
    "versitygw": "`circleci_object_storage_kind` is one of `versitygw_*`",
    "minio": "`circleci_object_storage_kind` is one of `minio_*`",
    "store_keeps_data": "`circleci_object_storage_kind` is `versitygw_posix`, `minio_server` or `minio_nas`",
    "store_tls": "`circleci_object_storage_endpoint` begins with `https:`",
    "served_agents": "`circleci_object_storage_agent_port` is set",
    "gateway_in_cluster": "`circleci_object_storage_placement: cluster`",
    "gateway_tls": "the same, and `circleci_object_storage_endpoint` begins with `https:`",
    "metallb": "`circleci_load_balancer: metallb`",
    "containerd": "`circleci_platform` is not `rancher`",
    "rancher": "`circleci_platform: rancher`",
    "local_path": "`circleci_storage_class: local_path`",
    "later": "one of the verbs `upgrade`, `rollback`, `restore_point`, `restart` and `scale` has run; `install` makes none of it",
}
FACTS = (
    "bundle_dir", "escrow", "gateway_address", "gateway_namespace", "load_balancer_address", "namespace", "plan_dir", "rancher", "registry", "release",
    "release_name", "state_dir",
)  # fmt: skip


class OwnershipError(Exception):
    """ownership.yml is not of its shape."""


@dataclass(frozen=True)
class Thing:
    """Something that one role puts on the hosts of some groups."""

    role: str
    hosts: tuple[str, ...]
    kind: str
    name: str
    why: str
    when: str = ""
    secret: bool = False


@dataclass(frozen=True)
class ClusterThing:
    """An object that one role puts into the cluster."""

    role: str
    kind: str
    name: str
    namespace: str
    why: str
    when: str = ""


@dataclass(frozen=True)
class Ownership:
    """The whole table."""

    hosts: tuple[Thing, ...]
    cluster: tuple[ClusterThing, ...]


def load_ownership(path: Path | None = None) -> Ownership:
    """Read the table; everything that is wrong with it comes at once."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = (path or Path(__file__).with_name("ownership.yml")).read_text(encoding="utf-8")
    document = yaml.load(text, Loader=loader)  # noqa: S506 - a safe loader
    things = tuple(Thing(**{**row, "hosts": tuple(row["hosts"])}) for row in document["hosts"])
    cluster = tuple(ClusterThing(**row) for row in document["cluster"])
    problems = [f"{item.name}: unknown kind {item.kind}" for item in things if item.kind not in KINDS]
    known = dict.fromkeys(FACTS, "")
    everything: list[Thing | ClusterThing] = [*things, *cluster]
    for item in everything:
        if item.when and item.when not in CONDITIONS:
            problems.append(f"{item.name}: unknown condition {item.when}")
        try:
            for text in (item.name, item.why, getattr(item, "namespace", "")):
                text.format(**known)
        except (KeyError, IndexError, ValueError) as error:
            problems.append(f"{item.name}: unknown fact {error}")
    owners: dict[tuple[str, str], str] = {}
    for thing in things:
        for group in thing.hosts:
            if owners.setdefault((group, thing.name), thing.role) != thing.role:
                problems.append(f"{thing.name} on {group} belongs to {owners[group, thing.name]} and to {thing.role}")
    if problems:
        raise OwnershipError("; ".join(problems))
    return Ownership(things, cluster)


def filled(text: str, facts: Mapping[str, str]) -> str:
    """A text of the table with the facts of a site."""
    return text.format(**facts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def reference(ownership: Ownership) -> str:
    """docs/reference/ownership.md."""
    lines = [
        "<!-- Generated from plugins/plugin_utils/site_plan/ownership.yml by `make generate`; edit that file. -->",
        "# Who owns what",
        "",
        "Every file, package and unit that the collection puts on a host, and every object that it puts into the cluster, belongs to exactly one role.",
        "Whoever manages the same thing with something else finds here what to leave alone. Paths that an option of a role can move are given with their",
        "default. Names in braces are facts of the site; the verb `plan` fills them in for your inventory. A unit test compares the table with the tasks of",
        "the roles.",
        "",
        "Ports belong to the role `firewall`: [catalog-ports.md](catalog-ports.md) has the rules. Packages bring what they depend on.",
        "",
        "## On hosts",
        "",
    ]
    groups = dict.fromkeys(group for thing in ownership.hosts for group in thing.hosts)
    for group in groups:
        title = "The machine that runs ansible-playbook" if group == CONTROLLER else f"`{group}`"
        lines += [f"### {title}", "", "| what | kind | role | why | only when |", "|---|---|---|---|---|"]
        for thing in ownership.hosts:
            if group in thing.hosts:
                kind = f"{thing.kind}, secret" if thing.secret else thing.kind
                lines.append(f"| `{thing.name}` | {kind} | `{thing.role}` | {_cell(thing.why)} | {CONDITIONS.get(thing.when, '')} |")
        lines.append("")
    lines += ["## In the cluster", "", "| what | kind | namespace | role | why | only when |", "|---|---|---|---|---|---|"]
    for item in ownership.cluster:
        namespace = f"`{item.namespace}`" if item.namespace else ""
        lines.append(f"| `{item.name}` | {item.kind} | {namespace} | `{item.role}` | {_cell(item.why)} | {CONDITIONS.get(item.when, '')} |")
    lines += [
        "",
        "The Secrets of the namespace are made by the verb `secrets` after the plan of the filter `secret_plan`; the workloads are those of the vendor's",
        "chart. The change-request document names each of them for a site.",
    ]
    return "\n".join(lines) + "\n"
