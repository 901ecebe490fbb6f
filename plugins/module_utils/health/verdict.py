# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Joins what each host and the control host found into the findings of the report, and names what makes verify fail.

The three levels of proof stay apart: what ran is told with its own name, and what did not run says what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ..connectivity.contrast import with_contrast
from ..report.model import EVIDENCE_STATES, LEVELS

MISSING = {
    "infrastructure probe": ["a run of the verb verify with Nomad clients"],
    "CircleCI job": ["a project in GitHub Enterprise that the server follows", "a personal API token of CircleCI Server"],
    "reality check": [
        "the repository realitycheck in GitHub Enterprise",
        "the contexts org-global and individual-local",
        "a personal API token of CircleCI Server",
    ],
}


STRANGE = frozenset({"circleci_runners_macos", "circleci_runners_windows"})
"""Groups of hosts from which nothing can be tried."""


class VerdictError(Exception):
    """The inputs are not of the shape that a verdict needs."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def _kept(level: str, site: Mapping[str, Any], clients: set[str], before: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What the last report says of a level, if it still speaks of the same site; otherwise why it does not."""
    item: Mapping[str, Any] = next((one for one in before.get("evidence") or [] if one.get("level") == level), {})
    if item.get("state") not in ("passed", "failed"):
        return {}, ""
    for key in ("site", "release", "platform", "domain"):
        if str(before.get(key) or "") != str(site.get(key) or ""):
            return {}, f"a run of the verb verify since {key} became {site.get(key) or 'empty'}"
    proved = {str(one.get("name")) for one in item.get("clients") or []}
    if proved and clients and proved != clients:
        return {}, "a run of the verb verify with the Nomad clients that the site has now"
    return dict(item), ""


def evidence_of(
    given: Sequence[Mapping[str, Any]], site: Mapping[str, Any], clients: set[str], before: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """All levels in their order; one level never speaks for another. What did not run now is taken from the last report *before*."""
    problems = []
    by_level: dict[str, dict[str, Any]] = {}
    for item in given:
        level, state = str(item.get("level")), str(item.get("state"))
        if level not in LEVELS:
            problems.append(f"evidence {level!r} is unknown; known are {', '.join(LEVELS)}")
        elif state not in EVIDENCE_STATES:
            problems.append(f"evidence {level}: state {state!r}; known are {', '.join(EVIDENCE_STATES)}")
        elif level in by_level:
            problems.append(f"evidence {level} is given twice")
        else:
            by_level[level] = dict(item)
    if problems:
        raise VerdictError(problems)
    result = []
    for level in LEVELS:
        item = by_level.get(level, {"level": level, "state": "not run", "detail": ""})
        if item["state"] == "not run":
            kept, why = _kept(level, site, clients, before)
            item = kept or {**item, "missing": [why] if why else item.get("missing") or MISSING[level]}
        result.append(item)
    return result


def _certificates(flows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line per place that shows a certificate, with the fewest days that anyone saw."""
    seen: dict[str, dict[str, Any]] = {}
    for flow in flows:
        days = flow.get("days_left")
        if days is None:
            continue
        name = f"{flow.get('to') or flow.get('address')}:{flow.get('port')}"
        if name not in seen or days < seen[name]["days_left"]:
            trust = "" if flow.get("found") in ("tls", "https") else str(flow.get("detail") or flow.get("found") or "")
            seen[name] = {"name": name, "days_left": int(days), "detail": trust}
    return sorted(seen.values(), key=lambda item: (item["days_left"], item["name"]))


def judge_site(
    site: Mapping[str, Any],
    hosts: Mapping[str, Mapping[str, Any]],
    model: Mapping[str, Any],
    health: Mapping[str, Any],
    evidence: Sequence[Mapping[str, Any]],
    missing_images: Sequence[Any],
    images_checked: bool,
    waivers: Sequence[Mapping[str, Any]],
    chart: Mapping[str, Any],
    extra: Sequence[Mapping[str, Any]],
    before: Optional[Mapping[str, Any]] = None,
) -> tuple[dict[str, Any], list[str]]:
    """Findings of the report, and one sentence for each reason to fail. *before* is the last report."""
    waived = {str(item.get("name")) for item in waivers}
    flows: list[dict[str, Any]] = []
    listeners: list[dict[str, Any]] = []
    for name, result in sorted(hosts.items()):
        flows += [{**flow, "from": flow.get("from") or name} for flow in result.get("connections") or []]
        listeners += [{**item, "host": name} for item in result.get("listeners") or []]
    flows = with_contrast(flows)
    clients = {str(host.get("name")) for host in model.get("hosts") or [] if "circleci_nomad_clients" in (host.get("groups") or [])}
    proof = evidence_of(evidence, site, clients, before or {})
    services = list(health.get("services") or [])
    refs = [str(item.get("image") if isinstance(item, Mapping) else item) for item in missing_images]
    findings: list[dict[str, Any]] = [dict(item) for item in (*extra, *(health.get("findings") or []))]
    for name in health.get("unbound_claims") or []:
        findings.append({"urgency": 1, "subject": f"volume claim {name}", "found": "not bound", "expected": "bound",
                         "remedy": "Look at the StorageClass and its provisioner.", "source": ""})  # fmt: skip
    strange = sorted(str(host.get("name")) for host in model.get("hosts") or [] if not STRANGE.isdisjoint(host.get("groups") or ()))
    silent = sorted({str(host.get("name")) for host in model.get("hosts") or []} - set(hosts) - set(strange))
    for name in silent:
        findings.append({"urgency": 2, "subject": f"host {name}", "found": "nothing was tried from it", "expected": "connections from it",
                         "remedy": "Make the host reachable and run verify again.", "source": ""})  # fmt: skip
    for item in model.get("problems") or []:
        findings.append({"urgency": 2, "subject": item.get("field"), "found": item.get("found"), "expected": item.get("expected"),
                         "remedy": item.get("remedy"), "source": "port model"})  # fmt: skip
    result = {
        **site,
        "hosts": model.get("hosts") or [],
        "rules": model.get("rules") or [],
        "flows": flows,
        "listeners": listeners,
        "services": services,
        "evidence": proof,
        "certificates": [*_certificates(flows), *(health.get("certificates") or [])],
        **{name: list(health.get(name) or []) for name in ("storage", "queues")},
        "unmeasured": [
            *(health.get("unmeasured") or []),
            *({"what": f"connections from {name}", "why": "nothing of this collection runs on macOS and Windows"} for name in strange),
        ],
        "licence": dict(health.get("licence") or {}),
        "images": {"checked": images_checked, "missing": refs},
        "chart": dict(chart),
        "waivers": [dict(item) for item in waivers],
        "findings": findings,
    }
    result["versions"] = list(health.get("versions") or [])
    if health.get("kubernetes"):
        result["versions"] = [{"component": "Kubernetes", "found": health["kubernetes"], "expected": health.get("kubernetes_range", ""),
                               "state": health.get("kubernetes_state", "ok")}, *result["versions"]]  # fmt: skip
    return result, _reasons(services, flows, proof, refs, result["certificates"], findings, waived)


def _reasons(
    services: Sequence[Mapping[str, Any]],
    flows: Sequence[Mapping[str, Any]],
    proof: Sequence[Mapping[str, Any]],
    refs: Sequence[str],
    certificates: Sequence[Mapping[str, Any]],
    findings: Sequence[Mapping[str, Any]],
    waived: set[str],
) -> list[str]:
    reasons = []
    for item in services:
        if item.get("state") in ("down", "missing", "degraded") and f"service_{item['name']}" not in waived:
            impact = item.get("impact") or "The vendor does not say what fails for users."
            reasons.append(f"service {item['name']} is {item['state']} ({item.get('detail')}). {impact}")
    for flow in flows:
        if flow.get("verdict") == "failed" and f"port_{flow.get('rule')}" not in waived:
            detail = f", {flow['detail']}" if flow.get("detail") else ""
            reasons.append(
                f"{flow.get('name')}: expected {flow.get('expect')}, found {flow.get('found')}{detail}. "
                + ("Close it, or write a rule for it." if flow.get("expect") == "closed" else "Open the port, or start what listens there.")
            )
    for item in proof:
        if item["state"] == "failed":
            since = f" ({item['when']})" if item.get("when") else ""
            reasons += item.get("problems") or [f"the {item['level']} failed{since}: {item.get('detail') or 'no reason given'}"]
    if refs:
        reasons.append(f"{len(refs)} image{'s are' if len(refs) > 1 else ' is'} not in the private registry: {', '.join(refs[:5])}")
    for item in certificates:
        if item["days_left"] is not None and item["days_left"] < 0:
            reasons.append(f"the certificate of {item['name']} ended {-item['days_left']} days ago")
    for item in findings:
        if item.get("urgency") == 1:
            reasons.append(f"{item.get('subject')}: found {item.get('found')}, expected {item.get('expected')}. {item.get('remedy') or ''}".strip())
    return reasons
