# SPDX-License-Identifier: GPL-3.0-or-later
"""From an empty site to an installed one and back, looked at from outside. The order of the tests is the story."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from sandbox import verbs

from .conftest import Chain

STATE = "/var/lib/onprem-circleci"
ANSWERS = {"circleci_gates_passed": verbs.ANSWERED_GATES}
REGISTRY = "registry.site.example:5000"


def report(chain: Chain) -> dict[str, Any]:
    return dict(json.loads(chain.on("bastion", "cat", f"{STATE}/reports/report.json").stdout))


def fingerprint(chain: Chain) -> str:
    """Everything that install could leave on a host, as one text."""
    look = "ls -la --time-style=full-iso /etc /etc/docker /etc/nomad /etc/systemd/system /etc/containerd /srv /var/lib/onprem-circleci 2>/dev/null; nft list ruleset 2>/dev/null; dpkg -l | md5sum"
    return "\n".join(chain.on(host, "sh", "-c", look).stdout for host in ("registry", "store", "nomad1", "nomad2"))


def test_site_is_cut_off(chain: Chain) -> None:
    before = chain.attempts_outside()
    for host in ("bastion", "registry", "node1", "store", "nomad1"):
        assert chain.on(host, "timeout", "3", "bash", "-c", "exec 3<>/dev/tcp/192.0.2.1/443").returncode != 0
        assert chain.on(host, "getent", "hosts", "cciserver.azurecr.io").returncode != 0
    assert chain.attempts_outside() > before, "the tripwire must count attempts, or it proves nothing later"
    assert chain.sandbox("tripwire", "--reset").returncode == 0
    assert chain.attempts_outside() == 0


def test_plan_needs_only_the_inventory_and_changes_nothing(chain: Chain) -> None:
    before = fingerprint(chain)
    result = chain.run("plan")
    assert result.code == 0, result.failures()
    assert fingerprint(chain) == before
    text = chain.on("bastion", "cat", f"{STATE}/plan/change-request.md").stdout
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
    assert fingerprint(chain) == before


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
    assert result.changed
    assert fingerprint(chain) == before


def test_install_stops_at_a_gate_and_goes_on_with_the_same_command(chain: Chain) -> None:
    answers = {"circleci_gates_passed": verbs.ANSWERED_GATES[1:]}
    first = chain.run("install", extra=answers, name="install-to-the-gate")
    assert first.code == 75, first.failures()
    assert "oauth_application" in first.errors and "same command again" in first.errors
    second = chain.run("install", extra=answers, name="install")
    assert second.code == 0, second.failures()


def test_probe_artifact_was_read_back(chain: Chain) -> None:
    found = report(chain)
    probe = next(level for level in found["evidence"] if level["level"] == "infrastructure_probe")
    assert probe["state"] == "passed", probe
    others = {level["level"]: level["state"] for level in found["evidence"]}
    assert others["circleci_job"] == "not_run" and others["reality_check"] == "not_run"


def test_second_run_changes_nothing_on_any_host(chain: Chain) -> None:
    result = chain.run("install", extra=ANSWERS, name="install-again")
    assert result.code == 0, result.failures()
    assert result.changed == {}, result.changes()


def test_check_mode_on_the_finished_site_predicts_nothing(chain: Chain) -> None:
    result = chain.run("install", extra=ANSWERS, arguments=["--check", "--diff"], name="check-finished")
    assert result.code == 0, result.failures()
    assert result.changed == {}, result.changes()


def test_every_image_in_the_cluster_comes_from_the_private_registry(chain: Chain) -> None:
    pods = json.loads(chain.on("bastion", "kubectl", "--kubeconfig", "/etc/onprem-circleci/kubeconfig", "get", "pods", "-A", "-o", "json").stdout)
    images = {
        container["image"]
        for pod in pods["items"]
        for kind in ("containers", "initContainers")
        for container in pod["spec"].get(kind, [])
    }
    assert images
    assert {image for image in images if not image.startswith(REGISTRY + "/")} == set()


def test_stand_in_web_page_is_served_through_the_load_balancer(chain: Chain) -> None:
    page = chain.on("bastion", "curl", "-sSk", "https://app.ci.site.example/").stdout
    assert "stand-in" in page.lower() and "4.10.0" in page


def test_nothing_on_the_site_tried_to_reach_outside(chain: Chain) -> None:
    assert chain.attempts_outside() == 0


def test_secrets_are_nowhere_they_should_not_be(chain: Chain) -> None:
    canaries = {name: value for name, value in verbs.made_secrets().items() if value.startswith("canary")}
    assert len(canaries) >= 4
    result = chain.run("install", extra=ANSWERS, arguments=["-vvv"], name="install-verbose")
    assert result.code == 0, result.failures()
    told = json.dumps(result.events, default=str) + result.errors
    assert [name for name, value in canaries.items() if value in told] == []
    pattern = "|".join(re.escape(value) for value in canaries.values())
    # Secrets rest encrypted in the inventory, in Kubernetes, and in files that only root reads and that need them.
    allowed = re.compile(r"^(/root/\.docker/config\.json|/etc/circleci/|/etc/versitygw/|/etc/minio/|/etc/default/|/etc/onprem-circleci/|/var/lib/etcd|/var/lib/kubelet/pods/|/var/lib/containerd/|/proc/)")
    for host in ("bastion", "registry", "store", "nomad1", "nomad2", "workstation"):
        found = chain.on(host, "grep", "-rlEs", "--exclude-dir=proc", "--exclude-dir=sys", "--exclude-dir=dev", pattern, "/etc", "/root", "/tmp", "/var", "/srv", "/opt/onprem").stdout.split()
        leaked = [path for path in found if not allowed.match(path)]
        assert leaked == [], f"{host}: {leaked}"
        for path in found:
            mode = chain.on(host, "stat", "-c", "%a", path).stdout.strip()
            assert mode.endswith("00"), f"{host}: {path} has mode {mode}"
        arguments = chain.on(host, "sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'").stdout
        assert not re.search(pattern, arguments), f"{host}: a secret stands in an argument list"
    assert not re.search(pattern, json.dumps(report(chain)))


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"circleci_release": "4.99.0"}, "4.99.0"),
        ({"circleci_release": "4.8.12"}, "4.8.12"),
        ({"circleci_platform": "mainframe"}, "mainframe"),
        ({"circleci_domain": ""}, "circleci_domain"),
        ({"circleci_registry_password": "wrong-password"}, "circleci_registry_password"),
        ({"circleci_registry_host": "registry.site.example:5999"}, "circleci_registry_host"),
        ({"circleci_bundle_dir": "/srv/nothing"}, "circleci_bundle_dir"),
        ({"circleci_storage_class": "provided", "circleci_waivers": []}, "cluster_size"),
    ],
    ids=lambda value: next(iter(value)) + "=" + str(next(iter(value.values()))) if isinstance(value, dict) else None,
)
def test_bad_input_is_one_clear_message_and_changes_nothing(chain: Chain, extra: dict[str, Any], expected: str) -> None:
    before = fingerprint(chain)
    result = chain.run("install", extra={**ANSWERS, **extra}, name="bad-" + next(iter(extra)))
    assert result.code == 2
    assert expected in "\n".join(result.failures())
    assert fingerprint(chain) == before


def test_report_and_verify_run_by_themselves(chain: Chain) -> None:
    for verb in ("preflight", "verify", "report"):
        result = chain.run(verb)
        assert result.code == 0, (verb, result.failures())


def test_uninstall_asks_first_and_then_takes_everything_away(chain: Chain) -> None:
    asked = chain.run("uninstall", name="uninstall-asked")
    assert asked.code == 2
    assert "circleci_uninstall_confirmed" in "\n".join(asked.failures())
    done = chain.run("uninstall", extra={"circleci_uninstall_confirmed": True, "circleci_uninstall_data": True})
    assert done.code == 0, done.failures()
    pods = chain.on("bastion", "kubectl", "--kubeconfig", "/etc/onprem-circleci/kubeconfig", "get", "namespaces", "-o", "name").stdout
    assert "namespace/circleci-server" not in pods
    for host in ("nomad1", "nomad2"):
        assert chain.on(host, "systemctl", "is-active", "nomad").stdout.strip() != "active"
        assert chain.on(host, "test", "-e", "/etc/nomad").returncode != 0
    assert chain.on("registry", "test", "-e", "/etc/docker/registry").returncode != 0
