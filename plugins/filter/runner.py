# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about the machine runners of a site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..plugin_utils import runner
from ..plugin_utils.catalog import Catalog, CatalogError
from ..plugin_utils.port_model import SiteInventoryError, site_members
from ..plugin_utils.site_catalog import PLAIN, with_catalog


def _runners(group: str, groups: Mapping[str, Any], hostvars: Mapping[str, Any], inventory_hostname: str) -> list[dict[str, Any]]:
    try:
        return runner.runners(site_members(groups, group, inventory_hostname), hostvars)
    except SiteInventoryError as error:
        raise AnsibleFilterError(str(error)) from error


def _findings(found: Sequence[Mapping[str, Any]], release: str, domain: str, *, catalog: Catalog = PLAIN) -> list[dict[str, Any]]:
    try:
        return runner.inventory_findings(found, release, domain, catalog)
    except CatalogError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "runner_problems": runner.problems,
            "runner_service": runner.service,
            "site_runners": _runners,
            "runner_gate": runner.gate,
            "runner_findings": with_catalog(_findings),
            "runner_look_findings": runner.look_findings,
        }
