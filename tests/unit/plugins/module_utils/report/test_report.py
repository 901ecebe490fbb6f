# SPDX-License-Identifier: GPL-3.0-or-later
"""Report and change-request document: what stands first, what changed, and that nothing is loaded or run."""

from __future__ import annotations

import copy
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.report import (
    PlanError,
    ReportError,
    build_report,
    read_report,
    render_json,
    render_page,
    render_plan,
    render_prometheus,
    render_summary,
    same_content,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.report.plan_document import SECTIONS, human_size

VOID = {"meta", "br", "link", "img", "hr", "input", "wbr"}


class Checker(HTMLParser):
    """Well formed, no script, nothing from outside, ids once, links that lead somewhere, headings in order."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.refs: list[str] = []
        self.levels: list[int] = []
        self.tables = self.captions = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        assert tag not in ("script", "img", "link", "iframe", "object", "base", "form")
        values = dict(attrs)
        assert not [name for name in values if name.startswith("on") or name in ("src", "style")]
        if "id" in values:
            self.ids.append(values["id"])
        self.refs += str(values.get("aria-labelledby", "")).split()
        if tag == "a":
            self.links.append(values["href"])
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        self.tables += tag == "table"
        self.captions += tag == "caption"
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert not checker.stack
    assert len(set(checker.ids)) == len(checker.ids)
    assert all(link.startswith("#") and link[1:] in checker.ids for link in checker.links)
    assert all(ref in checker.ids for ref in checker.refs)
    assert checker.levels[0] == 1 and all(after - before <= 1 for before, after in zip(checker.levels, checker.levels[1:]))
    assert checker.tables == checker.captions
    assert not re.search(r"https?://", page)
    assert "@import" not in page and "url(" not in page
    return checker


def findings(site: str = "osaka", **more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "site": site, "release": "4.10.0", "platform": "generic", "domain": f"ci.{site}.example", "generated": "2026-11-24T05:00:00Z",
        "hosts": [{"name": "nomad1", "addresses": ["10.0.0.4"], "groups": ["circleci_nomad_clients"]},
                  {"name": "node1", "addresses": ["10.0.0.3"], "groups": ["circleci_cluster_nodes"]}],
        "rules": [{"id": "client-in-nomad", "host": "nomad1", "group": "nomad_client", "direction": "ingress", "protocol": "tcp",
                   "ports": ["4647"], "peer_kinds": ["kubernetes_node"], "state": "apply", "reason": "Nomad RPC", "action": "accept"},
                  {"id": "lb-in-8585-printed", "host": "load-balancer", "group": "load_balancer", "direction": "ingress", "protocol": "tcp",
                   "ports": ["8585"], "peer_kinds": ["nomad_client"], "state": "documented, not served", "reason": "printed"}],
        "flows": [{"name": "f", "from": "node1", "to": "nomad1", "rule": "client-in-nomad", "port": 4647, "protocol": "tcp",
                   "expect": "reachable", "found": "refused", "verdict": "proved", "milliseconds": 3}],
        "services": [{"name": "api-service", "state": "healthy", "impact": "The UI stops.", "workloads": [
            {"kind": "Deployment", "name": "api-service", "wanted": 1, "ready": 1, "restarts": 0, "images": ["r/api:1"]}]}],
        "evidence": [{"level": "infrastructure probe", "state": "passed", "detail": "read back"}],
        "certificates": [{"name": "ci", "days_left": 90}], "images": {"checked": True, "missing": []}, "chart": {"compared": True},
        "waivers": [{"name": "cluster_size", "reason": "demo"}],
    }  # fmt: skip
    base.update(more)
    return base


def down() -> dict[str, Any]:
    return findings(services=[{"name": "api-service", "state": "down", "detail": "0 of 1 ready", "impact": "The UI stops.", "workloads": []}])


def test_a_stopped_service_is_told_with_its_impact() -> None:
    report = build_report(down(), build_report(findings()))
    assert report["summary"]["state"] == "failed"
    assert report["warnings"][0]["text"] == "api-service is down (0 of 1 ready). The UI stops."
    assert {"what": "api-service", "before": "healthy", "after": "down"} in report["changes"]
    assert "The UI stops." in render_page([report])
    silent = build_report(findings(services=[{"name": "x", "state": "down"}]))
    assert "The vendor does not say what fails for users." in silent["warnings"][0]["text"]


def test_what_nobody_spoke_of_was_not_run() -> None:
    report = build_report({"site": "x"})
    assert [item["state"] for item in report["evidence"]] == ["not run"] * 3
    assert not [item for item in report["warnings"] if item["urgency"] < 4]
    assert {item["subject"] for item in report["warnings"]} >= {"registry", "chart", "reality check"}


def test_urgent_first() -> None:
    report = build_report(
        findings(
            certificates=[{"name": "late", "days_left": -1}, {"name": "soon", "days_left": 20}, {"name": "?", "days_left": None}],
            flows=[{"from": "a", "to": "b", "rule": "r", "port": 1, "expect": "closed", "found": "open", "verdict": "failed"},
                   {"from": "a", "to": "b", "rule": "r", "port": 2, "expect": "closed", "found": "refused", "verdict": "unproved"}],
            listeners=[{"host": "nomad1", "protocol": "tcp", "port": 9100, "process": "x"}],
            versions=[{"component": "Kubernetes", "found": "1.32", "expected": "1.33-1.35", "state": "wrong"}],
            storage=[{"name": "pvc", "used_percent": 96}], images={"checked": True, "missing": list("abcde")},
            findings=[{"urgency": 2, "subject": "disk", "found": 1, "expected": 2}],
        )
    )  # fmt: skip
    urgencies = [item["urgency"] for item in report["warnings"]]
    assert urgencies == sorted(urgencies)
    texts = [item["text"] for item in report["warnings"]]
    assert "tcp 1 of b is open from a, which no rule allows." in texts
    assert "5 images are not in the private registry: a, b, c and 2 more." in texts


def test_the_same_trouble_of_many_hosts_is_told_once_in_the_order_of_people() -> None:
    flow = {"rule": "r", "protocol": "tcp", "port": 5000, "expect": "tls", "found": "timeout", "detail": "no answer in time", "verdict": "failed"}
    flows = [{**flow, "from": f"nomad{number}", "to": "registry"} for number in range(1, 13)]
    report = build_report(findings(flows=[*flows, {**flow, "from": "nomad1", "to": "registry", "port": 5001}]))
    texts = [item["text"] for item in report["warnings"] if item["urgency"] == 1]
    assert texts == [
        "tcp 5000 of registry does not answer as tls from nomad1, nomad2, nomad3, nomad4, nomad5 and 7 more (timeout: no answer in time).",
        "tcp 5001 of registry does not answer as tls from nomad1 (timeout: no answer in time).",
    ]


def test_clients_of_the_probe_have_a_table_and_durations_are_no_change() -> None:
    steps = {"scheduled": True, "pulled": True, "uploaded": True, "read_back": True}
    clients = [{"name": "nomad1", "node": "ip-1", **steps, "seconds": 6.1, "problem": ""},
               {"name": "nomad2", "node": "nomad2", **steps, "pulled": False, "seconds": 3, "problem": "cannot pull <x>"}]  # fmt: skip
    probe = {"level": "infrastructure probe", "state": "failed", "detail": "d", "clients": clients, "when": "then",
             "problems": ["the infrastructure probe: nomad2: cannot pull <x>. Do it.", "the infrastructure probe: nomad3: gone. Look."]}  # fmt: skip
    report = build_report(findings(evidence=[probe]))
    page = render_page([report])
    checked(page)
    assert "Clients of the infrastructure probe" in page and "in 6.1 s" in page and "cannot pull &lt;x&gt;" in page
    assert [item["text"] for item in report["warnings"] if item["urgency"] == 1] == [
        "The infrastructure probe: nomad2: cannot pull <x>. Do it.", "The infrastructure probe: nomad3: gone. Look."
    ]  # fmt: skip
    later = {**probe, "when": "now", "clients": [{**clients[0], "seconds": 99.0}, clients[1]]}
    assert same_content(report, build_report(findings(evidence=[later]), report))
    good = build_report(findings(evidence=[{**later, "clients": [clients[0], {**clients[1], "pulled": True}]}]))
    assert not same_content(report, good)


def test_secrets_in_the_values_are_listed_and_a_new_one_is_a_change() -> None:
    tls = {"key": "tls.privateKey", "rule": "tls", "source": "the vendor <s>", "why": "The vendor documents no Secret for it."}
    before = build_report(findings(secrets_in_values=[tls]))
    page = render_page([before])
    checked(page)
    assert "tls.privateKey" in page and "the vendor &lt;s&gt;" in page
    assert "Every secret is in a Secret of its own." in render_page([build_report(findings())])
    after = build_report(findings(secrets_in_values=[tls, {**tls, "key": "smtp.password"}]), before)
    assert not same_content(before, after)
    assert after["changes"] == [{"what": "secret in the Helm value smtp.password", "before": "not there", "after": "there"}]
    assert before["summary"]["state"] == build_report(findings())["summary"]["state"]


def test_one_host_that_falls_silent_is_one_change() -> None:
    flows = [{**findings()["flows"][0], "from": f"node{number}"} for number in range(1, 6)]
    before = build_report(findings(flows=flows))
    after = build_report(findings(flows=[{**flow, "found": "timeout", "verdict": "failed"} for flow in flows]), before)
    assert after["changes"] == [{"what": "connection node1, node2, node3 and 2 more to nomad1 tcp 4647", "before": "proved", "after": "failed"}]


def test_many_clients_that_passed_stand_behind_a_line() -> None:
    steps = {"scheduled": True, "pulled": True, "uploaded": True, "read_back": True, "problem": ""}
    clients = [{"name": f"nomad{number}", **steps} for number in range(1, 30)] + [{"name": "nomad30", **steps, "pulled": False, "problem": "no route"}]
    page = render_page([build_report(findings(evidence=[{"level": "infrastructure probe", "state": "failed", "clients": clients}]))])
    checked(page)
    assert "29 clients passed</summary>" in page
    assert page.index("no route") < page.index("29 clients passed")


def test_lines_of_the_map_that_pass_the_middle_have_a_lane_each() -> None:
    hosts = [{"name": "bastion", "addresses": [], "groups": ["circleci_sites"]}, {"name": "nomad1", "addresses": [], "groups": ["circleci_nomad_clients"]},
             {"name": "store", "addresses": [], "groups": ["circleci_object_storage"]}]  # fmt: skip
    rule = {**findings()["rules"][0], "id": "r"}
    rules = [{**rule, "host": host, "peer_kinds": [kind]} for host in ("nomad1", "store") for kind in ("users", "bastion")]
    page = render_page([build_report(findings(hosts=hosts, rules=rules, flows=[]))])
    lanes = re.findall(r'class="edge[^"]*" d="M[^"]* L\d+ (\d+) C', page)
    assert len(lanes) == 4 == len(set(lanes))


def test_what_was_only_not_proved_stands_behind_a_line() -> None:
    page = render_page([build_report(findings(chart={}))])
    assert "Nothing needs attention." in page and "not proved</summary>" in page


def test_bad_findings_are_told_at_once() -> None:
    with pytest.raises(ReportError) as caught:
        build_report({"hosts": "x", "services": [{"name": "a", "state": "green"}], "evidence": [{"level": "hope", "state": "passed"}]})
    assert len(caught.value.problems) == 4


def test_the_same_again_is_the_same() -> None:
    first = build_report(findings())
    again = build_report(findings(generated="2027-01-01T00:00:00Z", flows=[{**findings()["flows"][0], "milliseconds": 99}]), first)
    assert same_content(first, again)
    assert not same_content(first, build_report(down()))
    assert not same_content(first, build_report(findings(certificates=[{"name": "ci", "days_left": 5}])))
    assert same_content(first, build_report(findings(certificates=[{"name": "ci", "days_left": 89}])))


def test_what_is_given_stays_as_it_was() -> None:
    given = findings(storage=[{"name": "disk", "used_bytes": 40, "capacity_bytes": 100, "used_percent": 40.0}])
    copied = copy.deepcopy(given)
    earlier = build_report({**given, "generated": "2030-01-01T00:00:00Z", "storage": [{**given["storage"][0], "used_bytes": 10}]})
    later = build_report({**given, "generated": "2030-01-11T00:00:00Z"}, earlier)
    assert later["storage"][0]["full_in_days"] == 20
    assert given == copied


def test_the_data_has_one_item_of_a_list_on_a_line(tmp_path: Path) -> None:
    report = build_report(findings())
    text = render_json(report)
    assert sum('"verdict"' in line for line in text.splitlines()) == len(report["flows"]) > 0
    (tmp_path / "report.json").write_text(text, encoding="utf-8")
    assert read_report(str(tmp_path / "report.json")) == report


def test_page_is_sound() -> None:
    page = render_page([build_report(down(), build_report(findings()))])
    checker = checked(page)
    assert {"main", "site-osaka", "osaka-map"} <= set(checker.ids)
    svg = re.search(r"<svg.*?</svg>", page, re.DOTALL)
    assert svg is not None
    drawing = ElementTree.fromstring(svg.group(0))
    assert any("tcp 4647" in "".join(text.itertext()) for text in drawing.iter("text"))
    assert "printed, not served" in page and "demo" in page


def test_several_sites_on_one_page_those_with_problems_first() -> None:
    reports = [build_report(findings(name)) for name in ("kyoto", "nara")] + [build_report({**down(), "site": "osaka"})]
    page = render_page(reports)
    checked(page)
    assert page.index('id="site-osaka"') < page.index('id="site-kyoto"') < page.index('id="site-nara"')


def test_what_others_wrote_is_only_text() -> None:
    nasty = '<script>alert("x")</script>'
    report = build_report(findings(site=nasty, waivers=[{"name": nasty, "reason": nasty}], hosts=[{"name": nasty, "addresses": [nasty], "groups": ["circleci_sites"]}]))
    page = render_page([report])
    assert "<script" not in page
    checked(page)
    assert '\\"x\\"' in render_prometheus(report)
    markdown, html = render_plan({"site": nasty, "files": [{"path": "a|b`c", "host": nasty}]})
    assert "<script" not in markdown and "a\\|b\\`c" in markdown and "<script" not in html


def test_three_sites_with_sixty_hosts_stay_small() -> None:
    hosts = [{"name": f"nomad{n}", "addresses": [f"10.0.{n // 250}.{n % 250}"], "groups": ["circleci_nomad_clients"]} for n in range(60)]
    flows = [{**findings()["flows"][0], "from": f"nomad{n % 60}", "to": f"nomad{n // 60 % 60}", "verdict": "failed" if n % 7 else "proved"} for n in range(60 * 400)]
    page = render_page([build_report(findings(site, hosts=hosts, flows=flows)) for site in ("a", "b", "c")])
    assert len(page.encode()) < 1_000_000
    checked(page)


def test_summary_fits_one_screen() -> None:
    listeners = [{"host": "h" * 90, "protocol": "tcp", "port": n} for n in range(60)]
    lines = render_summary(build_report(findings(listeners=listeners), build_report(findings())), "/x/report.html").splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 100
    assert lines[0].startswith("Site osaka: needs a look")
    assert "more" in "\n".join(lines) and lines[-1].endswith("/x/report.html")


def test_prometheus_text_is_sound() -> None:
    text = render_prometheus(build_report(down()))
    pattern = re.compile(r'[a-z_]+\{([a-z]+="(?:[^"\\]|\\.)*",?)+\} -?[0-9.e+]+')
    for line in text.splitlines():
        assert line.startswith("# ") or pattern.fullmatch(line), line
    assert 'onprem_circleci_service_healthy{site="osaka",service="api-service"} 0' in text
    assert 'onprem_circleci_up{site="osaka",release="4.10.0"} 0' in text


# The change-request document


def test_plan_names_everything() -> None:
    plan: dict[str, Any] = {section.key: [{key: f"{section.key}-{key}" for key, _title in section.columns}] for section in SECTIONS}
    plan.update(site="osaka", release="4.10.0", summary="Install it.", downloads=[{"what": "images", "size": 30 * 2**30}, {"what": "x", "size": 5}, {"what": "y"}],
                hosts=[{"name": "nomad1", "addresses": ["10.0.0.1"], "roles": ["Nomad client"], "reboot": True}])  # fmt: skip
    markdown, html = render_plan(plan)
    checked(html)
    html = html.replace("<wbr>", "")
    for section in SECTIONS:
        assert f"## {section.title}" in markdown
        if section.key not in ("downloads", "hosts"):
            for key, _title in section.columns:
                assert f"{section.key}-{key}" in markdown and f"{section.key}-{key}" in html
    assert "30 GiB" in markdown and "Together 30 GiB, 1 of unknown size." in markdown
    assert "| Reboots | nomad1 |" in markdown
    perhaps = [{"name": f"nomad{number}", "reboot": "when it runs cgroup v2"} for number in range(3)]
    assert "| Reboots | up to 3 hosts |" in render_plan({"site": "x", "hosts": perhaps})[0]


def test_an_empty_plan_says_so() -> None:
    markdown, html = render_plan({"site": "x"})
    assert all(section.none in markdown for section in SECTIONS)
    checked(html)


def test_bad_plans() -> None:
    with pytest.raises(PlanError) as caught:
        render_plan({"hots": [], "files": "x"})
    assert len(caught.value.problems) == 3
    assert [human_size(value) for value in (0, 1536, 5 * 2**40, None, "about 3 GiB", True)] == ["0 B", "1.5 KiB", "5.0 TiB", "", "about 3 GiB", "True"]


def test_summary_says_which_chart_the_catalog_was_compared_with() -> None:
    def summary(chart: dict[str, Any]) -> str:
        return render_summary(build_report({"site": "osaka", "chart": chart}, None))

    assert "catalog      compared with circleci-server-4.10.0" in summary({"compared": True, "chart": "circleci-server-4.10.0, sha256:ab"})
    assert "catalog      not compared: no circleci_catalog_overlay" in summary({"compared": False, "detail": "no circleci_catalog_overlay is given"})
