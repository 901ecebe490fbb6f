# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that the modules share that bring a database of the chart to another version."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
requirements:
  - kubectl, within one minor of the cluster
  - kubernetes (Python library)
  - PyYAML
options:
  kubectl:
    description: The kubectl program, as a name or a path.
    type: str
    default: kubectl
  wait_timeout:
    description: Seconds that each version may take to start. One whose image cannot be pulled for 120 seconds is given up before that.
    type: int
    default: 900
  progress_file:
    description: File on this host to which progress is written as JSON.
    type: path
"""
