# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of one host: operating system, Python, memory, disk, links, cgroup version, networks of Docker, clock. Reads only."""

from __future__ import annotations

import json
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .docker_networks import check_docker_networks
from .findings import OK, PROBLEM, WARNING, Finding

_MIB = 1024 * 1024
_TESTED_SYSTEMS = {("debian", "12"), ("ubuntu", "22.04")}
_VENDOR_CLIENT = "server-admin 4.10 air-gapped installation, phase 4; server-terraform 4.9.1"
_VENDOR_SIZING = "vendor prerequisites, sizing table"
_VENDOR_RUNNER = "machine runner 3 installation on Linux, prerequisites"
# Program to the package of Debian and Ubuntu that brings it.
_RUNNER_PROGRAMS = {
    "git": "git", "ssh": "openssh-client", "tar": "tar", "gzip": "gzip", "sha256sum": "coreutils", "update-ca-certificates": "ca-certificates",
}  # fmt: skip
_DOCKER_OPTIONS = "/etc/docker/daemon.json"
_PROGRAM_FOLDERS = ("usr/local/bin", "usr/bin", "bin", "usr/sbin", "sbin")
_OTHER_RUNNERS = {
    "opt/circleci/circleci-launch-agent": "a launch-agent of the deprecated kind",
    "usr/bin/circleci-runner": "the runner of the vendor's package, whose unit ours takes the place of",
}


def _os_release(root: Path) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in (root / "etc/os-release").read_text(encoding="utf-8").splitlines() if "=" in line)
    return {key: value.strip('"') for key, value in pairs}


def _memory_bytes(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _filesystem_type(root: Path, mount: str) -> str:
    kind = ""
    for line in (root / "proc/mounts").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[1] == mount:
            kind = fields[2]
    return kind


def existing_parent(path: Path) -> Path:
    """The folder on whose disk a path would lie."""
    while not path.exists():
        path = path.parent
    return path


def check_host(
    name: str,
    purposes: Sequence[str],
    *,
    needs: Mapping[str, Any],
    controller_time: float,
    link_gbps: int = 0,
    docker: Mapping[str, Any] | None = None,
    networks: Sequence[Mapping[str, str]] = (),
    root: Path = Path("/"),
    now: float | None = None,
) -> list[Finding]:
    """Check the host called *name* for its *purposes* (inventory groups without ``circleci_``).

    *needs* may hold ``memory_bytes``, ``disk`` (folder -> free bytes) and ``clock_seconds``. Without *controller_time* nothing is said of the clock,
    without *link_gbps* nothing of links. *docker* are options of C(daemon.json) as install writes them, *networks* those of the site that Docker must not
    meet, each with C(network) and C(what).
    """
    findings = [_check_system(name, root), _check_python(name)]
    if controller_time:
        findings.append(_check_clock(name, controller_time, time.time() if now is None else now, needs))
    memory = int(needs.get("memory_bytes", 0))
    if memory:
        found = _memory_bytes(root)
        findings.append(
            Finding(
                "host_memory",
                OK if found >= memory else PROBLEM,
                name,
                f"{found // _MIB} MiB of memory",
                f"{memory // _MIB} MiB or more",
                "onprem.circleci_server",
                "" if found >= memory else "Give the host more memory, or waive host_memory with a reason.",
            )
        )
    for folder, free_bytes in dict(needs.get("disk", {})).items():
        existing = existing_parent(root / str(folder).lstrip("/"))
        found = shutil.disk_usage(existing).free
        findings.append(
            Finding(
                "host_disk",
                OK if found >= int(free_bytes) else PROBLEM,
                f"{name}:{folder}",
                f"{found // _MIB} MiB free",
                f"{int(free_bytes) // _MIB} MiB or more free",
                "onprem.circleci_server",
                "" if found >= int(free_bytes) else f"Free space below {folder} or move it to a larger disk.",
            )
        )
    if link_gbps and "cluster_nodes" in purposes:
        findings.append(_check_links(name, root, link_gbps))
    if "nomad_clients" in purposes:
        findings.append(_check_cgroup(name, root))
        findings += _check_docker_options(name, root)
        if docker is not None:
            findings.append(check_docker_networks(name, docker, networks, root))
    if "runners_linux" in purposes:
        findings += _check_runner(name, root)
    return findings


def _check_system(name: str, root: Path) -> Finding:
    release = _os_release(root)
    system = (release.get("ID", "?"), release.get("VERSION_ID", "?"))
    good = system in _TESTED_SYSTEMS and platform.machine() == "x86_64"
    return Finding(
        "host_operating_system",
        OK if good else PROBLEM,
        name,
        f"{system[0]} {system[1]} on {platform.machine()}",
        "Debian 12 or Ubuntu 22.04 on x86_64",
        "server-terraform 4.9.1 (Ubuntu 22.04); Debian 12 is what this collection is tested on",
        "" if good else "Use one of these, or waive host_operating_system with a reason.",
    )


def _check_python(name: str) -> Finding:
    found = sys.version_info[:2]
    good = found >= (3, 9)
    return Finding(
        "host_python",
        OK if good else PROBLEM,
        name,
        f"Python {found[0]}.{found[1]}",
        "Python 3.9 or newer",
        "onprem.circleci_server",
        "" if good else "Install a newer Python and set ansible_python_interpreter to it.",
    )


def _check_clock(name: str, controller_time: float, now: float, needs: Mapping[str, Any]) -> Finding:
    allowed = float(needs.get("clock_seconds", 300))
    skew = abs(now - controller_time)
    good = skew <= allowed
    return Finding(
        "clock",
        OK if good else PROBLEM,
        name,
        f"{skew:.0f} s apart from the controller",
        f"{allowed:.0f} s or less (S3 signatures and TLS fail beyond 15 minutes)",
        "onprem.circleci_server",
        "" if good else "Set the clock, for instance with chrony and a time server of the site.",
    )


def cgroup_version(root: Path = Path("/")) -> str:
    """``v1`` or ``v2``."""
    return "v2" if _filesystem_type(root, "/sys/fs/cgroup") == "cgroup2" else "v1"


def _check_cgroup(name: str, root: Path) -> Finding:
    version = cgroup_version(root)
    return Finding(
        "cgroup_version",
        OK if version == "v1" else PROBLEM,
        name,
        f"cgroup {version}",
        "cgroup v1, the Docker executor fails on v2",
        _VENDOR_CLIENT,
        ""
        if version == "v1"
        else "Add systemd.unified_cgroup_hierarchy=0 to the kernel's command line and reboot, or use Podman (4.10) and waive cgroup_version.",
    )


def _check_links(name: str, root: Path, wanted_gbps: int) -> Finding:
    """Speed of the fastest link that is up: a host with slower ones beside it is not blamed for them, since nothing says which one the cluster uses."""
    speeds = {link.name: _link_speed(link) for link in sorted((root / "sys/class/net").glob("*")) if (link / "device").exists()}
    up = {link: speed for link, speed in speeds.items() if speed is not None}
    silent = [link for link, speed in up.items() if speed <= 0]
    expected, subject = f"{wanted_gbps} Gb/s on each Kubernetes node", f"{name}: network"
    fastest = max(up, key=lambda link: up[link], default="")
    good = bool(fastest) and up[fastest] >= wanted_gbps * 1000
    if not good and (silent or not up):
        return Finding("cluster_network", OK, subject, f"no speed, which {', '.join(silent) or 'a virtual link'} does not tell", expected, _VENDOR_SIZING)
    return Finding(
        "cluster_network", OK if good else WARNING, subject, f"{fastest} at {up[fastest]} Mb/s", expected, _VENDOR_SIZING,
        "" if good else "The vendor advises a faster network for so many daily users: correct circleci_daily_users, or give the node a faster link.",
    )  # fmt: skip


def _link_speed(link: Path) -> int | None:
    """Megabits a second, 0 when the link does not tell; None for one that is down."""
    try:
        if (link / "operstate").read_text(encoding="ascii").strip() == "down":
            return None
        return int((link / "speed").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _check_docker_options(name: str, root: Path) -> list[Finding]:
    """Options of Docker that somebody else wrote: the role container_engine writes the file as a whole, always with a pool of addresses."""
    try:
        options = json.loads((root / _DOCKER_OPTIONS.lstrip("/")).read_text(encoding="utf-8"))
        told = "" if "default-address-pools" in options else ", ".join(sorted(options))
    except FileNotFoundError:
        return []
    except (ValueError, TypeError):
        told = "no JSON object"
    if not told:
        return []
    return [
        Finding(
            "docker_options", PROBLEM, f"{name}:{_DOCKER_OPTIONS}", told, "no options of others, since install writes that file", "onprem.circleci_server",
            "Put them into circleci_container_engine_options, which win over ours, and move the file away.",
        )
    ]  # fmt: skip


def _check_runner(name: str, root: Path) -> list[Finding]:
    """What machine runner 3 and its jobs need of a host, and what another runner left there."""
    missing = [program for program in _RUNNER_PROGRAMS if not any((root / folder / program).exists() for folder in _PROGRAM_FOLDERS)]
    findings = [
        Finding(
            "runner_programs",
            PROBLEM if missing else OK,
            name,
            f"no {', '.join(missing)}" if missing else "all of them",
            ", ".join(_RUNNER_PROGRAMS),
            _VENDOR_RUNNER,
            f"Install {', '.join(dict.fromkeys(_RUNNER_PROGRAMS[program] for program in missing))}." if missing else "",
        )
    ]
    for folder in ("/tmp", "/var/lib/circleci-runner"):  # noqa: S108 - looked at, not written
        mount, options = _mount_of(root, folder)
        if "noexec" in options:
            findings.append(
                Finding(
                    "runner_noexec", PROBLEM, f"{name}:{folder}", f"{mount} is mounted noexec", "a file system to start programs from", _VENDOR_RUNNER,
                    f"Mount {mount} without noexec: the task-agent is started from there.",
                )
            )  # fmt: skip
    for path, what in _OTHER_RUNNERS.items():
        if (root / path).exists():
            findings.append(
                Finding(
                    "runner_other", WARNING, name, f"{what} (/{path})", "one runner on a host", _VENDOR_RUNNER,
                    "Stop it and take it away when its jobs have ended: the vendor supports one runner on a host.",
                )
            )  # fmt: skip
    return findings


def _mount_of(root: Path, folder: str) -> tuple[str, list[str]]:
    """The mount that a folder lies on, with its options."""
    best, options = "", [""]
    for line in (root / "proc/mounts").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if len(fields) > 3 and f"{folder}/".startswith(fields[1].rstrip("/") + "/") and len(fields[1]) >= len(best):
            best, options = fields[1], fields[3].split(",")
    return best, options
