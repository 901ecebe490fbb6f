# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""The page for people: every site one after the other, the urgent first, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .markup import esc, page, slug, table, tag
from .model import URGENCIES
from .site_map import WORDS, port_lines, site_map, zone_title

_STATE = {"ok": ("healthy", "ok"), "warning": ("needs a look", "warn"), "failed": ("has problems", "bad")}
_SERVICE = {"healthy": "ok", "degraded": "warn", "down": "bad", "missing": "bad", "not installed": "none", "unknown": "none"}
_EVIDENCE = {"passed": "ok", "failed": "bad", "not run": "none"}
_VERDICT = {"proved": "ok", "failed": "bad", "unproved": "warn"}
_URGENCY = {1: "bad", 2: "warn", 3: "none", 4: "none"}
_KEYSETS = {
    "vendor": "The keysets of artifacts and job history were made by the vendor's program.",
    "own": "The keysets of artifacts and job history were made by this collection, in the form of the vendor's program.",
    "given": "The keysets of artifacts and job history were given.",
}
UNKNOWN_IMPACT = "The vendor does not say."
MANY = 60
FEW = 8
STEPS = ("scheduled", "pulled", "uploaded", "read_back")


def _headline(report: Mapping[str, Any]) -> str:
    summary = report["summary"]
    services, flows, warnings = summary["services"], summary["flows"], summary["warnings"]
    installed = sum(count for name, count in services.items() if name != "not installed")
    cards = [
        (f"{services['healthy']} of {installed}", "services healthy"),
        (f"{flows['proved']}", f"connections proved, {flows['failed']} failed, {flows['unproved']} not provable"),
        (f"{warnings['now']}", f"to do now, {warnings['soon']} soon"),
        (f"{summary['hosts']}", "hosts"),
    ]
    passed = [item["level"] for item in report["evidence"] if item["state"] == "passed"]
    cards.append((f"{len(passed)} of {len(report['evidence'])}", "levels of proof passed"))
    items = "".join(f"<li><b>{esc(number)}</b>{esc(text)}</li>" for number, text in cards)
    return f'<ul class="cards">{items}</ul>'


def _warnings(report: Mapping[str, Any]) -> str:
    """What asks for somebody in full; what was only not proved behind a line that counts it."""
    pressing = [item for item in report["warnings"] if item["urgency"] < 4]
    rest = [item for item in report["warnings"] if item["urgency"] == 4]
    result = f'<ol class="warnings">{"".join(_warning(item) for item in pressing)}</ol>' if pressing else "<p>Nothing needs attention.</p>"
    if rest:
        things = "1 thing was" if len(rest) == 1 else f"{len(rest)} things were"
        result += f'<details><summary>{things} not proved</summary><ol class="warnings">{"".join(_warning(item) for item in rest)}</ol></details>'
    return result


def _warning(item: Mapping[str, Any]) -> str:
    more = f"<br><span>{esc(item['remedy'])}</span>" if item.get("remedy") else ""
    source = f' <span class="soft">Source: {esc(item["source"])}</span>' if item.get("source") else ""
    label = tag(URGENCIES[item["urgency"]], _URGENCY[item["urgency"]])
    return f'<li class="u{item["urgency"]}">{label} {esc(item["text"])}{more}{source}</li>'


def _changes(report: Mapping[str, Any]) -> str:
    if not report.get("previous"):
        return "<p>This is the first report of the site.</p>"
    rows = [(esc(item["what"]), esc(item["before"]), esc(item["after"])) for item in report["changes"][:MANY]]
    more = f" (first {MANY} of {len(report['changes'])})" if len(report["changes"]) > MANY else ""
    return table(f"Changes since {report['previous']}{more}", ("What", "Before", "Now"), rows, f"Nothing changed since {report['previous']}.")


def _services(report: Mapping[str, Any]) -> str:
    rank = {"down": 0, "missing": 0, "degraded": 1, "unknown": 2, "healthy": 3, "not installed": 4}
    rows = []
    for item in sorted(report["services"], key=lambda one: (rank.get(one.get("state", "unknown"), 2), str(one.get("name")))):
        state = item.get("state", "unknown")
        works = item.get("workloads") or []
        ready = f"{sum(int(work.get('ready') or 0) for work in works)}/{sum(int(work.get('wanted') or 0) for work in works)}" if works else "–"
        restarts = sum(int(work.get("restarts") or 0) for work in works)
        images = "–"
        if works:
            entries = "".join(
                f"<li>{esc(work.get('name'))} {esc(work.get('ready'))}/{esc(work.get('wanted'))}"
                + "".join(f"<br><code>{esc(image)}</code>" for image in dict.fromkeys(work.get("images") or []))
                + "</li>"
                for work in works
            )
            count = f"{len(works)} workload{'s' if len(works) != 1 else ''}"
            images = f'<details><summary>{count}<span class="hidden"> of {esc(item.get("name"))}</span></summary><ul>{entries}</ul></details>'
        impact = esc(item.get("impact")) if item.get("impact") else f'<span class="soft">{UNKNOWN_IMPACT}</span>'
        detail = f'<br><span class="soft">{esc(item["detail"])}</span>' if item.get("detail") else ""
        rows.append((esc(item.get("name")), tag(state, _SERVICE.get(state, "none")) + detail, impact, ready, str(restarts),
                     esc(item.get("component") or "–"), images))  # fmt: skip
    columns = ("Service", "State", "What fails for users when it is down", "Ready", "Restarts", "Component", "Workloads and images")
    return table("Services of the release", columns, rows, "No service was looked at.", titled=True)


def _evidence(report: Mapping[str, Any]) -> str:
    rows = []
    for item in report["evidence"]:
        missing = ", ".join(item.get("missing") or [])
        detail = item.get("detail") or (f"Missing: {missing}" if missing else "")
        rows.append(
            (esc(item["level"]), tag(item["state"], _EVIDENCE[item["state"]]), esc(detail), f'<span class="whole">{esc(item.get("when") or "–")}</span>')
        )
    result = table("Levels of proof, each for itself", ("Level", "State", "Detail", "When"), rows)
    for item in report["evidence"]:
        if item.get("clients"):
            columns = ("Client", "State", "Job placed", "Image pulled", "Artifact uploaded", "Read back and equal", "Found")
            good = [one for one in item["clients"] if _passed(one)]
            bad = [one for one in item["clients"] if not _passed(one)]
            few = len(item["clients"]) <= FEW
            if bad or few:
                shown = item["clients"] if few else bad
                result += table(f"Clients of the {item['level']}" + ("" if few else " that failed"), columns, [_client(one) for one in shown])
            if good and not few:
                passed = table(f"Clients of the {item['level']} that passed", columns, [_client(one) for one in good])
                result += f"<details><summary>{len(good)} clients passed</summary>{passed}</details>"
    return result


def _passed(item: Mapping[str, Any]) -> bool:
    return all(item.get(step) for step in STEPS) and not item.get("problem")


def _client(item: Mapping[str, Any]) -> tuple[str, ...]:
    """A row: every step that was reached, and what stopped it."""
    steps = tuple("yes" if item.get(step) else "no" for step in STEPS)
    node = f' <span class="soft">{esc(item["node"])}</span>' if item.get("node") not in ("", None, item.get("name")) else ""
    good = _passed(item)
    seconds = f"in {item['seconds']:g} s" if good and item.get("seconds") else ""
    return (esc(item.get("name")) + node, tag("passed" if good else "failed", "ok" if good else "bad"), *steps, esc(item.get("problem") or seconds))


def _connections(report: Mapping[str, Any]) -> str:
    rows = []
    for line in port_lines(report):
        flows = line["flows"]
        proved = sum(item.get("verdict") == "proved" and item.get("expect") != "closed" for item in flows)
        closed = sum(item.get("verdict") == "proved" and item.get("expect") == "closed" for item in flows)
        state = "printed, not served" if line["told"] else WORDS[line["state"]]
        sources = ", ".join(zone_title(zone) or zone for zone in line["from"]) or "–"
        kind = line["state"]
        rows.append((esc(f"{zone_title(line['zone'])}: {line['protocol']} {line['ports']}"), esc(sources), tag(state, kind),
                     f"{proved} open, {closed} closed" if flows else "–", esc(line["reason"])))  # fmt: skip
    result = table("Connections by zone", ("Into", "From", "State", "Proved", "Why"), rows, "No rules were given.")
    open_points = [item for item in report["flows"] if item.get("verdict") != "proved"]
    shown = [
        (esc(item.get("name") or f"{item.get('from')} to {item.get('to')} {item.get('port')}"), tag(str(item.get("verdict")),
         _VERDICT.get(str(item.get("verdict")), "none")), esc(item.get("expect")), esc(item.get("found")), esc(item.get("detail")))
        for item in open_points[:MANY]
    ]  # fmt: skip
    if shown:
        more = f" (first {MANY} of {len(open_points)})" if len(open_points) > MANY else ""
        result += table(f"Connections that were not proved{more}", ("Connection", "State", "Expected", "Found", "Detail"), shown)
    return result


def _hosts(report: Mapping[str, Any]) -> str:
    listeners: dict[str, list[str]] = {}
    for item in report["listeners"]:
        text = f"{item.get('protocol')} {item.get('port')}" + (f" {item['process']}" if item.get("process") else "")
        listeners.setdefault(str(item.get("host")), []).append(text)
    rows = []
    for host in report["hosts"]:
        name = str(host.get("name"))
        groups = ", ".join(group.replace("circleci_", "") for group in host.get("groups") or [])
        rows.append((esc(name), esc(", ".join(host.get("addresses") or [])), esc(groups), esc(", ".join(listeners.get(name, [])) or "–")))
    return table("Hosts", ("Host", "Addresses", "Groups", "Listeners without a rule"), rows, "No hosts were given.", titled=True)


def _size(count: Any) -> str:
    return f"{int(count) / 2**30:.1f} GiB" if count else "–"


def _full(item: Mapping[str, Any]) -> str:
    days = item.get("full_in_days")
    if days is None:
        return "not known yet" if not item.get("since") else "does not grow"
    return f"{days} day{'s' if days != 1 else ''}" if days < 1000 else "more than 1000 days"


def _rest(report: Mapping[str, Any]) -> str:
    days = [
        (esc(item["name"]), "unknown" if item.get("days_left") is None else f"{item['days_left']} days",
         esc(item.get("detail") or ""))
        for item in sorted(report["certificates"], key=lambda one: (one.get("days_left") is None, one.get("days_left") or 0))
    ]  # fmt: skip
    versions = [(esc(item["component"]), esc(item.get("found")), esc(item.get("expected")), esc(item.get("detail") or ""))
                for item in report["versions"]]  # fmt: skip
    licence = report.get("licence") or {}
    if licence:
        left = "not there" if not licence.get("present") else "unknown" if licence.get("days_left") is None else f"{licence['days_left']} days"
        days.insert(0, ("Licence of the vendor", left, esc(licence.get("end") or "")))
    storage = [(esc(item["name"]), esc(f"{item.get('used_percent')} %"), _size(item.get("capacity_bytes")), _full(item), esc(item.get("detail") or ""))
               for item in report["storage"]]  # fmt: skip
    queues = [(esc(item["name"]), esc(item.get("waiting")), esc(item.get("detail") or "")) for item in report.get("queues") or []]
    waivers = [(esc(item.get("name")), esc(item.get("reason"))) for item in report["waivers"]]
    exposed = [tuple(esc(item.get(key)) for key in ("key", "rule", "source", "why")) for item in report.get("secrets_in_values") or []]
    images, chart = report["images"], report["chart"]
    if images.get("missing"):
        registry = f"{len(images['missing'])} image{'s are' if len(images['missing']) > 1 else ' is'} missing in the private registry."
    else:
        registry = "Every wanted image is in the private registry." if images.get("checked") else "The private registry was not checked."
    compared = "was compared" if chart.get("compared") else "was not compared"
    parts = [
        "<h3>Certificates and licence</h3>",
        table("Certificates and licence", ("Certificate", "Left", "Detail"), days, "No certificate was looked at.", titled=True),
        "<h3>Versions</h3>", table("Versions", ("Component", "Found", "Expected", "Detail"), versions, "No version was looked at.", titled=True),
        "<h3>Storage</h3>", table("Storage", ("Volume", "Used", "Of", "Full in", "Detail"), storage, "No volume was looked at.", titled=True),
        "<h3>Queues</h3>", table("Queues", ("Queue", "Waiting", "Detail"), queues, "No queue was looked at.", titled=True),
        "<h3>Registry and chart</h3>",
        f"<p>{esc(registry)} {esc(images.get('detail') or '')}</p>",
        f"<p>The vendor's chart {compared} with the catalog. {esc(chart.get('detail') or '')}</p>",
        "<h3>Secrets in the Helm values</h3>",
        table("Helm values that carry something secret", ("Key", "Rule", "Source", "Why"), exposed, "Every secret is in a Secret of its own.", titled=True),
        f"<p>{_KEYSETS.get(str(report.get('keysets')), 'Who made the keysets of artifacts and job history was not written down.')}</p>",
        "<h3>Waivers</h3>",
        table("Requirements that the site knowingly does not meet", ("Requirement", "Reason"), waivers, "No requirement is waived.", titled=True),
    ]  # fmt: skip
    if images.get("missing"):
        entries = "".join(f"<li><code>{esc(ref)}</code></li>" for ref in images["missing"])
        parts.insert(parts.index("<h3>Waivers</h3>"), f"<details><summary>Missing images</summary><ul>{entries}</ul></details>")
    return "".join(parts)


def _site(report: Mapping[str, Any], number: int) -> str:
    word, kind = _STATE[report["summary"]["state"]]
    name = slug(str(report["site"]))
    parts = (
        ("warnings", "To do, the urgent first", _warnings(report)),
        ("changes", "Since the last report", _changes(report)),
        ("services", "Services", _services(report)),
        ("evidence", "Proof", _evidence(report)),
        ("map", "Site map", site_map(report, number)),
        ("connections", "Connections", _connections(report)),
        ("hosts", "Hosts", _hosts(report)),
        ("rest", "Certificates, versions, storage, queues, registry, waivers", _rest(report)),
    )
    links = "".join(f'<li><a href="#{name}-{key}">{esc(title)}</a></li>' for key, title, _body in parts)
    sections = "".join(
        f'<section aria-labelledby="{name}-{key}"><h2 id="{name}-{key}">{esc(title)}</h2>{body}</section>' for key, title, body in parts
    )
    about = f"CircleCI Server {report.get('release') or '?'} on {report.get('platform') or '?'}, {report.get('domain') or '?'}"
    return (
        f'<article id="site-{name}" aria-labelledby="{name}"><h1 id="{name}">Site {esc(report["site"])} {tag(word, kind)}</h1>'
        f'<p class="soft">{esc(about)}. Made {esc(report["generated"])}.</p>{_headline(report)}'
        f'<nav aria-label="Sections of the site {esc(report["site"])}"><details><summary>Sections</summary><ul>{links}</ul></details></nav>{sections}</article>'
    )


def render_page(reports: Sequence[Mapping[str, Any]]) -> str:
    """One page for one or several sites; those with problems come first."""
    order = {"failed": 0, "warning": 1, "ok": 2}
    ranked = sorted(reports, key=lambda item: (order[item["summary"]["state"]], str(item["site"])))
    navigation = ""
    if len(ranked) > 1:
        rows = []
        for item in ranked:
            word, kind = _STATE[item["summary"]["state"]]
            warnings = item["summary"]["warnings"]
            link = f'<a href="#site-{slug(str(item["site"]))}">{esc(item["site"])}</a>'
            rows.append((link, tag(word, kind), str(warnings["now"]), str(warnings["soon"]), esc(item.get("release")), esc(item["generated"])))
        heading = table("Sites", ("Site", "State", "To do now", "Soon", "Release", "Made"), rows)
        navigation = f'<nav class="sites" aria-label="Sites"><h1>CircleCI Server: {len(ranked)} sites</h1>{heading}</nav>'
    body = "".join(_site(item, number) for number, item in enumerate(ranked))
    title = f"CircleCI Server: {', '.join(str(item['site']) for item in ranked)}" if len(ranked) <= 3 else f"CircleCI Server: {len(ranked)} sites"
    return page(title, f'{navigation}<main id="main">{body}</main><footer>Made by the collection onprem.circleci_server. '
                "The page loads nothing from a network.</footer>")  # fmt: skip
