# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Orbs: their sources from CircleCI's public registry on the connected side, and their way into the registry of a server."""

from __future__ import annotations

from .graphql import Api, OrbError, Unauthorized, Unreachable
from .index import INDEX, REPOSITORY, OrbVersion, index_text, parse_exact, read_index
from .publish import Step, look, publish

__all__ = [
    "INDEX", "REPOSITORY", "Api", "OrbError", "OrbVersion", "Step", "Unauthorized", "Unreachable", "index_text", "look", "parse_exact", "publish", "read_index",
]  # fmt: skip
