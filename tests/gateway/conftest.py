# SPDX-License-Identifier: GPL-3.0-or-later
"""One sandbox whose object store is a gateway in the cluster, two replicas before a store of others; its tests in the order of the file, each building on the one before.

``--kind`` says which gateway: versitygw_s3 stands before a MinIO, versitygw_azure before Azurite.
"""

from __future__ import annotations

import base64
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

from sandbox import docker, layout, machine, stores, suite, verbs  # noqa: E402 - the path is set above
from sandbox import site as sandbox_site  # noqa: E402 - as above

STATE = "/var/lib/onprem-circleci"
NAMESPACE = "circleci-server-object-storage"
NAME = "onprem-circleci-object-storage"
STORE_NAME = "objects.site.example"
ADDRESS = layout.LOAD_BALANCER_POOL[0].rpartition(".")[0] + ".101"


@dataclass(frozen=True)
class Behind:
    """What the gateway stands before, on the store's host: a MinIO."""

    account: str = "behind"
    key: str = "canary-key-of-the-store-behind"
    wrong_key: str = "canary-wrong-key-behind"
    endpoint: str = "http://store.site.example:9000"
    unit: str = stores.MINIO

    def start(self) -> None:
        stores.minio(self.account, self.key)

    def stop(self) -> None:
        stores.stop(self.unit)

    def buckets(self) -> list[str]:
        return docker.execute(stores.host(), ["ls", stores.FOLDER]).stdout.split()


class BehindAzure(Behind):
    """Azurite, at an address that nodes reach."""

    def start(self) -> None:
        stores.azurite(layout.host("store").address, {self.account: self.key})

    def buckets(self) -> list[str]:
        # It writes down what it holds when it ends.
        self.stop()
        database = json.loads(docker.execute(stores.host(), ["cat", f"{stores.FOLDER}/__azurite_db_blob__.json"]).stdout)
        (containers,) = [item["data"] for item in database["collections"] if item["name"] == "$CONTAINERS_COLLECTION$"]
        self.start()
        return [str(item["name"]) for item in containers]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


KINDS = {
    "versitygw_s3": Behind(),
    # Keys of Azure are Base64.
    "versitygw_azure": BehindAzure(key=_base64(Behind.key), wrong_key=_base64(Behind.wrong_key), endpoint="http://store.site.example:10000/behind", unit=stores.AZURITE),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    suite.add_options(parser)
    parser.addoption("--kind", choices=sorted(KINDS), default="versitygw_s3", help="the gateway that is tried")


@dataclass
class Site:
    """Commands of an operator, and looks from outside."""

    logs: Path
    kind: str
    behind: Behind
    secrets: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.secrets["circleci_object_storage_backend_key"] = self.behind.key

    @property
    def given(self) -> dict[str, Any]:
        """What an operator says of it."""
        return {
            "circleci_object_storage_kind": self.kind,
            "circleci_object_storage_placement": "cluster",
            "circleci_object_storage_endpoint": f"http://{STORE_NAME}",
            "circleci_object_storage_load_balancer_address": ADDRESS,
            "circleci_object_storage_backend_endpoint": self.behind.endpoint,
            "circleci_object_storage_backend_account": self.behind.account,
            "circleci_gates_passed": verbs.ANSWERED_GATES,
        }

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
        return verbs.run(verb, extra={**self.given, **(given or {})}, arguments=arguments, log=self.logs / f"{name or verb}.log")

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
    kind = str(pytestconfig.getoption("--kind"))
    logs = ROOT / "build" / "gateway" / kind
    logs.mkdir(parents=True, exist_ok=True)
    suite.bring_up(pytestconfig)
    # It may be the sandbox's own daemon, which is not the machine's.
    assert machine.daemon_answers()
    made = Site(logs, kind, KINDS[kind])
    made.behind.start()
    sandbox_site.answer_names({STORE_NAME: ADDRESS})
    return made
