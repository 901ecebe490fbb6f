# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates, licence, disks, queues and versions of an installed site, and the known ways to fail that it shows."""

from __future__ import annotations

import base64
import datetime
from typing import Any, Optional

import pytest
from ansible_collections.onprem.circleci_server.plugins.filter.health import failure_wants
from ansible_collections.onprem.circleci_server.plugins.module_utils.health import (
    judge_site,
    known_failures,
    licence_of,
    read_upkeep,
    versions_of,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.health.known_failures import LOOKS
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import KubeError
from ansible_collections.onprem.circleci_server.plugins.module_utils.report import (
    build_report,
    render_page,
    render_prometheus,
    same_content,
)
from ansible_collections.onprem.circleci_server.plugins.modules.service_health import is_date
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NS = "circleci-server"
GIB = 2**30


def certificate(days: int) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site.example")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=400)).not_valid_after(now + datetime.timedelta(days=days, hours=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    return made.public_bytes(serialization.Encoding.PEM).decode()


def secret(name: str, kind: str = "Opaque", **data: str) -> dict[str, Any]:
    encoded = {key.replace("_", "-") if key.endswith("key") else key.replace("_", "."): base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"metadata": {"name": name}, "type": kind, "data": encoded}


class Cluster:
    """Answers of an API server by path; what is not there is a 404 as the real one gives it."""

    def __init__(self) -> None:
        # As the kubelet of Kubernetes 1.33 prints them, shortened.
        summary = {
            "node": {"fs": {"capacityBytes": 100 * GIB, "usedBytes": 40 * GIB, "availableBytes": 55 * GIB}},
            "pods": [{"volume": [
                {"name": "data", "pvcRef": {"name": "data-postgresql-0", "namespace": NS}, "capacityBytes": 8 * GIB, "usedBytes": 2 * GIB},
                {"name": "other", "pvcRef": {"name": "data-postgresql-0", "namespace": "elsewhere"}, "capacityBytes": GIB, "usedBytes": GIB},
                {"name": "token", "capacityBytes": GIB, "usedBytes": 1},
            ]}],
        }  # fmt: skip
        nomad = f"/api/v1/namespaces/{NS}/services/nomad-server:4646/proxy/v1"
        self.answers: dict[str, Any] = {
            f"/api/v1/namespaces/{NS}": {"metadata": {"name": NS, "labels": {}}},
            f"/api/v1/namespaces/{NS}/secrets": {"items": [
                secret("circleci-server-tls", "kubernetes.io/tls", tls_crt=certificate(300) + certificate(20), tls_key="-----BEGIN EC PRIVATE KEY-----"),
                secret("session-cookie", session_cookie_key="x" * 16), secret("license", license="abc"),
                secret("sh.helm.release.v1.circleci-server.v1", "helm.sh/release.v1", release=certificate(-5)),
                secret("broken", ca_crt="-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----"),
            ]},
            f"/api/v1/namespaces/{NS}/pods": {"items": [{"metadata": {"name": "rabbitmq-0"}, "spec": {"containers": [{"image": "registry.site:5000/rabbitmq:3"}]}}]},
            f"/api/v1/namespaces/{NS}/services": {"items": [
                {"metadata": {"name": "circleci-proxy"}, "spec": {"type": "LoadBalancer"}}, {"metadata": {"name": "kong"}, "spec": {"externalIPs": ["10.0.0.9"]}},
            ]},
            f"/api/v1/namespaces/{NS}/persistentvolumeclaims": {"items": [{"metadata": {"name": "data-postgresql-0"}}, {"metadata": {"name": "data-vault-0"}}]},
            "/api/v1/nodes": {"items": [{"metadata": {"name": "node1"}, "status": {"nodeInfo": {"kubeletVersion": "v1.33.1+k3s1"}}}]},
            "/api/v1/nodes/node1/proxy/stats/summary": summary,
            f"/api/v1/namespaces/{NS}/pods/rabbitmq-0:15692/proxy/metrics": (
                '# TYPE rabbitmq_queue_messages gauge\nrabbitmq_queue_messages{vhost="/",queue="builds"} 12\nrabbitmq_queue_messages_ready 7\n'
                'rabbitmq_queue_messages{vhost="/",queue="hooks"} 3\n'
            ),
            f"{nomad}/status/leader": "10.42.0.9:4647",
            f"{nomad}/nodes": [{"Name": "nomad1", "Address": "10.0.0.41", "Status": "ready", "Version": "1.9.3",
                                "Drivers": {"docker": {"Attributes": {"driver.docker.version": "28.0.1"}}}}],
            f"{nomad}/agent/members": {"Members": [{"Name": "nomad-server-0.global", "Tags": {"build": "1.9.3"}}]},
            f"{nomad}/jobs": [{"ID": "a", "JobSummary": {"Summary": {"group": {"Queued": 2}, "more": {"Queued": 1}}}}, {"ID": "b", "JobSummary": None}],
        }  # fmt: skip
        self.denied: set[str] = set()
        self.refused: dict[str, KubeError] = {}

    def request(self, method: str, path: str, query: Optional[dict[str, str]] = None, body: Any = None, content_type: str = "") -> Any:
        assert method == "GET"
        if path in self.denied:
            raise KubeError(403, f"nodes/proxy is forbidden: {path}", path)
        if path in self.refused:
            raise self.refused[path]
        if path not in self.answers:
            raise KubeError(404, "the server could not find the requested resource", path)
        return self.answers[path]


def test_certificates_by_the_first_that_ends_and_without_their_keys() -> None:
    found = read_upkeep(Cluster(), NS)
    assert [(item["name"], item["days_left"]) for item in found["certificates"]] == [
        ("Secret circleci-server-tls tls.crt", 20), ("Secret broken ca.crt", None)
    ]  # fmt: skip
    assert found["licence"] is True
    assert "PRIVATE" not in str(found) and "x" * 16 not in str(found) and "abc" not in str(found)


def test_disks_and_volumes_of_the_own_namespace() -> None:
    found = read_upkeep(Cluster(), NS)
    assert [(item["name"], item["used_percent"], item["capacity_bytes"]) for item in found["storage"]] == [
        ("node node1", 45, 100 * GIB), ("volume data-postgresql-0", 25, 8 * GIB)
    ]  # fmt: skip
    assert {"what": "volumes data-vault-0", "why": "the kubelet tells no figures of them; folders of a node share its disk"} in found["unmeasured"]


def test_what_may_not_be_asked_is_told_with_the_right_that_is_missing() -> None:
    cluster = Cluster()
    cluster.denied.add("/api/v1/nodes/node1/proxy/stats/summary")
    told = {item["what"]: item["why"] for item in read_upkeep(cluster, NS)["unmeasured"]}
    assert told["disks and volumes of node node1"].endswith("It needs get on nodes/proxy.")


def test_queues_of_nomad_and_rabbitmq() -> None:
    cluster = Cluster()
    assert [(item["name"], item["waiting"]) for item in read_upkeep(cluster, NS)["queues"]] == [("Nomad", 3), ("RabbitMQ", 15)]
    del cluster.answers[f"/api/v1/namespaces/{NS}/pods/rabbitmq-0:15692/proxy/metrics"]
    del cluster.answers[f"/api/v1/namespaces/{NS}/services/nomad-server:4646/proxy/v1/status/leader"]
    found = read_upkeep(cluster, NS)
    assert found["queues"] == [] and {item["what"] for item in found["unmeasured"]} >= {"Nomad", "queues of RabbitMQ"}


def test_addresses_that_somebody_gave_the_proxy_by_hand() -> None:
    cluster = Cluster()
    assert read_upkeep(cluster, NS)["external_ips"] == {"circleci-proxy": []}
    cluster.answers[f"/api/v1/namespaces/{NS}/services"]["items"][0]["spec"]["externalIPs"] = ["10.0.0.7"]
    assert read_upkeep(cluster, NS)["external_ips"] == {"circleci-proxy": ["10.0.0.7"]}


def test_servers_without_a_leader_are_told() -> None:
    cluster = Cluster()
    path = f"/api/v1/namespaces/{NS}/services/nomad-server:4646/proxy/v1/status/leader"
    cluster.refused[path] = KubeError(500, "No cluster leader", path)
    found = read_upkeep(cluster, NS)
    assert found["nomad"]["leader"] is False
    (finding,) = known_failures(failure_wants("4.10.0"), {**site(), **found})
    assert finding["found"] == "Nomad answers and has no leader"


@pytest.mark.parametrize(("kubelet", "state"), [("1.33.1", "ok"), ("1.30.0", "ok"), ("1.29.9", "wrong"), ("1.34.0", "wrong")])
def test_kubelets_may_be_three_minors_older_and_never_newer(kubelet: str, state: str) -> None:
    found = {**read_upkeep(Cluster(), NS), "kubelets": {"node1": kubelet}}
    line = versions_of(found, "v1.33.0")[0]
    assert (line["component"], line["state"], line["expected"]) == ("kubelets", state, "1.30 to 1.33")


def test_a_client_newer_than_its_servers_is_told_by_name() -> None:
    found = read_upkeep(Cluster(), NS)
    assert versions_of(found, "v1.33.0")[1]["state"] == "ok"
    found["nomad"]["clients"].append({**found["nomad"]["clients"][0], "name": "nomad2", "version": "1.10.0"})
    line = versions_of(found, "v1.33.0")[1]
    assert (line["state"], line["detail"], line["expected"]) == ("wrong", "on nomad2", "not newer than the servers, 1.9.3")


CLIENT = {"cgroup": "v1", "docker_gc": "running", "docker_disk_full": False}


def site(**changes: Any) -> dict[str, Any]:
    """A site that shows none of the known ways to fail."""
    works = [{"name": "docker-provisioner-provisioner", "wanted": 1}]
    return {**read_upkeep(Cluster(), NS), "workloads": works, "platform": "generic", "registry": "registry.site:5000",
            "clients": {"nomad1": CLIENT}, "agents": [], **changes}  # fmt: skip


def clients(count: int, **more: str) -> dict[str, Any]:
    one = {"name": "n", "address": "10.0.0.1", "status": "ready", "version": "1.9.3", "docker": "28.0.1", **more}
    return {"leader": True, "servers": ["1.9.3"], "clients": [{**one, "name": f"n{number}"} for number in range(count)]}


# One for each item of the vendor's list of failures that an installed site can show.
SHOWN: dict[str, tuple[dict[str, Any], str, int]] = {
    "docker-provisioner-off": ({"workloads": []}, "no workload docker-provisioner that is wanted", 1),
    "third-party-images-outside": ({"images": ["docker.io/library/redis:7", "registry.site:5000/x:1"]},
                                   "1 images of pods that do not begin with registry.site:5000: docker.io/library/redis:7", 1),
    "agents-incomplete": ({"agents": ["release.txt: the store answers 404"]}, "release.txt: the store answers 404", 1),
    "docker-gc-loop": ({"clients": {"n1": {**CLIENT, "docker_gc": "restarting"}, "n2": {**CLIENT, "docker_disk_full": True}, "n3": CLIENT,
                                    "n0": {**CLIENT, "docker_gc": "missing"}}},
                       "docker-gc is not there on n0; docker-gc does not stay up on n1; nine tenths of Docker's disk are used on n2", 2),
    "cgroup-v2": ({"clients": {"n2": {**CLIENT, "cgroup": "v2"}, "n1": CLIENT}}, "n2", 2),
    "docker-29": ({"nomad": clients(1, docker="29.1.0")}, "Docker of n0 29.1.0", 2),
    "secret-length": ({"secret_lengths": {"session-cookie session-cookie-key": 15, "nomad gossip-key": 32}}, "session-cookie session-cookie-key of 15 characters", 1),
    "machine-service-on": ({"workloads": [{"name": "machine-provisioner-leader", "wanted": 1}, {"name": "docker-provisioner-x", "wanted": 1}]},
                           "machine-provisioner-leader on platform generic", 1),
    "external-ips-lost": ({"external_ips": {"circleci-proxy": ["10.0.0.7"]}}, "Service circleci-proxy with externalIPs 10.0.0.7", 2),
    "nomad-rpc-limit": ({"nomad": clients(101)}, "101 clients come from 10.0.0.1", 2),
    "pod-security-restricted": ({"pod_security": "restricted"}, "the namespace enforces restricted", 3),
    "nomad-servers-no-quorum": ({"nomad": {"leader": False, "clients": [], "servers": []}}, "Nomad answers and has no leader", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SHOWN))
def test_a_known_way_to_fail_is_told_with_the_catalogs_words(name: str) -> None:
    changes, found, urgency = SHOWN[name]
    modes = failure_wants("4.10.0")
    assert known_failures(modes, site()) == []
    (finding,) = known_failures(modes, site(**changes))
    mode = next(mode for mode in modes if mode["id"] == name)
    assert (finding["found"], finding["urgency"]) == (found, urgency)
    assert (finding["subject"], finding["remedy"], finding["source"]) == (mode["title"], mode["remedy"], mode["source"])
    _findings, reasons = judge_site({"site": "x"}, {}, {}, {"findings": [finding]}, [], [], True, [], {"compared": True}, [])
    assert bool(reasons) is (urgency == 1)


def test_every_look_is_one_of_the_catalog_and_has_a_test() -> None:
    assert set(LOOKS) == set(SHOWN) <= {mode["id"] for mode in failure_wants("4.10.0")}


def test_a_look_that_does_not_concern_the_release_is_not_made() -> None:
    assert known_failures(failure_wants("4.2.7"), site(workloads=[])) == []
    assert known_failures([], site(workloads=[])) == []
    assert known_failures(failure_wants("4.10.0"), site(workloads=[{"name": "docker-provisioner-x", "wanted": 1}, {"name": "machine-provisioner-x", "wanted": 1}], platform="eks")) == []


# What the report makes of it


def told(generated: str, used: int, before: Optional[dict[str, Any]] = None, **more: Any) -> dict[str, Any]:
    storage = [{"name": "volume data-postgresql-0", "used_bytes": used * GIB, "capacity_bytes": 8 * GIB, "used_percent": round(100 * used / 8), "detail": ""}]
    return build_report({"site": "x", "generated": generated, "storage": storage, "images": {"checked": True}, "chart": {"compared": True}, **more}, before)


def test_a_volume_that_grows_is_full_some_day() -> None:
    first = told("2026-11-01T00:00:00Z", 2)
    assert "full_in_days" not in first["storage"][0]
    same_day = told("2026-11-01T05:00:00Z", 3, first)
    assert "full_in_days" not in same_day["storage"][0], "a few hours say nothing"
    later = told("2026-11-11T00:00:00Z", 4, same_day)
    # 2 GiB in 10 days since the first report, 4 GiB are left
    assert later["storage"][0]["full_in_days"] == 20
    assert "volume data-postgresql-0 is full in 20 days if it goes on as since 2026-11-01." in [item["text"] for item in later["warnings"] if item["urgency"] == 2]
    steady = told("2026-11-21T00:00:00Z", 2, first)
    assert "full_in_days" not in steady["storage"][0] and "does not grow" in render_page([steady])
    assert "20 days" in render_page([later])
    assert 'onprem_circleci_storage_used_bytes{site="x",name="volume data-postgresql-0"} 4294967296' in render_prometheus(later)


def test_a_forecast_forgets_what_was_long_ago() -> None:
    old = told("2026-01-01T00:00:00Z", 1)
    middle = told("2026-02-25T00:00:00Z", 2, old)
    assert middle["storage"][0]["since"]["when"] == "2026-01-01T00:00:00Z"
    now = told("2026-03-25T00:00:00Z", 3, middle)
    assert now["storage"][0]["since"]["when"] == "2026-02-25T00:00:00Z"


def test_figures_that_move_by_themselves_are_no_change() -> None:
    first = told("2026-11-01T00:00:00Z", 2, queues=[{"name": "Nomad", "waiting": 3, "detail": ""}])
    assert same_content(first, told("2026-11-01T01:00:00Z", 3, first, queues=[{"name": "Nomad", "waiting": 0, "detail": ""}]))
    assert not same_content(first, told("2026-11-01T01:00:00Z", 7, first, queues=[{"name": "Nomad", "waiting": 0, "detail": ""}]))


@pytest.mark.parametrize(("present", "end", "urgency"), [
    (False, "", 1), (True, "", 4), (True, "2026-10-01", 1), (True, "2026-11-04", 1), (True, "2026-11-20", 2), (True, "2027-11-01", None),
])  # fmt: skip
def test_the_licence_has_its_days(present: bool, end: str, urgency: Optional[int]) -> None:
    licence = licence_of(present, end, datetime.date(2026, 11, 1))
    report = told("2026-11-01T00:00:00Z", 2, licence=licence)
    found = [item["urgency"] for item in report["warnings"] if item["subject"] == "licence"]
    assert found == ([urgency] if urgency else [])
    assert "Licence of the vendor" in render_page([report])


def test_a_day_is_written_as_a_day() -> None:
    assert is_date("2027-03-31") and not is_date("31.3.2027") and not is_date("2027-13-01")
