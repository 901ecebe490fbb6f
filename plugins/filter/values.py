# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that turn the facts of a site into Helm values and into the plan of its Secrets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.findings import PROBLEM, Finding
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog, CatalogError
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.object_storage import agent_trees as trees_of
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.site_catalog import PLAIN, with_catalog
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values import compose_data, site_facts
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values.external import (
    external_databases as databases_of,
)
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values.secret_plan import add_secrets, foreseen
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values.secret_plan import secret_plan as plan_of
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values.secret_plan import (
    secrets_in_values as in_values,
)


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise AnsibleFilterError(f"{name} takes the facts of a site as a mapping, found {type(value).__name__}.")
    return dict(value)


def compose_values(site: Any, chart_schema: Any = None, *, catalog: Catalog = PLAIN) -> dict[str, Any]:
    """See compose_values.yml."""
    schema = json.loads(chart_schema) if isinstance(chart_schema, str) and chart_schema else chart_schema
    result: dict[str, Any] = compose_data(_mapping(site, "compose_values"), catalog, schema or None)
    return result


def secret_plan(
    site: Any, own_registry: bool = False, own_object_storage: bool = False, extra_names: Any = None, *, catalog: Catalog = PLAIN
) -> dict[str, Any]:
    """See secret_plan.yml."""
    facts, errors = site_facts(_mapping(site, "secret_plan"))
    if errors:
        raise AnsibleFilterError("\n- ".join(["The facts of the site are wrong:", *errors]))
    try:
        plan: dict[str, Any] = plan_of(
            facts,
            catalog,
            own_registry=own_registry,
            own_object_storage=own_object_storage,
            extra_names={str(key): [str(name) for name in names] for key, names in (extra_names or {}).items()},
        )
    except CatalogError as error:
        raise AnsibleFilterError(str(error)) from error
    return plan


def site_with_secrets(site: Any, secrets: Any, passwords: Any = None) -> dict[str, Any]:
    """See site_with_secrets.yml."""
    result: dict[str, Any] = add_secrets(
        _mapping(site, "site_with_secrets"), _mapping(secrets or {}, "site_with_secrets"), dict(passwords or {})
    )
    return result


def secrets_in_values(site: Any, *, catalog: Catalog = PLAIN) -> list[dict[str, str]]:
    """See secrets_in_values.yml."""
    found: list[dict[str, str]] = in_values(_mapping(site, "secrets_in_values"), catalog)
    return found


def values_findings(site: Any, *, catalog: Catalog = PLAIN) -> list[dict[str, str]]:
    """See values_findings.yml."""
    composed = compose_data(foreseen(_mapping(site, "values_findings")), catalog)
    return [
        Finding("values", PROBLEM, text.partition(" ")[0].rstrip(":"), text.rstrip("."), "facts that give Helm values", "values composer").as_dict()
        for text in composed["errors"]
    ]


def external_databases(site: Any, *, catalog: Catalog = PLAIN) -> list[dict[str, Any]]:
    """See external_databases.yml."""
    facts, errors = site_facts(_mapping(site, "external_databases"))
    # Facts that are wrong are told by values_findings, with all others.
    return [] if errors else databases_of(facts, catalog)


def agent_trees(site: Any, *, catalog: Catalog = PLAIN) -> dict[str, Any]:
    """See agent_trees.yml."""
    facts, _errors = site_facts(_mapping(site, "agent_trees"))
    try:
        return {"url": facts.object_storage.agents, "trees": trees_of(catalog, facts.release)}
    except CatalogError as error:
        raise AnsibleFilterError(f"agent_trees: {error}") from error


class FilterModule:
    """Filters of the values composer."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "agent_trees": with_catalog(agent_trees),
            "compose_values": with_catalog(compose_values),
            "secret_plan": with_catalog(secret_plan),
            "secrets_in_values": with_catalog(secrets_in_values),
            "site_with_secrets": site_with_secrets,
            "external_databases": with_catalog(external_databases),
            "values_findings": with_catalog(values_findings),
        }
