# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Filters over the model of ports."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ..module_utils import cloud, cloud_firewall
from ..module_utils.preflight.findings import PROBLEM, Finding
from ..plugin_utils.catalog import Catalog, CatalogError
from ..plugin_utils.port_model import (
    LIST_OPTIONS,
    PortModel,
    Problem,
    SiteInventoryError,
    build_model,
    explain,
    flows_of,
    options_from,
    port_facts,
    render_native,
    rule_table,
    site_inventory,
    site_members,
)
from ..plugin_utils.port_model.inventory import addresses_of
from ..plugin_utils.site_catalog import PLAIN, with_catalog


def site_hosts(
    group: str, groups: Mapping[str, Any], hostvars: Mapping[str, Any], inventory_hostname: str
) -> list[dict[str, Any]]:
    """Hosts of a group in the site of one host, with the addresses under which others reach them."""
    if not isinstance(group, str) or not group:
        raise AnsibleFilterError(f"site_hosts: the name of a group is needed, found {group!r}")
    try:
        names = site_members(groups, group, inventory_hostname)
    except SiteInventoryError as error:
        raise AnsibleFilterError(f"site_hosts: {error}") from error
    result = []
    for name in names:
        addresses, problem = addresses_of(name, hostvars[name])
        result.append(
            {"name": name, "address": addresses[0] if addresses else "", "addresses": list(addresses), "problem": problem}
        )
    return result


_NOT_OF_THE_SITE = ("users", "internet", "vendor_downloads", "blocked_networks")
"""Options whose networks jobs need not reach, or that are far away."""


def site_networks(
    groups: Mapping[str, Any], hostvars: Mapping[str, Any], inventory_hostname: str, options: Mapping[str, Any] | None = None
) -> list[dict[str, str]]:
    """Networks of a site that containers of jobs must leave alone: addresses of its hosts, and what the options of the model of ports name."""
    try:
        inventory = site_inventory(groups, hostvars, inventory_hostname)
    except SiteInventoryError as error:
        raise AnsibleFilterError(f"site_networks: {error}") from error
    found = [{"network": address, "what": f"host {host.name}"} for host in inventory.hosts for address in host.addresses]
    given, _problems = options_from(options or {})
    for name in LIST_OPTIONS:
        if name not in _NOT_OF_THE_SITE:
            found += [{"network": text, "what": f"circleci_ports.{name}"} for text in getattr(given, name) if not text.endswith("/0")]
    return found


def _model(
    groups: Mapping[str, Any],
    hostvars: Mapping[str, Any],
    inventory_hostname: str,
    release: str,
    platform: str,
    options: Mapping[str, Any] | None,
    catalog: Catalog,
) -> tuple[PortModel, tuple[Problem, ...]]:
    try:
        inventory = site_inventory(groups, hostvars, inventory_hostname)
        facts = port_facts(catalog.ports(release))
    except (SiteInventoryError, CatalogError) as error:
        raise AnsibleFilterError(f"port model: {error}") from error
    parsed, problems = options_from(options or {})
    model = build_model(inventory, facts, release, platform, parsed)
    return model, problems + model.problems


@dataclass(frozen=True)
class SiteModel:
    """What a filter over the model is asked about."""

    model: PortModel
    host: str
    platform: str


def over_model(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Make a filter of *answer*, which takes the model of a site and options of its own.

    All these filters begin with the same six arguments, and are refused with all problems of the model at once.
    """

    @functools.wraps(answer)
    def asked(
        groups: Mapping[str, Any],
        hostvars: Mapping[str, Any],
        inventory_hostname: str,
        release: str,
        platform: str,
        options: Mapping[str, Any] | None = None,
        *more: Any,
        catalog: Catalog = PLAIN,
        **named: Any,
    ) -> Any:
        model, problems = _model(groups, hostvars, inventory_hostname, release, platform, options, catalog)
        if problems:
            raise AnsibleFilterError("port model: " + "; ".join(str(problem) for problem in problems))
        return answer(SiteModel(model, inventory_hostname, platform), *more, **named)

    return asked


def port_model(
    groups: Mapping[str, Any],
    hostvars: Mapping[str, Any],
    inventory_hostname: str,
    release: str,
    platform: str,
    options: Mapping[str, Any] | None = None,
    *,
    catalog: Catalog = PLAIN,
) -> dict[str, Any]:
    """The whole model of a site with its problems, which are not raised."""
    model, problems = _model(groups, hostvars, inventory_hostname, release, platform, options, catalog)
    return {
        "site": model.inventory.site,
        "release": release,
        "platform": platform,
        "rules": [rule.as_dict() for rule in model.rules],
        "hosts": [
            {"name": host.name, "addresses": list(host.addresses), "groups": sorted(host.groups)}
            for host in model.inventory.hosts
        ],
        "check_only": dict(model.check_only),
        "problems": [
            {"field": item.field, "found": item.found, "expected": item.expected, "remedy": item.remedy}
            for item in problems
        ],
    }


def port_findings(
    groups: Mapping[str, Any],
    hostvars: Mapping[str, Any],
    inventory_hostname: str,
    release: str,
    platform: str,
    options: Mapping[str, Any] | None = None,
    *,
    catalog: Catalog = PLAIN,
) -> list[dict[str, str]]:
    """What the other filters refuse, as findings of preflight."""
    _found, problems = _model(groups, hostvars, inventory_hostname, release, platform, options, catalog)
    return [Finding("ports", PROBLEM, item.field, item.found, item.expected, "port model", item.remedy).as_dict() for item in problems]


@over_model
def port_rules(about: SiteModel) -> list[dict[str, Any]]:
    """Rules of one host for the role firewall."""
    return [rule.as_dict() for rule in about.model.for_host(about.host)]


def port_check_only(
    groups: Mapping[str, Any],
    hostvars: Mapping[str, Any],
    inventory_hostname: str,
    options: Mapping[str, Any] | None = None,
) -> bool:
    """Whether the packet filter of a host is only looked at (Kubernetes nodes)."""
    parsed, _problems = options_from(options or {})
    if parsed.node_firewall:
        return False
    return inventory_hostname in groups.get("circleci_cluster_nodes", [])


@over_model
def port_flows(
    about: SiteModel,
    closed_per_rule: int = 2,
    names: Mapping[str, str | Sequence[str]] | None = None,
) -> list[dict[str, Any]]:
    """Connections that one host has to try, for the module connectivity."""
    return flows_of(about.model, about.host, closed_per_rule, dict(names or {}))


@over_model
def port_table(about: SiteModel, form: str = "rows") -> Any:
    """Every rule of the site as rows, Markdown or CSV."""
    try:
        return rule_table(about.model, form)
    except ValueError as error:
        raise AnsibleFilterError(f"port_table: {error}") from error


@over_model
def port_explain(about: SiteModel, host: str = "", port: int = 0) -> list[str]:
    """Why a host, a port, or a port of a host is as it is."""
    return explain(about.model, host, int(port))


@over_model
def port_native(about: SiteModel, form: str = "pf") -> str:
    """Rules of one host for pf of macOS or the firewall of Windows, for somebody to load there."""
    try:
        return render_native(about.model.for_host(about.host), form)
    except ValueError as error:
        raise AnsibleFilterError(f"port_native: {error}") from error


@over_model
def cloud_firewalls(about: SiteModel, site: str = "site", form: str = "groups") -> Any:
    """What the firewall of the site's cloud should hold, for the module cloud_firewall or as a table."""
    provider = cloud.PROVIDERS.get(about.platform)
    if provider is None:
        raise AnsibleFilterError(
            f"circleci_platform: {about.platform} has no firewall of a cloud; those that have one are {', '.join(sorted(cloud.PROVIDERS))}"
        )
    try:
        found = cloud_firewall.constructs(provider, site, [rule.as_dict() for rule in about.model.rules])
        return found if form == "groups" else cloud_firewall.table(provider, found, form)
    except cloud.CloudError as error:
        raise AnsibleFilterError("; ".join(error.problems)) from error


def cloud_endpoints(
    platform: str, region: str = "", endpoint: str = "", token: bool = False, parts: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Cloud of a platform, and every address that cloud_prepare talks to."""
    provider = cloud.PROVIDERS.get(platform, "")
    if not provider:
        known = sorted(cloud.PROVIDERS)
        raise AnsibleFilterError(
            f"circleci_platform is {platform}, cloud_prepare sets the firewall of {', '.join(known)}; "
            "a firewall of another cloud or network is set by hand after ports.csv, which the verb plan writes"
        )
    if provider == "aws" and not endpoint and not region:
        raise AnsibleFilterError("circleci_cloud_region is empty; AWS needs it, for instance us-west-2")
    apis = {part: cloud.part_api(part, provider, region, endpoint, (parts or {}).get(part, "")) for part in ("dns", "registry")}
    return {"provider": provider, "endpoints": cloud.endpoints(provider, region, endpoint, token, parts), **apis}


class FilterModule:
    """Filters of the port model."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "site_hosts": site_hosts,
            "site_networks": site_networks,
            "port_findings": with_catalog(port_findings),
            "port_model": with_catalog(port_model),
            "port_rules": with_catalog(port_rules),
            "port_check_only": port_check_only,
            "port_flows": with_catalog(port_flows),
            "port_table": with_catalog(port_table),
            "port_explain": with_catalog(port_explain),
            "port_native": with_catalog(port_native),
            "cloud_firewalls": with_catalog(cloud_firewalls),
            "cloud_endpoints": cloud_endpoints,
        }
