# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an installation will do to a site, worked out from the inventory and the catalog before anything is done.

Everything here is a pure function of its arguments; no host is asked. The module site_plan renders the result.
"""

from __future__ import annotations

from .engine import Request, plan_site
from .ownership import Ownership, OwnershipError, load_ownership

__all__ = ["Ownership", "OwnershipError", "Request", "load_ownership", "plan_site"]
