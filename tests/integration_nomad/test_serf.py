# SPDX-License-Identifier: GPL-3.0-or-later
"""The datagram with which verify asks a Nomad server over UDP, sent to a real one."""

from __future__ import annotations

import json
import urllib.request

from ansible_collections.onprem.circleci_server.plugins.module_utils.connectivity import parse_flows, probe

from .conftest import Cluster


def test_a_server_answers_the_ping_and_nothing_else(cluster: Cluster) -> None:
    with urllib.request.urlopen(f"{cluster.address}/v1/agent/members", timeout=10) as answer:
        (member,) = json.load(answer)["Members"]
    flow = {"address": member["Addr"], "port": member["Port"], "protocol": "udp", "expect": "reachable"}
    asked, silent = probe(parse_flows([{**flow, "datagram": "serf"}, flow], 2))
    assert (asked.found, asked.verdict) == ("open", "proved")
    assert (silent.found, silent.verdict) == ("no answer", "unproved")
