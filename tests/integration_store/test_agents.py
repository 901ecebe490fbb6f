# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents that hosts of the store serve themselves: brought by the module, served by the program that the role puts there, asked from outside."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.health.agents import look_at_agents
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets import pki
from ansible_collections.onprem.circleci_server.plugins.modules import (
    agent_files,
    object_storage_buckets,
    object_storage_probe,
)
from ansible_collections.onprem.circleci_server.plugins.plugin_utils import object_storage
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module
from ansible_collections.onprem.circleci_server.tests.unit.helpers.registry_stub import Stub

from .conftest import RELEASE, Site, agent_trees, bring_release
from .stores import HEALTH, ROOT, Store, free_port, read_environment_file, wait_for_port

PROGRAM = ROOT / "roles/object_storage/files/agents.py"
Start = Callable[..., Site]


class Host:
    """A host with a folder of agents, and the program that serves it."""

    def __init__(self, folder: Path, registry: Stub, capsys: pytest.CaptureFixture[str], tls: bool) -> None:
        self.folder, self.registry, self.capsys, self.port = folder / "agents", registry, capsys, free_port()
        self.log = folder / "log"
        self.authority = pki.new_authority("authority of the test", bits=2048) if tls else None
        self.words: list[str] = []
        if self.authority is not None:
            pair = pki.issue(self.authority, pki.Subject("localhost", ("localhost",)), bits=2048)
            (folder / "public.crt").write_text(pair.certificate)
            (folder / "private.key").write_text(pair.key)
            self.words = ["--certificate", str(folder / "public.crt"), "--key", str(folder / "private.key")]

    @property
    def url(self) -> str:
        return f"{'https' if self.authority else 'http'}://localhost:{self.port}"

    def options(self, version: str) -> dict[str, Any]:
        found = object_storage.agent_objects(Catalog.load(), RELEASE, bring_release(self.registry, version))
        login = {"registry": self.registry.host, "username": "site", "password": "secret-password", "plain_http": True}
        return {**login, "folder": str(self.folder), "objects": found["objects"], "texts": found["texts"]}

    def bring(self, version: str, *, check: bool = False) -> dict[str, Any]:
        return run_module(agent_files, self.capsys, check=check, **self.options(version))

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        with self.log.open("ab") as log:
            process = subprocess.Popen([sys.executable, str(PROGRAM), "--folder", str(self.folder), "--port", str(self.port), *self.words], stdout=log, stderr=log)
        try:
            wait_for_port(self.port, process, self.log)
            yield
            assert process.poll() is None, self.log.read_text()
        finally:
            process.kill()
            process.wait()

    def ask(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        context = ssl.create_default_context(cadata=self.authority.certificate) if self.authority else None
        kind = http.client.HTTPSConnection("localhost", self.port, context=context) if context else http.client.HTTPConnection("localhost", self.port)
        with contextlib.closing(kind) as connection:
            # as it stands: nothing tidies the path up
            connection.putrequest(method, path, skip_accept_encoding=True)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.read()


@pytest.fixture(params=[False, True], ids=["http", "https"])
def host(request: pytest.FixtureRequest, tmp_path: Path, registry: Stub, capsys: pytest.CaptureFixture[str]) -> Host:
    return Host(tmp_path, registry, capsys, request.param)


@pytest.fixture
def plain(tmp_path: Path, registry: Stub, capsys: pytest.CaptureFixture[str]) -> Host:
    return Host(tmp_path, registry, capsys, False)


def test_agents_are_served_and_nothing_else(host: Host) -> None:
    predicted = host.bring("1.0.1", check=True)
    assert predicted["changed"] and not host.folder.exists()
    brought = host.bring("1.0.1")
    assert brought["uploaded"] == predicted["uploaded"] and brought["uploaded"][-1] == "release.txt"
    assert host.bring("1.0.1")["changed"] is False and host.bring("1.0.1", check=True)["changed"] is False
    (host.folder / "link").symlink_to("/etc/passwd")
    (host.folder / "out").symlink_to("/etc")
    (host.folder / ".hidden").write_text("x")
    with host.serving():
        assert host.ask("/release.txt") == (200, b"1.0.1\n")
        assert host.ask("/release.txt", "HEAD") == (200, b"")
        # The vendor ends the base URL with a slash, and somebody puts another one behind it.
        assert host.ask("//release.txt") == (200, b"1.0.1\n")
        status, agent = host.ask("/1.0.1/linux/amd64/circleci-agent")
        assert status == 200 and agent == (host.folder / "1.0.1/linux/amd64/circleci-agent").read_bytes()
        closed = ("/", "/1.0.1", "/1.0.1/", "/.hidden", "/link", "/out/passwd", "/../log", "/%2e%2e/log", "/1.0.1/../release.txt", "release.txt", "/nothing")
        assert {path: host.ask(path)[0] for path in closed} == dict.fromkeys(closed, 404)
        assert {method: host.ask("/release.txt", method)[0] for method in ("PUT", "POST", "DELETE")} == dict.fromkeys(("PUT", "POST", "DELETE"), 501)
        # A new version while it runs.
        assert host.bring("1.0.2")["uploaded"][-1] == "release.txt"
        assert host.ask("/release.txt") == (200, b"1.0.2\n") and host.ask("/1.0.1/checksums.txt")[0] == 200
    assert {path.stat().st_mode & 0o777 for path in host.folder.rglob("*") if path.is_file() and not path.is_symlink() and path.name[0] != "."} == {0o644}


def test_verify_loads_agents_as_jobs_do(host: Host) -> None:
    host.bring("1.0.1")
    authority = host.authority.certificate if host.authority else ""
    agent, sums = host.folder / "1.0.1/linux/amd64/circleci-agent", host.folder / "docker-provisioner/1.0.1/checksums.txt"
    with host.serving():
        assert look_at_agents(host.url, agent_trees(), authority) == []
        # Whatever the bundle lacks on purpose is no finding: machine agents need a cloud.
        assert not (host.folder / "machine-provisioner").exists()
        agent.write_bytes(gzip.compress(agent.read_bytes()))
        sums.unlink()
        (host.folder / "canary.txt").unlink()
        assert look_at_agents(host.url, agent_trees(), authority) == [
            "1.0.1/linux/amd64/circleci-agent: still gzip-encoded", "docker-provisioner/1.0.1/checksums.txt: the store answers 404",
            "canary.txt: the store answers 404",
        ]  # fmt: skip
        agent.write_bytes(b"something else")
        (found,) = [text for text in look_at_agents(host.url, agent_trees(), authority) if "circleci-agent" in text]
        assert found.startswith("1.0.1/checksums.txt lists linux/amd64/circleci-agent with sha256 ")
        (host.folder / "release.txt").write_text("not a version\n")
        assert look_at_agents(host.url, agent_trees(), authority)[0] == "release.txt: 'not a version' is no version"
        if authority:
            assert "CERTIFICATE_VERIFY_FAILED" in look_at_agents(host.url, agent_trees())[0]
    assert "refused" in look_at_agents(host.url, agent_trees(), authority)[0]


def test_client_that_says_nothing_keeps_no_other_waiting(host: Host) -> None:
    host.bring("1.0.1")
    with host.serving(), contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(socket.create_connection(("127.0.0.1", host.port)))
        assert host.ask("/release.txt") == (200, b"1.0.1\n")


def test_what_was_changed_on_the_host_is_mended(plain: Host) -> None:
    plain.bring("1.0.1")
    (plain.folder / "1.0.1/linux/amd64/circleci-agent").write_bytes(b"something else")
    mended = plain.bring("1.0.1")
    assert mended["uploaded"] == ["1.0.1/linux/amd64/circleci-agent"]
    assert not plain.bring("1.0.1")["changed"]


DRIVER = """
import json, os, signal, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.agents import FolderStore
from ansible_collections.onprem.circleci_server.plugins.modules import agent_files

class Half:
    def __init__(self, body):
        self.body, self.read_once = body, False
    def read(self, size=-1):
        if self.read_once:
            os.kill(os.getpid(), signal.SIGKILL)
        self.read_once = True
        return self.body.read(1)

put, given = FolderStore.put, json.load(sys.stdin)
at = given.pop("at")
FolderStore.put = lambda self, bucket, key, body, **more: put(self, bucket, key, Half(body) if key.endswith(at) else body, **more)
with patch_module_args({**given, "_ansible_check_mode": False, "_ansible_diff": False}):
    agent_files.main()
"""


@pytest.mark.parametrize("at", ["1.0.2/linux/amd64/circleci-agent", "docker-provisioner/1.0.2/checksums.txt", "docker-provisioner/release.txt", "release.txt"])
def test_killed_half_way_leaves_a_version_working(at: str, plain: Host) -> None:
    plain.bring("1.0.1")
    options = {**plain.options("1.0.2"), "at": at}
    killed = subprocess.run([sys.executable, "-c", DRIVER], input=json.dumps(options).encode(), check=False, capture_output=True)
    assert killed.returncode == -9, killed.stdout + killed.stderr
    with plain.serving():
        assert plain.ask("/release.txt") == (200, b"1.0.1\n")
        for folder, agent in (("", "circleci-agent"), ("/docker-provisioner", "agent")):
            version = plain.ask(f"{folder}/release.txt")[1].decode().strip()
            status, content = plain.ask(f"{folder}/{version}/linux/amd64/{agent}")
            sums = plain.ask(f"{folder}/{version}/checksums.txt")[1].decode()
            assert status == 200 and hashlib.sha256(content).hexdigest() in sums
        assert plain.bring("1.0.2")["uploaded"][-1] == "release.txt"
        assert plain.ask("/release.txt") == (200, b"1.0.2\n")
    assert not list(plain.folder.rglob(".partial")), "what was half-written is gone"


def test_probe_asks_the_hosts_that_serve_and_opens_no_bucket(start: Start, plain: Host) -> None:
    site = start("versitygw_posix")
    site.module(object_storage_buckets, site="ci.site.example", bucket="circleci-data", agent_bucket="")
    plain.bring("1.0.1")
    with plain.serving():
        found = site.module(object_storage_probe, bucket="circleci-data", agents_url=plain.url)
        assert not found.get("failed"), found.get("msg")
        assert {row["name"]: row["works"] for row in found["results"] if row["name"].startswith("anonymous_agents")} == {
            "anonymous_agents": True, "anonymous_agents_scope": True,
        }  # fmt: skip
        (plain.folder / "release.txt").unlink()
        found = site.module(object_storage_probe, bucket="circleci-data", agents_url=plain.url)
        assert found["failed"] and f"{plain.url}/release.txt answers 404" in found["msg"]
    assert not site.store.client().bucket_exists("circleci-agents")


def look(store: Store, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """As the health unit looks where agents are served by the host."""
    words = ["--url", f"{store.endpoint}/circleci-data/.onprem-circleci-site", "--address", "127.0.0.1", "--port", str(store.port), "--timeout", "5"]
    return subprocess.run([sys.executable, str(HEALTH), *words, "--signed"], check=False, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("name", ["versitygw_posix", "minio_server", "versitygw_s3-minio"])
def test_health_reads_data_with_the_keys_of_the_service(name: str, start: Start) -> None:
    site = start(name)
    site.module(object_storage_buckets, site="ci.site.example", bucket="circleci-data", agent_bucket="")
    environment = read_environment_file(site.store.service()["environment_file"])
    looked = look(site.store, environment)
    assert looked.returncode == 0, looked.stdout
    if isinstance(site.behind, Store):
        site.behind.stop()
        assert look(site.store, environment).returncode == 1
        return
    refused = look(site.store, {key: value.replace(site.store.secret_key, "other secret") for key, value in environment.items()})
    assert refused.returncode == 1 and "answers 403" in refused.stdout and site.store.secret_key not in refused.stdout
