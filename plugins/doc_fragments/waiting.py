# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that all modules share that wait for workloads of a release."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  wait_timeout:
    description: Seconds to wait in all.
    type: int
    default: 2700
  expected_to_fail:
    description: Names of workloads that the vendor expects to fail at this stage. They are not waited for.
    type: list
    elements: str
    default: []
  progress_file:
    description: File on this host to which progress is written as JSON.
    type: path
"""
