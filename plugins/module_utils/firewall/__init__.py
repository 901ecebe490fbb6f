# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Packet filter of one host: rules in, one change out."""

from __future__ import annotations

from .engine import Engine, Outcome
from .errors import FirewallError
from .plan import Plan, parse_plan
from .system import System

__all__ = ["Engine", "FirewallError", "Outcome", "Plan", "System", "parse_plan"]
