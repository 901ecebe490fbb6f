# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that all modules share that take a chart from the private registry."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  registry_username:
    description: User of the private registry. Empty asks without a login.
    type: str
    default: ''
  registry_password:
    description: Password of the user of the private registry.
    type: str
    default: ''
  registry_ca:
    description: Authority of the private registry, as PEM.
    type: str
    default: ''
  registry_plain_http:
    description: Whether the private registry speaks plain HTTP.
    type: bool
    default: false
"""
