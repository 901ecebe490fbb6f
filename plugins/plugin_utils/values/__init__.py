# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Site facts + catalog → Helm values, each with the rule and the source that set it."""

from __future__ import annotations

from .compose import compose, compose_data
from .model import Composition, Setting, SiteFacts, site_facts

__all__ = ["Composition", "Setting", "SiteFacts", "compose", "compose_data", "site_facts"]
