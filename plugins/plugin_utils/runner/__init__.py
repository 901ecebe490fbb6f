# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machine runners on Linux: the configuration that one reads, what a site still has to give for them, and what is wrong with those that are there."""

from __future__ import annotations

from .service import problems, seconds_of, service
from .site import gate, inventory_findings, look_findings, runners

__all__ = ["gate", "inventory_findings", "look_findings", "problems", "runners", "seconds_of", "service"]
