# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""From findings to a report: what is wrong in order of urgency, what changed, and what was never proved.

Shape of the findings that go in (every key is optional but C(site)):

C(site), C(generated) (ISO time), C(release), C(platform), C(domain)
C(hosts)         [{name, addresses, groups}]
C(rules)         [rule of the port model]
C(flows)         [{from, to, rule, address, port, protocol, expect, found, verdict, detail}]
C(listeners)     [{host, protocol, address, port, process}]
C(services)      [{name, component, description, impact, state, detail, workloads: [{kind, name, ready, wanted, restarts, images}]}]
C(evidence)      [{level, state, detail, missing, when, problems, clients}]; levels are never mixed
C(certificates)  [{name, days_left, detail}]
C(images)        {checked, missing: [ref], detail}
C(chart)         {compared, detail}
C(versions)      [{component, found, expected, state, detail}]
C(storage)       [{name, used_percent, used_bytes, capacity_bytes, detail}]; the report adds C(since) and C(full_in_days)
C(queues)        [{name, waiting, detail}]
C(licence)       {present, end, days_left}
C(unmeasured)    [{what, why}]
C(keysets)       vendor, own, given, or empty where nobody wrote down who made them
C(secrets_in_values) [{key, rule, source, why}], Helm values that carry something secret
C(waivers)       [{name, reason}]
C(findings)      [{urgency, subject, found, expected, remedy, source}]
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

FORMAT = "onprem.circleci_server/report/1"
LEVELS = ("infrastructure probe", "CircleCI job", "reality check")
SERVICE_STATES = ("healthy", "degraded", "down", "missing", "not installed", "unknown")
EVIDENCE_STATES = ("passed", "failed", "not run")
URGENCIES = {1: "now", 2: "soon", 3: "look", 4: "not proved"}
_VERDICTS = {"failed": 0, "unproved": 1, "proved": 2}
LISTS = ("hosts", "rules", "flows", "listeners", "services", "evidence", "certificates", "versions", "storage", "queues", "unmeasured",
         "secrets_in_values", "waivers", "findings")  # fmt: skip


class ReportError(Exception):
    """The findings are not of the shape that a report needs."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def _checked(findings: Mapping[str, Any]) -> dict[str, Any]:
    problems = []
    data: dict[str, Any] = dict(findings)
    if not str(data.get("site") or ""):
        problems.append("site is missing; the short name of the site is needed")
    for name in LISTS:
        value = data.get(name)
        if value is None:
            data[name] = []
        elif not isinstance(value, list) or any(not isinstance(item, Mapping) for item in value):
            problems.append(f"{name} must be a list of mappings")
            data[name] = []
    for name in ("images", "chart", "licence"):
        if not isinstance(data.get(name) or {}, Mapping):
            problems.append(f"{name} must be a mapping")
        data[name] = data.get(name) or {}
    for item in data["services"]:
        if item.get("state", "unknown") not in SERVICE_STATES:
            problems.append(f"service {item.get('name')}: state {item.get('state')!r}; known are {', '.join(SERVICE_STATES)}")
    for item in data["evidence"]:
        if item.get("level") not in LEVELS:
            problems.append(f"evidence {item.get('level')!r} is unknown; known are {', '.join(LEVELS)}")
        if item.get("state") not in EVIDENCE_STATES:
            problems.append(f"evidence {item.get('level')}: state {item.get('state')!r}; known are {', '.join(EVIDENCE_STATES)}")
    if problems:
        raise ReportError(problems)
    # A level that nobody spoke of was not run: silence is never taken for proof.
    given = {item["level"]: item for item in data["evidence"]}
    data["evidence"] = [
        given.get(level, {"level": level, "state": "not run", "detail": "", "missing": ["nobody started it"]}) for level in LEVELS
    ]
    # What the forecast adds to; all else is only read.
    data["storage"] = [dict(item) for item in data["storage"]]
    data.setdefault("generated", datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))
    return data


def read_report(path: str) -> Optional[dict[str, Any]]:
    """An earlier report; one that is not there, broken or of another format counts as none."""
    try:
        with open(path, encoding="utf-8") as handle:
            data = json.load(handle)
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and data.get("format") == FORMAT else None


def _warn(urgency: int, subject: str, text: str, remedy: str = "", source: str = "") -> dict[str, Any]:
    return {"urgency": urgency, "subject": subject, "text": text, "remedy": remedy, "source": source}


def _service_warnings(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    result = []
    for item in data["services"]:
        state = item.get("state", "unknown")
        if state in ("down", "missing", "degraded"):
            impact = item.get("impact") or "The vendor does not say what fails for users."
            detail = f" ({item['detail']})" if item.get("detail") else ""
            urgency = 1 if state != "degraded" else 2
            result.append(_warn(urgency, item["name"], f"{item['name']} is {state}{detail}. {impact}",
                                "Look at its pods: kubectl describe and logs."))  # fmt: skip
        restarts = max((int(work.get("restarts") or 0) for work in item.get("workloads") or []), default=0)
        if state == "healthy" and restarts >= 5:
            result.append(_warn(3, item["name"], f"{item['name']} restarted {restarts} times."))
    return result


def _natural(name: str) -> list[tuple[int, str]]:
    """nomad2 comes before nomad10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _names(names: Iterable[str], most: int = 5) -> str:
    """``nomad1, nomad2 and 40 more``."""
    ordered = sorted(set(names), key=_natural)
    return ", ".join(ordered[:most]) + (f" and {len(ordered) - most} more" if len(ordered) > most else "")


def _flow_warnings(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for item in data["flows"]:
        if item.get("verdict") in ("failed", "unproved"):
            key = tuple(str(item.get(name) or "") for name in ("verdict", "rule", "protocol", "port", "expect", "found", "detail"))
            groups.setdefault(key, []).append(item)
    result = []
    for (verdict, rule, protocol, port, expect, found, detail), items in sorted(groups.items()):
        what = f"{protocol or 'tcp'} {port} of {_names(str(item.get('to') or item.get('address')) for item in items)}"
        places = _names(str(item.get("from") or "?") for item in items)
        why = f"{found}: {detail}" if detail else found
        if verdict == "unproved":
            result.append(_warn(4, what, f"{what} from {places} could not be proved {expect} ({why}).", "", rule))
        elif expect == "closed":
            text = f"{what} is open from {places}, which no rule allows."
            result.append(_warn(1, what, text, "Run install, which guards the ports, or close it in the filter that opens it.", rule))
        else:
            text = f"{what} does not answer as {expect} from {places} ({why})."
            result.append(_warn(1, what, text, "Open the port, or start what listens there.", rule))
    return result


def _other_warnings(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    result = []
    for item in data["evidence"]:
        if item["state"] == "failed":
            problems = item.get("problems") or [f"the {item['level']} failed: {item.get('detail') or 'no reason given'}"]
            result += [_warn(1, item["level"], text[:1].upper() + text[1:].rstrip(".") + ".") for text in problems]
        elif item["state"] == "not run":
            missing = ", ".join(item.get("missing") or []) or "nothing is known to be missing"
            result.append(_warn(4, item["level"], f"The {item['level']} was not run. Missing: {missing}."))
    for item in data["certificates"]:
        days = item.get("days_left")
        if days is None:
            result.append(_warn(4, item["name"], f"How long the certificate of {item['name']} lasts is not known."))
        elif days < 0:
            result.append(_warn(1, item["name"], f"The certificate of {item['name']} ended {-days} days ago.", "Renew it."))
        elif days < 30:
            result.append(_warn(1 if days < 7 else 2, item["name"], f"The certificate of {item['name']} ends in {days} days.",
                                "Renew it."))  # fmt: skip
    absent = data["images"].get("missing") or []
    if absent:
        shown = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        result.append(
            _warn(1, "registry", f"{len(absent)} image{'s are' if len(absent) > 1 else ' is'} not in the private registry: {shown}.", "Run install again.")
        )
    elif not data["images"].get("checked"):
        result.append(_warn(4, "registry", "Whether the private registry holds every image was not checked."))
    if not data["chart"].get("compared"):
        detail = data["chart"].get("detail") or "the vendor's chart was not at hand"
        result.append(_warn(4, "chart", f"The catalog was not compared with the vendor's chart: {detail}."))
    if data.get("keysets") == "own":
        text = "The keysets of artifacts and job history were made by this collection, in a form that was not tried against a running server."
        result.append(_warn(4, "keysets", text))
    for item in data["listeners"]:
        who = f" ({item['process']})" if item.get("process") else ""
        result.append(_warn(3, str(item.get("host", "")),
                            f"{item.get('host')} listens on {item.get('protocol')} {item.get('port')}{who} and no rule explains it.",
                            "Stop it, or write a rule for it."))  # fmt: skip
    for item in data["versions"]:
        if item.get("state") not in (None, "ok"):
            text = f"{item['component']} is {item.get('found')}, expected is {item.get('expected')}."
            result.append(_warn(2 if item["state"] == "wrong" else 3, item["component"], text, str(item.get("detail") or "")))
    for item in data["storage"]:
        used = item.get("used_percent")
        if used is not None and used >= 80:
            result.append(_warn(1 if used >= 95 else 2, item["name"], f"{item['name']} is {used:g} % full. {item.get('detail', '')}".strip()))
        days = item.get("full_in_days")
        if days is not None and days < 30:
            text = f"{item['name']} is full in {days} day{'s' if days != 1 else ''} if it goes on as since {item['since']['when'][:10]}."
            result.append(_warn(1 if days < 7 else 2, f"{item['name']} fills", text, "Make it larger, or find what grows."))
    for item in data["unmeasured"]:
        result.append(_warn(4, str(item.get("what")), f"Not measured: {item.get('what')} ({item.get('why')})."))
    result += _licence_warnings(data["licence"])
    for item in data["findings"]:
        text = f"{item.get('subject', '')}: found {item.get('found')}, expected {item.get('expected')}."
        result.append(_warn(int(item.get("urgency", 3)), str(item.get("subject", "")), text, str(item.get("remedy") or ""),
                            str(item.get("source") or "")))  # fmt: skip
    return result


def _licence_warnings(licence: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not licence:
        return []
    if not licence.get("present"):
        remedy = "Put the vendor's licence into circleci_license and run the verb secrets."
        return [_warn(1, "licence", "The Secret license with the licence is not there.", remedy)]
    days = licence.get("days_left")
    if days is None:
        text = "How long the licence lasts is not known: the vendor does not document where it says so."
        return [_warn(4, "licence", text, "Set circleci_verify_licence_end.")]
    if days < 30:
        when = f"ended {-days} days ago" if days < 0 else f"ends in {days} days"
        return [_warn(1 if days < 7 else 2, "licence", f"The licence {when}.", "Ask the vendor for a new one.")]
    return []


# A forecast needs a day at least to look back on, and forgets what was long ago.
_FORECAST_DAYS = (1.0, 60.0)


def _days_between(first: str, second: str) -> Optional[float]:
    try:
        one, two = (datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ") for text in (first, second))
    except ValueError:
        return None
    return (two - one).total_seconds() / 86400


def _forecast(data: Mapping[str, Any], before: Optional[Mapping[str, Any]]) -> None:
    """When disks and volumes are full, by a line through the oldest figure that is not too old and the one of now."""
    known = {item.get("name"): item for item in (before or {}).get("storage") or []}
    for item in data["storage"]:
        used, capacity = item.get("used_bytes"), item.get("capacity_bytes")
        old = known.get(item.get("name"))
        if used is None or not capacity or old is None or old.get("used_bytes") is None:
            continue
        last = {"when": str((before or {}).get("generated", "")), "used_bytes": old["used_bytes"]}
        since = old.get("since") or last
        age = _days_between(str(since.get("when")), str(data["generated"]))
        if age is None or age > _FORECAST_DAYS[1]:
            since, age = last, _days_between(last["when"], str(data["generated"]))
        item["since"] = since
        grown = int(used) - int(since["used_bytes"])
        if age is not None and age >= _FORECAST_DAYS[0] and grown > 0:
            item["full_in_days"] = int((int(capacity) - int(used)) / (grown / age))


def _state(data: Mapping[str, Any]) -> str:
    urgencies = {item["urgency"] for item in data["warnings"]}
    if 1 in urgencies:
        return "failed"
    return "warning" if urgencies & {2, 3} else "ok"


def _counts(items: Sequence[Mapping[str, Any]], key: str, names: Sequence[str]) -> dict[str, int]:
    return {name: sum(item.get(key) == name for item in items) for name in names}


def _changes(data: Mapping[str, Any], before: Optional[Mapping[str, Any]]) -> list[dict[str, str]]:
    if not before:
        return []
    result = []

    def note(what: str, old: Any, new: Any) -> None:
        if old != new:
            result.append({"what": what, "before": str(old), "after": str(new)})

    for name in ("release", "platform", "domain"):
        note(name, before.get(name, ""), data.get(name, ""))
    for kind, key, fact in (("services", "name", "state"), ("evidence", "level", "state")):
        old = {item.get(key): item.get(fact, "") for item in before.get(kind) or []}
        new = {item.get(key): item.get(fact, "") for item in data[kind]}
        for name in sorted({str(item) for item in {*old, *new}}):
            note(name, old.get(name, "not there"), new.get(name, "not there"))
    for kind, label, key in (
        ("hosts", "host", "name"), ("waivers", "waiver", "name"), ("certificates", "certificate", "name"),
        ("secrets_in_values", "secret in the Helm value", "key"),
    ):  # fmt: skip
        old_names = {str(item.get(key)) for item in before.get(kind) or []}
        new_names = {str(item.get(key)) for item in data[kind]}
        for name in sorted(old_names - new_names, key=_natural):
            note(f"{label} {name}", "there", "gone")
        for name in sorted(new_names - old_names, key=_natural):
            note(f"{label} {name}", "not there", "there")

    def images(source: Mapping[str, Any]) -> dict[str, str]:
        return {
            f"{item.get('name')}/{work.get('name')}": ", ".join(work.get("images") or [])
            for item in source.get("services") or []
            for work in item.get("workloads") or []
        }

    old_images, new_images = images(before), images(data)
    for name in sorted({*old_images} & {*new_images}):
        note(f"image of {name}", old_images[name], new_images[name])

    def verdicts(source: Mapping[str, Any]) -> dict[tuple[Any, ...], str]:
        return {
            (item.get("rule"), item.get("from"), item.get("to"), item.get("port"), item.get("protocol")): str(item.get("verdict"))
            for item in source.get("flows") or []
        }

    old_flows, new_flows = verdicts(before), verdicts(data)
    turned: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for flow in sorted({*old_flows} & {*new_flows}, key=str):
        if old_flows[flow] != new_flows[flow]:
            turned.setdefault((str(flow[4]), str(flow[3]), old_flows[flow], new_flows[flow]), []).append(flow)
    # Worst first; one host that fell silent is one line, not one for each that tried to reach it.
    for (protocol, port, old_verdict, new_verdict), flows in sorted(turned.items(), key=lambda item: (_VERDICTS.get(item[0][3], 9), item[0])):
        places, targets = (_names((str(flow[index]) for flow in flows), 3) for index in (1, 2))
        note(f"connection {places} to {targets} {protocol} {port}", old_verdict, new_verdict)
    return result


def build_report(findings: Mapping[str, Any], before: Optional[Mapping[str, Any]] = None) -> dict[str, Any]:
    """The report of one site; ``before`` is the report that was made last."""
    data = _checked(findings)
    data["format"] = FORMAT
    _forecast(data, before)
    data["warnings"] = sorted(
        [*_service_warnings(data), *_flow_warnings(data), *_other_warnings(data)], key=lambda item: (item["urgency"], item["subject"])
    )
    data["summary"] = {
        "state": _state(data),
        "services": _counts(data["services"], "state", SERVICE_STATES),
        "flows": _counts(data["flows"], "verdict", ("proved", "failed", "unproved")),
        "warnings": {name: sum(item["urgency"] == number for item in data["warnings"]) for number, name in URGENCIES.items()},
        "hosts": len(data["hosts"]),
    }
    data["changes"] = _changes(data, before)
    data["previous"] = str((before or {}).get("generated", ""))
    return data


_VOLATILE = frozenset({"generated", "previous", "changes", "milliseconds", "seconds", "days_left", "when", "summary", "warnings", "used_percent",
                       "used_bytes", "since", "full_in_days", "waiting", "why"})  # fmt: skip


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        names = one.keys() - _VOLATILE
        return names == two.keys() - _VOLATILE and all(_same(one[name], two[name]) for name in names)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(_same, one, two))
    return bool(one == two)


def same_content(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two reports say the same, times and durations left aside; days left count once they make a warning."""

    def warned(report: Mapping[str, Any]) -> list[tuple[Any, Any]]:
        return sorted((item.get("urgency"), item.get("subject")) for item in report.get("warnings") or [])

    return _same(first, second) and warned(first) == warned(second)
