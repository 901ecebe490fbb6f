# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine under the sandbox: what it must have, and its docker daemon."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from .common import SandboxError, cache_dir, run, say, step

# Program -> Debian packages that bring it.
TOOLS = {
    "docker": "docker.io",
    "mmdebstrap": "mmdebstrap",
    "iptables": "iptables",
    "ip": "iproute2",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "gpg": "gpg",
    "gpg-agent": "gpg-agent",
    "python3": "python3",
}
DAEMON_TOOLS = {"dockerd": "docker.io", "containerd": "containerd", "runc": "runc"}
# Debian 12 has these too old, so they are never installed for the operator.
ELSEWHERE = {"go": "install Go 1.24 or later (https://go.dev/doc/install) and put it on PATH"}
# What only the collection puts on hosts of a real site: its folders, and the unit of a Nomad client whose firewall is not ours.
SITE_TRACES = (
    "etc/onprem-circleci",
    "var/lib/onprem-circleci",
    "var/lib/onprem-circleci-firewall",
    "etc/systemd/system/circleci-network.service",
    "etc/systemd/system/onprem-circleci-trust.service",
)


def check(*, root: Path = Path("/")) -> None:
    """Refuse a machine that cannot or must not carry the sandbox, with all reasons at once."""
    problems: list[str] = []
    traces = site_traces(root)
    if traces:
        problems.append(
            f"{' and '.join(traces)} exist{'s' if len(traces) == 1 else ''}, so this machine is a host of a real site, and the sandbox never runs on one. "
            "Use another machine, or remove what is left when the site is gone"
        )
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        problems.append(f"this is {platform.system()} on {platform.machine()}; the sandbox needs Linux on x86_64")
    if os.geteuid() != 0:
        problems.append(f"this is user {os.geteuid()}; the sandbox needs root, because its hosts boot systemd and it makes networks. Use sudo")
    problems.extend(cgroup_problems(root / "sys/fs/cgroup"))
    if problems:
        raise SandboxError("; ".join(problems))


def site_traces(root: Path) -> list[str]:
    """What lies here of a real site. An empty folder says nothing."""
    found = []
    for name in SITE_TRACES:
        path = root / name
        if path.is_dir() and not any(path.iterdir()):
            continue
        if path.exists():
            found.append(f"/{name}")
    return found


def cgroup_problems(root: Path) -> list[str]:
    """CircleCI Server demands cgroup v1 of its Nomad clients and preflight refuses hosts without it, so the sandbox has to offer it."""
    controllers = ("memory", "cpu", "pids", "devices", "freezer")
    if (root / "cgroup.controllers").exists():
        return [
            f"{root} is cgroup v2 only; CircleCI Server wants its Nomad clients on cgroup v1, and containers get what the machine has. "
            "Boot the machine with the kernel arguments systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller "
            "(systemd before 256: Debian 12, Ubuntu 22.04 and 24.04), or use a machine with cgroup v1"
        ]
    missing = [name for name in controllers if not (root / name / "cgroup.procs").exists()]
    if missing == list(controllers):
        return [f"no cgroup v1 controller is mounted below {root}; use a machine that boots with cgroup v1"]
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
    """What the sandbox calls."""
    tools = dict(TOOLS)
    if not daemon_answers():
        tools.update(DAEMON_TOOLS)
    provide(tools)


def provide(tools: Mapping[str, str]) -> None:
    """Programs and the Debian packages that bring them: see to it that they are there."""
    install({tool: packages for tool, packages in tools.items() if shutil.which(tool) is None})


def install(missing: Mapping[str, str], *, start_services: bool = True) -> None:
    """Install what is missing from Debian after it has been named; without root, and on other systems, only name it."""
    problems = [f"`{tool}` is not installed: {ELSEWHERE[tool]}" for tool in sorted(missing) if tool in ELSEWHERE]
    packages = sorted({package for tool, names in missing.items() if tool not in ELSEWHERE for package in names.split()})
    programs = ", ".join(sorted(set(missing) - set(ELSEWHERE)))
    can_install = is_debian() and os.geteuid() == 0
    if packages and not can_install:
        how = f"as root: apt-get install {' '.join(packages)}" if is_debian() else f"Debian and Ubuntu packages: {' '.join(packages)}"
        problems.append(f"missing programs: {programs}. Install them ({how})")
    if problems:
        raise SandboxError(f"{'; '.join(problems)}. Then run the same command again")
    if not packages:
        return
    quiet = "" if start_services else ", without starting what they bring"
    say(f"this machine lacks {programs}; installing from Debian: {' '.join(packages)}{quiet}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with contextlib.nullcontext() if start_services else _no_services(packages):
        run(["apt-get", "update", "-q"], env=env)
        run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages], env=env)


@contextlib.contextmanager
def _no_services(packages: list[str], *, policy: Path = Path("/usr/sbin/policy-rc.d")) -> Iterator[None]:
    """Debian starts the service of a package when it is installed, and at each boot after that; a test wants the program alone."""
    text = "#!/bin/sh\n# of the onprem.circleci_server sandbox, for the length of one installation\nexit 101\n"
    ours = not policy.exists() or policy.read_text(encoding="utf-8") == text
    if ours:
        policy.write_text(text, encoding="utf-8")
        policy.chmod(0o755)
    try:
        yield
        if shutil.which("systemctl") is not None:
            for name in packages:
                run(["systemctl", "disable", name], check=False)
    finally:
        if ours:
            policy.unlink()


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
