# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with a packet filter, one peer that the rules name and one that they do not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import Host, Lab, usable, wait

FILTERS = {"nftables": "nft", "iptables": "iptables-restore", "ufw": "ufw", "firewalld": "firewalld"}


@pytest.fixture(params=list(FILTERS))
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if usable():
        pytest.skip(usable())
    if shutil.which(FILTERS[name]) is None:
        pytest.skip(f"needs {FILTERS[name]}: apt-get install {name}")
    return name


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    if usable():
        pytest.skip(usable())
    made = Lab(tmp_path)
    yield made
    made.close()


@pytest.fixture
def host(lab: Lab, backend: str) -> Host:
    """The host whose filter is ``backend``, started and with a default deny where the filter has one."""
    if backend == "ufw":
        machine = lab.add("host", 1, ["/etc/ufw", "/etc/default/ufw"])
        machine.run("ufw", "--force", "enable")
        machine.run("ufw", "allow", "9000/tcp")
    elif backend == "firewalld":
        machine = lab.add("host", 1, ["/etc/firewalld"])
        # Docker makes this zone when it finds firewalld.
        machine.system.write(
            "/etc/firewalld/zones/docker.xml",
            '<?xml version="1.0" encoding="utf-8"?>\n<zone target="ACCEPT">\n  <short>docker</short>\n</zone>\n',
        )
        machine.run("mkdir", "-p", "/run/dbus")
        machine.background("dbus-daemon", "--system", "--nofork", "--nopidfile")
        assert wait(lambda: machine.system.exists("/run/dbus/system_bus_socket"))
        machine.background("firewalld", "--nofork", "--nopid")
        assert wait(lambda: "running" in machine.run("firewall-cmd", "--state", check=False), 15)
        machine.run("firewall-cmd", "--permanent", "--add-port=9000/tcp")
        machine.run("firewall-cmd", "--add-port=9000/tcp")
        machine.run("firewall-cmd", "--zone=public", "--add-interface=eth0")
    else:
        machine = lab.add("host", 1)
    return machine


@pytest.fixture
def friend(lab: Lab) -> Host:
    return lab.add("friend", 2)


@pytest.fixture
def stranger(lab: Lab) -> Host:
    return lab.add("stranger", 3)
