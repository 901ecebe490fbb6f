# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Map of a site: its zones, their hosts, the ports that lead in, and which of them were proved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from .markup import esc

ZONES = (
    ("outside", "Users, administrators, GitHub", (), 0, 0),
    ("control", "Control host", ("circleci_sites",), 0, 1),
    ("entry", "Load balancer", (), 1, 0),
    ("cluster", "Kubernetes nodes", ("circleci_cluster_nodes",), 1, 1),
    ("registry", "Registry", ("circleci_registry",), 1, 2),
    ("clients", "Nomad clients", ("circleci_nomad_clients",), 2, 0),
    ("servers", "Nomad servers", ("circleci_nomad_servers",), 2, 1),
    ("runners", "Runners", ("circleci_runners_linux", "circleci_runners_macos", "circleci_runners_windows"), 2, 1),
    ("store", "Object store", ("circleci_object_storage",), 2, 2),
)
KINDS = {
    "kubernetes_node": "cluster", "nomad_client": "clients", "nomad_server": "servers", "runner": "runners", "registry": "registry",
    "object_storage": "store", "object_storage_gateway": "store", "bastion": "control", "control_host": "control", "load_balancer": "entry", "users": "outside",
    "administrators": "control", "vcs": "outside", "cloud_network": "outside",
}  # fmt: skip
# Groups that have an address and no host.
VIRTUAL = {"load_balancer": "entry", "object_storage_gateway": "store"}
WIDTH = 1170
COLUMN = 300
GAP = 100
LINE = 19
# Above the zones is room for lines that pass the middle column: behind its boxes nobody could follow them.
TOP = 44
WORDS = {"ok": "proved", "bad": "FAILED", "warn": "not proved", "none": "not tried"}
SIGNS = {"ok": "✓", "bad": "✗", "warn": "?", "none": "·"}


def host_zone(host: Mapping[str, Any]) -> str:
    """Zone of a host; the control host wins, since it may be in other groups as well."""
    groups = set(host.get("groups") or [])
    for name, _title, members, _column, _row in ZONES:
        if groups & set(members):
            return name
    return ""


def proof(flows: list[Mapping[str, Any]]) -> str:
    """One state for many connections: a failure outweighs, then what could not be proved."""
    verdicts = {str(item.get("verdict")) for item in flows}
    if "failed" in verdicts:
        return "bad"
    if "unproved" in verdicts:
        return "warn"
    return "ok" if "proved" in verdicts else "none"


def port_lines(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What leads into each zone: ports, from where, and how far it was proved."""
    zones = {str(host.get("name")): host_zone(host) for host in report["hosts"]}
    by_rule: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for flow in report["flows"]:
        by_rule.setdefault((str(flow.get("rule")), str(flow.get("to"))), []).append(flow)
    found: dict[tuple[str, str, str, bool], dict[str, Any]] = {}
    for rule in report["rules"]:
        if rule.get("direction") != "ingress" or rule.get("action", "accept") != "accept":
            continue
        state = str(rule.get("state", ""))
        if state.startswith(("optional", "nobody", "left", "any protocol")):
            continue
        target = VIRTUAL.get(str(rule.get("group"))) or zones.get(str(rule.get("host")), "")
        if not target:
            continue
        # Traffic of a transparent load balancer is shown once, at the load balancer.
        if str(rule.get("id", "")).startswith(("node-in-lb-", "node-gateway-in")):
            continue
        sources = [KINDS.get(kind, "outside") for kind in rule.get("peer_kinds") or []]
        tried = by_rule.get((str(rule.get("id")), str(rule.get("host"))), [])
        for part in rule.get("ports") or []:
            told = state.startswith("documented")
            # Several rules for one port are one line: what counts is who comes in, not how the vendor cut its tables.
            entry = found.setdefault(
                (target, str(rule.get("protocol")), part, told),
                {"zone": target, "protocol": rule.get("protocol"), "ports": part, "flows": [], "from": [], "reasons": [], "told": told},
            )
            low, _dash, high = str(part).partition("-")
            if low.isdigit():
                entry["flows"] += [flow for flow in tried if int(low) <= int(flow.get("port") or 0) <= int(high or low)]
            entry["from"] += sources
            entry["reasons"].append(str(rule.get("reason", "")))
    present = {zones[name] for name in zones} | {"entry", "outside"}
    for entry in found.values():
        entry["from"] = [zone for zone in dict.fromkeys(entry["from"]) if zone in present]
        entry["reason"] = " ".join(dict.fromkeys(entry.pop("reasons")))
        entry["state"] = "none" if entry["told"] else proof(entry["flows"])
    return list(found.values())


def _layout(report: Mapping[str, Any], lines: list[dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], int]:
    placed: dict[str, dict[str, Any]] = {}
    heights = [TOP, TOP, TOP]
    for name, title, groups, column, _row in ZONES:
        hosts = [host for host in report["hosts"] if groups and host_zone(host) == name]
        mine = [line for line in lines if line["zone"] == name]
        if not hosts and not mine and name != "outside":
            continue
        shown = hosts if len(hosts) <= 6 else []
        squares = 0 if shown else (len(hosts) + 13) // 14
        height = 40 + LINE * (len(shown) + len(mine)) + squares * 20 + (8 if mine else 0) + (LINE if squares else 0)
        x = 20 + column * (COLUMN + GAP)
        placed[name] = {"title": title, "x": x, "y": heights[column], "h": height, "hosts": hosts, "shown": shown, "lines": mine}
        heights[column] += height + 34
    return placed, max(heights)


def _far(source: Mapping[str, Any], target: Mapping[str, Any]) -> bool:
    return bool(abs(source["x"] - target["x"]) > COLUMN + GAP)


def _edge(source: Mapping[str, Any], target: Mapping[str, Any], state: str, offset: int, lane: int) -> str:
    if source["x"] == target["x"]:
        x = source["x"] + COLUMN
        first, second = source["y"] + source["h"] / 2, target["y"] + target["h"] / 2
        bow = x + 34 + offset * 6
        return f'<path class="edge e-{state}" d="M{x} {first:.0f} C{bow} {first:.0f} {bow} {second:.0f} {x} {second:.0f}"/>'
    forward = source["x"] < target["x"]
    start = source["x"] + (COLUMN if forward else 0)
    end = target["x"] + (0 if forward else COLUMN)
    first = source["y"] + source["h"] / 2 + offset * 4
    second = target["y"] + target["h"] / 2 + offset * 4
    if _far(source, target):
        way = GAP if forward else -GAP
        return (
            f'<path class="edge e-{state}" d="M{start} {first:.0f} C{start + way / 2:.0f} {first:.0f} {start + way / 2:.0f} {lane} {start + way} {lane}'
            f' L{end - way} {lane} C{end - way / 2:.0f} {lane} {end - way / 2:.0f} {second:.0f} {end} {second:.0f}"/>'
        )
    middle = (start + end) / 2
    return f'<path class="edge e-{state}" d="M{start} {first:.0f} C{middle:.0f} {first:.0f} {middle:.0f} {second:.0f} {end} {second:.0f}"/>'


def _zone(zone: Mapping[str, Any], bad_hosts: set[str]) -> str:
    x, y = zone["x"], zone["y"]
    count = f" ({len(zone['hosts'])})" if len(zone["hosts"]) > 1 else ""
    parts = [f'<rect class="zone" x="{x}" y="{y}" width="{COLUMN}" height="{zone["h"]}" rx="8"/>',
             f'<text class="head" x="{x + 14}" y="{y + 25}">{esc(zone["title"] + count)}</text>']  # fmt: skip
    at = y + 34
    for host in zone["shown"]:
        at += LINE
        mark = "✗ " if host.get("name") in bad_hosts else ""
        addresses = ", ".join(host.get("addresses") or [])
        text = f"{mark}{host.get('name')}  {addresses}"
        parts.append(f'<text class="small" x="{x + 14}" y="{at - 5}">{esc(text if len(text) < 44 else text[:43] + "…")}</text>')
    if not zone["shown"] and zone["hosts"]:
        for number, host in enumerate(zone["hosts"]):
            bad = host.get("name") in bad_hosts
            kind = "bad" if bad else "none"
            left, top = x + 14 + (number % 14) * 19, at + 4 + (number // 14) * 20
            parts.append(f'<g><title>{esc(host.get("name"))}</title><rect class="host" x="{left}" y="{top}" width="14" height="14" rx="3"/>'
                         + (f'<text class="t-{kind}" x="{left + 3}" y="{top + 12}">✗</text>' if bad else "") + "</g>")  # fmt: skip
        at += ((len(zone["hosts"]) + 13) // 14) * 20 + LINE
        parts.append(f'<text class="small" x="{x + 14}" y="{at - 4}">{len(zone["hosts"])} hosts, listed below</text>')
    for line in zone["lines"]:
        at += LINE
        # A port that is only printed is no failure: it is told as what it is.
        word = "printed, not served" if line["told"] else WORDS[line["state"]]
        sign = SIGNS[line["state"]]
        text = f"{sign} {line['protocol']} {line['ports']}  {word}"
        parts.append(f'<text class="t-{line["state"]}" x="{x + 14}" y="{at}"><title>{esc(line["reason"])}</title>{esc(text)}</text>')
    return "".join(parts)


def site_map(report: Mapping[str, Any], number: int) -> str:
    """The drawing; the tables below it say the same in words."""
    lines = port_lines(report)
    placed, height = _layout(report, lines)
    bad_hosts = {str(flow.get("to")) for flow in report["flows"] if flow.get("verdict") == "failed"}
    rank = {"bad": 3, "warn": 2, "ok": 1, "none": 0}
    edges: dict[tuple[str, str], str] = {}
    for line in lines:
        for source in line["from"]:
            if source in placed and line["zone"] in placed and source != line["zone"] and not line["told"]:
                key = (source, line["zone"])
                if key not in edges or rank[line["state"]] > rank[edges[key]]:
                    edges[key] = line["state"]
    # Two dashed lines on one lane look like a whole one.
    lanes = {ends: 8 + index % 6 * 6 for index, ends in enumerate(ends for ends in sorted(edges) if _far(placed[ends[0]], placed[ends[1]]))}
    drawn = "".join(
        _edge(placed[source], placed[target], state, index % 5 - 2, lanes.get((source, target), 0))
        for index, ((source, target), state) in enumerate(sorted(edges.items()))
    )
    zones = "".join(_zone(zone, bad_hosts) for zone in placed.values())
    hosts = len(report["hosts"])
    text = f"Map of the site {report['site']}: {hosts} hosts in {len(placed)} zones. The table Connections says the same in words."
    return (
        f'<figure><svg class="map" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="map-{number}">'
        f'<title id="map-{number}">{esc(text)}</title>{drawn}{zones}</svg>'
        '<figcaption class="soft">Lines: whole = proved, dashed = failed, dotted = not proved or not tried. ✓ proved, ✗ failed, ? not provable, '
        "· not tried or only told.</figcaption></figure>"
    )


def zone_title(name: str) -> Optional[str]:
    """Title of a zone."""
    return next((title for zone, title, _groups, _column, _row in ZONES if zone == name), None)
