# SPDX-License-Identifier: GPL-3.0-or-later
"""One sandbox whose object store is a gateway in the cluster, two replicas before a MinIO; its tests in the order of the file, each building on the one before."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sandbox import artifacts, docker, layout, machine, suite, verbs  # noqa: E402 - the path is set above
from sandbox import site as sandbox_site  # noqa: E402 - as above

STATE = "/var/lib/onprem-circleci"
NAMESPACE = "circleci-server-object-storage"
NAME = "onprem-circleci-object-storage"
STORE_NAME = "objects.site.example"
ADDRESS = layout.LOAD_BALANCER_POOL[0].rpartition(".")[0] + ".101"
BEHIND = "canary-key-of-the-store-behind"
GIVEN: dict[str, Any] = {
    "circleci_object_storage_kind": "versitygw_s3",
    "circleci_object_storage_placement": "cluster",
    "circleci_object_storage_endpoint": f"http://{STORE_NAME}",
    "circleci_object_storage_load_balancer_address": ADDRESS,
    "circleci_object_storage_backend_endpoint": "http://store.site.example:9000",
    "circleci_object_storage_backend_account": "behind",
    "circleci_gates_passed": verbs.ANSWERED_GATES,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    suite.add_options(parser)


@dataclass
class Site:
    """Commands of an operator, and looks from outside."""

    logs: Path
    secrets: dict[str, str] = field(default_factory=lambda: {"circleci_object_storage_backend_key": BEHIND})

    @property
    def key(self) -> str:
        """Secret key of the store's clients."""
        return {**verbs.made_secrets(), **self.secrets}["circleci_object_storage_secret_key"]

    def run(self, verb: str, *arguments: str, name: str = "", given: Mapping[str, Any] | None = None) -> verbs.Result:
        host = verbs.host_of(verb)
        verbs.prepare(host, self.secrets)
        # The host of the store holds what stands behind, and nothing of ours.
        path = f"{verbs.INVENTORY}/hosts.yml"
        hosts = yaml.safe_load(verbs.read(host, path)) | {"circleci_object_storage": {"hosts": {}}}
        docker.execute(layout.host(host).container, ["sh", "-c", f"cat > {path}"], stdin=yaml.safe_dump(hosts).encode())
        return verbs.run(verb, extra={**GIVEN, **(given or {})}, arguments=arguments, log=self.logs / f"{name or verb}.log")

    def on(self, host: str, *command: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        return docker.execute(layout.host(host).container, list(command), check=False, stdin=stdin)

    def kubectl(self, *arguments: str) -> str:
        done = sandbox_site.kubectl(list(arguments))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def objects(self, kind: str) -> list[dict[str, Any]]:
        return list(json.loads(self.kubectl("-n", NAMESPACE, "get", kind, "-o", "json"))["items"])

    def ready(self) -> int:
        """Replicas that are ready and not about to end."""
        found = 0
        for pod in self.objects("pods"):
            conditions = {item["type"]: item["status"] for item in pod["status"].get("conditions", [])}
            found += conditions.get("Ready") == "True" and not pod["metadata"].get("deletionTimestamp")
        return found

    def until(self, what: Callable[[], bool], words: str) -> None:
        """Kubernetes looks every few seconds. The deadline ends a test that would hang, it judges nothing."""
        deadline = time.monotonic() + 300
        while not what():
            assert time.monotonic() < deadline, f"never seen: {words}"
            time.sleep(0.5)

    def store(self, *, up: bool) -> None:
        """The store behind: a MinIO on the store's host."""
        self.on("store", "systemctl", "stop", "stand-in-minio")
        if up:
            keys = {"MINIO_ROOT_USER": "behind", "MINIO_ROOT_PASSWORD": BEHIND, "MINIO_BROWSER": "off", "MINIO_UPDATE": "off", "HOME": "/root"}
            words = ["systemd-run", "--unit=stand-in-minio", "--collect", *(f"--setenv={name}={value}" for name, value in keys.items())]
            done = self.on("store", *words, "/opt/stand-in/minio", "server", "--quiet", "--address", ":9000", "/srv/stand-in")
            assert done.returncode == 0, done.stderr

    def pids(self) -> set[str]:
        """Processes of the gateway, as the node sees them."""
        return set(self.on("node1", "pgrep", "-x", "versitygw").stdout.split())

    def report(self) -> dict[str, Any]:
        return dict(json.loads(verbs.read("bastion", f"{STATE}/reports/report.json")))

    def python(self, path: Path, *words: str) -> subprocess.Popen[str]:
        """A program of the tests on the bastion, with the collection that is installed there."""
        container = layout.host("bastion").container
        docker.execute(container, ["sh", "-c", f"cat > /run/{path.name}"], stdin=path.read_bytes())
        command = ["docker", "exec", "-i", "--env", "PYTHONPATH=/usr/share/ansible/collections", container, f"{verbs.VENV}/python", f"/run/{path.name}", *words]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def problems(result: verbs.Result) -> list[str]:
    """Why a run failed, also what is told by its last task only."""
    return [*result.failures(), result.errors[-1500:]] if result.code else []


def names(lines: Sequence[Mapping[str, Any]], key: str = "name") -> set[str]:
    return {str(item[key]) for item in lines}


@pytest.fixture(scope="session")
def site(pytestconfig: pytest.Config) -> Site:
    logs = ROOT / "build" / "gateway"
    logs.mkdir(parents=True, exist_ok=True)
    suite.bring_up(pytestconfig)
    # It may be the sandbox's own daemon, which is not the machine's.
    assert machine.daemon_answers()
    made = Site(logs)
    store = layout.host("store").container
    docker.execute(store, ["mkdir", "-p", "/opt/stand-in"])
    docker.call(["cp", "--follow-link", str(artifacts.ensure(artifacts.find("minio")) / "minio"), f"{store}:/opt/stand-in/minio"])
    made.store(up=True)
    sandbox_site.answer_names({STORE_NAME: ADDRESS})
    return made
