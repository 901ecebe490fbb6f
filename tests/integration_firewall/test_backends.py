# SPDX-License-Identifier: GPL-3.0-or-later
"""Real packets through real filters: open from the right place, closed from the wrong one, others' rules untouched."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.firewall import (
    Engine,
    FirewallError,
    System,
    parse_plan,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.firewall.base import Backend
from ansible_collections.onprem.circleci_server.plugins.module_utils.firewall.engine import PENDING, REVERTED
from ansible_collections.onprem.circleci_server.plugins.module_utils.firewall.way_in import WayIn

from .lab import Host, wait

RULES: list[dict[str, Any]] = [
    {"id": "nomad-in-rpc", "protocol": "tcp", "ports": ["4647"], "peers": ["10.77.0.2/32", "fd77::2/128"]},
    {"id": "ssh-admin", "protocol": "tcp", "ports": ["22"], "peers": ["10.77.0.2", "fd77::2"]},
    {"id": "nomad-in-ssh-rerun", "protocol": "tcp", "ports": ["64535-65535"], "peers": ["0.0.0.0/0", "::/0"],
     "any_peer": True, "published": True},
    {"id": "serf", "protocol": "udp", "ports": ["4648"], "peers": ["10.77.0.2"]},
    {"id": "nomad-block-metadata", "direction": "egress_from_containers", "protocol": "any", "ports": ["any"],
     "peers": ["169.254.0.0/16"], "action": "drop"},
]  # fmt: skip


# Seconds until a change is taken back. A look from outside must fit in, on a busy machine too; firewalld needs several for the change itself.
SOON = {"nftables": 4, "iptables": 4, "ufw": 4, "firewalld": 20}


class Fixed(Engine):
    """The engine asked for one backend: nftables is there as well where iptables is tested."""

    def __init__(self, system: System, backend: str) -> None:
        super().__init__(system)
        self.wanted = backend

    def choose(self, wanted: str) -> Backend:
        return super().choose(self.wanted if wanted == "auto" and self.wanted == "iptables" else wanted)


def docker_rules(host: Host) -> None:
    """What Docker leaves behind, and a table of somebody else."""
    for line in (
        "iptables -t nat -N DOCKER",
        "iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "iptables -t nat -A DOCKER -p tcp --dport 5000 -j DNAT --to-destination 172.17.0.2:5000",
        "iptables -N DOCKER",
        "iptables -N DOCKER-USER",
        "iptables -A DOCKER-USER -j RETURN",
        "iptables -I FORWARD -j DOCKER-USER",
        "nft add table ip somebody",
        "nft add chain ip somebody input { type filter hook input priority 10; policy accept; }",
        "nft add rule ip somebody input tcp dport 7777 drop",
    ):
        if host.system.which(line.split()[0]):
            host.run(*line.split())


def others(host: Host) -> str:
    """All rules of the host without ours, counters and comments."""
    lines = []
    for tool in ("iptables", "ip6tables"):
        for line in host.run(f"{tool}-save", check=False).splitlines():
            if "ONPREM-CIRCLECI" in line or line.startswith("#") or "ufw-user-input" in line or "ufw6-user-input" in line:
                continue
            lines.append(re.sub(r"\[\d+:\d+\]", "", line))
    lines.append(host.run("nft", "-s", "list", "table", "ip", "somebody", check=False))
    # A table that iptables made as it looked is no rule.
    return "\n".join(line for line in lines if not line.startswith("*") and line != "COMMIT" and not re.match(r":[A-Z]+ ACCEPT", line))


def dockers(host: Host) -> str:
    """Docker's chains and somebody's table as the kernel prints them, to the byte."""
    commands = ("iptables -S DOCKER", "iptables -S DOCKER-USER", "iptables -t nat -S", "nft -s list table ip somebody")
    return "".join(host.run(*command.split()) for command in commands)


def test_open_from_the_right_place_and_closed_from_the_wrong_one(host: Host, friend: Host, stranger: Host, backend: str) -> None:
    docker_rules(host)
    before, of_docker = others(host), dockers(host)
    host.listen(22, 4647, 9000, 64535, 65535)
    engine = Fixed(host.system, backend)
    plan = parse_plan(RULES, "guard")

    foreseen = engine.apply(plan, check=True)
    assert foreseen.changed and foreseen.backend == backend
    first = engine.apply(plan, revert_after=0)
    assert first.changed
    assert (first.added, first.removed) == (foreseen.added, foreseen.removed)

    for address in ("10.77.0.1", "fd77::1"):
        assert friend.connect(address, 4647) == "open"
        assert friend.connect(address, 22) == "open"
        assert stranger.connect(address, 64535) == "open"
        assert stranger.connect(address, 65535) == "open"
        assert stranger.connect(address, 4647) == "timeout"
        assert stranger.connect(address, 22) == "timeout"
        assert stranger.connect(address, 9000) == "open", "a port of others stays as it was"
    assert others(host) == before and dockers(host) == of_docker

    second = engine.apply(plan, revert_after=0)
    assert not second.changed and not second.added and not second.removed
    assert second.before == second.after == "".join(f"{line}\n" for line in plan.lines())

    gone = engine.apply(None, revert_after=0)
    assert gone.changed
    assert others(host) == before and dockers(host) == of_docker
    assert stranger.connect("10.77.0.1", 9000) == "open"
    if backend in ("nftables", "iptables"):
        assert stranger.connect("10.77.0.1", 4647) == "open"
    assert not engine.apply(None, revert_after=0).changed


def test_a_published_port_is_really_closed(host: Host, friend: Host, stranger: Host, backend: str, lab: object) -> None:
    """A port that Docker publishes is forwarded and never meets INPUT."""
    container = lab.add("container", 9)  # type: ignore[attr-defined]
    container.run("ip", "address", "flush", "dev", "eth0")
    # The container hangs on a link of its own behind the host, as behind docker0.
    host.run("ip", "link", "add", "docker0", "type", "veth", "peer", "name", "inside", "netns", str(container.pid))
    host.run("ip", "address", "add", "172.17.0.1/16", "dev", "docker0")
    host.run("ip", "link", "set", "docker0", "up")
    container.run("ip", "address", "add", "172.17.0.2/16", "dev", "inside")
    container.run("ip", "link", "set", "inside", "up")
    container.run("ip", "route", "add", "default", "via", "172.17.0.1")
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    for port in ("4647", "8500", "64535"):
        host.run("iptables", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", port, "-d", "10.77.0.1",
                 "-j", "DNAT", "--to-destination", f"172.17.0.2:{int(port) % 10000 + 1000}")  # fmt: skip
    # What Docker does in the forward chain; firewalld wants its zone to do it.
    host.run("iptables", "-I", "FORWARD", "-o", "docker0", "-j", "ACCEPT")
    host.run("iptables", "-I", "FORWARD", "-i", "docker0", "-j", "ACCEPT")
    if backend == "firewalld":
        host.run("firewall-cmd", "--zone=docker", "--add-interface=docker0")
        host.run("firewall-cmd", "--permanent", "--zone=docker", "--add-interface=docker0")
    container.listen(5647, 9500, 5535)
    Fixed(host.system, backend).apply(parse_plan(RULES, "guard"), revert_after=0)
    assert friend.connect("10.77.0.1", 4647) == "open"
    assert stranger.connect("10.77.0.1", 4647) == "timeout"
    assert stranger.connect("10.77.0.1", 64535) == "open"
    assert stranger.connect("10.77.0.1", 8500) == "open", "a port that no rule names stays as it was"


def test_a_lock_out_reverts_itself(host: Host, friend: Host, stranger: Host, backend: str) -> None:
    host.listen(22, 4647, 64535)
    engine = Fixed(host.system, backend)
    good = parse_plan(RULES, "guard")
    engine.apply(good, revert_after=0)
    assert friend.connect("10.77.0.1", 22) == "open"
    shut = parse_plan([{"id": "ssh-admin", "ports": [22], "peers": ["10.77.0.77"]}], "guard")
    outcome = engine.apply(shut, revert_after=SOON[backend])
    assert outcome.pending and host.system.exists(PENDING)
    assert friend.connect("10.77.0.1", 22) != "open"
    assert wait(lambda: host.system.exists(REVERTED) and not host.system.exists(PENDING + ".taken"), 60)
    assert friend.connect("10.77.0.1", 22) == "open"
    assert friend.connect("10.77.0.1", 4647) == "open"
    assert stranger.connect("10.77.0.1", 4647) != "open"
    with pytest.raises(FirewallError, match="took it back"):
        engine.confirm()
    again = engine.apply(good, revert_after=0)
    assert not again.changed and again.reverted


def test_a_first_change_reverts_to_nothing(host: Host, stranger: Host, backend: str) -> None:
    host.listen(22)
    before = stranger.connect("10.77.0.1", 22)
    engine = Fixed(host.system, backend)
    engine.apply(parse_plan([{"id": "ssh", "ports": [22], "peers": ["10.77.0.77"]}], "guard"), revert_after=SOON[backend])
    assert stranger.connect("10.77.0.1", 22) == "timeout"
    assert wait(lambda: host.system.exists(REVERTED), 60)
    assert wait(lambda: stranger.connect("10.77.0.1", 22) == before, 30)
    assert not engine.apply(None, check=True).changed


def test_a_confirmed_change_stays(host: Host, friend: Host, stranger: Host, backend: str) -> None:
    host.listen(4647)
    engine = Fixed(host.system, backend)
    engine.apply(parse_plan(RULES, "guard"), revert_after=SOON[backend])
    assert not engine.confirm().reverted
    assert not wait(lambda: host.system.exists(REVERTED), SOON[backend] + 1)
    assert friend.connect("10.77.0.1", 4647) == "open"
    assert stranger.connect("10.77.0.1", 4647) == "timeout"


def test_what_somebody_took_away_comes_back(host: Host, stranger: Host, backend: str) -> None:
    host.listen(4647)
    engine = Fixed(host.system, backend)
    engine.apply(parse_plan(RULES, "guard"), revert_after=0)
    if backend in ("nftables", "firewalld"):
        host.run("nft", "delete", "table", "inet", "onprem_circleci")
    if backend == "iptables":
        host.run("iptables", "-F", "ONPREM-CIRCLECI")
    if backend == "ufw":
        host.run("iptables", "-F", "ufw-user-input")
    if backend == "firewalld":
        rule = host.run("firewall-cmd", "--list-rich-rules").splitlines()[0]
        host.run("firewall-cmd", f"--remove-rich-rule={rule}")
    assert engine.apply(parse_plan(RULES, "guard"), check=True).changed
    assert engine.apply(parse_plan(RULES, "guard"), revert_after=0).changed
    assert stranger.connect("10.77.0.1", 4647) == "timeout"
    assert not engine.apply(parse_plan(RULES, "guard"), revert_after=0).changed


def test_two_sites_of_one_host(host: Host, friend: Host, stranger: Host, backend: str) -> None:
    """One control host of two sites: each opens for its own, and what one takes away the other keeps."""
    host.listen(4647)
    engine = Fixed(host.system, backend)
    tokyo, osaka = (parse_plan([{"id": "rpc", "ports": [4647], "peers": [peer]}], "guard") for peer in ("10.77.0.2", "10.77.0.3"))
    before = friend.connect("10.77.0.1", 4647), stranger.connect("10.77.0.1", 4647)
    engine.apply(tokyo, revert_after=0, site="tokyo.example.com")
    assert (friend.connect("10.77.0.1", 4647), stranger.connect("10.77.0.1", 4647)) == ("open", "timeout")
    engine.apply(osaka, revert_after=0, site="osaka.example.com")
    assert (friend.connect("10.77.0.1", 4647), stranger.connect("10.77.0.1", 4647)) == ("open", "open")
    assert not engine.apply(tokyo, check=True, site="tokyo.example.com").changed
    engine.apply(None, revert_after=0, site="tokyo.example.com")
    assert (friend.connect("10.77.0.1", 4647), stranger.connect("10.77.0.1", 4647)) == ("timeout", "open")
    engine.apply(None, revert_after=0, site="osaka.example.com")
    assert (friend.connect("10.77.0.1", 4647), stranger.connect("10.77.0.1", 4647)) == before


def test_a_restart_keeps_the_rules(host: Host, friend: Host, stranger: Host, backend: str) -> None:
    """Own files are loaded by the unit's script; ufw and firewalld load theirs."""
    host.listen(4647)
    engine = Fixed(host.system, backend)
    engine.apply(parse_plan(RULES, "guard"), revert_after=0)
    if backend == "firewalld":
        host.run("firewall-cmd", "--reload")
    elif backend == "ufw":
        host.run("ufw", "reload")
    else:
        host.run("nft", "flush", "ruleset")
        assert stranger.connect("10.77.0.1", 4647) == "open"
        host.run("sh", host.system.path("/etc/onprem-circleci/firewall/load.sh"))
    assert friend.connect("10.77.0.1", 4647) == "open"
    assert stranger.connect("10.77.0.1", 4647) == "timeout"
    assert not engine.apply(parse_plan(RULES, "guard"), check=True).changed


def test_ansible_is_not_shut_out(host: Host, backend: str) -> None:
    plan = parse_plan([{"id": "ssh", "ports": [22], "peers": ["10.77.0.2"]}], "guard")
    with pytest.raises(FirewallError, match=r"10\.77\.0\.9 to port 22 \(rules ssh let others in"):
        Fixed(host.system, backend).apply(plan, ways=[WayIn("10.77.0.9", 22)])
    assert Fixed(host.system, backend).apply(plan, check=True, ways=[WayIn("10.77.0.2", 22)]).changed
    assert Fixed(host.system, backend).apply(plan, check=True, ways=[WayIn("10.77.0.9", 2222)]).changed


def test_enforce_closes_the_rest(host: Host, friend: Host, stranger: Host, backend: str) -> None:
    if backend in ("ufw", "firewalld"):
        with pytest.raises(FirewallError, match="default policy of its own"):
            Fixed(host.system, backend).apply(parse_plan(RULES, "enforce"))
        return
    host.listen(4647, 9000)
    Fixed(host.system, backend).apply(parse_plan(RULES, "enforce"), revert_after=0)
    assert friend.connect("10.77.0.1", 4647) == "open"
    assert friend.connect("10.77.0.1", 9000) == "timeout"
    assert friend.connect("fd77::1", 9000) == "timeout"
    host.run("ping", "-c1", "-W1", "127.0.0.1", check=False)
    friend.listen(8000)
    assert host.connect("10.77.0.2", 8000) == "open", "answers to our own connections come in"


def test_open_only_adds(host: Host, friend: Host, stranger: Host, backend: str) -> None:
    host.listen(4647)
    Fixed(host.system, backend).apply(parse_plan(RULES, "open"), revert_after=0)
    assert friend.connect("10.77.0.1", 4647) == "open"
    # Where nothing closes by default, mode open closes nothing.
    assert (stranger.connect("10.77.0.1", 4647) == "open") is (backend in ("nftables", "iptables"))
