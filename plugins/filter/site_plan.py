# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that works out the change-request document of a site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ..plugin_utils.bundle_contents import ContentsError
from ..plugin_utils.catalog import Catalog, CatalogError
from ..plugin_utils.port_model import SiteInventoryError, build_model, options_from, port_facts, site_inventory
from ..plugin_utils.site_catalog import PLAIN, with_catalog
from ..plugin_utils.site_plan import Request, load_ownership, plan_site

_OURS = ("model", "port_problems")
_NAMES = {item.name for item in fields(Request)} - set(_OURS) | {"port_options"}


def site_plan(
    groups: Mapping[str, Any], hostvars: Mapping[str, Any], inventory_hostname: str, request: Mapping[str, Any], *, catalog: Catalog = PLAIN
) -> dict[str, Any]:
    """See site_plan.yml."""
    unknown = sorted(set(request) - _NAMES)
    if unknown:
        raise AnsibleFilterError(f"site_plan: unknown {', '.join(unknown)}; known are {', '.join(sorted(_NAMES))}")
    given = dict(request)
    try:
        release, platform = str(given["facts"]["release"]), str(given["facts"]["platform"])
        options, problems = options_from(given.pop("port_options", {}))
        inventory = site_inventory(groups, hostvars, inventory_hostname)
        model = build_model(inventory, port_facts(catalog.ports(release)), release, platform, options)
        return plan_site(Request(model=model, port_problems=(*problems, *model.problems), **given), catalog, load_ownership())
    except (SiteInventoryError, CatalogError, ContentsError) as error:
        raise AnsibleFilterError(f"site_plan: {error}") from error


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"site_plan": with_catalog(site_plan)}
