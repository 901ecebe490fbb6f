# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""The change-request document: what a run will do, before it does anything, for those who must agree to it.

Shape of the plan (every key but C(site) is optional; what is absent is told as nothing planned):

C(site), C(release), C(platform), C(domain), C(generated), C(summary) (a few sentences)
C(hosts)         [{name, addresses: [str], roles: [str], reboot: bool or a text that says when, reboot_reason}]
C(files)         [{host, path, action, owner, why}]           owner is the role of the collection that keeps the file
C(packages)      [{host, name, version, source, why}]
C(services)      [{host, name, action, why}]                  systemd units and the like
C(by_hand)       [{host, filter, evidence, line}]              line by line, what to load there
C(ports)         [{host, direction, protocol, ports, peers, reason, state, source}]   rows of the filter port_table
C(dns)           [{name, type, value, why}]
C(kubernetes)    [{kind, name, namespace, action, why}]
C(buckets)       [{name, action, why}]
C(values)        [{key, value, rule, source}]                 Helm values, secrets masked
C(secrets_in_values) [{key, rule, source, why}]               those of them that carry something secret
C(gates)         [{name, text, who}]                          where a person must act
C(irreversible)  [{step, why, way_back}]
C(downloads)     [{what, from, size, why}]                    size in bytes, or a text; connected side only
C(sizes)         [{what, host, size}]                         size in bytes, or a text
C(findings)      [{subject, severity, found, expected, source, remedy}]
C(waivers)       [{name, reason}]
C(duration)      a few words
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .markup import esc, page, slug, table, tag


class PlanError(Exception):
    """The plan is not of the shape that the document needs."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class _Section:
    key: str
    title: str
    intro: str
    columns: tuple[tuple[str, str], ...]
    none: str


SECTIONS = (
    _Section("findings", "Findings", "Problems stop a run until they are mended or, where that is possible, waived. Warnings are for your attention.",
             (("subject", "Subject"), ("severity", "Severity"), ("found", "Found"), ("expected", "Expected"), ("remedy", "What to do"),
              ("source", "Source")), "No findings."),
    _Section("irreversible", "Steps that cannot be undone", "", (("step", "Step"), ("why", "Why"), ("way_back", "Way back")),
             "Every step can be undone."),
    _Section("gates", "Where a person must act", "The run stops there and goes on with the same command.",
             (("name", "Gate"), ("text", "What to do"), ("who", "Who")), "Nobody needs to act in between."),
    _Section("hosts", "Hosts", "", (("name", "Host"), ("addresses", "Addresses"), ("roles", "Part"), ("reboot", "Reboot"),
                                    ("reboot_reason", "Why")), "No host is changed."),
    _Section("ports", "Ports", "Rules whose state is apply are set by the run; the others are for the network team, or only told.",
             (("host", "Host"), ("direction", "Direction"), ("protocol", "Protocol"), ("ports", "Ports"), ("peers", "Peers"),
              ("reason", "Why"), ("state", "State"), ("source", "Source")), "No port is touched."),
    _Section("by_hand", "Packet filters that somebody sets by hand",
             "Runners on macOS and Windows, where nothing of this collection runs. The lines of a host make one file; they were never run in our tests.",
             (("host", "Host"), ("filter", "Packet filter"), ("evidence", "Evidence"), ("line", "Line")), "There is no such host."),
    _Section("dns", "Names in DNS", "", (("name", "Name"), ("type", "Type"), ("value", "Value"), ("why", "Why")), "No name is needed."),
    _Section("packages", "Packages", "", (("name", "Package"), ("version", "Version"), ("host", "Host"), ("source", "From"), ("why", "Why")),
             "No package is installed."),
    _Section("files", "Files and users", "", (("path", "Path"), ("host", "Host"), ("action", "Action"), ("owner", "Role"), ("why", "Why")),
             "No file is written."),
    _Section("services", "Services on hosts", "", (("name", "Unit"), ("host", "Host"), ("action", "Action"), ("why", "Why")),
             "No service is touched."),
    _Section("kubernetes", "Objects in Kubernetes", "", (("name", "Name"), ("kind", "Kind"), ("namespace", "Namespace"), ("action", "Action"),
                                                         ("why", "Why")), "No object is touched."),
    _Section("buckets", "Buckets in the object store", "", (("name", "Bucket"), ("action", "Action"), ("why", "Why")), "No bucket is touched."),
    _Section("values", "Helm values", "What the release is told. Secrets are not shown.",
             (("key", "Key"), ("value", "Value"), ("rule", "Rule"), ("source", "Source")), "No values are composed."),
    _Section("secrets_in_values", "Secrets that stand in the Helm values",
             "Helm keeps them in the Secret of the release too; whoever may read that, or etcd, reads them.",
             (("key", "Key"), ("rule", "Rule"), ("source", "Source"), ("why", "Why")), "Every secret is in a Secret of its own."),
    _Section("downloads", "Downloads", "On the connected side only. Nothing on the site reaches outside.",
             (("what", "What"), ("from", "From"), ("size", "Size"), ("why", "Why")), "Nothing is downloaded."),
    _Section("sizes", "Room that is needed", "", (("what", "What"), ("host", "Host"), ("size", "Size")), "No room is reckoned."),
    _Section("waivers", "Waivers", "Requirements that the site knowingly does not meet.", (("name", "Requirement"), ("reason", "Reason")),
             "No requirement is waived."),
)  # fmt: skip
_SEVERITY = {"problem": "bad", "warning": "warn", "waived": "none", "ok": "ok"}
_SCALARS = ("site", "release", "platform", "domain", "generated", "summary", "duration")


def human_size(value: Any) -> str:
    """Bytes for people; what is no number stays as it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    number = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def _cell(key: str, value: Any) -> str:
    if key == "size":
        return human_size(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)


def _check(plan: Mapping[str, Any]) -> None:
    known = {section.key for section in SECTIONS} | set(_SCALARS)
    problems = [f"unknown key {key!r}; known are {', '.join(sorted(known))}" for key in plan if key not in known]
    if not plan.get("site"):
        problems.append("site is missing; the short name of the site is needed")
    for section in SECTIONS:
        value = plan.get(section.key) or []
        if not isinstance(value, (list, tuple)) or any(not isinstance(item, Mapping) for item in value):
            problems.append(f"{section.key} must be a list of mappings")
    if problems:
        raise PlanError(problems)


def _rows(section: _Section, plan: Mapping[str, Any]) -> tuple[tuple[tuple[str, str], ...], list[list[str]]]:
    """Columns that hold something, and their cells."""
    items = plan.get(section.key) or []
    columns = tuple(
        (key, title) for index, (key, title) in enumerate(section.columns) if index == 0 or any(_cell(key, item.get(key)) for item in items)
    )
    return columns, [[_cell(key, item.get(key)) for key, _title in columns] for item in items]


def _total(section: _Section, plan: Mapping[str, Any]) -> str:
    # Only downloads add up: what needs room on one host says nothing about another.
    sizes = [item.get("size") for item in plan.get(section.key) or []] if section.key == "downloads" else []
    numbers = [value for value in sizes if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) < 2:
        return ""
    return f"Together {human_size(sum(numbers))}" + (f", {len(sizes) - len(numbers)} of unknown size." if len(numbers) < len(sizes) else ".")


def _reboots(hosts: Sequence[Mapping[str, Any]]) -> str:
    """Who is restarted for certain, by name while they are few, and how many perhaps."""
    sure = [str(host.get("name")) for host in hosts if host.get("reboot") is True]
    perhaps = sum(bool(host.get("reboot")) for host in hosts) - len(sure)
    parts = [", ".join(sure) if len(sure) <= 2 else f"{len(sure)} hosts"] if sure else []
    if perhaps:
        parts.append(f"up to {perhaps} host{'s' if perhaps > 1 else ''}")
    return "; ".join(parts)


def _facts(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("Site", str(plan["site"])), ("Release", str(plan.get("release") or "–")), ("Platform", str(plan.get("platform") or "–")),
            ("Domain", str(plan.get("domain") or "–")), ("Hosts", str(len(plan.get("hosts") or []))),
            ("Reboots", _reboots(plan.get("hosts") or []) or "none"), ("Steps that cannot be undone", str(len(plan.get("irreversible") or []))),
            ("Times that a person must act", str(len(plan.get("gates") or []))), ("Downloads on the site", "none"),
            ("Duration", str(plan.get("duration") or "not reckoned")), ("Made", str(plan.get("generated") or "–"))]  # fmt: skip


def _title(plan: Mapping[str, Any]) -> str:
    return f"Change request: CircleCI Server for {plan.get('domain') or 'the site ' + str(plan['site'])}"


def _mark(text: str) -> str:
    """A cell of a Markdown table: one line, no bars, no HTML of others."""
    plain = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return plain.replace("<", "&lt;").replace(">", "&gt;").replace("`", "\\`")


def _markdown(plan: Mapping[str, Any]) -> str:
    lines = [f"# {_mark(_title(plan))}", ""]
    if plan.get("summary"):
        lines += [_mark(str(plan["summary"])), ""]
    lines += ["| | |", "|---|---|", *(f"| {_mark(name)} | {_mark(value)} |" for name, value in _facts(plan)), ""]
    lines += ["This document was made without changing anything on a host.", ""]
    for section in SECTIONS:
        columns, rows = _rows(section, plan)
        lines += [f"## {section.title}", ""]
        if not rows:
            lines += [section.none, ""]
            continue
        if section.intro:
            lines += [section.intro, ""]
        lines.append("| " + " | ".join(title for _key, title in columns) + " |")
        lines.append("|" + "---|" * len(columns))
        lines += ["| " + " | ".join(_mark(cell) for cell in row) + " |" for row in rows]
        total = _total(section, plan)
        lines += ["", total, ""] if total else [""]
    return "\n".join(lines).rstrip() + "\n"


def _html_cell(key: str, cell: str) -> str:
    if key == "severity" and cell in _SEVERITY:
        return tag(cell, _SEVERITY[cell])
    # Names and paths may break where a reader would.
    return re.sub(r"([_/.])", r"\1<wbr>", esc(cell)) if " " not in cell else esc(cell)


def _html(plan: Mapping[str, Any]) -> str:
    facts = "".join(f"<li><b>{esc(value)}</b>{esc(name)}</li>" for name, value in _facts(plan))
    parts = [f"<h1>{esc(_title(plan))}</h1>"]
    if plan.get("summary"):
        parts.append(f"<p>{esc(plan['summary'])}</p>")
    parts.append(f'<p class="soft">This document was made without changing anything on a host.</p><ul class="cards">{facts}</ul>')
    links = "".join(f'<li><a href="#{slug(section.key)}">{esc(section.title)}</a> ({len(plan.get(section.key) or [])})</li>' for section in SECTIONS)
    parts.append(f'<nav aria-label="Sections"><ul class="toc">{links}</ul></nav>')
    for section in SECTIONS:
        columns, rows = _rows(section, plan)
        name = slug(section.key)
        intro = f"<p>{esc(section.intro)}</p>" if section.intro and rows else ""
        keys = [key for key, _title in columns]
        cells = [[_html_cell(key, cell) for key, cell in zip(keys, row)] for row in rows]
        body = table(section.title, [title for _key, title in columns], cells, section.none, titled=True)
        total = _total(section, plan)
        more = f"<p>{esc(total)}</p>" if total else ""
        parts.append(f'<section aria-labelledby="{name}"><h2 id="{name}">{esc(section.title)}</h2>{intro}{body}{more}</section>')
    body = "".join(parts)
    footer = "<footer>Made by the collection onprem.circleci_server. The page loads nothing from a network.</footer>"
    return page(f"Change request: {plan['site']}", f'<main id="main">{body}</main>{footer}')


def render_plan(plan: Mapping[str, Any]) -> tuple[str, str]:
    """The document as Markdown and as HTML."""
    _check(plan)
    return _markdown(plan), _html(plan)
