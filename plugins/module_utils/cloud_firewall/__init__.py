# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Firewalls of clouds from the model of ports: what is wanted, what is there, and the difference.

C(model) is pure. An adapter for each cloud reads what is there and applies a difference; it decides nothing.
"""

from __future__ import annotations

from .model import (
    Change,
    Found,
    Provider,
    RuleKey,
    changes,
    constructs,
    shown,
    table,
)

__all__ = ["Change", "Found", "Provider", "RuleKey", "changes", "constructs", "shown", "table"]
