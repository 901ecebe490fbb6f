# SPDX-License-Identifier: GPL-3.0-or-later
"""What verify can prove of UDP through real packet filters: alone by an answer or a rejection, and beside another host by silence."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.connectivity import with_contrast
from ansible_collections.onprem.circleci_server.plugins.module_utils.firewall import parse_plan

from .lab import FILTERS, Host
from .test_backends import RULES, Fixed

PROBE = """
import json, sys
from ansible_collections.onprem.circleci_server.plugins.module_utils.connectivity import parse_flows, probe
sys.stdout.write(json.dumps([found.as_dict() for found in probe(parse_flows(json.loads(sys.argv[1]), 1))]))
"""
ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', 4648))
while True:
    data, peer = s.recvfrom(4096)
    s.sendto(data, peer)
"""


def found(source: Host, expect: str) -> dict[str, Any]:
    flow = {"address": "10.77.0.1", "port": 4648, "protocol": "udp", "expect": expect, "datagram": "serf", "from": source.name}
    answer = source.run("env", f"PYTHONPATH={os.environ['PYTHONPATH']}", sys.executable, "-c", PROBE, json.dumps([flow]))
    (outcome,) = json.loads(answer)
    return dict(outcome)


def told(friend: Host, stranger: Host) -> list[tuple[str, str]]:
    flows = with_contrast([found(friend, "reachable"), found(stranger, "closed")])
    return [(flow["found"], flow["verdict"]) for flow in flows]


def echo(host: Host) -> None:
    host.background(sys.executable, "-c", ECHO)
    while "4648" not in host.run("ss", "-Hlun", "sport", "=", ":4648"):
        assert host.process.poll() is None


def test_silence_is_proved_beside_a_host_that_gets_through(host: Host, friend: Host, stranger: Host, backend: str) -> None:
    # Without a filter everybody hears that nobody listens, and no closed port is claimed.
    if backend in ("nftables", "iptables"):
        assert told(friend, stranger) == [("refused", "proved"), ("refused", "unproved")]
    Fixed(host.system, backend).apply(parse_plan(RULES, "guard"), revert_after=0)
    assert found(stranger, "closed")["verdict"] == "unproved", "alone it knows nothing"
    assert told(friend, stranger) == [("refused", "proved"), ("no answer", "proved")]
    echo(host)
    assert told(friend, stranger) == [("open", "proved"), ("no answer", "proved")]
    Fixed(host.system, backend).apply(None, revert_after=0)
    if backend in ("nftables", "iptables"):
        assert told(friend, stranger) == [("open", "proved"), ("open", "failed")]


@pytest.mark.parametrize("backend", ["iptables"])
@pytest.mark.parametrize(("answer", "expected"), [("icmp-admin-prohibited", ("rejected", "proved")), ("icmp-port-unreachable", ("refused", "proved"))])
def test_a_filter_that_answers(host: Host, friend: Host, stranger: Host, backend: str, answer: str, expected: tuple[str, str]) -> None:
    assert backend in FILTERS
    host.run("iptables", "-A", "INPUT", "-s", "10.77.0.3", "-p", "udp", "--dport", "4648", "-j", "REJECT", "--reject-with", answer)
    echo(host)
    assert told(friend, stranger) == [("open", "proved"), expected]
