#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: release_layers
short_description: Take the application layer down and up, or restart single workloads
version_added: 0.1.0
description:
  - Down is replicas at zero for what carries the label C(layer=application), as the vendor tells operators to do it; the module waits until
    no pod of it is left. Databases and Nomad servers go on.
  - Up is the number of replicas that the installed revision has, after the databases are ready; the module waits until all is ready.
  - A restart deletes the pods of the workloads, all of one workload at once, and waits for new ones.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.waiting
  - onprem.circleci_server.installed
requirements:
  - kubernetes (Python library)
  - PyYAML
options:
  state:
    description:
      - V(stopped) and V(started) are what the application layer is to be.
      - V(restarted) deletes the pods of O(workloads), or takes the whole application layer down and up when there are none.
    type: str
    choices: [started, stopped, restarted]
    required: true
  workloads:
    description: Names of workloads of the release to restart.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: The same comparison, without the change.
  diff_mode:
    support: full
    description: Replicas before and after, or the pods that are replaced.
"""

EXAMPLES = r"""
- name: Take the application layer down
  onprem.circleci_server.release_layers:
    kubeconfig: /etc/kubernetes/admin.conf
    name: circleci-server
    namespace: circleci-server
    state: stopped

- name: Restart the frontend
  onprem.circleci_server.release_layers:
    kubeconfig: /etc/kubernetes/admin.conf
    name: circleci-server
    namespace: circleci-server
    state: restarted
    workloads: [frontend]
"""

RETURN = r"""
scaled:
  description: Workloads whose replicas were changed, or would be.
  returned: success
  type: list
  elements: str
  sample: ["Deployment/frontend replicas 1 → 0"]
pods:
  description: Pods that were replaced, or would be.
  returned: success
  type: list
  elements: str
code:
  description: The case of an error, such as C(not_ready) or C(unknown_workload).
  returned: on failure
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.helm.lifecycle import ProgressFile
from ..module_utils.helm.objects import parse_documents
from ..module_utils.helm.waiter import Patience
from ..module_utils.operations.layers import Layers
from ..module_utils.operations_module import RELEASE_SPEC, WAIT_SPEC, client, need_release, told


def result(scaled: list[str], pods: list[str]) -> dict[str, Any]:
    lines = [*scaled, *(f"Pod/{pod} replaced" for pod in pods)]
    return {"changed": bool(lines), "scaled": scaled, "pods": pods, "diff": {"before": "", "after": "".join(f"{line}\n" for line in lines)}}


def work(layers: Layers, state: str, workloads: list[str], check: bool) -> dict[str, Any]:
    if state == "restarted" and workloads:
        return result([], layers.pods_of(workloads) if check else layers.restart(workloads))
    if check:
        down = [str(scale) for scale in layers.scales(stopped=True) if scale.differs]
        up = [str(scale) for scale in layers.scales(stopped=False) if scale.differs]
        return result({"stopped": down, "started": up, "restarted": down or up}[state], [])
    scaled = []
    if state in ("stopped", "restarted"):
        scaled += layers.stop()
    if state in ("started", "restarted"):
        changed, _outcome = layers.start()
        scaled += changed
    return result([str(scale) for scale in scaled], [])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **RELEASE_SPEC,
            **WAIT_SPEC,
            "state": {"type": "str", "choices": ["started", "stopped", "restarted"], "required": True},
            "workloads": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    with told(module):
        api = client(module)
        layers = Layers(
            api,
            params["namespace"],
            parse_documents(need_release(api, params).manifest),
            patience=Patience(total=params["wait_timeout"]),
            expected_to_fail=params["expected_to_fail"],
            progress=ProgressFile("" if module.check_mode else params["progress_file"] or ""),
        )
        module.exit_json(**work(layers, params["state"], params["workloads"], module.check_mode))


if __name__ == "__main__":
    main()
