# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules share that bring a database of the chart to another version."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from .helm.lifecycle import ProgressFile
from .helm.objects import parse_documents
from .operations.kubectl import Kubectl
from .operations.stores import Databases
from .operations_module import RELEASE_SPEC, client, need_release

DATABASE_STEP_SPEC: dict[str, Any] = {
    **RELEASE_SPEC,
    "kubectl": {"type": "str", "default": "kubectl"},
    "wait_timeout": {"type": "int", "default": 900},
    "progress_file": {"type": "path"},
}


def open_databases(module: AnsibleModule) -> tuple[Databases, ProgressFile]:
    """The databases of the installed release, and where progress goes; nowhere in check mode."""
    params = module.params
    api = client(module)
    present = need_release(api, params)
    progress = ProgressFile("" if module.check_mode else params["progress_file"] or "")
    pods = Kubectl(params["kubectl"], params["kubeconfig"], params["namespace"], context=params["context"])
    documents = parse_documents(present.manifest)
    return Databases(api, pods, params["namespace"], present, documents, patience=params["wait_timeout"], progress=progress), progress
