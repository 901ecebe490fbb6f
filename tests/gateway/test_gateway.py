# SPDX-License-Identifier: GPL-3.0-or-later
"""The object store as two replicas of a gateway in the cluster: brought, used while a pod goes, rotated, sick, taken away."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sandbox import layout, verbs

from .conftest import ADDRESS, NAME, NAMESPACE, ROOT, STORE_NAME, Site, names, problems

AGENT = f"http://{STORE_NAME}/circleci-agents/release.txt"
READER = f"""
good=0; bad=0
while [ ! -e /run/enough ]; do
  if curl -sf --max-time 20 -o /dev/null {AGENT}; then good=$((good + 1)); else bad=$((bad + 1)); fi
done
echo $good $bad
"""


def brought(result: verbs.Result) -> list[Mapping[str, Any]]:
    """What the module cluster_addon did for the gateway; add-ons of the role cluster are items of a loop."""
    return [row for _host, row in result.results("cluster_addon") if "objects" in row]


def test_bundle_carries_the_image_and_not_the_program(site: Site) -> None:
    if site.on("bastion", "test", "-d", "/srv/bundle").returncode != 0:
        assert not problems(site.run("bundle"))
        carried = subprocess.run([sys.executable, "-m", "sandbox", "carry", "/srv/bundle", "/srv/bundle"], cwd=ROOT, check=False, capture_output=True, text=True)
        assert carried.returncode == 0, carried.stderr
    index = site.on("bastion", "sh", "-c", "cat /srv/bundle/*.json /srv/bundle/*/*.json").stdout
    assert "versity/versitygw:v1.8.0" in index and "onprem/files/versitygw" not in index
    assert not problems(site.run("secrets"))


def test_check_mode_on_the_empty_site_predicts_the_workload(site: Site) -> None:
    result = site.run("install", "--check", "--diff", name="check-empty")
    assert not problems(result)
    assert [row for row in brought(result) if f"Deployment/{NAME}" in row["objects"]["created"]]
    assert site.kubectl("get", "namespace", "-o", "name").count(NAMESPACE) == 0


def test_install_fills_the_store_through_the_gateway(site: Site) -> None:
    result = site.run("install", "--diff")
    assert not problems(result)
    (probe,) = [row["results"] for _host, row in result.results("object_storage_probe")]
    no = {row["name"] for row in probe if row["works"] is False}
    assert not no & {"presigned_get", "presigned_put", "presigned_signature_checked", "multipart", "range", "copy", "list", "anonymous_refused", "anonymous_agents_scope"}
    assert next(row["addresses"] for row in brought(result) if "addresses" in row) == {NAME: [ADDRESS]}
    report = site.report()
    (health,) = [item for item in report["services"] if item["name"] == "object-storage-gateway"]
    assert health["state"] == "healthy", health
    proved = {flow["from"]: flow["verdict"] for flow in report["flows"] if flow["to"] == "object-storage-gateway"}
    assert proved == dict.fromkeys(("bastion", "nomad1", "nomad2", "node1"), "proved")


def test_workload_is_as_it_was_promised(site: Site) -> None:
    (deployment,) = site.objects("deployments")
    (budget,) = site.objects("poddisruptionbudgets")
    (service,) = site.objects("services")
    assert deployment["status"]["readyReplicas"] == 2 and budget["status"]["disruptionsAllowed"] == 1
    assert service["status"]["loadBalancer"]["ingress"][0]["ip"] == ADDRESS and not service["spec"].get("publishNotReadyAddresses")
    for pod in site.objects("pods"):
        (container,) = pod["spec"]["containers"]
        assert container["image"].startswith("registry.site.example:5000/versity/versitygw@sha256:")
        assert site.kubectl("-n", NAMESPACE, "exec", pod["metadata"]["name"], "--", "id", "-u").strip() == "1000"
        wrote = site.on("bastion", "kubectl", "--kubeconfig", "/etc/onprem-circleci/kubeconfig", "-n", NAMESPACE, "exec", pod["metadata"]["name"], "--", "touch", "/x")
        assert wrote.returncode != 0 and "Read-only" in wrote.stderr
        assert not [item for item in container.get("volumeMounts", []) if "serviceaccount" in item["mountPath"]]
    text = json.dumps([*site.objects("deployments"), *site.objects("services"), *site.objects("pods"), *site.objects("events")])
    assert [word for word in (site.key, site.behind.key) if word in text or base64.b64encode(word.encode()).decode() in text] == []
    arguments = site.on("node1", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
    assert [word for word in (site.key, site.behind.key) if word in arguments] == []


def test_second_run_and_check_mode_change_nothing(site: Site) -> None:
    again = site.run("install", "--diff", name="second-run")
    assert (problems(again), again.changes()) == ([], [])
    checked = site.run("install", "--check", "--diff", name="check-finished")
    assert (problems(checked), checked.changes()) == ([], [])


def test_upload_survives_the_pod_that_it_runs_through(site: Site) -> None:
    program = site.python(Path(__file__).with_name("upload.py"), f"http://{STORE_NAME}")
    assert program.stdin is not None and program.stdout is not None
    program.stdin.write(json.dumps({"access_key": "circleci", "secret_key": site.key}) + "\n")
    program.stdin.flush()
    assert program.stdout.readline() == "half\n"
    before = site.pids()
    assert len(before) == 2
    victim = site.objects("pods")[0]["metadata"]["name"]
    site.kubectl("-n", NAMESPACE, "delete", "pod", victim, "--grace-period=0", "--force", "--wait=false")
    site.until(lambda: len(before & site.pids()) == 1, "the end of the process of the pod")
    rest, _none = program.communicate("go on\n")
    assert program.returncode == 0
    told = json.loads(rest)
    # Each of the two had some of the parts: with sixteen, all lie with one of them once in 32768 runs.
    assert told["same"] and 0 < told["broken"] < told["parts"], told
    site.until(lambda: site.ready() == 2, "two replicas again")


def reading(site: Site) -> subprocess.Popen[str]:
    """Jobs on a Nomad client that load their agent, one after the other, each by a new connection."""
    site.on("nomad1", "rm", "-f", "/run/enough")
    return subprocess.Popen(["docker", "exec", layout.host("nomad1").container, "sh", "-c", READER], stdout=subprocess.PIPE, text=True)


def enough(site: Site, reader: subprocess.Popen[str]) -> tuple[int, int]:
    site.on("nomad1", "touch", "/run/enough")
    good, bad = reader.communicate()[0].split()
    return int(good), int(bad)


def test_new_keys_roll_the_pods_and_nobody_misses_a_read(site: Site) -> None:
    before = names([pod["metadata"] for pod in site.objects("pods")])
    old = site.key
    site.secrets["circleci_object_storage_secret_key"] = "canary-rotated-key-of-clients"
    assert not problems(site.run("secrets", name="secrets-rotated"))
    reader = reading(site)
    result = site.run("install", "--diff", name="install-rotated")
    good, bad = enough(site, reader)
    assert not problems(result)
    assert (bad, good > 0) == (0, True), f"{bad} of {good + bad} reads failed"
    assert not before & names([pod["metadata"] for pod in site.objects("pods")])
    # The new pair opens the old objects, and the old one nothing.
    for key, status in ((site.key, "200"), (old, "403")):
        options = f'user = "circleci:{key}"\naws-sigv4 = "aws:amz:us-east-1:s3"\nheader = "x-amz-content-sha256: UNSIGNED-PAYLOAD"\n'
        address = f'url = "http://{STORE_NAME}/circleci-data/artifacts/while-a-pod-goes"\n'
        words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--config", "-"]
        assert site.on("nomad1", *words, stdin=(options + address).encode()).stdout == status
    again = site.run("install", name="second-run-rotated")
    assert (problems(again), again.changes()) == ([], [])


def test_gateway_whose_store_behind_is_down_is_not_ready_and_the_report_says_so(site: Site) -> None:
    site.behind.stop()
    site.until(lambda: site.ready() == 0, "pods that are not ready")
    # They run all the same: a restart would mend nothing.
    assert len(site.pids()) == 2
    result = site.run("verify", name="verify-behind-down")
    assert result.code == 2 and "object-storage-gateway" in " ".join(problems(result))
    (health,) = [item for item in site.report()["services"] if item["name"] == "object-storage-gateway"]
    assert (health["state"], health["detail"][:10]) == ("down", "0 of 2 rea")
    site.behind.start()
    site.until(lambda: site.ready() == 2, "pods that are ready again")


def test_wrong_key_of_the_store_behind_leaves_the_pods_that_work(site: Site) -> None:
    before = names([pod["metadata"] for pod in site.objects("pods")])
    site.secrets["circleci_object_storage_backend_key"] = site.behind.wrong_key
    # Azure's is only seen by a pod that does not become ready; an operator who waits for less learns the same.
    result = site.run("install", name="install-wrong-key", given={"circleci_object_storage_wait_timeout": 60})
    assert result.code == 2 and "circleci_object_storage_backend_key" in " ".join(problems(result))
    site.secrets["circleci_object_storage_backend_key"] = site.behind.key
    assert before <= names([pod["metadata"] for pod in site.objects("pods")]) and site.ready() == 2


def test_gateway_speaks_tls_and_takes_a_new_certificate(site: Site) -> None:
    image = site.objects("pods")[0]["spec"]["containers"][0]["image"]
    options = {
        "access_key": "circleci", "secret_key": site.key, "region": "us-east-1", "policies": "circleci-data-gateway", "environment": {}, "origins": [],
        "backend_endpoint": site.behind.endpoint, "backend_account": site.behind.account, "backend_key": site.behind.key, "backend_region": "us-east-1",
        "image": "ghcr.io/versity/versitygw:v1.8.0", "replicas": 2, "resources": {}, "port": 443, "health_path": "/circleci-agents/.onprem-circleci-site",
    }  # fmt: skip
    given = {
        "kind": site.kind, "options": options, "digest": image.partition("@")[2], "name": STORE_NAME, "node": layout.host("node1").address,
        "registry": "registry.site.example:5000", "username": "site", "password": verbs.made_secrets()["circleci_registry_password"],
    }  # fmt: skip
    program = site.python(Path(__file__).with_name("tls.py"))
    told, _none = program.communicate(json.dumps(given))
    assert program.returncode == 0
    seen = json.loads(told)
    # Ready means that the kubelet read the object over https; the new certificate came by new pods, and the old authority is right no more.
    assert (seen["first"], seen["second"]) == ([True, False], [True, False])
    assert [base64.b64decode(seen[name]) for name in ("read", "reread")] == [f"{layout.CI_DOMAIN}\n".encode()] * 2
    assert "certificate" in seen["old"]
    assert f"Deployment/{NAME}" in seen["gone"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"circleci_object_storage_kind": "versitygw_posix"}, ["circleci_object_storage_placement", "keeps the objects itself"]),
        ({"circleci_object_storage_load_balancer_address": layout.LOAD_BALANCER_POOL[0]}, ["circleci_object_storage_load_balancer_address", "another one"]),
    ],
)
def test_what_the_cluster_cannot_run_is_refused_before_anything_is_changed(site: Site, given: Mapping[str, Any], words: list[str]) -> None:
    result = site.run("install", "--check", name="install-refused", given=given)
    assert result.code == 2 and not result.changed
    assert [word for word in words if word not in " ".join(problems(result))] == []


def test_uninstall_takes_the_gateway_and_what_it_stored_away(site: Site) -> None:
    wanted = {"circleci_uninstall_confirmed": True, "circleci_uninstall_data": True}
    predicted = site.run("uninstall", "--check", "--diff", name="uninstall-check", given=wanted)
    assert not problems(predicted)
    assert [row for row in brought(predicted) if f"Deployment/{NAME}" in row["objects"]["removed"]]
    assert not problems(site.run("uninstall", given=wanted))
    site.until(lambda: NAMESPACE not in site.kubectl("get", "namespace", "-o", "name"), "the end of the namespace")
    buckets = site.behind.buckets()
    assert buckets == [], buckets


def test_no_log_of_a_run_holds_a_secret(site: Site) -> None:
    wanted = [site.key, site.behind.key, site.behind.wrong_key, verbs.made_secrets()["circleci_object_storage_secret_key"], verbs.made_secrets()["circleci_registry_password"]]
    wanted += [base64.b64encode(word.encode()).decode() for word in wanted]
    logs = sorted(site.logs.glob("*.log"))
    assert len(logs) > 8
    assert [(log.name, word[:8]) for log in logs for word in wanted if word in log.read_text(encoding="utf-8")] == []
