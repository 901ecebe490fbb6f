# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Nomad server with two real clients of the older release, and a real object store, all on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.client import NomadClient
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.transport import AddressTransport
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.client import S3Client
from ansible_collections.onprem.circleci_server.plugins.module_utils.s3.signature import Credentials

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sandbox import artifacts  # noqa: E402 - the path is set above

ACCESS, SECRET, BUCKET = "circleci", "canary-of-the-store", "circleci-data"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def program(name: str, version: str) -> Path:
    item = artifacts.find(name, version)
    if not artifacts.is_ready(item):
        pytest.fail(f"{name} {version} is not built; `make test-nomad` does it, or `python -m sandbox artifacts {name} --build`")
    return Path(artifacts.ensure(item)) / name


def until(question: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Wait for a true answer; exceptions count as not yet."""
    end = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < end:
        try:
            if answer := question():
                return answer
        except Exception as error:
            last = error
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come within {seconds:.0f} seconds ({last})")


class Process:
    """A program in a session of its own, so that it and what it started can be ended."""

    def __init__(self, argv: list[str], log: Path, **env: str) -> None:
        with log.open("ab") as stream:
            self._process = subprocess.Popen(argv, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, start_new_session=True, env={**os.environ, **env})

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(15)


@dataclass
class Cluster:
    """One server, its clients by name, and the folder of each."""

    address: str
    rpc: str
    folder: Path
    clients: dict[str, Process]

    @property
    def api(self) -> NomadClient:
        return NomadClient(AddressTransport(self.address))

    def start_client(self, name: str, extra: str = "") -> None:
        home = self.folder / name
        home.mkdir(exist_ok=True)
        config = home / "client.hcl"
        config.write_text(
            f"""
name = "{name}"
data_dir = "{home}/data"
bind_addr = "127.0.0.1"
disable_update_check = true
advertise {{
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}}
ports {{
  http = {free_port()}
}}
client {{
  enabled    = true
  node_class = "linux-64bit"
  servers    = ["{self.rpc}"]
  cpu_total_compute = 4000
  memory_total_mb   = 1024
  gc_interval = "10m"
  options {{
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault"
  }}
}}
plugin "raw_exec" {{
  config {{ enabled = true }}
}}
{extra}
"""
        )
        self.clients[name] = Process([str(program("nomad", "1.7.7")), "agent", "-config", str(config)], home / "log")

    def stop_client(self, name: str) -> None:
        """End the agent and the jobs that it runs."""
        self.clients.pop(name).stop(signal.SIGINT)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if os.geteuid() != 0:
        pytest.skip("Nomad clients need root")
    folder = tmp_path_factory.mktemp("nomad")
    http, rpc, serf = free_port(), free_port(), free_port()
    config = folder / "server.hcl"
    config.write_text(
        f"""
name = "server"
data_dir = "{folder}/server"
bind_addr = "127.0.0.1"
disable_update_check = true
advertise {{
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}}
ports {{
  http = {http}
  rpc  = {rpc}
  serf = {serf}
}}
server {{
  enabled          = true
  bootstrap_expect = 1
  heartbeat_grace  = "2s"
  min_heartbeat_ttl = "2s"
}}
"""
    )
    server = Process([str(program("nomad", "1.11.3")), "agent", "-config", str(config)], folder / "server.log")
    made = Cluster(f"http://127.0.0.1:{http}", f"127.0.0.1:{rpc}", folder, {})
    try:
        until(lambda: urllib.request.urlopen(f"{made.address}/v1/status/leader", timeout=2).read() not in (b"", b'""'), "a leader")
        for name in ("nomad1", "nomad2"):
            made.start_client(name)
        until(lambda: sum(node.status == "ready" for node in made.api.nodes()) == 2, "both clients")
        yield made
    finally:
        for name in list(made.clients):
            made.stop_client(name)
        server.stop(signal.SIGINT)
        for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
            if line.split()[1].startswith(str(folder)):
                subprocess.run(["umount", line.split()[1]], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Store:
    """A store and the folder that it serves."""

    endpoint: str
    folder: Path

    @property
    def client(self) -> S3Client:
        return S3Client(self.endpoint, Credentials(ACCESS, SECRET))

    def objects(self) -> list[str]:
        return sorted(entry.key for entry in self.client.list(BUCKET))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    (folder / "data").mkdir()
    port = free_port()
    argv = [str(program("versitygw", "1.8.0")), "--port", f"127.0.0.1:{port}", "--quiet", "posix", str(folder / "data")]
    process = Process(argv, folder / "log", ROOT_ACCESS_KEY=ACCESS, ROOT_SECRET_KEY=SECRET)
    made = Store(f"http://127.0.0.1:{port}", folder / "data")
    try:
        until(lambda: made.client.bucket_exists(BUCKET) or True, "the store")
        made.client.create_bucket(BUCKET)
        yield made
    finally:
        process.stop()


@pytest.fixture(autouse=True)
def empty(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test leaves neither jobs nor objects; that is what the probe promises."""
    yield
    if "cluster" in request.fixturenames and "store" in request.fixturenames:
        cluster: Cluster = request.getfixturevalue("cluster")
        store: Store = request.getfixturevalue("store")
        assert cluster.api.jobs() == []
        assert store.objects() == []
