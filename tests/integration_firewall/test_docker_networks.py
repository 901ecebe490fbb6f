# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel of a host tells of its ways, read inside a network namespace of its own."""

from __future__ import annotations

import json
import os
import sys

from .lab import Host, Lab

LOOK = """
import json, sys
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.docker_networks import check_docker_networks
found = check_docker_networks("nomad1", json.loads(sys.argv[1]), json.loads(sys.argv[2]))
sys.stdout.write(json.dumps([found.level, found.found]))
"""
POOL = {"default-address-pools": [{"base": "10.10.0.0/16", "size": 24}]}


def look(host: Host, *site: dict[str, str]) -> tuple[str, str]:
    path = f"PYTHONPATH={os.environ['PYTHONPATH']}"
    level, found = json.loads(host.run("env", path, sys.executable, "-c", LOOK, json.dumps(POOL), json.dumps(site)))
    return level, found


def link(host: Host, name: str, address: str) -> None:
    """A bridge, as Docker makes them and others too: only names tell them apart."""
    host.run("ip", "link", "add", name, "type", "bridge")
    host.run("ip", "address", "add", address, "dev", name)
    host.run("ip", "link", "set", name, "up")


def test_ways_of_a_real_kernel_against_the_pool(lab: Lab) -> None:
    host = lab.add("nomad1", 1)
    assert look(host) == ("ok", "10.10.0.0/16")
    link(host, "docker0", "10.10.0.1/24")
    link(host, "br-0123456789ab", "10.10.1.1/24")
    assert look(host)[0] == "ok", "networks of Docker's own are where they belong"
    link(host, "storage", "10.20.0.5/24")
    host.run("ip", "route", "add", "10.0.0.0/8", "via", "10.20.0.1")
    assert look(host) == ("warning", "10.10.0.0/16 meets 10.0.0.0/8 (route of storage); 10.10.0.0/24 of docker0 meets 10.0.0.0/8 (route of storage); "
                          "10.10.1.0/24 of br-0123456789ab meets 10.0.0.0/8 (route of storage)")  # fmt: skip
    host.run("ip", "route", "del", "10.0.0.0/8")
    link(host, "backup", "10.10.77.5/24")
    assert look(host) == ("problem", "10.10.0.0/16 meets 10.10.77.0/24 (route of backup)")
    host.run("ip", "link", "del", "backup")
    assert look(host, {"network": "10.10.1.9", "what": "host store"})[0] == "problem"
