# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as ansible-playbook runs it: progress, check mode, kills, two at once, and where secrets are not."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .conftest import ACCESS, BUCKET, LOGIN, SECRET, Cluster, Registry, Store, until

OPTIONS = (
    "nomad_address", "clients", "registry", "image", "endpoint", "access_key", "secret_key", "bucket", "timeout", "node_timeout", "lock_file", "progress_file", "fail",
)  # fmt: skip
PLAYBOOK = json.dumps(
    [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [
                {"name": "Prove", "onprem.circleci_server.infrastructure_probe": {name: f"{{{{ options.{name} }}}}" for name in OPTIONS}, "register": "result"},
                {"name": "Keep", "ansible.builtin.copy": {"content": "{{ result | to_json }}", "dest": "{{ kept }}", "mode": "0600"}, "check_mode": False},
            ],
        }
    ]
)


@dataclass
class Slow:
    """Forwards to the store as it is, but holds uploads back while told to."""

    store: Store
    holds: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        host, port = self.store.endpoint.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._server = socket.create_server((host, 0))
        self.endpoint = f"http://{host}:{self._server.getsockname()[1]}"
        self.holds.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                taken, _address = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(taken,), daemon=True).start()

    def _forward(self, taken: socket.socket) -> None:
        with taken, socket.create_connection(self._target) as store:
            first = taken.recv(65536)
            if first.startswith(b"PUT "):
                self.held.set()
                self.holds.wait()
            try:
                store.sendall(first)
                back = threading.Thread(target=_copy, args=(store, taken), daemon=True)
                back.start()
                _copy(taken, store)
                back.join()
            except OSError:
                return

    def hold(self) -> None:
        self.held.clear()
        self.holds.clear()

    def close(self) -> None:
        self.holds.set()
        self._server.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.fixture
def slow(store: Store) -> Iterator[Slow]:
    made = Slow(store)
    yield made
    made.close()


@dataclass
class Run:
    """A run of ansible-playbook."""

    folder: Path
    process: subprocess.Popen[str]
    output: str = ""

    def finish(self) -> int:
        self.output, _nothing = self.process.communicate(timeout=120)
        return self.process.returncode

    @property
    def result(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "result.json").read_text()))

    @property
    def module_pid(self) -> int:
        """The process of the module, by its progress."""
        return int(until(lambda: json.loads((self.folder / "progress.json").read_text())["pid"], "progress"))


@pytest.fixture
def start(tmp_path: Path, cluster: Cluster, slow: Slow, registry: Registry, docker_client: str) -> Callable[..., Run]:
    options = {
        "nomad_address": cluster.address, "clients": [{"name": docker_client}], "registry": registry.name, "image": "cimg/base:1", "endpoint": slow.endpoint,
        "access_key": ACCESS, "secret_key": SECRET, "bucket": BUCKET, "timeout": 60, "node_timeout": 5, "lock_file": str(tmp_path / "records" / "lock"),
        "progress_file": str(tmp_path / "progress.json"), "fail": True,
    }  # fmt: skip
    (tmp_path / "play.yml").write_text(PLAYBOOK)

    def run(*arguments: str, **more: Any) -> Run:
        (tmp_path / "vars.json").write_text(json.dumps({"options": {**options, **more}, "kept": str(tmp_path / "result.json")}))
        env = {**os.environ, "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_ASYNC_DIR": str(tmp_path / "async"), "ANSIBLE_LOCALHOST_WARNING": "false"}
        argv = ["ansible-playbook", "-i", "localhost,", "-c", "local", "-e", f"@{tmp_path}/vars.json", "-e", f"ansible_python_interpreter={sys.executable}", *arguments, str(tmp_path / "play.yml")]
        return Run(tmp_path, subprocess.Popen(argv, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))

    return run


def leaks(folder: Path) -> list[str]:
    """Files of a run, those with its input left aside, that hold a secret or a link."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "vars.json":
            text = path.read_text(errors="replace")
            found += [f"{path.name}: {word}" for word in (SECRET, LOGIN[1], "X-Amz-Signature") if word in text]
    return found


def test_a_run_shows_progress_and_no_secret_and_changes_nothing(start: Callable[..., Run], slow: Slow, tmp_path: Path) -> None:
    slow.hold()
    run = start("-vvv")
    assert slow.held.wait(30)
    during = leaks(tmp_path)
    until(lambda: "Started" in (tmp_path / "progress.json").read_text(), "progress")
    slow.holds.set()
    assert run.finish() == 0, run.output
    assert run.result["passed"] and run.result["changed"] is False
    assert run.result["evidence"]["state"] == "passed" and run.result["evidence"]["when"].endswith("Z")
    assert "infrastructure probe: 0 of 1 clients proved, docker1: " in run.output
    assert [word for word in (SECRET, LOGIN[1], "X-Amz-Signature") if word in run.output] == []
    # While the module runs, its arguments lie in a file that only its user reads; nothing else may hold them.
    assert [name for name in during if not name.startswith("AnsiballZ")] == [] and leaks(tmp_path) == []


def test_check_mode_asks_nobody(start: Callable[..., Run]) -> None:
    run = start("--check", nomad_address="http://127.0.0.1:1", endpoint="http://127.0.0.1:1")
    assert run.finish() == 0, run.output
    assert run.result["evidence"] == {"level": "infrastructure probe", "state": "not run", "detail": "", "missing": ["a run without --check"]}
    assert not (run.folder / "records").exists()


def test_all_problems_are_told_at_once(start: Callable[..., Run]) -> None:
    clients = [{"name": "docker1"}, {"name": "nomad8"}, {"name": "nomad9", "addresses": ["192.0.2.9"]}]
    run = start(clients=clients, image="no-curl:1", node_timeout=1)
    assert run.finish() == 2
    assert "docker1: " in run.output and "has no curl" in run.output and "nomad8, nomad9: Nomad has no client of that name" in run.output
    run = start(clients=clients, image="no-curl:1", node_timeout=1, fail=False)
    assert run.finish() == 0, run.output
    assert run.result["evidence"]["state"] == "failed" and len(run.result["problems"]) == 2
    run = start(nomad_address="http://127.0.0.1:1", fail=False)
    assert run.finish() == 0
    assert "127.0.0.1:1 cannot be reached" in run.result["evidence"]["detail"]


def test_a_killed_run_is_cleaned_up_by_the_next(start: Callable[..., Run], cluster: Cluster, slow: Slow, store: Store) -> None:
    slow.hold()
    run = start()
    assert slow.held.wait(30)
    os.kill(run.module_pid, signal.SIGKILL)
    assert run.finish() == 2
    assert "Run the same command again" in run.output, run.output
    (left,) = cluster.api.jobs()
    slow.holds.set()
    until(store.objects, "the object of the killed run")
    again = start()
    assert again.finish() == 0, again.output
    assert again.result["passed"] and f"job {left}" in again.result["removed"] and any(item.startswith("object ") for item in again.result["removed"])


def test_a_polite_kill_leaves_nothing(start: Callable[..., Run], cluster: Cluster, slow: Slow) -> None:
    slow.hold()
    run = start()
    assert slow.held.wait(30)
    os.kill(run.module_pid, signal.SIGTERM)
    assert run.finish() == 2
    assert cluster.api.jobs() == []


def test_a_second_run_waits_for_the_first(start: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    with (tmp_path / "records" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        run = start()
        until(lambda: "waiting for another run" in (tmp_path / "progress.json").read_text(), "the second run")
    assert run.finish() == 0, run.output
    assert run.result["passed"]
