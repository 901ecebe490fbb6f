# SPDX-License-Identifier: GPL-3.0-or-later
"""State of services, and the verdict over a site."""

from __future__ import annotations

import datetime
from typing import Any, Optional

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.onprem.circleci_server.plugins.filter.health import (
    probe_image,
    service_wants,
    site_connections,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.health import (
    VerdictError,
    assess,
    judge_site,
    read_namespace,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.health.services import support_days
from ansible_collections.onprem.circleci_server.plugins.module_utils.json_option import unpacked
from ansible_collections.onprem.circleci_server.plugins.module_utils.report import build_report
from ansible_collections.onprem.circleci_server.plugins.modules.service_health import in_range


class Api:
    """Lists of a namespace, in pages of one."""

    def __init__(self, lists: dict[str, list[dict[str, Any]]]) -> None:
        self.lists = lists

    def request(
        self, method: str, path: str, query: Optional[dict[str, str]] = None, body: Any = None, content_type: str = ""
    ) -> Any:
        assert method == "GET"
        if path == "/version":
            return {"gitVersion": "v1.33.0"}
        items = self.lists.get(path.rpartition("/")[2], [])
        at = int((query or {}).get("continue", 0))
        more = {"continue": str(at + 1)} if at + 1 < len(items) else {}
        return {"items": items[at : at + 1], "metadata": more}


def deployment(name: str, wanted: int, ready: int) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"replicas": wanted, "template": {"spec": {"containers": [{"image": f"{name}:1"}]}}},
            "status": {"readyReplicas": ready}}  # fmt: skip


def pod(owner: str, kind: str = "ReplicaSet", restarts: int = 0, waiting: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    return {"metadata": {"name": owner + "-x", "ownerReferences": [{"kind": kind, "name": owner}]},
            "status": {"containerStatuses": [{"restartCount": restarts, "state": state, "image": owner + ":running"}]}}  # fmt: skip


def service(name: str, *workloads: str, optional: bool = False, certainty: str = "documented", **more: Any) -> dict[str, Any]:
    return {"name": name, "optional": optional, "workloads": [{"name": work, "certainty": certainty} for work in workloads], **more}


def look(*services: dict[str, Any], **lists: list[dict[str, Any]]) -> dict[str, Any]:
    return assess(services, read_namespace(Api(lists), "ns"))


def states(result: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["state"] for item in result["services"]}


def test_states() -> None:
    result = look(
        service("frontend", "frontend"), service("kong", "kong"), service("nginx", "nginx"), service("step", "step-internal", "step-receiver"),
        service("vault", "vault", optional=True, needs="tink.enabled is false"), service("ghost", "ghost"),
        service("guess", "guess", certainty="inferred"), service("none"), service("off", "off"),
        deployments=[deployment("frontend", 1, 1), deployment("kong", 2, 1), deployment("nginx", 1, 0), deployment("step-internal", 1, 1),
                     deployment("off", 0, 0), deployment("stranger", 1, 1)],
        pods=[pod("nginx-5d4f", restarts=7, waiting="ImagePullBackOff")],
        persistentvolumeclaims=[{"metadata": {"name": "data"}, "status": {"phase": "Pending"}}],
    )  # fmt: skip
    assert states(result) == {
        "frontend": "healthy", "kong": "degraded", "nginx": "down", "step": "degraded", "vault": "not installed", "ghost": "missing",
        "guess": "unknown", "none": "unknown", "off": "down",
    }  # fmt: skip
    nginx = next(item for item in result["services"] if item["name"] == "nginx")
    assert nginx["detail"] == "0 of 1 ready: ImagePullBackOff"
    assert (nginx["workloads"][0]["restarts"], nginx["workloads"][0]["images"]) == (7, ["nginx-5d4f:running"])
    assert result["unexplained"] == ["stranger"] and result["unbound_claims"] == ["data"] and result["kubernetes"] == "1.33.0"


def test_pods_go_to_their_own_workload() -> None:
    result = look(service("web-ui", "web-ui"), service("web-ui-insights", "web-ui-insights"),
                  deployments=[deployment("web-ui", 1, 1), deployment("web-ui-insights", 1, 1)],
                  pods=[pod("web-ui-insights-7c", restarts=3), pod("web-ui-9a", restarts=1)])  # fmt: skip
    assert [item["workloads"][0]["restarts"] for item in result["services"]] == [1, 3]


@pytest.mark.parametrize(
    ("jobs", "state", "detail"),
    [
        (["inject-bottoken-4-7-15"], "healthy", ""),
        (["inject-bottoken"], "healthy", ""),
        (["inject-bottokens"], "unknown", "no Job inject-bottoken, which may have been taken away after its end"),
        ([], "unknown", "no Job inject-bottoken, which may have been taken away after its end"),
    ],
)
def test_a_job_has_a_suffix_and_may_be_gone(jobs: list[str], state: str, detail: str) -> None:
    (wanted,) = [item for item in service_wants("4.7.15") if item["name"] == "inject-bottoken"]
    ended = {"conditions": [{"type": "Complete", "status": "True"}]}
    result = look(wanted, jobs=[{"metadata": {"name": name}, "spec": {}, "status": ended} for name in jobs])
    assert (result["services"][0]["state"], result["services"][0]["detail"], result["unexplained"]) == (state, detail, [])


def test_a_job_that_does_not_end_is_down_with_the_reason_of_its_pod() -> None:
    (wanted,) = [item for item in service_wants("4.7.15") if item["name"] == "inject-bottoken"]
    result = look(wanted, jobs=[{"metadata": {"name": "inject-bottoken-1"}, "spec": {}, "status": {"active": 1}}],
                  pods=[pod("inject-bottoken-1", kind="Job", restarts=2, waiting="ImagePullBackOff")])  # fmt: skip
    assert (result["services"][0]["state"], result["services"][0]["detail"]) == ("down", "0 of 1 ready: ImagePullBackOff")


def test_every_service_of_the_catalog_is_judged() -> None:
    wants = service_wants("4.10.0")
    assert len(wants) >= 36 and all(item["name"] for item in wants)
    names = {work["name"] for item in wants for work in item["workloads"]}
    result = look(*wants, deployments=[deployment(name, 1, 1) for name in sorted(names)])
    assert {item["state"] for item in result["services"]} <= {"healthy", "unknown"}
    assert not result["unexplained"]
    one = next(item for item in wants if item["name"] == "api-service")
    stopped = look(one, deployments=[deployment("api-service", 0, 0)])["services"][0]
    assert stopped["state"] == "down" and "UI" in stopped["impact"]


def test_the_image_of_the_probe_is_the_given_one_or_that_of_the_catalog() -> None:
    assert probe_image("4.10.0") == "cimg/base:2025.05-20.04" and probe_image("4.2.7") == "cimg/base:2021.02-20.04"
    assert probe_image("4.10.0", "tools/probe:1") == "tools/probe:1"
    with pytest.raises(AnsibleFilterError, match=r"circleci_probe_image: is empty, and the catalog names no cimg/base for release 4\.0\.6"):
        probe_image("4.0.6")
    with pytest.raises(AnsibleFilterError, match=r"4\.99\.0"):
        probe_image("4.99.0")


def test_versions() -> None:
    assert in_range("1.33.0", "1.33-1.35") and not in_range("1.32.9", "1.33-1.35") and not in_range("?", "1.33-1.35")
    assert support_days("2026-12-09", datetime.date(2026, 12, 1)) == 8 and support_days(None, datetime.date(2026, 12, 1)) is None


SITE = {"site": "osaka", "release": "4.10.0"}


def judge(**more: Any) -> tuple[dict[str, Any], list[str]]:
    given: dict[str, Any] = {"hosts": {}, "model": {}, "health": {}, "evidence": [], "missing_images": [], "images_checked": False,
                             "waivers": [], "chart": {}, "extra": [], "before": None, **more}  # fmt: skip
    return judge_site(SITE, **given)


def flow(**more: Any) -> dict[str, Any]:
    return {"name": "a", "rule": "registry-in", "to": "registry", "address": "10.0.0.2", "port": 5000, "protocol": "tcp", "expect": "tls",
            "found": "tls", "verdict": "proved", "days_left": 90, **more}  # fmt: skip


def test_what_did_not_run_is_never_proved() -> None:
    findings, reasons = judge(evidence=[{"level": "infrastructure probe", "state": "passed"}])
    assert [item["state"] for item in findings["evidence"]] == ["passed", "not run", "not run"]
    assert all(item["missing"] for item in findings["evidence"][1:])
    assert reasons == []
    with pytest.raises(VerdictError, match=r"evidence 'CI job' is unknown.*state 'green'.*given twice"):
        judge(evidence=[{"level": "CI job", "state": "passed"}, {"level": "CircleCI job", "state": "green"},
                        {"level": "reality check", "state": "passed"}, {"level": "reality check", "state": "failed"}])  # fmt: skip


PROBE = {"level": "infrastructure probe", "state": "passed", "detail": "nomad1: read back", "missing": [], "when": "2026-05-01T10:00:00Z",
         "clients": [{"name": "nomad1"}]}  # fmt: skip
NOMAD1 = {"hosts": [{"name": "nomad1", "groups": ["circleci_nomad_clients"]}, {"name": "bastion", "groups": ["circleci_sites"]}]}


def test_what_did_not_run_now_is_kept_with_its_time_while_the_site_is_the_same() -> None:
    before = {**SITE, "evidence": [PROBE, {"level": "reality check", "state": "not run"}]}
    skipped = {"level": "infrastructure probe", "state": "not run", "missing": ["a run without --check"]}
    for given in ([], [skipped]):
        findings, _reasons = judge(evidence=given, model=NOMAD1, before=before)
        assert findings["evidence"][0] == PROBE
        assert [item["state"] for item in findings["evidence"][1:]] == ["not run", "not run"]
    newer = {**PROBE, "state": "failed", "problems": ["the infrastructure probe: nomad1: x. y."]}
    findings, reasons = judge(evidence=[newer], model=NOMAD1, before=before)
    assert findings["evidence"][0] == newer and "the infrastructure probe: nomad1: x. y." in reasons


@pytest.mark.parametrize(
    ("before", "missing"),
    [
        ({}, "a run of the verb verify with Nomad clients"),
        ({**SITE, "release": "4.9.5", "evidence": [PROBE]}, "a run of the verb verify since release became 4.10.0"),
        ({**SITE, "site": "tokyo", "evidence": [PROBE]}, "a run of the verb verify since site became osaka"),
        ({**SITE, "evidence": [{**PROBE, "clients": [{"name": "nomad1"}, {"name": "nomad2"}]}]}, "a run of the verb verify with the Nomad clients that the site has now"),
    ],
)
def test_proof_of_another_site_is_not_kept(before: dict[str, Any], missing: str) -> None:
    findings, _reasons = judge(model=NOMAD1, before=before)
    assert findings["evidence"][0] == {"level": "infrastructure probe", "state": "not run", "detail": "", "missing": [missing]}


def test_an_urgent_finding_is_a_reason() -> None:
    finding = {"urgency": 1, "subject": "images in use", "found": "the registry does not answer", "expected": "an answer", "remedy": "Start it."}
    _findings, reasons = judge(extra=[finding, {**finding, "urgency": 3, "subject": "other"}])
    assert reasons == ["images in use: found the registry does not answer, expected an answer. Start it."]


def test_every_reason_is_told() -> None:
    findings, reasons = judge(
        hosts={"nomad1": {"connections": [flow(found="timeout", verdict="failed", days_left=None), flow(port=8443, days_left=-3)],
                          "listeners": [{"protocol": "tcp", "port": 9100, "process": "x"}]}},
        health={"services": [{"name": "kong", "state": "down", "detail": "0 of 1 ready", "impact": "All stops."}], "unbound_claims": ["data"]},
        evidence=[{"level": "infrastructure probe", "state": "failed", "detail": "no client took the job"}],
        missing_images=[{"image": "a/b:1", "reason": "x"}, "c/d:2"], images_checked=True,
        model={"hosts": [{"name": "nomad1"}, {"name": "nomad2"}], "problems": [{"field": "circleci_ports.users", "found": "x", "expected": "y", "remedy": "z"}]},
    )  # fmt: skip
    text = "\n".join(reasons)
    for part in ("service kong is down (0 of 1 ready). All stops.", "expected tls, found timeout", "probe failed: no client took the job",
                 "2 images are not in the private registry: a/b:1, c/d:2", "registry:8443 ended 3 days ago"):  # fmt: skip
        assert part in text
    subjects = {item["subject"] for item in findings["findings"]}
    assert subjects == {"volume claim data", "host nomad2", "circleci_ports.users"}
    assert findings["listeners"][0]["host"] == "nomad1" and findings["flows"][0]["from"] == "nomad1"
    assert build_report(findings)["summary"]["state"] == "failed"


def test_waivers_keep_quiet_but_not_the_report() -> None:
    findings, reasons = judge(
        health={"services": [{"name": "kong", "state": "down"}]},
        hosts={"a": {"connections": [flow(verdict="failed", found="open", expect="closed")]}},
        waivers=[{"name": "service_kong", "reason": "x"}, {"name": "port_registry-in", "reason": "y"}],
    )
    assert reasons == []
    assert build_report(findings)["summary"]["warnings"]["now"] == 2


def test_a_runner_on_macos_is_no_host_that_did_not_answer() -> None:
    hosts = [{"name": "mac", "groups": ["circleci_runners_macos"]}, {"name": "linux", "groups": ["circleci_runners_linux"]}]
    found, reasons = judge(model={"hosts": hosts})
    assert [item["subject"] for item in found["findings"]] == ["host linux"]
    assert found["unmeasured"] == [{"what": "connections from mac", "why": "nothing of this collection runs on macOS and Windows"}]
    assert not [reason for reason in reasons if "mac" in reason]


def test_udp_is_judged_beside_what_other_hosts_heard() -> None:
    serf = {"rule": "nomad-server-in-serf", "protocol": "udp", "port": 4648, "days_left": None}
    heard, silent = flow(**serf, expect="reachable", found="open"), flow(**serf, expect="closed", found="no answer", verdict="unproved")
    found, _reasons = judge(hosts={"server2": {"connections": [heard]}, "registry": {"connections": [silent]}})
    assert [item["verdict"] for item in found["flows"]] == ["proved", "proved"]
    alone, _reasons = judge(hosts={"registry": {"connections": [silent]}})
    assert [item["verdict"] for item in alone["flows"]] == ["unproved"]


def test_connections_of_one_site_only() -> None:
    groups = {"circleci_registry": ["a", "b"], "site_x": ["a"], "site_y": ["b"]}

    class Poison(dict):  # type: ignore[type-arg]
        def __contains__(self, key: object) -> bool:
            raise AssertionError("another site was read")

    hostvars = {"a": {"found": {"connections": "[1]", "listeners": []}}, "b": Poison()}
    assert unpacked(site_connections("found", groups, hostvars, "a")) == {"a": {"connections": [1], "listeners": []}}
    assert unpacked(site_connections("other", groups, hostvars, "a")) == {}
    assert unpacked(site_connections("found", groups, {**hostvars, "a": {"found": {"skipped": True}}}, "a")) == {}
