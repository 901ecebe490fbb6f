# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""One model of ports: from the inventory and the catalog to the rules of each host.

Everything here is a pure function of its arguments. The filters in plugins/filter hand in what the inventory says;
the firewall module, the verify engine, the change-request document and the report all read the same rules.
"""

from __future__ import annotations

from .facts import PortFact, port_facts
from .flows import flows_of
from .inventory import SiteHost, SiteInventory, SiteInventoryError, site_group, site_inventory, site_members
from .model import LIST_OPTIONS, Options, PortModel, PortModelError, Problem, Rule, build_model, options_from
from .native import by_hand, render_native
from .table import explain, rule_table

__all__ = [
    "LIST_OPTIONS",
    "Options",
    "PortFact",
    "PortModel",
    "PortModelError",
    "Problem",
    "Rule",
    "SiteHost",
    "SiteInventory",
    "SiteInventoryError",
    "build_model",
    "by_hand",
    "explain",
    "flows_of",
    "options_from",
    "port_facts",
    "render_native",
    "rule_table",
    "site_group",
    "site_inventory",
    "site_members",
]
