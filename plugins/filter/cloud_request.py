# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about what a site asks of its cloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..plugin_utils import cloud_request
from ..plugin_utils.catalog import Catalog, CatalogError
from ..plugin_utils.port_model import SiteInventoryError, site_inventory
from ..plugin_utils.site_catalog import PLAIN, with_catalog
from ..plugin_utils.site_names import site_names


def _storage(site: Mapping[str, Any], *, catalog: Catalog = PLAIN) -> dict[str, Any]:
    try:
        return cloud_request.storage_options(catalog, site)
    except CatalogError as error:
        raise AnsibleFilterError(str(error)) from error


def _registry(site: Mapping[str, Any], *, catalog: Catalog = PLAIN) -> dict[str, Any]:
    return cloud_request.registry_options(catalog, site)


def _registry_template(site: Mapping[str, Any]) -> dict[str, Any]:
    return cloud_request.registry_template_options(site)


def _records(groups: Mapping[str, Any], hostvars: Mapping[str, Any], inventory_hostname: str, site: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        inventory = site_inventory(groups, hostvars, inventory_hostname)
    except SiteInventoryError as error:
        raise AnsibleFilterError(f"cloud_dns_records: {error}") from error
    facts = {
        "domain": site["circleci_domain"],
        "load_balancer": {"address": site["circleci_load_balancer_address"]},
        "registry": {"host": site["circleci_registry_host"]},
        "object_storage": {"endpoint": site["circleci_object_storage_endpoint"]},
    }

    def addresses(group: str) -> list[str]:
        return [text for host in inventory.members(group) for text in host.addresses]

    cluster = site["circleci_object_storage_placement"] == "cluster"
    return cloud_request.dns_records(site, site_names(facts, addresses, cluster, str(site["circleci_object_storage_load_balancer_address"])))


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "cloud_storage_options": with_catalog(_storage),
            "cloud_registry_options": with_catalog(_registry),
            "cloud_registry_template_options": _registry_template,
            "cloud_dns_records": _records,
        }
