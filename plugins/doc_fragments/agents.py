# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules that bring the vendor's agents."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  objects:
    description: Objects that come from file artifacts of the private registry.
    type: list
    elements: dict
    default: []
    suboptions:
      key: {description: Name of the object., type: str, required: true}
      name: {description: Name of the file artifact., type: str, required: true}
      version: {description: Version of the file artifact., type: str, required: true}
  texts:
    description: Objects with one line of text, name to line. They are brought last.
    type: dict
    default: {}
"""
