# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a site asks of its cloud beside the firewall: what is wrong with it, how the modules take it, and a table for those who own the cloud."""

from __future__ import annotations

from .model import (
    dns_records,
    problems,
    registry_options,
    registry_template_options,
    requests,
    storage_options,
    table,
)

__all__ = ["dns_records", "problems", "registry_options", "registry_template_options", "requests", "storage_options", "table"]
