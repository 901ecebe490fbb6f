# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with a systemd of its own, made of namespaces on top of this machine: what it writes goes to memory, its network is loopback alone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets import pki

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
CGROUPS = Path("/sys/fs/cgroup")
DOMAIN = "ci.example.com"
# Nothing of this machine is started in the lab, and its kernel is left alone.
BOOT = """
set -e
mount --make-rprivate /
mkdir -p {work}/memory {work}/root
mount -t tmpfs tmpfs {work}/memory
mkdir {work}/memory/upper {work}/memory/work
mount -t overlay overlay -o lowerdir=/,upperdir={work}/memory/upper,workdir={work}/memory/work {work}/root
cd {work}/root
mount -t proc proc proc
mount --bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
mkdir sys/fs/cgroup/{hierarchy}
mount -t {kind} sys/fs/cgroup/{hierarchy}
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run && mkdir run/lock
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir lab && mount --bind {folder} lab
rm -f etc/systemd/system/*.wants/* etc/systemd/system/circleci-runner.service
mkdir -p etc/systemd/system
printf '[Unit]\\nRequires=basic.target systemd-journald.service\\nAfter=basic.target\\n' > etc/systemd/system/lab.target
printf '127.0.0.1 localhost {domain} registry.example.com\\n' > etc/hosts
ip link set lo up
mkdir -p old && pivot_root . old && umount -l /old
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=lab.target --log-target=journal --show-status=false
"""


def until(question: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Wait for a true answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := question():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come within {seconds:.0f} seconds")


class Lab:
    """One host, with the stand-in server and the registry on its loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "lab"
        self.work = folder / "work"
        for path in (self.folder / "jobs", self.folder / "python", self.work):
            path.mkdir(parents=True)
        # The runner must reach it, and pytest's folders are for one user.
        os.chmod(folder, 0o711)
        shutil.copytree(Path(yaml.__file__).parent, self.folder / "python/yaml", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        self.authority = pki.new_authority("authority of the lab", bits=2048)
        pair = pki.issue(self.authority, pki.Subject(DOMAIN, (DOMAIN, "registry.example.com")), bits=2048)
        (self.folder / "server.crt").write_text(pair.certificate)
        (self.folder / "server.key").write_text(pair.key)
        self.tokens()
        self.group = self._cgroup(f"onprem-runner-{os.getpid()}")
        self.boot: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def _cgroup(self, name: str) -> Path:
        """A control group of our own: systemd in the lab sees it as the root."""
        unified = (CGROUPS / "cgroup.controllers").exists()
        self.hierarchy, self.kind = ("", "cgroup2 cgroup2") if unified else ("systemd", "cgroup -o none,name=systemd cgroup")
        group = CGROUPS / self.hierarchy / name
        group.mkdir()
        return group

    def start(self) -> None:
        script = BOOT.format(work=self.work, folder=self.folder, hierarchy=self.hierarchy, kind=self.kind, domain=DOMAIN)
        enter = f'echo $$ > "{self.group}/cgroup.procs"; exec unshare --mount --pid --uts --ipc --net --cgroup --fork --kill-child bash -c "$0"'
        with (self.work / "boot.log").open("wb") as log:
            self.boot = subprocess.Popen(["bash", "-c", enter, script], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        children = Path(f"/proc/{self.boot.pid}/task/{self.boot.pid}/children")
        self.pid = int(until(lambda: children.read_text().split()[:1], "the lab")[0])
        until(lambda: self.run("systemctl", "is-active", "lab.target").stdout.strip() == "active", f"systemd ({self.work}/boot.log)")
        environment = {"PYTHONPATH": str(ROOT.parents[2])}
        unit = [f"--setenv={name}={value}" for name, value in environment.items()]
        self.run("systemd-run", "--unit=standin-server", *unit, sys.executable, str(Path(__file__).with_name("standin_server.py")), "/lab", check=True)
        until((self.folder / "ready").exists, "the stand-in server")

    def stop(self) -> None:
        if self.boot is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.boot.wait()
        for group in sorted(self.group.rglob("*"), reverse=True):
            if group.is_dir():
                group.rmdir()
        self.group.rmdir()

    def run(self, *words: str, check: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the lab."""
        clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", *(f"{name}={value}" for name, value in environment.items())]
        return subprocess.run(["nsenter", "--target", str(self.pid), "--all", *clean, *words], check=check, capture_output=True, text=True)

    def tokens(self, **known: str) -> None:
        """What the server knows: token by nickname, all of the class acme/linux."""
        text = json.dumps({token: {"class": "acme/linux", "nickname": nickname} for nickname, token in known.items()})
        (self.folder / "tokens.new").write_text(text)
        (self.folder / "tokens.new").replace(self.folder / "tokens.json")

    def job(self, name: str, until: str = "/") -> None:
        """Give out a job, which ends as soon as the file *until* is there."""
        (self.folder / f"{name}.new").write_text(until)
        (self.folder / f"{name}.new").rename(self.folder / "jobs" / name)

    def seen(self) -> list[dict[str, Any]]:
        path = self.folder / "seen.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def play(self, name: str, *arguments: str, **variables: Any) -> Played:
        """Run a playbook of this folder on the lab, with a ``token`` for the runner, the ``version`` that the bundle brought and a ``personal`` token."""
        site = {
            "circleci_domain": DOMAIN,
            "circleci_platform": "generic",
            "circleci_registry_host": "registry.example.com:5000",
            "circleci_registry_username": "site",
            "circleci_registry_password": "registry-password",
            "circleci_ca_certificate": self.authority.certificate,
            "circleci_personal_token": variables.pop("personal", ""),
            # What the gate and the role mirror leave on a control host.
            "__circleci_site_secrets": {"values": {}},
            "__circleci_mirror_load": {"contents": {"files": {"machine-runner-linux-amd64": variables.pop("version", "3.1.11")}}},
        }
        token = variables.pop("token", "")
        runner = {"circleci_runner_resource_class": "acme/linux", "circleci_runner_settle": 2.0, **({"circleci_runner_token": token} if token else {})}
        hosts = {"runner1": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_host": "192.0.2.51"}}
        groups = {"circleci_sites": {"hosts": {"runner1": None}}, "circleci_runners_linux": {"hosts": {"runner1": None}, "vars": runner}}
        inventory = {"all": {"hosts": hosts, "vars": {**site, **variables}, "children": groups}}
        (self.folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
        words = [str(BIN / "ansible-playbook"), "-i", "/lab/inventory.yml", str(Path(__file__).with_name(name)), *arguments]
        done = self.run(
            *words, HOME="/root", PATH=f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin", ANSIBLE_COLLECTIONS_PATH=str(ROOT.parents[2]), ANSIBLE_STDOUT_CALLBACK="ansible.posix.jsonl",
            ANSIBLE_INJECT_FACT_VARS="false", ANSIBLE_LOCAL_TEMP="/tmp/ansible", ANSIBLE_REMOTE_TEMP="/tmp/ansible",
        )  # fmt: skip
        return Played(done)


class Played:
    """What a play did."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.output = done.returncode, done.stdout + done.stderr
        self.events: list[Mapping[str, Any]] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def _results(self, kind: str) -> list[Mapping[str, Any]]:
        return [result for event in self.events if event.get("_event") == kind for result in event.get("hosts", {}).values()]

    @property
    def changed(self) -> list[str]:
        return [str(result.get("action")) for result in self._results("v2_runner_on_ok") if result.get("changed")]

    @property
    def failure(self) -> str:
        return " ".join(str(result.get("msg")) for result in self._results("v2_runner_on_failed"))

    def results(self, action: str) -> list[Mapping[str, Any]]:
        return [result for result in self._results("v2_runner_on_ok") if str(result.get("action", "")).endswith(action)]
