# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of a site, and where each leads: for the change-request document, and for a zone of the cloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .values.secret_plan import host_of, is_address

AS_IT_IS = "as it is today"
"""Of names that somebody else has."""


@dataclass(frozen=True)
class SiteName:
    """One name. C(values) are addresses that the inventory knows; without any C(unknown) says why."""

    name: str
    values: tuple[str, ...]
    unknown: str
    why: str
    needed: bool = False

    @property
    def type(self) -> str:
        """Type of its record; empty for names that somebody else has."""
        if not self.values:
            return "" if self.unknown == AS_IT_IS else "A"
        return "AAAA" if is_address(self.values[0]) and ":" in self.values[0] else "A"


def site_names(
    facts: Mapping[str, Any], addresses: Callable[[str], Sequence[str]], gateway_in_cluster: bool = False, gateway_address: str = ""
) -> list[SiteName]:
    """The names. *facts* have the shape of SiteFacts, *addresses* gives those of a group of the site."""
    domain, balancer = str(facts["domain"]), str(facts["load_balancer"].get("address") or "")
    values, unknown = (balancer,) if balancer else (), "the address that the platform gives to circleci-proxy"
    found = [
        SiteName(domain, values, unknown, "web UI, API and Nomad", True),
        SiteName(f"app.{domain}", values, unknown, "web UI", True),
    ]
    for address, group, why in (
        (str(facts["registry"]["host"]), "circleci_registry", "private registry, for all hosts and the nodes of the cluster"),
        (str(facts["object_storage"].get("endpoint") or ""), "circleci_object_storage", "object storage, for pods, Nomad clients and browsers"),
        (str((facts.get("github") or {}).get("hostname") or ""), "", "GitHub Enterprise, for pods, Nomad clients and browsers"),
    ):
        name = host_of(address)
        if not name or is_address(name):
            continue
        own, nobody = tuple(addresses(group)) if group else (), AS_IT_IS
        if group == "circleci_object_storage" and gateway_in_cluster:
            own, nobody = (gateway_address,) if gateway_address else (), "the address that the platform gives to the Service of the gateway"
        found.append(SiteName(name, own, nobody, why))
    return found
