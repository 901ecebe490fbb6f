# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine under the sandbox: what it must have, and its docker daemon."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

from .common import SandboxError, cache_dir, run, say, step

# Program -> Debian package that brings it.
TOOLS = {
    "docker": "docker.io",
    "mmdebstrap": "mmdebstrap",
    "iptables": "iptables",
    "ip": "iproute2",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "gpg": "gpg",
    "python3": "python3",
}
DAEMON_TOOLS = {"dockerd": "docker.io", "containerd": "containerd", "runc": "runc"}
OPERATOR_STATE = Path("/var/lib/onprem-circleci")


def check(*, operator_state: Path = OPERATOR_STATE) -> None:
    """Refuse a machine that cannot or must not carry the sandbox, with all reasons at once."""
    problems: list[str] = []
    if operator_state.exists():
        problems.append(
            f"{operator_state} exists, so this machine is a control host of a real site; the sandbox never runs on one. Use another machine"
        )
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        problems.append(f"this is {platform.system()} on {platform.machine()}; the sandbox needs Linux on x86_64")
    if os.geteuid() != 0:
        problems.append(f"this is user {os.geteuid()}; the sandbox needs root, because its hosts boot systemd and it makes networks. Use sudo")
    problems.extend(cgroup_problems(Path("/sys/fs/cgroup")))
    if problems:
        raise SandboxError("; ".join(problems))


def cgroup_problems(root: Path) -> list[str]:
    """Nomad clients of CircleCI Server demand cgroup v1, so the sandbox has to offer it."""
    controllers = ("memory", "cpu", "pids", "devices", "freezer")
    missing = [name for name in controllers if not (root / name / "cgroup.procs").exists()]
    if (root / "cgroup.controllers").exists() or len(missing) == len(controllers):
        return [
            f"{root} is cgroup v2 only; CircleCI Server wants its Nomad clients on cgroup v1, which the kernel offers to containers "
            "only when the machine itself runs it. Boot the machine with systemd.unified_cgroup_hierarchy=0 "
            "systemd.legacy_systemd_cgroup_controller, or use a machine with cgroup v1"
        ]
    problems = [f"cgroup v1 controller {name} is not mounted below {root}" for name in missing]
    if not (root / "systemd").is_dir():
        problems.append(f"{root}/systemd is missing, and systemd in the hosts needs it: mkdir {root}/systemd && mount -t cgroup -o none,name=systemd cgroup {root}/systemd")
    return problems


def is_debian() -> bool:
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return False
    return "ID=debian" in text.splitlines()


def install_tools() -> None:
    """What is missing comes from Debian after it has been named; elsewhere it is only named."""
    tools = dict(TOOLS)
    if not daemon_answers():
        tools.update(DAEMON_TOOLS)
    missing = {tool: package for tool, package in tools.items() if shutil.which(tool) is None}
    if not missing:
        return
    packages = sorted(set(missing.values()))
    if not is_debian():
        raise SandboxError(
            f"missing programs: {', '.join(sorted(missing))}. Install them (Debian and Ubuntu packages: {' '.join(packages)}), then run the same command again"
        )
    say(f"this machine lacks {', '.join(sorted(missing))}; installing from Debian: {' '.join(packages)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], env=env)
    # no daemon of the distribution's own: its service would start with settings that are not ours
    run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages], env=env)


def daemon_dir() -> Path:
    return cache_dir() / "dockerd"


def own_socket() -> str:
    return f"unix://{daemon_dir() / 'docker.sock'}"


def _answers(socket: str | None) -> bool:
    env = dict(os.environ)
    if socket is not None:
        env["DOCKER_HOST"] = socket
    if shutil.which("docker") is None:
        return False
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"], env=env, capture_output=True, timeout=20, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def daemon_answers() -> bool:
    """Use the sandbox's own daemon when it runs, else the machine's; set DOCKER_HOST for everything that follows."""
    if (daemon_dir() / "docker.sock").exists() and _answers(own_socket()):
        os.environ["DOCKER_HOST"] = own_socket()
        return True
    # Once the sandbox has a daemon of its own, its hosts live there, whatever else has been started since.
    return not (daemon_dir() / "data").is_dir() and _answers(None)


def start_daemon() -> None:
    """Start dockerd by hand where no service manager does it."""
    if daemon_answers():
        return
    place = daemon_dir()
    place.mkdir(parents=True, exist_ok=True)
    _forget_dead_daemon(place)
    with step("starting dockerd", 5):
        ip_forward = Path("/proc/sys/net/ipv4/ip_forward")
        ip_forward.write_text("1", encoding="ascii")
        with (place / "log").open("ab") as log:
            daemon = subprocess.Popen(
                [
                    "dockerd",
                    f"--data-root={place / 'data'}",
                    f"--exec-root={place / 'exec'}",
                    f"--pidfile={place / 'docker.pid'}",
                    f"--host={own_socket()}",
                    "--bridge=none",
                    "--userland-proxy=false",
                    "--storage-driver=overlay2",
                    "--log-opt=max-size=10m",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        for _ in range(120):
            if _answers(own_socket()):
                os.environ["DOCKER_HOST"] = own_socket()
                return
            if daemon.poll() is not None:
                break
            time.sleep(0.25)
    tail = (place / "log").read_text(encoding="utf-8", errors="replace")[-1500:]
    raise SandboxError(f"dockerd does not answer; the end of {place / 'log'}: {tail}")


def _forget_dead_daemon(place: Path) -> None:
    """A pid file of a dead daemon stops the next one when another process has taken its number."""
    for pid_file in (place / "docker.pid", place / "exec" / "containerd" / "containerd.pid"):
        if not pid_file.is_file():
            continue
        try:
            command = Path(f"/proc/{int(pid_file.read_text())}/comm").read_text().strip()
        except (OSError, ValueError):
            command = ""
        if command not in ("dockerd", "containerd"):
            pid_file.unlink(missing_ok=True)
    (place / "docker.sock").unlink(missing_ok=True)


def stop_daemon() -> None:
    """Stop the daemon that the sandbox started, and only that one."""
    pid_file = daemon_dir() / "docker.pid"
    try:
        pid = int(pid_file.read_text())
        if Path(f"/proc/{pid}/comm").read_text().strip() != "dockerd":
            return
    except (OSError, ValueError):
        return
    os.kill(pid, 15)
    for _ in range(120):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.25)
