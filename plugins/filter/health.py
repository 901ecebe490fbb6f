# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Filters that hand the catalog's services to the verify engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ..module_utils.json_option import packed
from ..plugin_utils.bundle_contents import PROBE_REPOSITORY
from ..plugin_utils.catalog import Catalog, CatalogError
from ..plugin_utils.port_model import SiteInventoryError, site_members
from ..plugin_utils.port_model.inventory import GROUPS
from ..plugin_utils.site_catalog import PLAIN, with_catalog


def service_wants(release: str, *, catalog: Catalog = PLAIN) -> list[dict[str, Any]]:
    """Services of a release with their workloads and with what fails for users when they are down."""
    try:
        services = catalog.services(release)
    except CatalogError as error:
        raise AnsibleFilterError(f"service_wants: {error}") from error
    return [
        {
            "name": service.name,
            "component": service.component or "",
            "description": service.description,
            "impact": service.failure_impact or "",
            "optional": service.optional,
            "needs": service.needs or "",
            "workloads": [{"name": work.name, "kind": work.kind, "certainty": work.certainty} for work in service.workloads],
        }
        for service in services
    ]


def failure_wants(release: str, *, catalog: Catalog = PLAIN) -> list[dict[str, Any]]:
    """Known ways to fail of a release, as the module service_health takes them."""
    try:
        modes = catalog.failure_modes(release)
    except CatalogError as error:
        raise AnsibleFilterError(f"failure_wants: {error}") from error
    return [{"id": mode.id, "title": mode.title, "symptom": mode.symptom, "remedy": mode.remedy, "source": mode.source} for mode in modes]


def probe_image(release: str, image: str = "", *, catalog: Catalog = PLAIN) -> str:
    """Image of the infrastructure probe as the private registry names it: the given one, or the catalog's C(cimg/base)."""
    if image:
        return image
    try:
        found = [item.reference for item in catalog.images(release) if item.repository == PROBE_REPOSITORY and item.reference]
    except CatalogError as error:
        raise AnsibleFilterError(f"probe_image: {error}") from error
    if not found:
        raise AnsibleFilterError(
            f"circleci_probe_image: is empty, and the catalog names no {PROBE_REPOSITORY} for release {release}. "
            "Give an image with a shell and curl that the private registry has."
        )
    return str(found[0])


def site_connections(
    variable: str, groups: Mapping[str, Any], hostvars: Mapping[str, Any], inventory_hostname: str
) -> str:
    """The results of the module connectivity that a variable holds on the hosts of the same site, by host, as packed JSON text."""
    found: dict[str, dict[str, Any]] = {}
    try:
        names = dict.fromkeys(name for group in GROUPS for name in site_members(groups, group, inventory_hostname))
    except SiteInventoryError as error:
        raise AnsibleFilterError(f"site_connections: {error}") from error
    for name in names:
        if variable not in hostvars[name]:
            continue
        result = hostvars[name][variable]
        # A host that was skipped or not reached has a result without connections: the verdict then says so.
        if isinstance(result, Mapping) and "connections" in result:
            found[name] = {"connections": json.loads(result["connections"]), "listeners": result.get("listeners", [])}
    return packed(found)


class FilterModule:
    """Filters of the verify engine."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "service_wants": with_catalog(service_wants),
            "failure_wants": with_catalog(failure_wants),
            "site_connections": site_connections,
            "packed_json": packed,
            "probe_image": with_catalog(probe_image),
        }
