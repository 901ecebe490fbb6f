# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Connections that prove the rules: from every place that they allow, and from a few that they do not."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from .facts import VIRTUAL_HOSTS
from .model import PortModel, Rule

# What answers behind a rule. Others may have no listener just now: then a refusal proves that nothing dropped the packet.
ANSWERS = {
    "lb-in-http": "http",
    "lb-in-https": "tls",
    "lb-in-https-agents": "tls",
    "lb-in-nomad-rpc": "open",
    "lb-in-output-processor": "open",
    "lb-in-vm-service": "open",
    "lb-in-8585-printed": "open",
    "lb-in-3000-printed": "open",
    "lb-in-control": "open",
    "registry-in": "tls",
    "registry-in-hosts": "tls",
    "object-storage-in": "open",
    "object-storage-in-users": "open",
    "object-storage-in-agents": "open",
    "gateway-in": "open",
    "gateway-in-users": "open",
    # Its certificate is of the cluster's own authority, which other hosts need not trust.
    "node-in-api": "open",
    "nomad-server-in-api": "open",
    "nomad-server-in-rpc": "open",
    "nomad-server-in-serf": "open",
    "bastion-in-ssh": "open",
}
# What is sent where a datagram of nothing gets no answer, as the module connectivity names it.
DATAGRAMS = {"nomad-server-in-serf": "serf"}
SKIPPED_GROUPS = ("vm",)


# Rules of a large site name the same few addresses and networks again and again.
_address = functools.cache(ipaddress.ip_address)
_network = functools.cache(ipaddress.ip_network)


@functools.cache
def _within(address: str, networks: tuple[str, ...]) -> bool:
    ip = _address(address)
    return any(network.version == ip.version and ip in network for network in map(_network, networks))


def _ends(ports: str) -> list[int]:
    low, _dash, high = ports.partition("-")
    return [int(low)] if not high else [int(low), int(high)]


def _flow(rule: Rule, source: str, address: str, port: int, expect: str, protocol: str) -> dict[str, Any]:
    return {
        "name": f"{rule.id}: {source} to {rule.host} {protocol}/{port}",
        "rule": rule.id,
        "from": source,
        "to": rule.host,
        "address": address,
        "port": port,
        "protocol": protocol,
        "expect": expect,
        "reason": rule.reason,
        **({"datagram": DATAGRAMS[rule.id]} if protocol == "udp" and rule.id in DATAGRAMS else {}),
    }


def _target(rule: Rule, model: PortModel) -> tuple[str, ...]:
    if rule.host == VIRTUAL_HOSTS["load_balancer"]:
        return tuple(text for text in model.options.load_balancer if "/" not in text)
    if rule.host == VIRTUAL_HOSTS["object_storage_gateway"]:
        return tuple(text for text in model.options.object_storage if "/" not in text)
    host = model.inventory.host(rule.host)
    return host.addresses if host else ()


def flows_of(model: PortModel, source: str, closed_per_rule: int = 2, names: Mapping[str, str | Sequence[str]] | None = None) -> list[dict[str, Any]]:
    """Connections that ``source`` has to try. ``names`` gives the TLS name to check per rule id, or several that the certificate must all have."""
    me = model.inventory.host(source)
    if me is None:
        return []
    granted: dict[tuple[str, str, int], Rule] = {}
    candidates = [
        rule
        for rule in model.rules
        if rule.direction == "ingress"
        and rule.protocol in ("tcp", "udp")
        and rule.group not in SKIPPED_GROUPS
        and rule.host != source
        and rule.action == "accept"
        and not rule.state.startswith(("documented", "optional", "nobody", "left"))
        # The load balancer's rules prove these from outside; inside a node there is no listener to connect to.
        and not rule.id.startswith(("node-in-lb-", "node-in-nodeports", "node-gateway-in"))
    ]
    result: list[dict[str, Any]] = []
    for rule in candidates:
        users_only = rule.any_peer and "circleci_sites" not in me.groups and source not in rule.peer_hosts
        if users_only or not (source in rule.peer_hosts or any(_within(a, rule.peers) for a in me.addresses)):
            continue
        for address in _target(rule, model):
            if not _same_family(address, me.addresses):
                continue
            for part in rule.ports:
                for port in _ends(part):
                    granted[(rule.host, rule.protocol, port)] = rule
                    expect = ANSWERS.get(rule.id, "open" if rule.id.endswith("ssh-admin") else "reachable")
                    # A datagram that nobody answers proves nothing either way, and a refusal that it arrived.
                    if rule.protocol == "udp":
                        expect = "reachable"
                    flow = _flow(rule, source, address, port, expect, rule.protocol)
                    wanted = (names or {}).get(rule.id, ()) if expect == "tls" else ()
                    told = [wanted] if isinstance(wanted, str) else list(wanted)
                    result.extend({**flow, "server_name": name, "name": f"{flow['name']} as {name}"} for name in told)
                    if not told:
                        result.append(flow)
    if closed_per_rule > 0:
        result.extend(_closed(model, source, candidates, granted, closed_per_rule))
    strength = {"tls": 3, "http": 3, "open": 2, "reachable": 1, "closed": 0}
    best: dict[tuple[str, int, str], int] = {}
    for flow in result:
        key = (flow["address"], flow["port"], flow["protocol"])
        best[key] = max(best.get(key, 0), strength[flow["expect"]])
    # One connection for each place, the one that proves most; each name of a certificate is one of its own.
    unique: dict[tuple[str, int, str, str], dict[str, Any]] = {}
    for flow in result:
        key = (flow["address"], flow["port"], flow["protocol"])
        if strength[flow["expect"]] == best[key]:
            unique.setdefault((*key, str(flow.get("server_name", ""))), flow)
    return list(unique.values())


def _same_family(address: str, own: tuple[str, ...]) -> bool:
    version = _address(address).version
    return any(_address(item).version == version for item in own)


def _closed(
    model: PortModel, source: str, rules: list[Rule], granted: dict[tuple[str, str, int], Rule], limit: int
) -> list[dict[str, Any]]:
    """Connections that must not get through, from at most ``limit`` hosts per rule so that a large site stays small."""
    result = []
    for rule in rules:
        if rule.state != "apply" or rule.any_peer:
            continue
        strangers = [
            host.name
            for host in model.inventory.hosts
            if host.name != rule.host
            and host.name not in rule.peer_hosts
            and host.addresses
            and not any(_within(address, rule.peers) for address in host.addresses)
        ]
        if source not in strangers[:limit]:
            continue
        me = model.inventory.host(source)
        for address in _target(rule, model):
            for part in rule.ports:
                port = _ends(part)[0]
                if me is None or (rule.host, rule.protocol, port) in granted or not _same_family(address, me.addresses):
                    continue
                if any(_grants(other, rule.host, rule.protocol, port, me.addresses) for other in model.rules):
                    continue
                result.append(_flow(rule, source, address, port, "closed", rule.protocol))
    return result


def _grants(rule: Rule, host: str, protocol: str, port: int, addresses: tuple[str, ...]) -> bool:
    if rule.host != host or rule.direction != "ingress" or rule.state != "apply" or rule.protocol != protocol:
        return False
    inside = any(_ends(part)[0] <= port <= _ends(part)[-1] for part in rule.ports if part != "any")
    return inside and any(_within(address, rule.peers) for address in addresses)
