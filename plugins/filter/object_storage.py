# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about the object store of a site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..plugin_utils import object_storage
from ..plugin_utils.catalog import Catalog, CatalogError
from ..plugin_utils.site_catalog import PLAIN, with_catalog


def _service(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return object_storage.service(kind, options)
    except object_storage.ServiceError as error:
        raise AnsibleFilterError(str(error)) from error


def _workload(kind: str, options: Mapping[str, Any], platform: str, balancer: Mapping[str, Any], *, catalog: Catalog = PLAIN) -> dict[str, Any]:
    try:
        annotations = object_storage.service_annotations(catalog, platform, balancer, options.get("service_annotations") or {})
        return object_storage.workload(kind, {**options, "service_annotations": annotations})
    except (CatalogError, object_storage.ServiceError) as error:
        raise AnsibleFilterError(str(error)) from error


def _problems(site: Mapping[str, Any], hosts: int, *, catalog: Catalog = PLAIN) -> list[str]:
    return object_storage.problems(catalog, site, hosts)


def _capabilities(kind: str, *, catalog: Catalog = PLAIN) -> dict[str, Any]:
    try:
        return object_storage.capabilities(catalog, kind)
    except CatalogError as error:
        raise AnsibleFilterError(str(error)) from error


def _bucket_options(kind: str, site: Mapping[str, Any], *, catalog: Catalog = PLAIN) -> dict[str, Any]:
    try:
        return object_storage.bucket_options(catalog, kind, site)
    except CatalogError as error:
        raise AnsibleFilterError(str(error)) from error


def _agents(release: str, files: Mapping[str, str], *, catalog: Catalog = PLAIN) -> dict[str, Any]:
    try:
        return object_storage.agent_objects(catalog, release, files)
    except (CatalogError, object_storage.AgentsError) as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "object_storage_service": _service,
            "object_storage_workload": with_catalog(_workload),
            "object_storage_problems": with_catalog(_problems),
            "object_storage_capabilities": with_catalog(_capabilities),
            "object_storage_bucket_options": with_catalog(_bucket_options),
            "object_storage_unproven": object_storage.unproven,
            "agent_objects": with_catalog(_agents),
            "agents_url": object_storage.agents_url,
        }
