# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The private registry of a site on one host: its package, files, unit and health. Standard library only."""

from __future__ import annotations

from .passwords import check_password, hash_password, merged_htpasswd
from .service import Outcome, Registry, RegistryHostError, Wanted

__all__ = ["Outcome", "Registry", "RegistryHostError", "Wanted", "check_password", "hash_password", "merged_htpasswd"]
