# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Nomad server with real clients of the older release, Docker, a registry and an object store, on loopback and on a bridge of their own."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.client import Node, NomadClient
from ansible_collections.onprem.circleci_server.plugins.module_utils.nomad.transport import AddressTransport
from ansible_collections.onprem.circleci_server.plugins.module_utils.private_registry.passwords import hash_password
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


BRIDGE, HOST = "ocsprobe0", "198.18.77.1"


@pytest.fixture(scope="session")
def bridge() -> Iterator[str]:
    """The address of this machine on a network that containers of the tests are in. Nothing is routed from there."""
    if os.geteuid() != 0:
        pytest.skip("Nomad clients and networks need root")
    with Path("/run/lock/onprem-circleci-probe").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pytest.exit(f"another run of these tests has the network {BRIDGE} of this machine; wait until it has ended", returncode=1)
        subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True, check=False)
        for command in (["link", "add", "name", BRIDGE, "type", "bridge"], ["address", "add", f"{HOST}/24", "dev", BRIDGE], ["link", "set", BRIDGE, "up"]):
            subprocess.run(["ip", *command], check=True)
        yield HOST
        subprocess.run(["ip", "link", "delete", BRIDGE], check=False)


@dataclass
class Cluster:
    """One server, its clients by name, and the folder of each."""

    address: str
    rpc: str
    folder: Path
    clients: dict[str, Process]
    ports: dict[str, int] = field(default_factory=dict)
    server: Process = field(init=False)

    @property
    def api(self) -> NomadClient:
        return NomadClient(AddressTransport(self.address))

    def start_server(self) -> None:
        self.server = Process([str(program("nomad", "1.11.3")), "agent", "-config", str(self.folder / "server.hcl")], self.folder / "server.log")

    def wait_for_leader(self) -> None:
        until(lambda: urllib.request.urlopen(f"{self.address}/v1/status/leader", timeout=2).read() not in (b"", b'""'), "a leader")

    def start_client(self, name: str, extra: str = "") -> None:
        home = self.folder / name
        home.mkdir(exist_ok=True)
        port = self.ports.setdefault(name, free_port())
        config = home / "client.hcl"
        config.write_text(
            f"""
name = "{name}"
data_dir = "{home}/data"
disable_update_check = true
addresses {{
  http = "127.0.0.1"
}}
advertise {{
  http = "{HOST}"
  rpc  = "{HOST}"
  serf = "{HOST}"
}}
ports {{
  http = {port}
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

    def stop_client(self, name: str, number: int = signal.SIGINT) -> None:
        self.clients.pop(name).stop(number)

    def node(self, name: str) -> Node:
        """The living node of that name."""
        return next(node for node in self.api.nodes() if node.name == name and node.status == "ready")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return AddressTransport(self.address).request(method, path, None, body)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, bridge: str) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("nomad")
    http, rpc, serf = free_port(), free_port(), free_port()
    (folder / "server.hcl").write_text(
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
    made = Cluster(f"http://127.0.0.1:{http}", f"127.0.0.1:{rpc}", folder, {})
    made.start_server()
    try:
        made.wait_for_leader()
        for name in ("nomad1", "nomad2"):
            made.start_client(name)
        until(lambda: sum(node.status == "ready" for node in made.api.nodes()) == 2, "both clients")
        yield made
    finally:
        for name in list(made.clients):
            made.stop_client(name)
        made.server.stop(signal.SIGINT)
        _unmount(folder)
        shutil.rmtree(folder, ignore_errors=True)


# --- Docker and a registry ------------------------------------------------------------------------------------------

LOGIN = ("site", "canary-of-the-registry")


@dataclass
class Docker:
    """A Docker daemon of its own."""

    socket: str
    folder: Path
    log: Path

    def run(self, *arguments: str, stdin: bytes | None = None) -> str:
        env = {**os.environ, "DOCKER_HOST": self.socket, "DOCKER_CONFIG": str(self.folder / "config")}
        done = subprocess.run(["docker", *arguments], env=env, input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    @contextmanager
    def without_login(self) -> Iterator[None]:
        path = self.folder / "config" / "config.json"
        before = path.read_bytes()
        path.write_text("{}")
        try:
            yield
        finally:
            path.write_bytes(before)


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory, bridge: str) -> Iterator[Docker]:
    folder = tmp_path_factory.mktemp("docker")
    address = f"unix://{folder}/docker.sock"
    argv = ["dockerd", "--host", address, "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid"),
            f"--bridge={BRIDGE}", "--iptables=false", "--ip-forward=false", "--userland-proxy=false"]  # fmt: skip
    process = Process(argv, folder / "log")
    made = Docker(address, folder, folder / "log")
    try:
        until(lambda: made.run("version"), "dockerd")
        yield made
    finally:
        process.stop()
        _unmount(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _unmount(folder: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    for place in sorted((place for place in mounts if place.startswith(str(folder))), reverse=True):
        subprocess.run(["umount", "--lazy", place], check=False)


def _root_of(*programs: str) -> bytes:
    """A tar of a few programs of this machine with the libraries that they need."""
    names = {str(Path(found).resolve()): found for program in programs if (found := shutil.which(program))}
    wanted: dict[str, str] = {}
    for real, found in names.items():
        wanted[found] = real
        for line in subprocess.run(["ldd", real], capture_output=True, text=True, check=False).stdout.splitlines():
            for word in line.split():
                if word.startswith("/"):
                    wanted[word] = str(Path(word).resolve())
    if "sh" in programs:
        wanted["/bin/sh"] = str(Path("/bin/sh").resolve())
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        scratch = tarfile.TarInfo("tmp")
        scratch.type, scratch.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(scratch)
        for name, real in sorted(wanted.items()):
            entry = tarfile.TarInfo(name.lstrip("/"))
            data = Path(real).read_bytes()
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()


def answers(host: str, port: int) -> bool:
    with socket.create_connection((host, port), 1):
        return True


class Registry:
    """A real registry on this machine, with a login and, if wanted, with a certificate that nobody trusts."""

    def __init__(self, folder: Path, host: str, *, tls: bool = False) -> None:
        folder.mkdir()
        with socket.create_server((host, 0)) as server:
            port = server.getsockname()[1]
        self.name = f"{host}:{port}"
        users = folder / "htpasswd"
        users.write_text(f"{LOGIN[0]}:{hash_password(LOGIN[1])}\n")
        secure = ""
        if tls:
            certificate, key = self_signed(folder, host)
            secure = f", tls: {{certificate: {certificate}, key: {key}}}"
        config = folder / "config.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
            f"auth: {{htpasswd: {{realm: test, path: {users}}}}}\nhttp: {{addr: '{self.name}'{secure}}}\n"
        )
        self._process = Process(["docker-registry", "serve", str(config)], folder / "log")
        until(lambda: answers(host, port), "the registry")

    def stop(self) -> None:
        self._process.stop()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, docker: Docker) -> Iterator[Registry]:
    """A registry with an image of the probe, and one without curl."""
    made = Registry(tmp_path_factory.mktemp("registry") / "one", "127.0.0.1")
    try:
        docker.run("login", "--username", LOGIN[0], "--password-stdin", made.name, stdin=LOGIN[1].encode())
        needed = ("sh", "curl", "mktemp", "cat", "sed", "tail", "head", "rm")
        for image, programs in (("cimg/base:1", needed), ("no-curl:1", ("sh", "mktemp")), ("no-shell:1", ("curl",))):
            docker.run("import", "-", f"{made.name}/{image}", stdin=_root_of(*programs))
            docker.run("push", f"{made.name}/{image}")
            docker.run("rmi", f"{made.name}/{image}")
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def untrusted_registry(tmp_path_factory: pytest.TempPathFactory, bridge: str) -> Iterator[Registry]:
    made = Registry(tmp_path_factory.mktemp("registry") / "two", bridge, tls=True)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def docker_client(cluster: Cluster, docker: Docker, registry: Registry) -> Iterator[str]:
    """A Nomad client whose jobs run in that Docker, with the login of the registry."""
    cluster.start_client("docker1", f"""
plugin "docker" {{
  config {{
    endpoint = "{docker.socket}"
    auth {{ config = "{docker.folder}/config/config.json" }}
    pull_activity_timeout = "1m"
  }}
}}
""")
    until(lambda: [node for node in cluster.api.nodes() if node.name == "docker1" and node.drivers["docker"].healthy], "the client with Docker")
    yield "docker1"
    cluster.stop_client("docker1")


@dataclass(frozen=True)
class Store:
    """A store and the folder that it serves."""

    endpoint: str
    folder: Path
    ca: str = ""

    @property
    def client(self) -> S3Client:
        return S3Client(self.endpoint, Credentials(ACCESS, SECRET), ca_data=self.ca)

    def objects(self) -> list[str]:
        return sorted(entry.key for entry in self.client.list(BUCKET))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, bridge: str) -> Iterator[Store]:
    yield from serve(tmp_path_factory.mktemp("store"), bridge)


@pytest.fixture(scope="session")
def tls_store(tmp_path_factory: pytest.TempPathFactory, bridge: str) -> Iterator[Store]:
    """A store with a certificate of its own."""
    yield from serve(tmp_path_factory.mktemp("tls-store"), bridge, tls=True)


@pytest.fixture
def versioned_store(tmp_path: Path, bridge: str) -> Iterator[Store]:
    """A store whose bucket keeps versions."""
    for made in serve(tmp_path, bridge, versions=True):
        made.client.enable_versioning(BUCKET)
        yield made


def self_signed(folder: Path, host: str) -> tuple[Path, Path]:
    certificate, key = folder / "tls.crt", folder / "tls.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=for-tests", "-addext", f"subjectAltName=IP:{host}",
                    "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)  # fmt: skip
    return certificate, key


def serve(folder: Path, host: str, *, tls: bool = False, versions: bool = False) -> Iterator[Store]:
    (folder / "data").mkdir()
    (folder / "versions").mkdir()
    backend = ["posix", *(["--versioning-dir", str(folder / "versions")] if versions else []), str(folder / "data")]
    port, options, ca = free_port(), [], ""
    if tls:
        certificate, key = self_signed(folder, host)
        options, ca = ["--cert", str(certificate), "--key", str(key)], certificate.read_text()
    argv = [str(program("versitygw", "1.8.0")), "--port", f"{host}:{port}", "--quiet", *options, *backend]
    process = Process(argv, folder / "log", ROOT_ACCESS_KEY=ACCESS, ROOT_SECRET_KEY=SECRET)
    made = Store(f"{'https' if tls else 'http'}://{host}:{port}", folder / "data", ca)
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
