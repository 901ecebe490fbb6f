# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Filter that has ansible-playbook load this collection's filters once, instead of once for each task of each host.

ansible-core forks a process for each task of each host and imports there what the task needs. What its main process has imported is there already,
and the hosts of a play are what the main process works out before the first fork. To find a filter, ansible-core imports the files of this folder
in the order of their names until one has it, so the name of this file must stay the last.
"""

from __future__ import annotations

from typing import Any, Callable

from ansible.plugins.loader import filter_loader, test_loader

from ..plugin_utils.catalog import Catalog


def with_filters_loaded(hosts: str) -> str:
    """*hosts* as they are."""
    Catalog.load()
    # Those of ansible-core, which it finds in the same way.
    list(filter_loader.all())
    list(test_loader.all())
    return hosts


class FilterModule:
    """The filter by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"with_filters_loaded": with_filters_loaded}
