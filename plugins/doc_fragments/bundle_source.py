# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that all modules share that read a bundle."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  directories:
    description: Folders with the parts of the bundle. They may be read-only media.
    type: list
    elements: path
    required: true
  public_key:
    description:
      - Public key that must have signed the bundle, a line of minisign or OpenSSH, or a path to such a file.
      - Empty accepts only what O(allow_unsigned) allows.
    type: str
    default: ""
  allow_unsigned:
    description: Accept a bundle that nobody signed. Its digests are checked all the same.
    type: bool
    default: false
"""
