# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""State of the services of a release, and the verdict over everything that verify found."""

from __future__ import annotations

from .services import assess, read_namespace
from .verdict import VerdictError, judge_site

__all__ = ["VerdictError", "assess", "judge_site", "read_namespace"]
