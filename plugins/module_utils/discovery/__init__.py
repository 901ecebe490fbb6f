# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images a release of CircleCI Server needs, each with the reason why. Runs on the connected host."""

from __future__ import annotations

from .collect import DiscoveryResult, FoundRef, Why, discover
from .errors import DiscoveryError

__all__ = [
    "DiscoveryError",
    "DiscoveryResult",
    "FoundRef",
    "Why",
    "discover",
]
