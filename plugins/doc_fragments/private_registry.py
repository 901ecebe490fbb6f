# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that all modules share that talk to the private registry."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  registry:
    description: Private registry, C(host) or C(host:port), without a scheme.
    type: str
    required: true
  username:
    description: User of the registry. Empty asks without a login.
    type: str
    default: ""
  password:
    description: Password of O(username).
    type: str
    default: ""
  ca_certificate:
    description: PEM of the authority that signed the registry's certificate. Empty trusts what the host trusts.
    type: str
    default: ""
  plain_http:
    description: Talk to the registry without TLS. Passwords and contents are then open to everybody on the way.
    type: bool
    default: false
"""
