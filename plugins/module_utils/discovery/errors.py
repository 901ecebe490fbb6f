# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What discovery refuses."""

from __future__ import annotations


class DiscoveryError(Exception):
    """One sentence or two for the operator: what was looked at, what was found, what to do."""
