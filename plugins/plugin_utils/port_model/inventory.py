# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Which hosts belong to the site of one host, and under which addresses the others reach them.

Variables of hosts outside the site are never read: with several sites in one inventory a careless look-up gives the
first site's values to the second.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SITE_PREFIX = "site_"
GROUPS = (
    "circleci_sites",
    "circleci_registry",
    "circleci_object_storage",
    "circleci_cluster_nodes",
    "circleci_nomad_clients",
    "circleci_nomad_servers",
    "circleci_runners_linux",
    "circleci_runners_macos",
    "circleci_runners_windows",
)
ADDRESSES_VARIABLE = "circleci_addresses"


class SiteInventoryError(Exception):
    """The inventory does not say to which site a host belongs, or where a host is."""


@dataclass(frozen=True)
class SiteHost:
    """A host of the site: its name, its addresses (IPv4 and IPv6, as text) and its circleci_* groups."""

    name: str
    addresses: tuple[str, ...]
    groups: frozenset[str]
    problem: str = ""


@dataclass(frozen=True)
class SiteInventory:
    """The hosts of one site. ``site`` is empty when the inventory has one site without a site_* group."""

    site: str
    hosts: tuple[SiteHost, ...] = field(default=())

    def members(self, *groups: str) -> tuple[SiteHost, ...]:
        """Hosts that are in one of the groups, in inventory order."""
        return tuple(host for host in self.hosts if any(group in host.groups for group in groups))

    def host(self, name: str) -> SiteHost | None:
        """The host of that name, or None."""
        return next((host for host in self.hosts if host.name == name), None)


def site_group(groups: Mapping[str, Iterable[str]], inventory_hostname: str) -> str | None:
    """Name of the site_* group of a host, None when the inventory has no such groups."""
    sites = {name: list(members) for name, members in groups.items() if name.startswith(SITE_PREFIX)}
    if not sites:
        return None
    own = sorted(name for name, members in sites.items() if inventory_hostname in members)
    if not own:
        raise SiteInventoryError(
            f"host {inventory_hostname} is in none of the groups {', '.join(sorted(sites))}; "
            f"add it to the {SITE_PREFIX}<name> group of its site"
        )
    if len(own) > 1:
        raise SiteInventoryError(
            f"host {inventory_hostname} is in {len(own)} sites ({', '.join(own)}); a host belongs to exactly one "
            f"group {SITE_PREFIX}<name>, give other groups a name that does not begin with {SITE_PREFIX}"
        )
    return own[0]


def site_members(groups: Mapping[str, Iterable[str]], group: str, inventory_hostname: str) -> list[str]:
    """Names of the hosts of ``group`` in the site of ``inventory_hostname``, in inventory order; no variable is read."""
    site = site_group(groups, inventory_hostname)
    members = list(groups.get(group, []))
    if site is None:
        return members
    own = set(groups[site])
    return [name for name in members if name in own]


def addresses_of(name: str, variables: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Addresses under which other hosts reach a host, and why there are none.

    ``circleci_addresses`` (a list, or one address) wins over ``ansible_host``, which wins over the inventory name.
    Loopback says nothing to others, so it does not count.
    """
    given = variables.get(ADDRESSES_VARIABLE)
    if given is not None and given != "" and given != []:
        wanted = [given] if isinstance(given, str) else given
        if not isinstance(wanted, Sequence):
            return (), f"{ADDRESSES_VARIABLE} is {given!r}, a list of IP addresses is needed"
        result: list[str] = []
        for item in wanted:
            try:
                result.append(str(ipaddress.ip_address(str(item).strip())))
            except ValueError:
                return (), f"{ADDRESSES_VARIABLE} holds {str(item)!r}, which is not an IP address"
        return tuple(dict.fromkeys(result)), ""
    tried: list[str] = []
    for candidate in (variables.get("ansible_host"), name):
        if not candidate:
            continue
        text = str(candidate).strip()
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            tried.append(text)
            continue
        if not address.is_loopback and not address.is_unspecified:
            return (str(address),), ""
        tried.append(text)
    return (), (
        f"no address that other hosts reach: found {', '.join(dict.fromkeys(tried))}, which is a name or loopback; "
        f"set {ADDRESSES_VARIABLE}: [<IP address>] for the host"
    )


def site_inventory(
    groups: Mapping[str, Iterable[str]], hostvars: Mapping[str, Any], inventory_hostname: str
) -> SiteInventory:
    """The circleci_* hosts of the site of one host; reads the variables of these hosts only."""
    site = site_group(groups, inventory_hostname)
    own = None if site is None else set(groups[site])
    belongs: dict[str, set[str]] = {}
    for group in (*GROUPS, "circleci_connected"):
        for name in groups.get(group, []):
            if own is None or name in own:
                belongs.setdefault(name, set()).add(group)
    hosts = []
    for name, its_groups in belongs.items():
        # A connected host is on the other side of the gap: it has no place in the rules, only in the contradiction test.
        if its_groups == {"circleci_connected"}:
            continue
        addresses, problem = addresses_of(name, hostvars[name])
        hosts.append(SiteHost(name=name, addresses=addresses, groups=frozenset(its_groups), problem=problem))
    return SiteInventory(site=(site or "")[len(SITE_PREFIX) :] if site else "", hosts=tuple(hosts))
