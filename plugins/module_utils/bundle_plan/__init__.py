# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planning a bundle on the connected host: chart, images, files and packages become a lock file."""

from __future__ import annotations

from .orbs import CLOUD
from .plan import Plan, PlanOptions, make_plan, names, write_plan
from .tools import PlanError, Web, unpack_chart

__all__ = ["CLOUD", "Plan", "PlanError", "PlanOptions", "Web", "make_plan", "names", "unpack_chart", "write_plan"]
