#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: image_pull_proof
short_description: Prove that each node of a cluster pulls from the private registry
version_added: 0.1.0
description:
  - Makes one small pod on each node, bound to it past the scheduler, whose image is asked for anew, waits until each node has pulled it, and takes the
    pods away. It leaves nothing behind, so it reports no change.
  - Fails once with all nodes that did not pull, why, and what to do.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
requirements:
  - kubernetes (Python library) on this host
options:
  kubeconfig:
    description: Kubeconfig file on this host.
    type: path
    required: true
  namespace:
    description: Namespace of the release, where the Secret with the login lies.
    type: str
    required: true
  image:
    description: Image to pull, with the private registry in front.
    type: str
    required: true
  pull_secret:
    description: Secret with the login to the private registry. Empty pulls without a login.
    type: str
    default: regcred
  timeout:
    description: Seconds to wait for all nodes.
    type: int
    default: 180
attributes:
  check_mode:
    support: full
    description: Does not run in check mode.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: Prove that each node pulls
  onprem.circleci_server.image_pull_proof:
    kubeconfig: /etc/onprem-circleci/kubeconfig
    namespace: circleci-server
    image: registry.example.com:5000/google_containers/pause:3.6
"""

RETURN = r"""
nodes:
  description: Nodes that have pulled the image.
  returned: always
  type: list
  elements: str
refused:
  description: Nodes that have not, each with C(node), C(message) and C(hint).
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.helm.kube import KubeError, KubernetesClient
from ..module_utils.kubernetes_api.pulling import prove


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "namespace": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "pull_secret": {"type": "str", "default": "regcred", "no_log": False},
            "timeout": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    options = module.params
    if module.check_mode:
        module.exit_json(changed=False, nodes=[], refused=[])
    try:
        api = KubernetesClient(options["kubeconfig"])
        nodes, refusals = prove(api, options["namespace"], options["image"], options["pull_secret"], options["timeout"])
    except KubeError as error:
        module.fail_json(msg=error.sentence)
    refused = [{"node": item.node, "message": item.message, "hint": item.hint} for item in refusals]
    good = [node for node in nodes if node not in {item.node for item in refusals}]
    if refused:
        lines = "\n".join(f"  - {item.node}: {item.message}; {item.hint}." for item in refusals)
        module.fail_json(msg=f"{len(refused)} of {len(nodes)} node(s) cannot pull {options['image']}:\n{lines}", nodes=good, refused=refused)
    module.exit_json(changed=False, nodes=good, refused=[])


if __name__ == "__main__":
    main()
