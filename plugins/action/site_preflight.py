# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the findings of the module of the same name as a table; a module itself cannot speak."""

from __future__ import annotations

import shutil
import typing as t

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.table import render_table


class ActionModule(ActionBase):
    """Run the module on the control host, then show what it found."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        result: dict[str, t.Any] = self._execute_module(task_vars=task_vars)
        if "findings" in result:
            host = str((task_vars or {}).get("inventory_hostname", "the site"))
            # A callback that writes one JSON document owns the standard output.
            to_stderr = "json" in str(constants.config.get_config_value("DEFAULT_STDOUT_CALLBACK"))
            Display().display("\n" + render_table(host, result["findings"], shutil.get_terminal_size((120, 24)).columns), stderr=to_stderr)
        return result
