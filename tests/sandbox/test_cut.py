# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox as it stands: hosts are real hosts, and the site is really cut off. Needs `python3 -m sandbox up`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox import docker, layout, machine, site, tripwire

SITE = [item for item in layout.HOSTS if item.network == "site"]
INSIDE = [item for item in SITE if item.name != "gateway"]
OUTSIDE_NAMES = ["github.com", "registry-1.docker.io", "cciserver.azurecr.io", "dl.k8s.io"]
# addresses for documentation, and the stand-in internet
OUTSIDE_ADDRESSES = ["192.0.2.1", "198.51.100.7", "203.0.113.7", "10.94.0.20", "10.94.0.10"]


@pytest.fixture(scope="module", autouse=True)
def sandbox() -> None:
    if not machine.daemon_answers() or not site.containers():
        pytest.skip("the sandbox is not up: python3 -m sandbox up")


@pytest.fixture
def counter() -> Iterator[None]:
    """These tests reach out on purpose; what they leave in the count is theirs and is taken away."""
    before = tripwire.read()
    if before["total"]:
        pytest.fail(f"something reached out before this test: {json.dumps(before)}")
    yield
    tripwire.reset()


def on(name: str, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return docker.execute(layout.host(name).container, list(command), check=False, timeout=timeout)


def connect(name: str, address: str, port: int) -> bool:
    """Plain TCP from the host's own Python, without any proxy or resolver in between."""
    code = f"import socket; socket.create_connection(({address!r}, {port}), 2)"
    return on(name, "python3", "-c", code).returncode == 0


def resolve(name: str, target: str) -> str:
    return on(name, "getent", "ahostsv4", target).stdout.split(" ")[0]


# --- hosts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [item.name for item in layout.HOSTS])
def test_systemd_runs_as_the_first_process(name: str) -> None:
    assert on(name, "cat", "/proc/1/comm").stdout.strip() == "systemd"
    assert on(name, "systemctl", "is-system-running", "--wait").stdout.strip() == "running"


@pytest.mark.parametrize("name", [item.name for item in INSIDE])
def test_hosts_are_bare_debian(name: str) -> None:
    assert 'VERSION_CODENAME=bookworm' in on(name, "cat", "/etc/os-release").stdout
    assert on(name, "python3", "-c", "import sys; assert sys.version_info[:2] == (3, 11)").returncode == 0
    if layout.host(name).image == "host":
        assert on(name, "python3", "-c", "import yaml").returncode != 0
        assert on(name, "sh", "-c", "command -v docker nomad kubectl pip").stdout == "" or name not in ("registry", "store")


@pytest.mark.parametrize("item", [item for item in INSIDE if item.name != "bastion"], ids=lambda item: item.name)
def test_bastion_reaches_hosts_over_ssh(item: layout.Host) -> None:
    for address in (item.name, item.fqdn, item.address):
        done = on("bastion", "ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", f"root@{address}", "hostname")
        assert (done.returncode, done.stdout.strip()) == (0, item.name), done.stderr


def test_hosts_reach_each_other() -> None:
    for source in ("node1", "nomad1", "store"):
        for target in ("bastion", "registry", "nomad2"):
            assert connect(source, layout.host(target).address, 22), f"{source} to {target}"


def test_kubernetes_is_ready_and_of_the_promised_version() -> None:
    assert site.kubernetes_ready()
    nodes: dict[str, Any] = json.loads(site.kubectl(["get", "nodes", "-o", "json"]).stdout)
    assert [node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes["items"]] == [f"v{layout.KUBERNETES_VERSION}"]


def test_cluster_dns_answers_for_services_and_for_the_site() -> None:
    code = (
        "import socket,struct\n"
        "def ask(name):\n"
        " s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5)\n"
        " q=struct.pack('>HHHHHH',1,256,1,0,0,0)+b''.join(bytes([len(p)])+p.encode() for p in name.split('.'))+b'\\0\\0\\1\\0\\1'\n"
        " s.sendto(q,('10.96.0.10',53)); r=s.recv(512); print(name, socket.inet_ntoa(r[-4:]) if r[3]&15==0 and r[7] else 'none')\n"
        "ask('kubernetes.default.svc.cluster.local'); ask('store.site.example')\n"
    )
    done = on("node1", "python3", "-c", code)
    assert done.stdout.splitlines() == ["kubernetes.default.svc.cluster.local 10.96.0.1", "store.site.example 10.93.0.31"], done.stderr


# --- the cut ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [item.name for item in INSIDE])
def test_no_outside_name_resolves(name: str, counter: None) -> None:
    for target in OUTSIDE_NAMES:
        assert resolve(name, target) == "", target
    asked = tripwire.read()["sources"][name]["names"]
    assert set(asked) == set(OUTSIDE_NAMES)


@pytest.mark.parametrize("name", [item.name for item in INSIDE])
def test_no_outside_address_answers_and_each_try_is_counted(name: str, counter: None) -> None:
    for target in OUTSIDE_ADDRESSES:
        assert not connect(name, target, 443), target
    counted = tripwire.read()["sources"][name]["destinations"]
    assert set(counted) == {f"{target} tcp/443" for target in OUTSIDE_ADDRESSES}


def test_other_protocols_are_counted_too(counter: None) -> None:
    assert on("bastion", "ping", "-c", "1", "-W", "1", "9.9.9.9").returncode != 0
    on("bastion", "python3", "-c", "import socket; s=socket.socket(2,2); s.sendto(b'x',('9.9.9.9',123))")
    assert set(tripwire.read()["sources"]["bastion"]["destinations"]) == {"9.9.9.9 icmp", "9.9.9.9 udp/123"}


def test_the_resolver_that_docker_brings_does_not_lead_out(counter: None) -> None:
    """It listens on 127.0.0.11 in every container and may forward from the machine itself."""
    code = (
        "import socket,struct\n"
        "s=socket.socket(2,2); s.settimeout(4)\n"
        "s.sendto(struct.pack('>HHHHHH',1,256,1,0,0,0)+b'\\6github\\3com\\0\\0\\1\\0\\1',('127.0.0.11',53))\n"
        "r=s.recv(512); print(r[3]&15, r[7])\n"
    )
    done = on("bastion", "python3", "-c", code)
    assert done.returncode != 0 or done.stdout.split() == ["3", "0"], done.stdout


def test_the_machine_itself_is_out_of_reach() -> None:
    net = layout.NETWORKS["site"]
    for port in (22, 53, 80, 443, 2375, 5000, 8000):
        assert not connect("bastion", net.host_address, port), port


def test_no_ipv6_way_out() -> None:
    for item in SITE:
        assert on(item.name, "ip", "-6", "route", "show", "default").stdout == ""
        assert on(item.name, "ip", "-6", "address", "show", "scope", "global").stdout == ""


def test_no_port_is_published() -> None:
    for name, found in site.containers().items():
        assert not any(found["NetworkSettings"]["Ports"].values()), name
        assert list(found["NetworkSettings"]["Networks"]) == [layout.NETWORKS[layout.host(name.removeprefix(layout.PREFIX)).network].name]


# --- the stand-in internet ----------------------------------------------------------------------------------------------


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return on("workstation", "curl", "--silent", "--show-error", "--max-time", "10", *arguments)


def test_vendor_registry_wants_a_login() -> None:
    status = ["--output", "/dev/null", "--write-out", "%{http_code}"]
    url = f"https://{layout.VENDOR_REGISTRY}/v2/"
    assert curl(*status, url).stdout == "401"
    assert curl(*status, "--user", f"{layout.VENDOR_USERNAME}:wrong", url).stdout == "401"
    assert curl(*status, "--user", f"{layout.VENDOR_USERNAME}:{layout.VENDOR_PASSWORD}", url).stdout == "200"
    assert curl(*status, "https://registry-1.docker.io/v2/").stdout == "200"


def test_only_the_workstation_trusts_the_stand_in_internet() -> None:
    assert curl("https://get.helm.sh/").returncode == 0
    assert on("vendor", "curl", "--silent", "https://get.helm.sh/").returncode == 60


def test_an_image_is_not_found_under_another_registrys_name() -> None:
    assert "library/kong" in curl("https://docker.io/v2/_catalog").stdout
    assert "library/kong" not in curl("https://quay.io/v2/_catalog").stdout


def test_apt_mirror_is_signed_and_complete() -> None:
    done = on("workstation", "sh", "-c", "apt-get -qq update && apt-get -qq --simulate install docker.io nginx-light ufw firewalld docker-registry", timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Inst docker.io" in done.stdout


def test_workstation_cannot_reach_the_site_or_the_world() -> None:
    for address in (layout.host("bastion").address, "1.1.1.1"):
        assert not connect("workstation", address, 22), address
