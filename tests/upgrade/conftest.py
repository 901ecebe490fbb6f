# SPDX-License-Identifier: GPL-3.0-or-later
"""One sandbox; its tests in the order of files and lines, each building on the one before."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sandbox import docker, layout, suite, verbs  # noqa: E402 - the path is set above
from sandbox.standin import chart  # noqa: E402 - as above

NAMESPACE = "circleci-server"
# test_chart.py installs the first with another chart, test_path.py goes from the first to the last but one, test_upgrade.py goes on to the last.
PATH = ("4.7.15", "4.8.12", "4.9.5", "4.10.0")
OLD, NEW = PATH[-2:]
STATE = "/var/lib/onprem-circleci"
POINTS = f"{STATE}/restore-points"
# Changes that only a run can make: its record of what a person did, the report of what it proved, a new identity of clients whose servers lost their state.
NOT_PREDICTABLE = {"Find the first open gate", "Write the report", "See that the Nomad servers know the client"}


def pytest_addoption(parser: pytest.Parser) -> None:
    suite.add_options(parser)


def extra(release: str, values: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Site variables of a release: its bundle, and values that fit two cores."""
    overlay = chart.small_values(release)
    for path, value in (values or {}).items():
        here = overlay
        *parents, last = path.split(".")
        for part in parents:
            here = here.setdefault(part, {})
        here[last] = value
    return {
        "circleci_release": release,
        "circleci_bundle_dir": f"/srv/bundle-{release}",
        "circleci_values": overlay,
        "circleci_gates_passed": verbs.ANSWERED_GATES,
        "circleci_extra_images": ["docker.io/circleci/server-keysets:latest"],
        **more,
    }


@dataclass(frozen=True)
class Site:
    """Commands of an operator, and looks from outside."""

    logs: Path

    def run(self, verb: str, *, name: str = "", arguments: Sequence[str] = (), kill_at: str = "", given: Mapping[str, Any] | None = None) -> verbs.Result:
        return verbs.run(verb, extra=given, arguments=arguments, log=self.logs / f"{name or verb}.log", kill_at=kill_at)

    def on(self, host: str, *command: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        return docker.execute(layout.host(host).container, list(command), check=False, stdin=stdin)

    def kubectl(self, *arguments: str, stdin: bytes | None = None) -> str:
        done = self.on("bastion", "kubectl", "--kubeconfig", "/etc/onprem-circleci/kubeconfig", *arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    # -- what is on the site ----------------------------------------------------------------------------------------------

    def history(self) -> list[tuple[int, str, str]]:
        """Revision, status and version of the chart, as Helm tells them."""
        done = self.on("bastion", "helm", "--kubeconfig", "/etc/onprem-circleci/kubeconfig", "-n", NAMESPACE, "history", "circleci-server", "-o", "json")
        return [(row["revision"], row["status"], row["chart"].rpartition("-")[2]) for row in json.loads(done.stdout)]

    def release(self) -> tuple[str, str]:
        """Version and status of the last revision."""
        return self.history()[-1][2], self.history()[-1][1]

    def running(self) -> dict[str, int]:
        """Pods of the application layer by workload, with the number that is ready."""
        pods = json.loads(self.kubectl("-n", NAMESPACE, "get", "pods", "-l", "layer=application", "-o", "json"))["items"]
        found: dict[str, int] = {}
        for pod in pods:
            ready = any(item["type"] == "Ready" and item["status"] == "True" for item in pod["status"].get("conditions", []))
            found[pod["metadata"]["labels"]["app"]] = found.get(pod["metadata"]["labels"]["app"], 0) + ready
        return found

    def uids(self, app: str) -> set[str]:
        pods = json.loads(self.kubectl("-n", NAMESPACE, "get", "pods", "-l", f"app={app}", "-o", "json"))["items"]
        return {pod["metadata"]["uid"] for pod in pods}

    def sql(self, statement: str, database: str = "domain") -> list[str]:
        script = 'PGPASSWORD="$POSTGRES_PASSWORD" exec psql -h 127.0.0.1 -U postgres -XqAt -v ON_ERROR_STOP=1 -d "$1" -c "$2"'
        return self.kubectl("-n", NAMESPACE, "exec", "postgresql-0", "--", "sh", "-c", script, "sh", database, statement).splitlines()

    def mongo(self, expression: str) -> str:
        script = f'db.auth("root", "$P"); print(\'\' + JSON.stringify({expression}));'
        shell = f"P=$STORE_PASSWORD; cat <<EOF | mongosh\n{script}\nEOF"
        return self.kubectl("-n", NAMESPACE, "exec", "mongodb-0", "--", "sh", "-c", shell).strip()

    def artifact(self, content: str = "") -> str:
        """Write an artifact where a job would, or read it."""
        secret = verbs.made_secrets()["circleci_object_storage_secret_key"]
        options = (
            f'user = "circleci:{secret}"\naws-sigv4 = "aws:amz:us-east-1:s3"\nheader = "x-amz-content-sha256: UNSIGNED-PAYLOAD"\n'
            'url = "http://store.site.example:7070/circleci-data/artifacts/before.txt"\n'
        )
        words = ["curl", "-sSf", "--config", "-", *(["--request", "PUT", "--data-binary", content] if content else [])]
        done = self.on("bastion", *words, stdin=options.encode())
        assert done.returncode == 0, done.stderr
        return done.stdout

    def unfinished(self) -> str:
        """Restore point that the data of PostgreSQL are on their way from."""
        path = "jsonpath={.metadata.annotations.onprem\\.circleci-server/unfinished-upgrade}"
        return self.on("bastion", "kubectl", "--kubeconfig", "/etc/onprem-circleci/kubeconfig", "-n", NAMESPACE, "get", "sts", "postgresql", "-o", path).stdout

    def postgresql(self) -> tuple[str, str]:
        """Major version of the image that runs, and the one that its data are of."""
        image = self.kubectl("-n", NAMESPACE, "get", "pod", "postgresql-0", "-o", "jsonpath={.spec.containers[0].image}")
        data = self.kubectl("-n", NAMESPACE, "exec", "postgresql-0", "--", "cat", "/bitnami/postgresql/data/standin_major").strip()
        return image.rpartition(":")[2].partition(".")[0], data

    def page(self) -> str:
        return self.on("nomad1", "curl", "-sSk", "https://app.ci.site.example/").stdout

    def points(self) -> list[str]:
        """Restore points, oldest first."""
        return self.on("bastion", "ls", POINTS).stdout.split()

    # -- what goes wrong ----------------------------------------------------------------------------------------------------

    @contextmanager
    def cut_off_at_the_restore_point(self, host: str, address: str, port: int) -> Iterator[None]:
        """*host* reaches no *port* of *address* as soon as a restore point begins, and does so again afterwards."""
        before = set(self.points())
        with self._cut_off_when(lambda: bool(set(self.on("bastion", "ls", "-A", POINTS).stdout.split()) - before), host, address, port):
            yield

    @contextmanager
    def cut_off_while_postgresql_moves(self, host: str, address: str, port: int) -> Iterator[None]:
        """The same as soon as the data of PostgreSQL are on their way into another version."""
        with self._cut_off_when(lambda: bool(self.unfinished()), host, address, port):
            yield

    @contextmanager
    def _cut_off_when(self, seen: Callable[[], bool], host: str, address: str, port: int) -> Iterator[None]:
        cut = f"add table inet cut; add chain inet cut output {{ type filter hook output priority -10; }}; add rule inet cut output ip daddr {address} tcp dport {port} reject"
        ended = threading.Event()
        done: list[subprocess.CompletedProcess[str]] = []

        def watch() -> None:
            while not ended.is_set() and not done:
                if seen():
                    done.append(self.on(host, "nft", cut))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            self.on(host, "nft", "delete table inet cut")
        assert done and done[0].returncode == 0, "it never came to that, or nft refused the rule"


def said(result: verbs.Result) -> str:
    """Messages of failed tasks, and the problems in the table that preflight shows above its own."""
    rows = [row for _host, told_by in result.results("site_preflight") for row in told_by["findings"] if row["level"] == "problem"]
    return "\n".join([*result.failures(), *(f"{row['subject']}: found {row['found']}; expected {row['expected']}. {row['remedy']}" for row in rows)])


def shown(result: verbs.Result) -> str:
    """What debug tasks told."""
    return json.dumps([told.get("msg", "") for _host, told in result.results("debug")], ensure_ascii=False)


def changes(result: verbs.Result) -> set[tuple[str, str]]:
    """Hosts and tasks that changed, without those that check mode cannot foresee."""
    return {change for change in result.changes() if change[1].rpartition(" : ")[2] not in NOT_PREDICTABLE}


def probed(site: Site, result: verbs.Result) -> None:
    """The probe job of this very run has come back from both clients."""
    for client in ("nomad1", "nomad2"):
        (site.logs / f"{client}.journal").write_text(site.on(client, "journalctl", "--unit", "nomad", "--no-pager", "--lines", "400").stdout, encoding="utf-8")
    report = json.loads(verbs.read("bastion", f"{STATE}/reports/report.json"))
    level = next(item for item in report["evidence"] if item["level"] == "infrastructure probe")
    assert level["state"] == "passed" and {client["name"] for client in level["clients"]} == {"nomad1", "nomad2"}
    assert result.code == 0, said(result)


@pytest.fixture(scope="session")
def site(pytestconfig: pytest.Config) -> Site:
    logs = ROOT / "build" / "upgrade"
    logs.mkdir(parents=True, exist_ok=True)
    suite.bring_up(pytestconfig)
    for host in ("workstation", "bastion"):
        verbs.prepare(host)
    return Site(logs)


def bring(site: Site, given: Mapping[str, Any], name: str) -> None:
    """A bundle, made on the connected side."""
    result = site.run("bundle", given=given, name=name)
    assert result.code == 0, result.failures()


def carry_over(folder: str) -> None:
    """Across the gap."""
    moved = subprocess.run([sys.executable, "-m", "sandbox", "carry", folder, folder], cwd=ROOT, check=False, capture_output=True)
    assert moved.returncode == 0, moved.stderr


def carry(site: Site, release: str) -> None:
    """The bundle of a release on the bastion, beside those of others."""
    folder = f"/srv/bundle-{release}"
    if site.on("bastion", "test", "-d", folder).returncode != 0:
        bring(site, extra(release), f"bundle-{release}")
        carry_over(folder)


@pytest.fixture(scope="session")
def carried(site: Site) -> None:
    """Both bundles that every test of test_upgrade.py goes between."""
    for release in (OLD, NEW):
        carry(site, release)
