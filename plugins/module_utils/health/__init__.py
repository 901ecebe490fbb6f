# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""State of the services of a release, and the verdict over everything that verify found."""

from __future__ import annotations

from .known_failures import known_failures
from .services import assess, read_namespace
from .upkeep import licence_of, read_upkeep, versions_of
from .verdict import VerdictError, judge_site

__all__ = ["VerdictError", "assess", "judge_site", "known_failures", "licence_of", "read_namespace", "read_upkeep", "versions_of"]
