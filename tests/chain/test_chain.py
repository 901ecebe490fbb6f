# SPDX-License-Identifier: GPL-3.0-or-later
"""From an empty site to an installed one and back, looked at from outside. The order of the tests is the story."""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox import cli, verbs

from .conftest import Chain

STATE = "/var/lib/onprem-circleci"
ANSWERS = {"circleci_gates_passed": verbs.ANSWERED_GATES}
REGISTRY = "registry.site.example:5000"
SITE_HOSTS = ("bastion", "registry", "node1", "store", "nomad1", "nomad2")
# Changes that only a run can make: its record of what a person did, and the report of what it proved.
NOT_PREDICTABLE = {"Find the first open gate", "Write the report"}

told: dict[str, set[tuple[str, str]]] = {"predicted": set(), "made": set()}


def report(chain: Chain) -> dict[str, Any]:
    return dict(json.loads(verbs.read("bastion", f"{STATE}/reports/report.json")))


def fingerprint(chain: Chain) -> str:
    """Everything that a verb could leave on a host, as one text."""
    look = (
        "find /etc/docker /etc/nomad /etc/ssl/nomad /etc/circleci /etc/containerd /etc/onprem-circleci /etc/systemd/system /usr/local/bin /srv"
        " -not -type d -printf '%p %m %u %s %T@\\n' 2>/dev/null | sort; ls /var/lib/onprem-circleci 2>/dev/null | grep -v plan;"
        " nft -s list ruleset 2>/dev/null; dpkg -l | md5sum"
    )
    return "\n".join(f"--- {host}\n{chain.on(host, 'sh', '-c', look).stdout}" for host in SITE_HOSTS)


def unchanged(before: str, after: str) -> bool:
    """Says on its output what differs, where pytest would cut it."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="", n=0))
    sys.stdout.write("\n".join(lines) + "\n")
    return not lines


def kubectl(chain: Chain, *arguments: str) -> str:
    return chain.on("bastion", "kubectl", "--kubeconfig", "/etc/onprem-circleci/kubeconfig", *arguments).stdout


def planned(chain: Chain) -> dict[str, Any]:
    return dict(json.loads(verbs.read("bastion", f"{STATE}/plan/change-request.json")))


def said(result: verbs.Result) -> str:
    """Messages of failed tasks, and the problems in the table that preflight shows above its own."""
    rows = [row for _host, told_by in result.results("site_preflight") for row in told_by["findings"] if row["level"] == "problem"]
    return "\n".join([*result.failures(), *(f"{row['subject']}: found {row['found']}; expected {row['expected']}. {row['remedy']}" for row in rows)])


# --- before the first change ------------------------------------------------------------------------------------------


def test_site_is_cut_off(chain: Chain) -> None:
    before = chain.attempts_outside()
    for host in SITE_HOSTS:
        assert chain.on(host, "timeout", "3", "bash", "-c", "exec 3<>/dev/tcp/192.0.2.1/443").returncode != 0
        assert chain.on(host, "getent", "hosts", "cciserver.azurecr.io").returncode != 0
    assert chain.attempts_outside() > before, "the tripwire must count attempts, or it proves nothing later"
    assert chain.sandbox("tripwire", "--reset").returncode == 0
    assert chain.attempts_outside() == 0


def test_a_second_run_of_the_sandbox_refuses_politely(chain: Chain) -> None:
    with cli.held("the chain"):
        stranger = {name: value for name, value in os.environ.items() if name != cli.HELD}
        refused = chain.sandbox("down", environment=stranger)
    assert refused.returncode == 1
    assert "the sandbox is in use" in refused.stderr and "Traceback" not in refused.stderr


def test_plan_needs_only_the_inventory_and_changes_nothing(chain: Chain) -> None:
    before = fingerprint(chain)
    result = chain.run("plan")
    assert result.code == 0, result.failures()
    assert unchanged(before, fingerprint(chain))
    text = verbs.read("bastion", f"{STATE}/plan/change-request.md").decode()
    for expected in ("nomad1", "registry", "64535", "ci.site.example", "app.ci.site.example", "4647"):
        assert expected in text


def test_bundle_is_fetched_and_carried(chain: Chain) -> None:
    result = chain.run("bundle")
    assert result.code == 0, result.failures()
    again = chain.run("bundle", name="bundle-again")
    assert (again.code, again.changed) == (0, {})
    assert chain.sandbox("carry", "/srv/bundle", "/srv/bundle").returncode == 0


def test_install_without_secrets_is_refused_in_one_sentence(chain: Chain) -> None:
    before = fingerprint(chain)
    result = chain.run("install", extra=ANSWERS, name="install-without-secrets")
    assert result.code == 2
    (message,) = set(result.failures())
    assert "verb secrets" in message
    assert unchanged(before, fingerprint(chain))


def test_secrets_without_licence_are_refused(chain: Chain) -> None:
    result = chain.run("secrets", extra={"circleci_license": ""}, name="secrets-without-licence")
    assert result.code == 2
    assert "circleci_license" in "\n".join(result.failures())
    assert "circleci-server" not in kubectl(chain, "get", "namespaces", "-o", "name")


def test_secrets_are_made_once(chain: Chain) -> None:
    result = chain.run("secrets")
    assert result.code == 0, result.failures()
    assert result.changed
    again = chain.run("secrets", name="secrets-again")
    assert (again.code, again.changed) == (0, {})


def test_check_mode_on_the_empty_site_touches_nothing(chain: Chain) -> None:
    before = fingerprint(chain)
    result = chain.run("install", extra=ANSWERS, arguments=["--check", "--diff"], name="check-empty")
    assert result.code == 0, result.failures()
    assert unchanged(before, fingerprint(chain))
    told["predicted"] = set(result.changes())
    assert len(told["predicted"]) > 10


# --- bad input: one clear message, nothing half-done --------------------------------------------------------------------


@pytest.fixture(scope="module")
def damaged_bundles(chain: Chain) -> Iterator[dict[str, str]]:
    """Copies of the bundle: one with a part missing, one with one byte changed in the middle of its largest part."""
    script = """
set -e
for name in short damaged; do rm -rf /srv/$name; cp -rl /srv/bundle /srv/$name; done
part=$(find /srv/bundle -type f -size +1M -printf '%s %P\\n' | sort -n | tail -1 | cut -d' ' -f2)
rm /srv/short/$part
cp --remove-destination /srv/bundle/$part /srv/damaged/$part
size=$(stat -c %s /srv/damaged/$part)
printf X | dd of=/srv/damaged/$part bs=1 seek=$((size / 2)) conv=notrunc status=none
"""
    done = chain.on("bastion", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    yield {"short": "/srv/short", "damaged": "/srv/damaged"}
    chain.on("bastion", "rm", "-rf", "/srv/short", "/srv/damaged")


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"circleci_release": "4.99.0"}, ["circleci_release", "4.99.0", "4.10.0"]),
        ({"circleci_platform": "mainframe"}, ["circleci_platform", "mainframe", "generic"]),
        ({"circleci_domain": ""}, ["circleci_domain"]),
        ({"circleci_registry_password": ""}, ["circleci_registry_password"]),
        ({"circleci_release": "4.6.6"}, ["1.33.0", "4.6.6"]),
        ({"circleci_release": "4.7.15"}, ["circleci_bundle_dir", "4.10.0", "4.7.15"]),
        ({"circleci_storage_class": "provided", "circleci_waivers": []}, ["StorageClass", "cluster_size"]),
        ({"circleci_relase": "4.10.0"}, ["circleci_relase", "circleci_release"]),
        ({"circleci_bundle_dir": "/srv/nothing"}, ["circleci_bundle_dir", "/srv/nothing"]),
    ],
    ids=["unknown-release", "unknown-platform", "no-domain", "no-registry-password", "kubernetes-outside-range", "bundle-of-another-release", "no-storage-class", "misspelt", "no-bundle"],
)
def test_bad_input_is_one_clear_message_and_changes_nothing(chain: Chain, extra: dict[str, Any], expected: list[str], request: pytest.FixtureRequest) -> None:
    before = fingerprint(chain)
    result = chain.run("install", extra={**ANSWERS, **extra}, name=f"bad-{request.node.callspec.id}")
    message = said(result)
    assert result.code == 2
    assert [word for word in expected if word not in message] == [], message
    assert len(result.failures()) == 1, result.failures()
    assert unchanged(before, fingerprint(chain))


@pytest.mark.parametrize("name", ["short", "damaged"])
def test_a_bundle_that_is_not_whole_is_refused(chain: Chain, damaged_bundles: dict[str, str], name: str) -> None:
    result = chain.run("install", extra={**ANSWERS, "circleci_bundle_dir": damaged_bundles[name]}, name=f"bundle-{name}")
    told["made"] |= set(result.changes())
    message = said(result)
    assert result.code == 2
    assert "circleci_bundle_dir" in message and "bundle-" in message, message
    assert "Traceback" not in message


def test_a_registry_without_room_says_so(chain: Chain) -> None:
    assert chain.on("registry", "sh", "-c", "mkdir -p /srv/small && mount -t tmpfs -o size=40m none /srv/small").returncode == 0
    try:
        result = chain.run("install", extra={**ANSWERS, "circleci_registry_storage_dir": "/srv/small"}, name="disk-full")
        told["made"] |= set(result.changes())
        message = said(result)
        assert result.code == 2
        assert "registry" in message and "/srv/small" in message and "free" in message, message
    finally:
        chain.on("registry", "sh", "-c", "systemctl stop onprem-circleci-registry; umount /srv/small; rmdir /srv/small")


# --- install: killed twice, stopped at a gate, finished -----------------------------------------------------------------


@pytest.mark.parametrize("task", ["Load the bundle into the private registry", "Install or upgrade the release and wait for it"])
def test_a_killed_install_leaves_a_site_from_which_the_same_command_goes_on(chain: Chain, task: str) -> None:
    killed = chain.run("install", extra=ANSWERS, kill_at=task, name="killed-" + task.split()[0].lower())
    assert killed.code not in (0, 2)
    told["made"] |= set(killed.changes())


def test_install_stops_at_a_gate_and_goes_on_with_the_same_command(chain: Chain) -> None:
    answers = {"circleci_gates_passed": verbs.ANSWERED_GATES[1:]}
    first = chain.run("install", extra=answers, name="install-to-the-gate")
    assert first.code == 75, first.failures()
    assert "oauth_application" in first.errors and "same command again" in first.errors
    second = chain.run("install", extra=answers, name="install")
    assert second.code == 0, second.failures()
    told["made"] |= set(first.changes()) | set(second.changes())


def test_check_mode_had_predicted_what_the_run_did(chain: Chain) -> None:
    made = {change for change in told["made"] if change[1].rpartition(" : ")[2] not in NOT_PREDICTABLE}
    predicted = {change for change in told["predicted"] if change[1].rpartition(" : ")[2] not in NOT_PREDICTABLE}
    assert made - predicted == set(), "changed without having been predicted"
    assert predicted - made == set(), "predicted, and never changed"


def hosts_of(item: dict[str, Any]) -> list[str]:
    """Hosts of a row of the plan; the controller's own cache is none."""
    return [host for host in str(item["host"]).split(", ") if host in SITE_HOSTS]


def standing_paths(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """Host and path of everything that the plan says stays; what is only there for a moment is told so."""
    rows = [item for item in plan["files"] if item["path"].startswith("/") and "taken away afterwards" not in item["why"]]
    return [(host, item["path"]) for item in rows for host in hosts_of(item)]


def test_plan_had_named_what_install_did(chain: Chain) -> None:
    plan = planned(chain)
    paths = standing_paths(plan)
    assert len(paths) > 30
    assert [f"{host}: {path}" for host, path in paths if chain.on(host, "test", "-e", path).returncode != 0] == []
    owned = {(host, item["owner"]) for item in plan["files"] for host in hosts_of(item)}
    owners = {owner for _host, owner in owned}
    # What the control host does to the store and to the cluster stands in sections of its own.
    owned |= {("bastion", role) for role, section in {"object_storage": "buckets", "cluster": "kubernetes", "release": "kubernetes"}.items() if plan[section]}
    changed = {(host, task.partition(" : ")[0].rpartition(".")[2]) for host, task in told["made"]}
    assert {(host, role) for host, role in changed if role in owners} - owned == set(), "changed without being in the plan"
    for item in plan["services"]:
        for host in hosts_of(item):
            state = chain.on(host, "systemctl", "is-active", item["name"]).stdout.strip()
            assert state == "active" or "timer" in item["why"], (host, item, state)
    for item in plan["packages"]:
        for host in hosts_of(item):
            assert chain.on(host, "dpkg-query", "-W", item["name"]).returncode == 0, (host, item)


# --- the finished site --------------------------------------------------------------------------------------------------


def test_probe_artifact_was_read_back(chain: Chain) -> None:
    levels = {level["level"]: level for level in report(chain)["evidence"]}
    assert levels["infrastructure probe"]["state"] == "passed", levels
    assert {client["name"]: client["read_back"] for client in levels["infrastructure probe"]["clients"]} == {"nomad1": True, "nomad2": True}
    for name in ("CircleCI job", "reality check"):
        assert levels[name]["state"] == "not run" and levels[name]["missing"]


def test_second_run_changes_nothing_on_any_host(chain: Chain) -> None:
    result = chain.run("install", extra=ANSWERS, name="install-again")
    assert result.code == 0, result.failures()
    assert result.changed == {}, result.changes()


def test_check_mode_on_the_finished_site_predicts_nothing(chain: Chain) -> None:
    result = chain.run("install", extra=ANSWERS, arguments=["--check", "--diff"], name="check-finished")
    assert result.code == 0, result.failures()
    assert result.changed == {}, result.changes()


def test_every_image_in_the_cluster_comes_from_the_private_registry(chain: Chain) -> None:
    pods = json.loads(kubectl(chain, "get", "pods", "-A", "-o", "json"))
    images = {
        container["image"]
        for pod in pods["items"]
        for kind in ("containers", "initContainers")
        for container in pod["spec"].get(kind, [])
    }
    assert images
    assert {image for image in images if not image.startswith(REGISTRY + "/")} == set()


def test_stand_in_web_page_is_served_through_the_load_balancer(chain: Chain) -> None:
    page = chain.on("nomad1", "curl", "-sSk", "https://app.ci.site.example/").stdout
    assert "stand-in" in page.lower() and "4.10.0" in page


def test_secrets_are_nowhere_they_should_not_be(chain: Chain) -> None:
    canaries = {name: value for name, value in verbs.made_secrets().items() if value.startswith("canary")}
    assert len(canaries) >= 4
    result = chain.run("install", extra=ANSWERS, arguments=["-vvv"], name="install-verbose")
    assert result.code == 0, result.failures()
    output = json.dumps(result.events, default=str) + result.errors
    assert [name for name, value in canaries.items() if value in output] == []
    pattern = "|".join(re.escape(value) for value in canaries.values())
    # Secrets rest encrypted in the inventory, in Kubernetes, and in files that only root reads and that need them.
    allowed = re.compile(
        r"^(/root/\.docker/config\.json|/etc/onprem-circleci/|/var/lib/onprem-circleci/object-storage/)"
    )
    of_kubernetes = re.compile(r"^(/var/lib/etcd|/var/lib/kubelet/pods|/var/lib/containerd|/run/containerd)/")
    places = ["/etc", "/root", "/tmp", "/var", "/srv", "/opt/onprem", "/home", "/run"]
    for host in (*SITE_HOSTS, "workstation"):
        found = chain.on(host, "grep", "-rlEs", "--exclude-dir=registry", "--devices=skip", pattern, *places).stdout.split()
        found = [path for path in found if not (host == "node1" and of_kubernetes.match(path))]
        leaked = [path for path in found if not allowed.match(path)]
        assert leaked == [], f"{host}: {leaked}"
        for path in found:
            mode = chain.on(host, "sh", "-c", 'p="$1"; while [ "$p" != / ]; do stat -c %a "$p"; p=$(dirname "$p"); done', "sh", path).stdout.split()
            assert any(bits.endswith("0") for bits in mode), f"{host}: everybody can read {path}"
        arguments = chain.on(host, "sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'").stdout
        assert not re.search(pattern, arguments), f"{host}: a secret stands in an argument list"
    assert not re.search(pattern, json.dumps(report(chain)))


def test_other_verbs_run_by_themselves_and_change_nothing(chain: Chain) -> None:
    for verb in ("preflight", "verify", "report"):
        result = chain.run(verb)
        assert (result.code, result.changed) == (0, {}), (verb, result.failures(), result.changes())


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"circleci_registry_password": "wrong-password"}, ["circleci_registry_password", "401"]),
        ({"circleci_registry_host": "registry.site.example:5999"}, ["circleci_registry_host", "registry.site.example:5999"]),
        ({"circleci_ca_certificate": "/root/other-ca.pem"}, ["circleci_ca_certificate", "certificates as PEM text"]),
        ({"circleci_release": "4.8.12"}, ["circleci_release 4.8.12", "4.10.0 is installed"]),
        ({"circleci_object_storage_secret_key": "rotated-at-the-store"}, ["object-storage-secret", "differs from what the operator gives", "verb secrets"]),
    ],
    ids=["wrong-password", "another-registry", "no-authority", "older-release", "store-key-rotated"],
)
def test_bad_input_on_the_finished_site_changes_nothing(chain: Chain, extra: dict[str, Any], expected: list[str], request: pytest.FixtureRequest) -> None:
    result = chain.run("install", extra={**ANSWERS, **extra}, name=f"bad-{request.node.callspec.id}")
    message = said(result)
    assert result.code == 2
    assert [word for word in expected if word not in message] == [], message
    assert chain.run("preflight", name="preflight-after").code == 0


def test_a_registry_that_cannot_be_reached_is_named(chain: Chain) -> None:
    cut = "add table inet cut; add chain inet cut output { type filter hook output priority -10; }; add rule inet cut output ip daddr 10.93.0.11 tcp dport 5000 reject"
    assert chain.on("bastion", "nft", cut).returncode == 0
    try:
        result = chain.run("install", extra=ANSWERS, name="registry-cut-off")
        message = said(result)
        assert result.code == 2
        assert "circleci_registry_host" in message and REGISTRY in message and "Traceback" not in message, message
    finally:
        chain.on("bastion", "nft", "delete table inet cut")


def test_verify_names_a_client_that_runs_no_jobs(chain: Chain) -> None:
    assert chain.on("nomad2", "systemctl", "stop", "nomad").returncode == 0
    try:
        result = chain.run("verify", name="verify-without-nomad2")
        message = said(result)
        assert result.code == 2
        assert "nomad2" in message and "nomad1" not in message, message
    finally:
        chain.on("nomad2", "systemctl", "start", "nomad")


def test_install_repairs_what_was_broken(chain: Chain) -> None:
    chain.on("nomad1", "sh", "-c", "systemctl stop nomad && rm /etc/nomad/client.hcl /usr/local/bin/nomad")
    kubectl(chain, "-n", "circleci-server", "delete", "deployment", "frontend")
    result = chain.run("install", extra=ANSWERS, name="install-repairs")
    assert result.code == 0, result.failures()
    assert {host for host, _task in result.changes()} == {"bastion", "nomad1"}, result.changes()


def test_nothing_on_the_site_tried_to_reach_outside(chain: Chain) -> None:
    assert chain.attempts_outside() == 0, chain.sandbox("tripwire").stdout


# --- and back -----------------------------------------------------------------------------------------------------------


def test_uninstall_asks_first_and_then_takes_everything_away(chain: Chain) -> None:
    before = fingerprint(chain)
    asked = chain.run("uninstall", name="uninstall-asked")
    assert asked.code == 2
    assert "circleci_uninstall_confirmed" in "\n".join(asked.failures())
    assert unchanged(before, fingerprint(chain))
    yes = {"circleci_uninstall_confirmed": True, "circleci_uninstall_data": True}
    done = chain.run("uninstall", extra=yes)
    assert done.code == 0, done.failures()
    plan = told_plan(chain)
    # Docker stays, and with it its folder; so does the folder of root's logins, and the plan that was just written.
    staying = ("/etc/docker", "/root/.docker", "/tmp/plan")
    left = [f"{host}: {path}" for host, path in standing_paths(plan) if path not in staying and chain.on(host, "test", "-e", path).returncode == 0]
    assert left == []
    namespaces = kubectl(chain, "get", "namespaces", "-o", "name")
    for gone in ("circleci-server", "metallb-system", "local-path-storage"):
        assert f"namespace/{gone}" not in namespaces.split()
    for item in plan["services"]:
        for host in hosts_of(item):
            if item["name"] != "docker.service":
                assert chain.on(host, "systemctl", "is-active", item["name"]).stdout.strip() != "active", (host, item)
    again = chain.run("uninstall", extra=yes, name="uninstall-again")
    assert (again.code, again.changed) == (0, {}), (again.failures(), again.changes())


def told_plan(chain: Chain) -> dict[str, Any]:
    """The plan once more: uninstall took the one on the bastion away with its records."""
    result = chain.run("plan", extra={"circleci_plan_dir": "/tmp/plan"}, name="plan-after-uninstall")
    assert result.code == 0, result.failures()
    return dict(json.loads(verbs.read("bastion", "/tmp/plan/change-request.json")))
