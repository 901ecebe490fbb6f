# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.findings import (
    OK,
    PROBLEM,
    WARNING,
    Finding,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.host import check_host


def make_root(tmp_path: Path, *, system: str = 'ID=debian\nVERSION_ID="12"\n', cgroup: str = "tmpfs", memory_kib: int = 8 * 1024 * 1024) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc").mkdir()
    (tmp_path / "etc/os-release").write_text(system, encoding="utf-8")
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: {memory_kib} kB\n", encoding="ascii")
    (tmp_path / "proc/mounts").write_text(f"{cgroup} /sys/fs/cgroup {cgroup} rw 0 0\n", encoding="utf-8")
    return tmp_path


def problems(root: Path, purposes: tuple[str, ...] = ("nomad_clients",), **needs: object) -> list[str]:
    findings = check_host("nomad1", purposes, needs=needs, controller_time=1000.0, root=root, now=1000.0)
    return [finding.check for finding in findings if finding.level == PROBLEM]


def test_good_client(tmp_path: Path) -> None:
    assert problems(make_root(tmp_path), memory_bytes=4 * 1024**3) == []


def test_cgroup_v2_stops_a_client_and_nobody_else(tmp_path: Path) -> None:
    root = make_root(tmp_path, cgroup="cgroup2")
    assert problems(root) == ["cgroup_version"]
    assert problems(root, purposes=("registry",)) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"default-address-pools": [{"base": "10.10.0.0/16", "size": 24}], "log-driver": "journald"}', ""),
        ("{}", ""),
        ('{"log-driver": "journald", "live-restore": true}', "live-restore, log-driver"),
        ("log-driver: journald", "no JSON object"),
        ("7", "no JSON object"),
    ],
)
def test_options_of_docker_that_somebody_else_wrote_are_named(tmp_path: Path, text: str, told: str) -> None:
    root = make_root(tmp_path)
    (root / "etc/docker").mkdir()
    (root / "etc/docker/daemon.json").write_text(text, encoding="utf-8")
    found = [item for item in check_host("nomad1", ("nomad_clients",), needs={}, controller_time=0, root=root) if item.check == "docker_options"]
    assert [(item.level, item.subject, item.found) for item in found] == ([(PROBLEM, "nomad1:/etc/docker/daemon.json", told)] if told else [])
    assert all("circleci_container_engine_options" in item.remedy for item in found)
    assert problems(root, purposes=("registry",)) == []


def test_unknown_system_little_memory_and_full_disk_come_together(tmp_path: Path) -> None:
    root = make_root(tmp_path, system='ID=fedora\nVERSION_ID="41"\n', memory_kib=1024)
    assert problems(root, memory_bytes=1024**3, disk={"/var/lib/docker": 2**62}) == ["host_operating_system", "host_memory", "host_disk"]


def test_clock_apart(tmp_path: Path) -> None:
    findings = check_host("h", (), needs={"clock_seconds": 60}, controller_time=1000.0, root=make_root(tmp_path), now=2200.0)
    assert [finding.found for finding in findings if finding.check == "clock"] == ["1200 s apart from the controller"]


def test_clock_that_was_not_compared_is_not_called_good(tmp_path: Path) -> None:
    findings = check_host("h", (), needs={}, controller_time=0, root=make_root(tmp_path))
    assert [finding.check for finding in findings] == ["host_operating_system", "host_python"]


def runner_root(tmp_path: Path) -> Path:
    root = make_root(tmp_path)
    for path in ("usr/bin/git", "usr/bin/ssh", "bin/tar", "bin/gzip", "usr/bin/sha256sum", "usr/sbin/update-ca-certificates"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def test_good_runner(tmp_path: Path) -> None:
    root = runner_root(tmp_path)
    assert problems(root, purposes=("runners_linux",)) == []


def test_runner_misses_programs_and_a_place_to_start_some_from(tmp_path: Path) -> None:
    root = runner_root(tmp_path)
    (root / "usr/bin/git").unlink()
    (root / "usr/sbin/update-ca-certificates").unlink()
    (root / "proc/mounts").write_text("/dev/sda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw,noexec 0 0\n/dev/sdb /var ext4 rw 0 0\n", encoding="utf-8")
    found = [item for item in check_host("r1", ["runners_linux"], needs={}, controller_time=0, root=root) if item.level == PROBLEM]
    assert [(item.check, item.subject) for item in found] == [("runner_programs", "r1"), ("runner_noexec", "r1:/tmp")]
    assert found[0].found == "no git, update-ca-certificates" and found[0].remedy == "Install git, ca-certificates."


def test_another_runner_on_the_host_is_told(tmp_path: Path) -> None:
    root = runner_root(tmp_path)
    (root / "opt/circleci").mkdir(parents=True)
    (root / "opt/circleci/circleci-launch-agent").touch()
    found = [item for item in check_host("r1", ["runners_linux"], needs={}, controller_time=0, root=root) if item.check == "runner_other"]
    assert len(found) == 1 and found[0].level == "warning" and "launch-agent" in found[0].found


def network(root: Path, links: dict[str, tuple[str, str]], purposes: tuple[str, ...] = ("cluster_nodes",), wanted: int = 10) -> list[Finding]:
    for name, (state, speed) in links.items():
        folder = root / "sys/class/net" / name
        folder.mkdir(parents=True)
        if not name.startswith("veth"):
            (folder / "device").mkdir()
        (folder / "operstate").write_text(f"{state}\n", encoding="ascii")
        (folder / "speed").write_text(f"{speed}\n", encoding="ascii")
    findings = check_host("node1", purposes, needs={}, controller_time=0, link_gbps=wanted, root=root)
    return [finding for finding in findings if finding.check == "cluster_network"]


@pytest.mark.parametrize(
    ("links", "level", "found"),
    [
        ({"eno1": ("up", "1000"), "eno2": ("up", "25000")}, OK, "eno2 at 25000 Mb/s"),
        ({"eno1": ("up", "1000"), "eno2": ("down", "25000")}, WARNING, "eno1 at 1000 Mb/s"),
        ({"eno1": ("up", "1000"), "ens3": ("up", "-1")}, OK, "no speed, which ens3 does not tell"),
        ({"veth0": ("up", "10000")}, OK, "no speed, which a virtual link does not tell"),
        ({}, OK, "no speed, which a virtual link does not tell"),
    ],
)
def test_links_of_kubernetes_nodes_are_held_against_the_sizing_table(tmp_path: Path, links: dict[str, tuple[str, str]], level: str, found: str) -> None:
    (finding,) = network(make_root(tmp_path), links)
    assert (finding.level, finding.found, finding.expected) == (level, found, "10 Gb/s on each Kubernetes node")
    assert level == OK or "circleci_daily_users" in finding.remedy


def test_links_of_other_hosts_are_not_looked_at(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    assert network(root, {"eno1": ("up", "100")}, purposes=("nomad_clients", "registry")) == []
    assert check_host("node1", ("cluster_nodes",), needs={}, controller_time=0, root=root)[-1].check != "cluster_network"
