# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way from one release to another: what it takes, in order, and what forbids it. Computes only; nothing is asked or changed."""

from .planner import DatabaseStep, PlannedStep, Situation, UpgradePlan, plan_upgrade

__all__ = ["DatabaseStep", "PlannedStep", "Situation", "UpgradePlan", "plan_upgrade"]
