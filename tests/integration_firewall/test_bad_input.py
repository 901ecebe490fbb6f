# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong on real hosts: two filters at once, a firewalld that is silent, a host without IPv4."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.firewall import Engine, FirewallError, parse_plan

from .lab import FILTERS, Host, Lab
from .test_backends import RULES, Fixed, others


def need(*backends: str) -> None:
    for name in backends:
        if shutil.which(FILTERS[name]) is None:
            pytest.skip(f"needs {FILTERS[name]}: apt-get install {name}")


def test_two_active_filters_on_one_host_are_refused_and_left_alone(lab: Lab) -> None:
    need("firewalld", "ufw")
    host = lab.guarded("host", 1, "firewalld", ["/etc/ufw", "/etc/default/ufw"])
    host.run("ufw", "--force", "enable")
    before = others(host)
    with pytest.raises(FirewallError, match=r"two packet filters are active on this host \(firewalld and ufw\)"):
        Engine(host.system).apply(parse_plan(RULES, "guard"))
    assert others(host) == before
    host.run("ufw", "disable")
    assert Engine(host.system).apply(parse_plan(RULES, "guard"), check=True).backend == "firewalld"


def test_a_firewalld_that_does_not_answer_is_no_absent_one(lab: Lab) -> None:
    need("firewalld")
    host = lab.guarded("host", 1, "firewalld")
    daemon = host.children[-1]
    os.killpg(daemon.pid, signal.SIGSTOP)
    host.system.timeout = 3
    try:
        with pytest.raises(FirewallError, match=r"firewalld is started but does not answer \(.* within 3 seconds\)"):
            Engine(host.system).apply(parse_plan(RULES, "guard"))
        # Nothing was put into another filter instead.
        assert "onprem_circleci" not in host.run("nft", "list", "tables")
    finally:
        os.killpg(daemon.pid, signal.SIGCONT)


def test_a_host_with_ipv6_only(host: Host, friend: Host, stranger: Host, backend: str) -> None:
    for machine in (host, friend, stranger):
        machine.run("ip", "-4", "address", "flush", "dev", "eth0")
    host.listen(22, 4647)
    rules = [{"id": "nomad-in-rpc", "ports": [4647], "peers": ["fd77::2"]}, {"id": "ssh", "ports": [22], "peers": ["fd77::/64"]}]
    Fixed(host.system, backend).apply(parse_plan(rules, "guard"), revert_after=0)
    assert friend.connect("fd77::1", 4647) == "open"
    assert stranger.connect("fd77::1", 4647) == "timeout"
    assert stranger.connect("fd77::1", 22) == "open"
    assert not Fixed(host.system, backend).apply(parse_plan(rules, "guard"), revert_after=0).changed
