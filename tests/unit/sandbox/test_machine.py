# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox import artifacts, cli, machine
from sandbox.common import SandboxError

ROOT = Path(__file__).resolve().parents[3]
CONTROLLERS = ("memory", "cpu", "pids", "devices", "freezer", "systemd")


def cgroups(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "cgroup.procs").touch()
    return root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that may carry the sandbox: Linux on x86_64, root, cgroup v1, no site."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    cgroups(tmp_path / "sys/fs/cgroup", *CONTROLLERS)
    return tmp_path


def reasons(root: Path) -> list[str]:
    with pytest.raises(SandboxError) as error:
        machine.check(root=root)
    return str(error.value).split("; ")


def test_fit_machine_is_accepted(root: Path) -> None:
    machine.check(root=root)


# --- hosts of a site ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "etc/onprem-circleci/registry/config.yml",
        "var/lib/onprem-circleci/receipts/registry.json",
        "var/lib/onprem-circleci-firewall/record.json",
        "etc/systemd/system/circleci-network.service",
    ],
)
def test_never_on_a_host_of_the_operators_site(root: Path, path: str) -> None:
    (root / path).parent.mkdir(parents=True)
    (root / path).write_text("of the site")
    (reason,) = reasons(root)
    assert "so this machine is a host of a real site, and the sandbox never runs on one. Use another machine, or" in reason
    assert any(reason.startswith(f"/{trace} exists, ") for trace in machine.SITE_TRACES)


def test_empty_folder_is_no_trace_of_a_site(root: Path) -> None:
    for trace in ("etc/onprem-circleci", "var/lib/onprem-circleci"):
        (root / trace).mkdir(parents=True)
    machine.check(root=root)


def test_every_group_whose_hosts_get_something_of_their_own_is_recognised() -> None:
    """Cluster nodes get two files of containerd only, which anybody may have."""
    owned = yaml.safe_load((ROOT / "plugins/plugin_utils/site_plan/ownership.yml").read_text())["hosts"]
    groups = {group for entry in owned for group in entry["hosts"]} - {"controller", "circleci_cluster_nodes"}
    recognised: set[str] = set()
    for entry in owned:
        name = f"etc/systemd/system/{entry['name']}" if entry["kind"] == "unit" else entry["name"].lstrip("/")
        name = name.replace("{state_dir}", "var/lib/onprem-circleci")
        if "when" not in entry and any(name == trace or name.startswith(f"{trace}/") for trace in machine.SITE_TRACES):
            recognised.update(entry["hosts"])
    assert recognised == groups


def test_command_refuses_before_it_does_anything(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "etc/onprem-circleci").mkdir(parents=True)
    (root / "etc/onprem-circleci/secrets.yml").touch()
    monkeypatch.setenv("ONPREM_CIRCLECI_CACHE", str(root / "cache"))
    check = machine.check
    monkeypatch.setattr(machine, "check", lambda: check(root=root))
    assert cli.main(["up"]) == 1
    assert "host of a real site" in capsys.readouterr().err
    assert not (root / "cache").exists()


# --- system, user, cgroups ----------------------------------------------------------------------------------------------


def test_all_reasons_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    found = reasons(tmp_path)
    assert found[0] == "this is Darwin on arm64"
    assert any(reason.startswith("this is user 1000") for reason in found)
    assert any("no cgroup v1 controller is mounted" in reason for reason in found)


def test_cgroup_v2_only_is_refused_with_reason_and_way_out(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("v2")
    (other / "sys/fs/cgroup").mkdir(parents=True)
    (other / "sys/fs/cgroup/cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    with pytest.raises(SandboxError) as error:
        machine.check(root=other)
    assert "is cgroup v2 only; CircleCI Server wants its Nomad clients on cgroup v1" in str(error.value)
    assert "systemd.unified_cgroup_hierarchy=0" in str(error.value)


def test_hybrid_machine_is_accepted(tmp_path: Path) -> None:
    (cgroups(tmp_path, *CONTROLLERS) / "unified").mkdir()
    (tmp_path / "unified/cgroup.controllers").touch()
    assert machine.cgroup_problems(tmp_path) == []


def test_missing_controller_is_named(tmp_path: Path) -> None:
    assert "controller pids is not mounted" in machine.cgroup_problems(cgroups(tmp_path, *(name for name in CONTROLLERS if name != "pids")))[0]


def test_missing_systemd_hierarchy_comes_with_its_command(tmp_path: Path) -> None:
    (problem,) = machine.cgroup_problems(cgroups(tmp_path, *CONTROLLERS[:-1]))
    assert f"mount -t cgroup -o none,name=systemd cgroup {tmp_path}/systemd" in problem


# --- programs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said and what is run, in order, on a Debian machine that has no program."""
    lines: list[str] = []

    def run(argv: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        lines.append(" ".join(argv))
        return subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(machine, "say", lines.append)
    monkeypatch.setattr(machine, "run", run)
    monkeypatch.setattr(machine, "is_debian", lambda: True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None)
    return lines


def test_what_is_installed_is_named_first(told: list[str]) -> None:
    machine.provide({"ip": "iproute2", "docker": "docker.io", "dockerd": "docker.io"})
    assert told == [
        "this machine lacks docker, dockerd, ip; installing from Debian: docker.io iproute2",
        "apt-get update -q",
        "apt-get install -y -q --no-install-recommends docker.io iproute2",
    ]


def test_nothing_is_installed_where_nothing_is_missing(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    machine.provide(machine.TOOLS)
    assert told == []


def test_other_systems_are_told_what_to_install(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "is_debian", lambda: False)
    with pytest.raises(SandboxError) as error:
        machine.provide({"ip": "iproute2", "mmdebstrap": "mmdebstrap"})
    assert str(error.value) == (
        "missing programs: ip, mmdebstrap. Install them (Debian and Ubuntu packages: iproute2 mmdebstrap). Then run the same command again"
    )
    assert told == []


def test_without_root_nothing_is_installed(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SandboxError, match=r"missing programs: ip\. Install them \(as root: apt-get install iproute2\)"):
        machine.provide({"ip": "iproute2"})
    assert told == []


def test_go_is_never_installed_and_told_with_the_rest(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SandboxError, match=r"^`go` is not installed: install Go 1\.24 or later \(https://go\.dev/doc/install\) and put it on PATH\. Then"):
        machine.provide({"go": "", "gcc": "gcc libc6-dev"})
    assert told == []
    monkeypatch.setattr(machine, "is_debian", lambda: False)
    with pytest.raises(SandboxError, match=r"^`go` is not installed.*; missing programs: gcc\. Install them \(Debian and Ubuntu packages: gcc libc6-dev\)"):
        machine.provide({"go": "", "gcc": "gcc libc6-dev"})


def test_services_of_packages_for_tests_are_not_started(told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/systemctl" if name == "systemctl" else None)
    policy = tmp_path / "policy-rc.d"
    with machine._no_services(["firewalld"], policy=policy):
        assert subprocess.run([policy], check=False).returncode == 101
        assert told == []
    assert told == ["systemctl disable firewalld"]
    assert not policy.exists()


def test_policy_of_the_operator_stays(told: list[str], tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 0\n")
    with machine._no_services(["firewalld"], policy=policy):
        pass
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_policy_that_a_killed_run_left_is_taken_away(told: list[str], tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with machine._no_services([], policy=policy):
        left = policy.read_text()
    policy.write_text(left)
    with machine._no_services([], policy=policy):
        pass
    assert not policy.exists()


@pytest.mark.parametrize(("version", "accepted"), [("go1.19.8", False), ("go1.21.0", True), ("go1.24.1", True), ("go1.26rc1", True), ("devel", True)])
def test_old_go_is_refused(version: str, accepted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "provide", lambda tools: None)
    monkeypatch.setattr(artifacts, "run", lambda argv: subprocess.CompletedProcess(argv, 0, f"{version}\n", ""))
    if accepted:
        artifacts.provide_go()
    else:
        with pytest.raises(SandboxError, match=r"`go` is go1\.19\.8: install Go 1\.24 or later"):
            artifacts.provide_go()
