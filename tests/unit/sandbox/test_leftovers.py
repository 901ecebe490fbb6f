# SPDX-License-Identifier: GPL-3.0-or-later
"""What an earlier or killed run left is no obstacle, and of two runs at once the second is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import cli, content, docker, layout, machine, site
from sandbox.common import SandboxError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONPREM_CIRCLECI_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(cli.HELD, raising=False)
    return tmp_path / "cache"


def sandbox(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "sandbox", *arguments], cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False)


# --- two at once --------------------------------------------------------------------------------------------------------


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """Another run that holds the sandbox."""
    code = "from sandbox import cli; import time\nwith cli.held('make demo'):\n print('held', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


CHANGING = [
    ["up"],
    ["down"],
    ["snapshot", "one"],
    ["restore", "one"],
    ["carry", "/srv/bundle", "/srv/bundle"],
    ["verb", "install"],
    ["install-collection", "made.tar.gz"],
    ["hold", "make test-sandbox", "--", "true"],
]


@pytest.mark.parametrize("command", CHANGING, ids=lambda command: str(command[0]))
def test_second_run_is_refused_and_told_who_is_at_it(
    command: list[str], holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "check", lambda: None)
    assert cli.main(command) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"sandbox: the sandbox is in use: process {holder.pid} (make demo) since ")
    assert said.endswith("Wait until it has ended, then run the same command again\n")


def test_killed_holder_is_no_obstacle(holder: subprocess.Popen[str], cache: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert "make demo" in (cache / "locks" / "sandbox.lock").read_text()
    assert cli.main(["hold", "the next", "--", "true"]) == 0


def test_what_a_holder_starts_is_part_of_it() -> None:
    inner = [sys.executable, "-m", "sandbox", "hold", "inner", "--", "sh", "-c", "echo inside; exit 7"]
    done = sandbox("hold", "outer", "--", *inner)
    assert (done.returncode, done.stdout) == (7, "inside\n")


def test_holding_another_cache_opens_nothing(holder: subprocess.Popen[str]) -> None:
    done = sandbox("hold", "stranger", "--", "true", **{cli.HELD: "/elsewhere/locks/sandbox.lock"})
    assert done.returncode == 1


def test_lock_is_free_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SandboxError, match="broken"), cli.held("one"):
        raise SandboxError("broken")
    assert cli.HELD not in os.environ
    with cli.held("two"):
        pass


# --- docker's daemon ----------------------------------------------------------------------------------------------------


def test_dead_daemon_whose_number_another_process_has_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "exec" / "containerd").mkdir(parents=True)
    (tmp_path / "docker.pid").write_text(str(os.getpid()))
    (tmp_path / "exec" / "containerd" / "containerd.pid").write_text("no number")
    (tmp_path / "docker.sock").touch()
    machine._forget_dead_daemon(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_pid_file_of_a_living_daemon_stays(tmp_path: Path) -> None:
    # a process of that name, as the kernel reports it
    program = tmp_path / "dockerd"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as process:
        while Path(f"/proc/{process.pid}/comm").read_text() != "dockerd\n":
            time.sleep(0.01)
        (tmp_path / "docker.pid").write_text(str(process.pid))
        machine._forget_dead_daemon(tmp_path)
        process.kill()
    assert (tmp_path / "docker.pid").is_file()


# --- hosts, networks, keys ----------------------------------------------------------------------------------------------


class Docker:
    """Answers in place of the daemon, which belongs to whoever uses the sandbox now; remembers what it was asked."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.calls: list[list[str]] = []

    def call(self, args: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(list(args))
        return subprocess.CompletedProcess(args, 0, "made-now\n", "")

    def inspect(self, kind: str, names: list[str]) -> dict[str, dict[str, Any]]:
        return {name: self.known[name] for name in names if name in self.known}

    def asked(self, verb: str) -> list[str]:
        return [call[-1].removeprefix(layout.PREFIX) for call in self.calls if call[0] == verb]


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Docker:
    made = Docker()
    monkeypatch.setattr(docker, "call", made.call)
    monkeypatch.setattr(docker, "inspect", made.inspect)
    monkeypatch.setattr(site, "run", lambda argv, **options: subprocess.CompletedProcess(argv, 0, "", ""))
    return made


VENDOR = content.Content(Path("/nowhere"), (), (), "", b"")


@pytest.fixture
def finished(daemon: Docker, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """All hosts as a finished run left them."""
    monkeypatch.setattr(site, "host_files", lambda item, vendor: {})
    monkeypatch.setattr(site, "containers", lambda: daemon.known)
    for item in layout.HOSTS:
        daemon.known[item.container] = {"Id": f"id-of-{item.name}", "State": {"Running": True}}
        site.host_dir(item.name).mkdir(parents=True)
        (site.host_dir(item.name) / "made").write_text(f"id-of-{item.name} {site.recipe(item, VENDOR, {})}\n")
    return daemon


def test_finished_hosts_are_left_alone(finished: Docker) -> None:
    assert site.ensure_hosts(VENDOR) is False
    assert finished.calls == []


def test_stopped_host_is_started_and_keeps_its_state(finished: Docker) -> None:
    finished.known[layout.host("store").container]["State"]["Running"] = False
    kept = site.host_dir("store") / "volumes"
    kept.mkdir()
    assert site.ensure_hosts(VENDOR) is True
    assert (finished.asked("start"), finished.asked("create")) == (["store"], [])
    assert kept.is_dir()


@pytest.mark.parametrize("left", ["no container", "no marker", "container of another run"])
def test_half_made_host_is_made_anew(finished: Docker, left: str) -> None:
    marker = site.host_dir("registry") / "made"
    (site.host_dir("registry") / "half").touch()
    if left == "no container":
        del finished.known[layout.host("registry").container]
    elif left == "no marker":
        marker.unlink()
    else:
        finished.known[layout.host("registry").container]["Id"] = "another"
    assert site.ensure_hosts(VENDOR) is True
    assert finished.asked("rm") == finished.asked("start") == ["registry"]
    assert [call[1] for call in finished.calls if call[0] == "create"] == [f"--name={layout.host('registry').container}"]
    assert marker.read_text().startswith("made-now ")
    assert not (site.host_dir("registry") / "half").exists()


def test_network_of_somebody_else_is_not_taken(daemon: Docker) -> None:
    name = layout.NETWORKS["site"].name
    daemon.known = {net.name: {"Internal": True, "Labels": {layout.LABEL: side}} for side, net in layout.NETWORKS.items()}
    site.ensure_networks()
    assert daemon.calls == []
    daemon.known[name] = {"Internal": True, "Labels": {}}
    with pytest.raises(SandboxError, match=f"docker network {name} exists and is not the sandbox's; remove or rename it"):
        site.ensure_networks()


def test_keys_of_a_killed_run_are_made_anew(daemon: Docker) -> None:
    site.keys_dir().mkdir(parents=True)
    (site.keys_dir() / "bastion").write_text("half")
    site.ensure_keys(["files.example"])
    assert list(site.keys_dir().iterdir()) == []
    assert [call[0] for call in daemon.calls] == ["run"]
    (site.keys_dir() / "complete").touch()
    site.ensure_keys(["files.example"])
    assert len(daemon.calls) == 1


# --- removing -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0, reason="no mount namespace can be made here")
def test_state_is_removed_with_mounts_that_a_killed_host_left(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "hosts/node1/volumes/var-lib-kubelet/pods").mkdir(parents=True)
    (tmp_path / "neighbour").mkdir()
    (tmp_path / "neighbour" / "kept").touch()
    code = (
        "import subprocess, sys; from pathlib import Path; from sandbox import site\n"
        "state = Path(sys.argv[1]); pods = state / 'hosts/node1/volumes/var-lib-kubelet/pods'\n"
        "subprocess.run(['mount', '-t', 'tmpfs', 'left', pods], check=True); (pods / 'file').touch()\n"
        "(pods / 'deeper').mkdir(); subprocess.run(['mount', '--bind', state.parent / 'neighbour', pods / 'deeper'], check=True)\n"
        "site.remove_state(state)\n"
    )
    subprocess.run(["unshare", "--mount", sys.executable, "-c", code, state], cwd=ROOT, check=True)
    assert not state.exists()
    assert (tmp_path / "neighbour" / "kept").exists()


# --- a bridge of a killed daemon ------------------------------------------------------------------------------------------

GHOST = layout.Network("ocst-ghost", "ocst-ghost", "198.51.100.0/24", "198.51.100.1", "198.51.100.2")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def ghost() -> Iterator[str]:
    """A host's network namespace on our bridge, without a process: what is left when docker and its containers are killed."""
    if os.geteuid() != 0:
        pytest.skip("making a network namespace needs root")
    name = f"ocst-{os.getpid()}"
    ip("link", "add", GHOST.bridge, "type", "bridge")
    ip("netns", "add", name)
    try:
        ip("link", "add", "ocst-port", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", "ocst-port", "master", GHOST.bridge)
        ip("-n", name, "address", "add", f"{GHOST.dns}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        yield name
    finally:
        subprocess.run(["ip", "link", "delete", GHOST.bridge], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def links() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def test_ghosts_on_a_bridge_are_taken_away_and_a_living_sandbox_is_not(ghost: str) -> None:
    process = subprocess.Popen(["ip", "netns", "exec", ghost, "sleep", "600"])
    try:
        while not site.process_in(GHOST):
            time.sleep(0.05)
        with pytest.raises(SandboxError, match=rf"process {process.pid} \(\w+\) uses addresses of 198.51.100.0/24: another sandbox is up"):
            site.clear_bridge(GHOST)
        assert {GHOST.bridge, "ocst-port"} <= links()
    finally:
        process.kill()
        process.wait()
    site.clear_bridge(GHOST)
    assert not {GHOST.bridge, "ocst-port"} & links()
    site.clear_bridge(GHOST)
