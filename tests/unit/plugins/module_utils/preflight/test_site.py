# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.filter.site import platform_facts
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import KubeError
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.releases import encode, installed_version
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight import site
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.findings import (
    OK,
    PROBLEM,
    WAIVED,
    WARNING,
    Finding,
    apply_waivers,
    brief,
    summary,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.rights import Rights
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.table import render_table
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.helm.fake_kube import FakeKube

RELEASE = {
    "version": "4.10.0",
    "kubernetes_min": "1.33",
    "kubernetes_max": "1.35",
    "cluster_users": "<500",
    "cluster_nodes": 4,
    "cluster_cpus": 24,
    "cluster_memory_gb": 90,
    "upgrade_from": ["4.9.5"],
    "support_end": "2027-05-13",
}
NODE = {"name": "n", "ready": True, "cpu": "8", "memory": "32Gi"}
DEFAULT_CLASS = {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}


def cluster(**changes: Any) -> site.ClusterFacts:
    facts: dict[str, Any] = {"version": "v1.33.0", "nodes": [NODE] * 4, "storage_classes": [DEFAULT_CLASS], "api_groups": ["apps"]}
    return site.ClusterFacts(**{**facts, **changes})


def problems(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings if finding.level == PROBLEM]


def check(facts: site.ClusterFacts, brings: bool = False) -> list[Finding]:
    return site.check_cluster(facts, RELEASE, brings_storage_class=brings, kubeconfig="/etc/kubeconfig")


def test_good_cluster() -> None:
    assert problems(check(cluster())) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": "v1.32.9"}, "kubernetes_version"),
        ({"version": "v1.36.0"}, "kubernetes_version"),
        ({"nodes": [NODE] * 3}, "cluster_size"),
        ({"nodes": [NODE] * 3 + [{**NODE, "ready": False}]}, "cluster_size"),
        ({"nodes": [{**NODE, "cpu": "500m"}] * 4}, "cluster_size"),
        ({"storage_classes": []}, "storage_class"),
        ({"storage_classes": [DEFAULT_CLASS, {**DEFAULT_CLASS, "name": "slow"}]}, "storage_class"),
        ({"api_groups": ["apps", "config.openshift.io"]}, "openshift"),
    ],
)
def test_each_rule_of_the_cluster(changes: dict[str, Any], expected: str) -> None:
    assert problems(check(cluster(**changes))) == [expected]


def test_brought_storage_class_wants_no_other_default() -> None:
    assert problems(check(cluster(storage_classes=[]), brings=True)) == []
    assert problems(check(cluster(), brings=True)) == ["storage_class"]
    assert problems(check(cluster(storage_classes=[{**DEFAULT_CLASS, "name": "local-path"}]), brings=True)) == []


def test_unreachable_cluster_is_one_problem_and_not_many() -> None:
    assert problems(check(site.ClusterFacts(error="connection refused"))) == ["cluster_reachable"]
    assert site.check_secrets(site.ClusterFacts(error="x"), {"license": ["license"]}, "ns") == []


def test_a_missing_kubeconfig_says_what_is_left_out() -> None:
    (finding,) = site.check_cluster(site.ClusterFacts(error="not set"), RELEASE, brings_storage_class=False, kubeconfig="")
    assert finding.found == "not set" and finding.subject == "circleci_kubeconfig" and "Secrets are not looked at" in finding.remedy


REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Api:
    """Answers of a cluster by path, and to each question about a right of the asker."""

    def __init__(self, answers: dict[str, Any], refused: tuple[str, ...] = ()) -> None:
        self.answers, self.refused = answers, refused
        self.asked: list[str] = []

    def request(self, method: str, path: str, query: Any = None, body: Any = None, content_type: str = "") -> Any:
        if path == REVIEWS and path not in self.answers:
            wanted = body["spec"]["resourceAttributes"]
            assert method == "POST" and body["kind"] == "SelfSubjectAccessReview"
            right = " ".join([wanted["verb"], wanted["resource"], *([wanted["namespace"]] if "namespace" in wanted else [])])
            self.asked.append(right)
            return {"status": {"allowed": right not in self.refused}}
        assert body is None or path == REVIEWS
        answer = self.answers[path]
        if isinstance(answer, KubeError):
            raise answer
        return answer


ANSWERS: dict[str, Any] = {
    "/version": {"gitVersion": "v1.33.0"},
    "/api/v1/nodes": {
        "items": [
            {
                "metadata": {"name": "n"},
                "spec": {"podCIDRs": ["10.42.0.0/24"]},
                "status": {"allocatable": {"cpu": "8", "memory": "32Gi"}, "conditions": [{"type": "Ready", "status": "True"}]},
            },
            {"metadata": {"name": "new"}, "status": {}},
        ]
    },
    "/apis/storage.k8s.io/v1/storageclasses": {
        "items": [{"metadata": {"name": "fast", "annotations": DEFAULT_CLASS["annotations"]}, "allowVolumeExpansion": True}]
    },
    "/apis/networking.k8s.io/v1/servicecidrs": {"items": [{"spec": {"cidrs": ["10.43.0.0/16"]}}]},
    "/apis/storage.k8s.io/v1/csidrivers": {"items": [{"metadata": {"name": "csi.example.com"}}]},
    "/apis": {"groups": [{"name": "apps"}]},
    "/apis/apps/v1/daemonsets": {"items": []},
    "/api/v1/services": KubeError(403, "services is forbidden"),
    "/api/v1/namespaces/ns": {"metadata": {"name": "ns"}},
    "/api/v1/namespaces/ns/secrets": {"items": [{"metadata": {"name": "license"}, "data": {"license": "eA=="}}]},
}


def test_answers_of_the_cluster() -> None:
    facts = site.read_cluster(Api(ANSWERS), "ns", secrets=True)
    assert facts.nodes == [{**NODE, "provider_id": ""}, {"name": "new", "ready": False, "provider_id": "", "cpu": "0", "memory": "0"}]
    assert (facts.version, facts.storage_classes[0]["name"], facts.api_groups, facts.secrets) == ("v1.33.0", "fast", ["apps"], {"license": ["license"]})
    assert facts.networks == [("10.42.0.0/24", "pods"), ("10.43.0.0/16", "Services")]
    assert facts.storage_classes[0]["expands"] is True and facts.volume_drivers == ["csi.example.com"]
    hidden = Api({**ANSWERS, "/apis/storage.k8s.io/v1/csidrivers": KubeError(403, "csidrivers is forbidden")})
    assert site.read_cluster(hidden, "ns", secrets=False).volume_drivers is None
    assert site.read_cluster(Api(ANSWERS), "ns", secrets=False).secrets == {}
    denied = site.read_cluster(Api({**ANSWERS, "/api/v1/nodes": KubeError(403, "nodes is forbidden")}), "ns", secrets=False)
    assert "lacks a right" in denied.error and problems(check(denied)) == ["cluster_reachable"]


def rights(api: Api, brings: bool = False) -> Finding:
    facts = site.read_cluster(api, "ns", secrets=False, whole_cluster=brings)
    found = site.check_cluster(facts, RELEASE, brings_storage_class=brings, kubeconfig="/etc/kubeconfig", namespace="ns")
    return next(finding for finding in found if finding.check == "installer_rights")


def test_an_administrator_of_the_namespace_may_install() -> None:
    api = Api(ANSWERS)
    assert rights(api).level == OK
    assert "create roles ns" in api.asked and "delete secrets ns" in api.asked
    # Rights that are not used are not asked for.
    assert all(right.endswith(" ns") and right.split()[0] in ("create", "patch", "delete") for right in api.asked)


def test_each_right_that_is_missing_is_told_at_once() -> None:
    finding = rights(Api(ANSWERS, ("create roles ns", "patch secrets ns", "delete secrets ns")))
    assert (finding.level, finding.subject) == (PROBLEM, "circleci_kubeconfig")
    assert finding.found == "it may not patch/delete secrets; create roles"
    assert "kubectl create rolebinding circleci-installer -n ns --clusterrole=admin" in finding.remedy
    assert "installer_rights" in problems(check(site.ClusterFacts(**{**vars(cluster()), "rights": Rights(["create roles"])})))


def test_a_namespace_that_is_not_there_must_be_made() -> None:
    absent = Api({**ANSWERS, "/api/v1/namespaces/ns": KubeError(404, "not found")}, ("create namespaces",))
    finding = rights(absent)
    assert finding.level == PROBLEM and finding.found == "it may not create namespaces" and finding.remedy.endswith("; and make the namespace.")
    assert rights(Api({**ANSWERS, "/api/v1/namespaces/ns": KubeError(404, "not found")})).level == OK


def test_add_ons_of_the_cluster_want_the_whole_of_it() -> None:
    api = Api(ANSWERS, ("* *",))
    finding = rights(api, brings=True)
    assert finding.level == PROBLEM and "cluster-admin" in finding.remedy and api.asked == ["* *"]
    assert rights(Api(ANSWERS), brings=True).level == OK
    assert "add-ons" in site.why_whole_cluster({"load_balancer": "metallb"}, brings_storage_class=False)
    assert site.why_whole_cluster({"load_balancer": "provided"}, brings_storage_class=False) == ""


def test_the_vendor_asks_for_the_whole_cluster_on_gke() -> None:
    release = {**RELEASE, "platform": platform_facts("gke", "4.10.0")}
    assert site.why_whole_cluster(release, brings_storage_class=False) == "the vendor asks for them on Google GKE"
    facts = cluster(rights=Rights(("everything in the whole cluster",)))
    found = site.check_cluster(facts, release, brings_storage_class=False, kubeconfig="/etc/kubeconfig")
    (finding,) = [item for item in found if item.check == "installer_rights"]
    assert finding.level == PROBLEM and finding.remedy == "Bind its user to the ClusterRole cluster-admin." and "Google GKE" in finding.expected
    assert site.why_whole_cluster({**RELEASE, "platform": platform_facts("eks", "4.10.0")}, brings_storage_class=False) == ""


def test_a_cluster_that_says_nothing_of_rights_is_not_called_good() -> None:
    finding = rights(Api({**ANSWERS, REVIEWS: KubeError(404, "the server could not find the requested resource")}))
    assert finding.level == WARNING and "could not find" in finding.found


def test_missing_secrets_are_listed_with_their_keys() -> None:
    facts = cluster(secrets={"license": ["license"], "signing-keys": ["signing-key"]})
    (finding,) = site.check_secrets(facts, {"license": ["license"], "signing-keys": ["signing-key", "encryption-key"], "tink": ["keyset"]}, "ns")
    assert finding.level == PROBLEM
    assert "signing-keys (encryption-key)" in finding.found and "tink (keyset)" in finding.found and "license" not in finding.found
    assert "verb secrets" in finding.remedy


@pytest.mark.parametrize(
    ("answer", "ours", "check_name", "level"),
    [
        (site.HttpAnswer(status=200), False, "registry", OK),
        (site.HttpAnswer(status=401), True, "registry_credentials", PROBLEM),
        (site.HttpAnswer(error="certificate verify failed: unable to get local issuer certificate"), True, "registry_certificate", PROBLEM),
        (site.HttpAnswer(error="connection refused"), True, "registry", OK),
        (site.HttpAnswer(error="connection refused"), False, "registry", PROBLEM),
        (site.HttpAnswer(status=404), False, "registry", PROBLEM),
        (None, False, "registry", WARNING),
    ],
)
def test_answers_of_the_registry(answer: site.HttpAnswer | None, ours: bool, check_name: str, level: str) -> None:
    finding = site.check_registry(answer, "registry.example.com:5000", ours_to_make=ours)
    assert (finding.check, finding.level) == (check_name, level)


@pytest.mark.parametrize(
    ("answer", "level", "subject"),
    [
        # An S3 store refuses whoever has no key, which is an answer.
        (site.HttpAnswer(status=403), OK, "circleci_object_storage_endpoint"),
        (site.HttpAnswer(status=503), PROBLEM, "circleci_object_storage_endpoint"),
        (site.HttpAnswer(error="connection refused"), PROBLEM, "circleci_object_storage_endpoint"),
        (site.HttpAnswer(error="certificate verify failed"), PROBLEM, "circleci_object_storage_endpoint, circleci_ca_certificate"),
    ],
)
def test_answers_of_the_object_store(answer: site.HttpAnswer, level: str, subject: str) -> None:
    finding = site.check_object_storage(answer, "https://store.example.com")
    assert (finding.check, finding.level, finding.subject) == ("object_storage", level, subject)
    assert "https://store.example.com" in finding.found


def test_an_authority_that_is_no_pem_is_told_by_its_variable() -> None:
    answer = site.ask_registry("127.0.0.1:1", "u", "p", "no certificate")
    finding = site.check_registry(answer, "127.0.0.1:1", ours_to_make=True)
    assert (finding.check, finding.level, finding.subject) == ("registry_certificate", PROBLEM, "circleci_ca_certificate")


@pytest.mark.parametrize(("installed", "level"), [("", OK), ("4.10.0", OK), ("4.9.5", OK), ("4.8.12", PROBLEM), ("4.9.1", PROBLEM)])
def test_steps_cannot_be_left_out(installed: str, level: str) -> None:
    finding = site.check_step(site.ClusterFacts(installed=installed), RELEASE)
    assert finding.level == level
    assert level == OK or "4.9.5" in finding.remedy


def test_the_installed_release_is_the_one_that_helm_keeps() -> None:
    api = FakeKube("circleci-server")
    assert installed_version(api, "circleci-server") == ""
    # Somebody else's release in the same namespace has seen more revisions.
    for release, revision, version in (("circleci-server", 1, "4.8.12"), ("circleci-server", 2, "4.9.5"), ("ingress", 12, "1.2.3")):
        payload = encode({"name": release, "version": revision, "chart": {"metadata": {"name": release, "version": version}}})
        name = f"sh.helm.release.v1.{release}.v{revision}"
        labels = {"owner": "helm", "name": release, "version": str(revision)}
        api.put(f"/api/v1/namespaces/circleci-server/secrets/{name}", {"metadata": {"name": name, "labels": labels}, "data": {"release": payload}})
    assert installed_version(api, "circleci-server") == "4.9.5"


def test_end_of_support_is_a_warning() -> None:
    assert site.check_support(RELEASE, date(2027, 5, 13)).level == OK
    assert site.check_support(RELEASE, date(2027, 5, 14)).level == WARNING


@pytest.mark.parametrize(("text", "number"), [("500m", 0.5), ("4", 4), ("2Gi", 2 * 1024**3), ("1000Ki", 1024000), ("x", 0)])
def test_quantity(text: str, number: float) -> None:
    assert site.quantity(text) == number


def test_waivers_take_only_what_may_be_waived() -> None:
    findings = [Finding("cluster_size", PROBLEM, "nodes", "1", "4", "vendor"), Finding("openshift", PROBLEM, "p", "x", "y", "vendor")]
    waivers = [{"name": "cluster_size", "reason": "a lab"}, {"name": "openshift", "reason": "please"}]
    result = apply_waivers(findings, waivers)
    assert [(f.check, f.level) for f in result] == [("cluster_size", WAIVED), ("openshift", PROBLEM), ("waivers", PROBLEM)]
    assert "a lab" in result[0].sentence()
    assert summary(result).startswith("2 problem(s)")


def test_waivers_that_only_verify_reads_are_no_problem_here() -> None:
    waivers = [{"name": "service_contexts-service", "reason": "not used"}, {"name": "port_lb-in-http", "reason": "https only"}]
    assert apply_waivers([], waivers) == []
    (refused,) = apply_waivers([], [{"name": "services", "reason": "a guess"}])
    assert "service_<name>" in refused.expected and "cluster_size" in refused.expected


def test_a_bundle_of_another_release_is_refused() -> None:
    finding = site.check_bundle_release("/srv/bundle", ["4.10.0"], "4.7.15")
    assert finding.level == "problem"
    assert "a bundle of release 4.10.0" in finding.sentence() and "expected a bundle of release 4.7.15" in finding.sentence()
    assert site.check_bundle_release("/srv/bundle", ["4.10.0"], "4.10.0").level == "ok"


def test_message_below_the_table_names_every_problem_and_nothing_else() -> None:
    findings = [Finding("host_reachable", PROBLEM, f"nomad{number}", "x", "y", "z") for number in range(10)]
    findings += [Finding("bundle", PROBLEM, "circleci_bundle_dir", "x", "y", "z"), Finding("clock", OK, "h", "x", "y", "z")]
    text = brief(findings)
    assert text.startswith("11 problem(s)") and "nomad7 and 2 more" in text and "bundle (circleci_bundle_dir)" in text and "clock" not in text
    assert brief([]) == ""


def test_table_has_the_grave_first_and_no_line_too_long() -> None:
    findings = [
        Finding("clock", OK, "h1", "1 s", "y", "z"),
        Finding("clock", OK, "h2", "2 s", "y", "z"),
        Finding("cluster_size", WAIVED, "nodes", "1", "4", "z", "", "a lab"),
        Finding("support_period", WARNING, "circleci_release 4.9.5", "long " * 60, "y", "z", "Choose a newer release."),
        Finding("registry_credentials", PROBLEM, "circleci_registry_username, circleci_registry_password", "x" * 300, "y", "z", "Correct it."),
    ]
    for width in (20, 80, 120, 400):
        lines = render_table("bastion", [finding.as_dict() for finding in findings], width).splitlines()
        assert max(len(line) for line in lines) <= min(max(width, 80), 150)
        assert lines[0] == "bastion: 1 problem(s), 1 warning(s), 1 waived, 2 in order"
        heads = [line.split()[0] for line in lines if line and not line.startswith(" ")][1:]
        assert heads == ["PROBLEMS,", "WARNINGS", "WAIVED", "IN"]
    text = "\n".join(lines)
    assert "2 times: 1 s, 2 s" in text and "-> Waived: a lab" in text and "-> Choose a newer release." in text and text.count("x") >= 300
    assert render_table("b", []).splitlines() == ["b: 0 problem(s), 0 warning(s), 0 waived, 0 in order"]
