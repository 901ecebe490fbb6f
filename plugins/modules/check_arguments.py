#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: check_arguments
short_description: Check the site variables of a control host before a verb does anything
version_added: 0.1.0
description:
  - Compares every C(circleci_*) variable of the current host with C(arguments.yml) of the collection, type and meaning.
  - Refuses unknown C(circleci_*) names and names the nearest known one.
  - All problems are reported at once. The values of secrets are never repeated.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  verb:
    description: Verb whose variables are checked, the name of a playbook of this collection.
    type: str
    required: true
  fail:
    description: Whether problems fail the task. V(false) only returns them, for verbs that will be run later.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: It only reads, so that check mode and normal mode are the same.
  diff_mode:
    support: none
    description: There is nothing to compare.
notes:
  - It runs on the controller only; there is no connection to the host.
"""

EXAMPLES = r"""
- name: Check the arguments of install
  onprem.circleci_server.check_arguments:
    verb: install
"""

RETURN = r"""
problems:
  description: One sentence for each problem, each with the variable, what was found and what is allowed.
  returned: always
  type: list
  elements: str
  sample:
    - "circleci_release: found 4.1; allowed is text in quotes"
findings:
  description:
    - The same problems with C(check), C(level), C(subject), C(found), C(expected), C(source) and C(remedy), as
      M(onprem.circleci_server.site_preflight) takes them.
  returned: always
  type: list
  elements: dict
"""
