# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The reference pages of the catalog, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .loader import Catalog
from .model import Fact, PortRule, Service
from .versions import minor_of

HEAD = (
    "<!-- SPDX-License-Identifier: GPL-3.0-or-later -->\n"
    "<!-- Made by plugins/plugin_utils/catalog/generate.py from the files in plugins/plugin_utils/catalog/data. -->\n"
)
HOW_SURE = (
    "How sure a fact is: *documented* (printed by the vendor, or read in a public file that the source names), "
    "*constructed* (put together by us from documented parts), *inferred* (our conclusion), *disputed* (sources "
    "contradict each other; the value is our choice), *gap* (nothing is said).\n"
)


def cell(value: Any) -> str:
    """A value as the content of a table's cell."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Fact):
        text = cell(value.value)
        return text if value.certainty == "documented" else f"{text} ({value.certainty})"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(item) for item in value) or "–"
    return str(value).replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;").replace("*", "\\*")


def code(value: str | None) -> str:
    """A name as code."""
    return "–" if not value else "`" + value.replace("|", "\\|") + "`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _name in head) + " |"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def span(minors: Sequence[str], present: Iterable[str]) -> str:
    """``4.0-4.2, 4.5`` of the minors that are present."""
    here = set(present)
    parts: list[str] = []
    start: str | None = None
    for position, minor in enumerate(minors):
        if minor not in here:
            continue
        start = start or minor
        following = minors[position + 1] if position + 1 < len(minors) else None
        if following not in here:
            parts.append(start if start == minor else f"{start}-{minor}")
            start = None
    return ", ".join(parts)


def gather(catalog: Catalog, rows: Callable[[str], Sequence[Any]], key: str) -> dict[str, tuple[Any, str]]:
    """Key → its newest row, and the minors that have it. Ordered as the newest release that has the row."""
    newest: dict[str, Any] = {}
    present: dict[str, set[str]] = {}
    for release in catalog.last_patches():
        for row in rows(release):
            name = str(getattr(row, key))
            newest[name] = row
            present.setdefault(name, set()).add(minor_of(release))
    return {name: (row, span(catalog.minors(), present[name])) for name, row in newest.items()}


def releases_page(catalog: Catalog) -> str:
    """Releases side by side."""
    releases = [catalog.release(version) for version in catalog.last_patches()]
    columns: list[tuple[str, str]] = [
        ("Released", "released"),
        ("End of support", "support_end"),
        ("Nomad server", "nomad_server"),
        ("Nomad client", "nomad_client"),
        ("Docker on clients", "docker"),
        ("MongoDB", "mongodb"),
        ("PostgreSQL", "postgresql"),
        ("RabbitMQ", "rabbitmq"),
        ("Redis", "redis"),
        ("Pull secrets", "image_pull_secrets_form"),
    ]
    text = HEAD + "# Releases\n\nOne column of facts for each minor, at its last documented patch.\n" + HOW_SURE + "\n"
    text += table(
        ["Release", "Kubernetes", "Upgrade from", *(name for name, _field in columns)],
        [
            [
                cell(release.version),
                cell(str(release.kubernetes)),
                cell(release.upgrade_from),
                *(cell(getattr(release, field)) for _name, field in columns),
            ]
            for release in releases
        ],
    )
    text += "\n## How far this collection goes\n\n"
    words = {
        "full": "in full: roles, values and upgrades are made for it",
        "data_only": "past the vendor's support; values are composed from data, with a warning",
        "unreliable": "as data only, and the vendor's own tables of it are copies of its neighbours'",
    }
    text += table(["Release", "Support by this collection"], [[r.version, words[r.composition]] for r in releases])
    text += "\n## Patches that must not be used, or have a remark\n\n"
    text += table(
        ["Patch", "Status", "Reason", "Source"],
        [
            [patch.version, patch.status.replace("_", " "), cell(patch.reason), cell(patch.source)]
            for release in releases
            for patch in release.patches
            if patch.reason
        ],
    )
    text += "\n## Kubernetes versions that two releases share\n\nUpgrade Kubernetes between Helm upgrades.\n\n"
    steps = [(old, release.version) for release in releases for old in release.upgrade_from.value]
    text += table(
        ["From", "To", "Both allow"],
        [[old, new, cell(str(catalog.kubernetes_overlap(old, new) or "none"))] for old, new in steps],
    )
    text += "\n## Facts in dispute\n\n"
    text += table(
        ["Release", "Fact", "Taken value", "Why it is disputed", "Source"],
        [
            [release.version, code(name), cell(fact.value), cell(fact.note), cell(fact.source)]
            for release in releases
            for name, fact in release.facts().items()
            if fact.certainty == "disputed"
        ],
    )
    return text


def ports_page(catalog: Catalog) -> str:
    """Port rules by host group."""
    text = HEAD + "# Ports\n\n" + HOW_SURE
    text += (
        "\nRules are stateful and seen from one host group. *Releases* says which minors have the rule. A word in place "
        "of a port is chosen by the site.\n"
    )
    rules = gather(catalog, catalog.ports, "id")
    for group in catalog.host_groups():
        text += f"\n## {group.name}\n\n"
        if group.inventory_groups:
            text += "Inventory: " + ", ".join(code(name) for name in group.inventory_groups) + ".\n\n"
        if group.note:
            text += cell(group.note) + "\n\n"
        text += table(
            ["Rule", "Direction", "Ports", "Peer", "Releases", "When", "Status", "Purpose", "How sure"],
            [_port_row(rule, releases) for rule, releases in rules.values() if rule.group == group.id],
        )
    text += "\n## Conditions\n\n"
    text += table(["Name", "Meaning"], [[code(name), cell(text_)] for name, text_ in catalog.port_conditions().items()])
    text += "\n## Ports chosen by the site\n\n"
    text += table(
        ["Name", "Usual port", "Source"],
        [[code(name), cell(entry["default"]), cell(entry["source"])] for name, entry in catalog.named_ports().items()],
    )
    text += "\n## Between pods\n\nNothing for a host's firewall.\n\n"
    seen: dict[tuple[str, str, str, str], list[str]] = {}
    newest: dict[tuple[str, str, str, str], Any] = {}
    for release in catalog.last_patches():
        for port in catalog.internal_ports(release):
            key = (port.kubernetes_service, port.port, port.protocol, port.purpose)
            seen.setdefault(key, []).append(minor_of(release))
            newest[key] = port
    text += table(
        ["Service", "Port", "Releases", "Purpose", "When", "Remark"],
        [
            [
                code(key[0]),
                f"{key[1]}/{key[2]}",
                span(catalog.minors(), seen[key]),
                cell(port.purpose),
                cell(port.condition),
                cell(port.note),
            ]
            for key, port in newest.items()
        ],
    )
    return text


def _port_row(rule: PortRule, releases: str) -> list[str]:
    direction = rule.direction if rule.scope == "host" else f"{rule.direction} of job containers"
    if rule.action == "deny":
        direction += ", denied"
    ports = cell(rule.ports)
    if rule.protocols not in (("tcp",), ("any",)):
        ports += "/" + "+".join(rule.protocols)
    purpose = cell(rule.purpose) + (f" {cell(rule.note)}" if rule.note else "")
    status = rule.status.replace("_", " ")
    return [
        code(rule.id),
        direction,
        ports,
        cell(rule.peers),
        releases,
        code(rule.condition),
        status,
        purpose,
        rule.certainty,
    ]


def services_page(catalog: Catalog) -> str:
    """Services and what fails without them."""
    text = HEAD + "# Services\n\n" + HOW_SURE
    text += (
        "\n*What users lose* is the vendor's word; where the vendor says nothing, the cell says so. Rows of the 4.0 "
        "overview are marked.\n\n"
    )

    def impact(service: Service) -> str:
        return cell(service.failure_impact) if service.failure_impact else "not stated"

    rows = gather(catalog, catalog.services, "name")
    text += table(
        ["Service", "Component", "Releases", "What it does", "What users lose", "Workloads", "In 4.0 overview", "How sure"],
        [
            [
                cell(name),
                cell(service.component),
                releases,
                cell(service.description),
                impact(service),
                ", ".join(code(workload.name) for workload in service.workloads) or "–",
                cell(service.in_seed),
                service.certainty,
            ]
            for name, (service, releases) in sorted(rows.items(), key=lambda item: (not item[1][0].in_seed, item[0]))
        ],
    )
    text += "\n## Remarks\n\n"
    text += table(
        ["Service", "Remark"],
        [[cell(name), cell(service.note)] for name, (service, _releases) in sorted(rows.items()) if service.note],
    )
    return text


def platforms_page(catalog: Catalog) -> str:
    """Verdicts, and what an installer has to know."""
    text = HEAD + "# Platforms\n\nThe vendor's verdict, release by release, and beside it what this collection does.\n"
    text += HOW_SURE + "\n"
    text += table(
        ["Platform", "Name here", "Releases", "Verdict of the vendor", "Remark of the vendor", "How sure"],
        [
            [
                cell(platform.name),
                code(platform.id),
                verdict.versions,
                verdict.status.replace("_", " "),
                cell(verdict.note),
                verdict.certainty,
            ]
            for platform in catalog.platforms()
            for verdict in platform.verdicts
        ],
    )
    for platform in catalog.platforms():
        text += f"\n## {platform.name}\n\n"
        if platform.aliases:
            text += "Other names: " + ", ".join(code(name) for name in platform.aliases) + ".\n\n"
        text += table(
            ["Topic", "Fact", "How sure"],
            [
                [topic, cell(fact.value), fact.certainty]
                for topic, fact in (
                    ("Installing", platform.installer_action),
                    ("Whoever installs is administrator of the", platform.installer_rights),
                    ("Object storage, best first", platform.object_storage),
                    ("Registry trust", platform.registry_trust),
                    ("Right to pull", _roles(platform.registry_access)),
                    ("Images of its registry lie below", _forms(platform.registry_path)),
                    ("Firewall", platform.firewall_backends),
                    ("machine-provisioner works", platform.machine_provisioner),
                    ("Nomad autoscaler works", platform.nomad_autoscaler),
                    ("nginx.private_load_balancers works", platform.private_load_balancers),
                    ("Runner needed for machine jobs", platform.runner_needed),
                )
            ],
        )
        for title, facts in (("Blockers", platform.blockers), ("Warnings", platform.warnings)):
            if facts:
                text += f"\n{title}:\n\n" + "".join(f"* {cell(fact.value)} ({fact.certainty})\n" for fact in facts)
    return text


def _roles(fact: Fact[tuple[Mapping[str, Any], ...]]) -> Fact[list[str]]:
    return Fact([str(item["role"]) for item in fact.value], fact.source, fact.certainty)


def _forms(fact: Fact[Mapping[str, str]]) -> Fact[list[str]]:
    return Fact(list(fact.value.values()), fact.source, fact.certainty)


def object_storage_page(catalog: Catalog) -> str:
    """What each way to give the product a store can and cannot do."""
    text = HEAD + "# Object storage\n\nHow to choose is told in [docs/how-to/object-storage.md](../how-to/object-storage.md).\n" + HOW_SURE + "\n"
    flags = (
        ("Kept up", "maintained"),
        ("Presigned", "presigned"),
        ("Multipart", "multipart"),
        ("Versioning", "versioning"),
        ("Lifecycle", "lifecycle"),
        ("CORS", "cors"),
        ("STS", "sts"),
        ("Policies", "bucket_policy"),
        ("Anonymous objects", "anonymous_prefix"),
        ("Anonymous bucket", "anonymous_bucket"),
    )
    options = catalog.object_storage_options()
    text += table(
        ["Name here", "Kind", "In front of", *(title for title, _name in flags), "How sure"],
        [
            [
                code(option.id),
                option.kind,
                cell([backend.replace("_", " ") for backend in option.backends]),
                *("unknown" if getattr(option, name) is None else cell(getattr(option, name)) for _title, name in flags),
                option.certainty,
            ]
            for option in options
        ],
    )
    text += "\n## Versions, licences and advice\n\n"
    text += table(
        ["Name here", "Version", "Licence", "Port", "Open vulnerabilities", "Advice", "Remark"],
        [
            [code(option.id), cell(option.version), cell(option.licence), cell(option.port), cell(option.security), cell(option.advice), cell(option.note)]
            for option in options
        ],
    )
    return text


def images_page(catalog: Catalog) -> str:
    """How many images, where the list comes from, and the keys that move those of third parties."""
    latest = catalog.latest()
    text = HEAD + "# Images\n\nThe true list of an installation is read from its chart; this is what is documented.\n"
    text += HOW_SURE + "\n"
    text += table(
        ["Release", "Images of the chart", "With a documented tag", "Other images", "List", "How sure of the list"],
        [
            [
                release,
                str(len(chart)),
                str(sum(image.tag is not None for image in chart)),
                str(len(catalog.images(release)) - len(chart)),
                cell(catalog.release(release).image_list.value),
                catalog.release(release).image_list.certainty,
            ]
            for release in catalog.last_patches()
            for chart in [catalog.images(release, group="chart")]
        ],
    )
    text += f"\n## Images of {latest} that `global.container.*` does not move\n\n"
    text += table(
        ["Image", "Tag", "Keys that move it", "Needed when", "Pulled by", "How sure"],
        [
            [
                code(image.repository),
                cell(image.tag),
                ", ".join(code(key) for key in image.values_keys.names()) if image.values_keys else "none",
                cell(image.condition),
                cell(image.pulled_by.replace("_", " ")),
                image.certainty,
            ]
            for image in catalog.images(latest)
            if image.values_keys is None or image.values_keys.org is None
        ],
    )
    return text


def requirements_page(catalog: Catalog) -> str:
    """What the vendor demands, and which verb looks at it."""
    text = HEAD + "# Requirements\n\nWhat the vendor demands of a site or advises, and which verb looks at it, with the name of its finding.\n"
    text += HOW_SURE + "\n"
    rows = [
        [
            code(row.id),
            cell(row.subject.replace("_", " ")),
            cell(row.value) + (f"<br>{cell(row.note)}" if row.note else ""),
            row.level,
            ", ".join(f"{verb} {code(finding)}".strip() if finding else verb for verb, _dot, finding in (item.partition(".") for item in row.looked_at))
            or f"nobody: {cell(row.not_looked_at)}",
            cell(row.source),
            row.certainty,
        ]
        for row in catalog.requirements(catalog.latest())
    ]
    return text + table(["Requirement", "Of", "What", "Level", "Looked at by", "Source", "How sure"], rows)


def pages(catalog: Catalog) -> dict[str, str]:
    """File name → content of every reference page."""
    return {
        "catalog-images.md": images_page(catalog),
        "catalog-object-storage.md": object_storage_page(catalog),
        "catalog-platforms.md": platforms_page(catalog),
        "catalog-ports.md": ports_page(catalog),
        "catalog-requirements.md": requirements_page(catalog),
        "catalog-releases.md": releases_page(catalog),
        "catalog-services.md": services_page(catalog),
    }
