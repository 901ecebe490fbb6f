# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.docker_networks import (
    check_against_cluster,
    check_docker_networks,
    networks_of_docker,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.findings import OK, PROBLEM, WARNING
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.host import check_host
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.preflight.test_host import make_root

ROLES = Path(__file__).resolve().parents[5] / "roles"
POOL = {"default-address-pools": [{"base": "10.10.0.0/16", "size": 24}]}
HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


def root_with(tmp_path: Path, *routes: str, servers: str = "nameserver 127.0.0.53\n") -> Path:
    """Routes as ``device network mask`` or ``device network mask gateway``, all but the device as the kernel prints them."""
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    lines = []
    for text in routes:
        device, network, mask, gateway = (*text.split(), "00000000")[:4]
        lines.append(f"{device}\t{network}\t{gateway}\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n")
    (tmp_path / "proc/net/route").write_text(HEAD + "".join(lines), encoding="ascii")
    (tmp_path / "etc/resolv.conf").write_text(servers, encoding="ascii")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "routes", "site", "level", "words"),
    [
        (POOL, ("eth0 00000000 00000000 0100000A", "eth0 0000000A 0000FFFF"), (), OK, "10.10.0.0/16"),
        (POOL, ("docker0 00000A0A 00FFFFFF", "ci-privileged 00010A0A 00FFFFFF", "br-0123456789ab 00020A0A 00FFFFFF"), (), OK, "10.10.0.0/16"),
        (POOL, ("eth1 00140A0A 00FFFFFF",), (), PROBLEM, "10.10.0.0/16 meets 10.10.20.0/24 (route of eth1)"),
        # A bridge of somebody else is no network of Docker.
        (POOL, ("br0 00140A0A 00FFFFFF",), (), PROBLEM, "(route of br0)"),
        (POOL, ("eth0 0000000A 000000FF 0100A8C0",), (), WARNING, "10.10.0.0/16 meets 10.0.0.0/8 (route of eth0)"),
        (POOL, ("eth0 0000000A 000000FF",), (), PROBLEM, "10.10.0.0/16 meets 10.0.0.0/8"),
        (POOL, ("eth0 00140A0A 00FFFFFF 0100A8C0",), (), PROBLEM, "10.10.20.0/24"),
        (POOL, ("tun0 00000000 00000080 0100A8C0",), (), OK, "10.10.0.0/16"),
        (POOL, (), ({"network": "10.10.3.4", "what": "host registry"},), PROBLEM, "10.10.0.0/16 meets 10.10.3.4/32 (host registry)"),
        (POOL, (), ({"network": "2001:db8::1", "what": "host registry"}, {"network": "nonsense", "what": "x"}), OK, "10.10.0.0/16"),
        ({**POOL, "bip": "192.168.5.1/24"}, ("eth0 0005A8C0 00FFFFFF",), (), PROBLEM, "192.168.5.0/24 meets 192.168.5.0/24 (route of eth0)"),
        # What Docker made by itself, before it had a pool.
        (POOL, ("docker0 000011AC 0000FFFF",), ({"network": "172.17.8.0/24", "what": "circleci_ports.vcs"},), PROBLEM,
         "172.17.0.0/16 of docker0 meets 172.17.8.0/24 (circleci_ports.vcs)"),
        ({"default-address-pools": "nonsense"}, (), (), OK, "no pool"),
    ],
)  # fmt: skip
def test_networks_of_docker_meet_nobody(
    tmp_path: Path, options: dict[str, Any], routes: tuple[str, ...], site: tuple[dict[str, str], ...], level: str, words: str
) -> None:
    finding = check_docker_networks("nomad1", options, site, root_with(tmp_path, *routes))
    assert finding.level == level and words in finding.found, finding
    assert level == OK or "circleci_container_engine_address_pool" in finding.remedy


def test_a_name_server_that_jobs_would_lose_is_told(tmp_path: Path) -> None:
    finding = check_docker_networks("nomad1", POOL, (), root_with(tmp_path, servers="search x\nnameserver 10.10.0.53\nnameserver\n"))
    assert finding.level == PROBLEM and "10.10.0.53/32 (name server of the host)" in finding.found


def test_a_network_that_would_do_is_named(tmp_path: Path) -> None:
    finding = check_docker_networks("nomad1", POOL, [{"network": "10.0.0.0/8", "what": "circleci_ports.kubernetes"}], root_with(tmp_path))
    assert "for instance 172.16.0.0/16" in finding.remedy


def test_a_pool_that_holds_everybody_does_not_fill_the_screen(tmp_path: Path) -> None:
    site = [{"network": f"10.10.0.{number}", "what": f"host n{number}"} for number in range(1, 60)]
    finding = check_docker_networks("nomad1", POOL, site, root_with(tmp_path))
    assert finding.found.endswith("(host n6); and 53 more")


def test_old_networks_of_docker_are_told_with_what_takes_them_away(tmp_path: Path) -> None:
    finding = check_docker_networks("n", POOL, [{"network": "172.17.8.0/24", "what": "x"}], root_with(tmp_path, "docker0 000011AC 0000FFFF"))
    assert "docker0 is there already" in finding.remedy


def test_only_clients_are_looked_at(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    site = [{"network": "10.10.0.9", "what": "host store"}]
    found = {item.check: item.level for item in check_host("h", ("nomad_clients",), needs={}, controller_time=0, docker=POOL, networks=site, root=root)}
    assert found["docker_addresses"] == PROBLEM
    assert "docker_addresses" not in {
        item.check for item in check_host("h", ("registry",), needs={}, controller_time=0, docker=POOL, networks=site, root=root)
    }
    assert "docker_addresses" not in {item.check for item in check_host("h", ("nomad_clients",), needs={}, controller_time=0, root=root)}


def test_pods_and_services_are_a_warning() -> None:
    cluster = [("10.42.0.0/24", "pods"), ("10.42.1.0/24", "pods"), ("10.43.0.0/16", "Services"), ("fd00::/108", "Services")]
    assert check_against_cluster({"nomad1": ["10.10.0.0/16"]}, cluster) == []
    (finding,) = check_against_cluster({"nomad1": ["10.42.0.0/16"], "nomad2": ["10.10.0.0/16"]}, cluster)
    assert finding.level == WARNING and "10.42.0.0/16 of nomad1 meets 10.42.1.0/24 (pods)" in finding.found and "nomad2" not in finding.found
    assert check_against_cluster({}, cluster) == []


def test_default_is_that_of_the_role() -> None:
    """Preflight runs before the role, so the pool stands in two places."""
    default = yaml.safe_load((ROLES / "container_engine/defaults/main.yml").read_text(encoding="utf-8"))["circleci_container_engine_address_pool"]
    assert f"circleci_container_engine_address_pool | default('{default}')" in (ROLES / "site/vars/main.yml").read_text(encoding="utf-8")
    assert [str(network) for network in networks_of_docker(POOL)] == [default]
