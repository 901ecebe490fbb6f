# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the networks that Docker gives to jobs meet others: what they meet is no longer reached from jobs, nor from the host."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from .findings import OK, PROBLEM, WARNING, Finding

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

OPTION = "circleci_container_engine_address_pool"
_SOURCE = "server-terraform, docker_network_cidr: it must overlap none of your networks"
_EXPECTED = "networks of Docker that meet none of the site's"
# Bridges that Docker names, and the one of the role nomad_client.
_DOCKER_BRIDGE = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}|ci-privileged")
_SHOWN = 6
_ALTERNATIVES = [f"10.{number}.0.0/16" for number in range(200, 255)] + [f"172.{number}.0.0/16" for number in range(16, 32)]


@dataclass(frozen=True)
class Place:
    """A network and whose it is, in words. A ``summary`` is a route by a gateway: not all that lies in it need be there."""

    network: Network
    what: str
    summary: bool = False


def networks_of_docker(options: Mapping[str, Any]) -> list[Network]:
    """Networks that options of C(daemon.json) let Docker take: its pools and the one of its own bridge."""
    pools = options.get("default-address-pools") or ()
    texts = [pool.get("base") for pool in pools if isinstance(pool, Mapping)] if isinstance(pools, Sequence) else []
    return list(_parsed([*texts, options.get("bip")]))


def _parsed(texts: Iterable[Any]) -> Iterator[Network]:
    for text in texts:
        try:
            yield ipaddress.ip_network(str(text), strict=False)
        except ValueError:
            continue  # of another kind, or refused elsewhere with its own words


def routes(root: Path = Path("/")) -> list[tuple[str, Place]]:
    """Networks that the host has a way to, with the device: IPv4, main table. The default and its halves, which VPNs set, say nothing."""
    found = []
    for line in _lines(root / "proc/net/route")[1:]:
        words = line.split()
        if len(words) < 8:
            continue
        # The kernel prints addresses in the order of the machine.
        address, mask = (socket.inet_ntoa(int(word, 16).to_bytes(4, "little")) for word in (words[1], words[7]))
        network = ipaddress.ip_network(f"{address}/{mask}", strict=False)
        if network.prefixlen > 1:
            found.append((words[0], Place(network, f"route of {words[0]}", summary=words[2] != "00000000")))
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _name_servers(root: Path) -> Iterator[Place]:
    words = [line.split() for line in _lines(root / "etc/resolv.conf")]
    for network in _parsed(line[1] for line in words if len(line) > 1 and line[0] == "nameserver"):
        if not network.is_loopback:
            yield Place(network, "name server of the host")


def check_docker_networks(name: str, options: Mapping[str, Any], site: Sequence[Mapping[str, str]], root: Path = Path("/")) -> Finding:
    """*options* are those of C(daemon.json) as install writes them, *site* networks of the site, each with C(network) and C(what)."""
    ways = routes(root)
    taken = dict.fromkeys(networks_of_docker(options), "pool")
    taken.update({place.network: device for device, place in ways if _DOCKER_BRIDGE.fullmatch(device) and place.network not in taken})
    others = [place for device, place in ways if not _DOCKER_BRIDGE.fullmatch(device)]
    others += [Place(network, str(item["what"])) for item in site for network in _parsed([item["network"]])]
    others += _name_servers(root)
    subject = f"{name}: Docker"
    met = [(network, origin, place) for network, origin in taken.items() for place in others if _meet(network, place.network)]
    if not met:
        told = ", ".join(_told(network, origin) for network, origin in taken.items()) or "no pool"
        return Finding("docker_addresses", OK, subject, told, _EXPECTED, _SOURCE)
    sure = any(not place.summary or place.network.prefixlen >= network.prefixlen for network, _origin, place in met)
    remedy = f"Set {OPTION} to a network that nobody has{_free([place.network for place in others])}: daemon.json of the client takes its pool from there."
    old = dict.fromkeys(origin for _network, origin, _place in met if origin != "pool")
    if old:
        remedy += f" {', '.join(old)} is there already: take that network away (docker network rm; docker0 goes when Docker is stopped and the link deleted)."
    if not sure:
        remedy += " The route is wider than Docker's network: nothing is wrong if nobody uses that part of it."
    found = _few(f"{_told(network, origin)} meets {place.network} ({place.what})" for network, origin, place in met)
    return Finding("docker_addresses", PROBLEM if sure else WARNING, subject, found, _EXPECTED, _SOURCE, remedy)


def check_against_cluster(pools: Mapping[str, Sequence[str]], cluster: Sequence[tuple[str, str]]) -> list[Finding]:
    """A warning where pools of clients meet networks of pods or Services: harmless as long as the cluster translates their addresses. *pools* by host."""
    met = _few(
        f"{network} of {host} meets {other} ({what})"
        for host, texts in pools.items() for network in _parsed(texts) for text, what in cluster for other in _parsed([text]) if _meet(network, other)
    )  # fmt: skip
    if not met:
        return []
    return [
        Finding(
            "docker_addresses_cluster", WARNING, OPTION, met, _EXPECTED, _SOURCE,
            f"Where pods leave the cluster under their own addresses, answers to them end in Docker's networks. Set {OPTION} to a network that nobody has"
            f"{_free([network for text, _what in cluster for network in _parsed([text])])}, or know that the cluster translates their addresses.",
        )
    ]  # fmt: skip


def _few(sentences: Iterable[str]) -> str:
    """The first of them, and how many more there are: a pool may hold every host of a site."""
    every = list(dict.fromkeys(sentences))
    more = len(every) - _SHOWN
    return "; ".join(every[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _told(network: Network, origin: str) -> str:
    return f"{network}" if origin == "pool" else f"{network} of {origin}"


def _meet(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _free(others: Sequence[Network]) -> str:
    """One that would do, for people."""
    found = next((network for network in _parsed(_ALTERNATIVES) if not any(_meet(network, other) for other in others)), None)
    return f", for instance {found}" if found else ""
