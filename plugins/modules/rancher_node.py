#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: rancher_node
short_description: Look at K3s or RKE2 on a node, and restart it without harm
version_added: 0.1.0
description:
  - Finds which of both runs here and returns its registries.yaml, or restarts it when that file is newer than the service.
  - A server is only restarted while the API with its etcd is ready and all nodes are Ready, and the module waits until that holds again. Run it on one
    host at a time.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  state:
    description: V(described) only looks, V(restarted) restarts when the file is newer than the service.
    type: str
    choices: [described, restarted]
    default: described
  will_change:
    description: Whether this run has written the file, or would write it in check mode.
    type: bool
    default: false
  wait_timeout:
    description: Seconds to wait until the node is well again.
    type: int
    default: 300
attributes:
  check_mode:
    support: full
    description: Says whether it would restart.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: Restart the node when it has not read the file yet
  onprem.circleci_server.rancher_node:
    state: restarted
  throttle: 1
"""

RETURN = r"""
distribution:
  description: V(k3s), V(rke2), or empty when neither runs here.
  returned: success
  type: str
unit:
  description: Name of its unit.
  returned: success
  type: str
server:
  description: Whether it is a server of the cluster.
  returned: success
  type: bool
registries_file:
  description: Path of registries.yaml.
  returned: success
  type: str
registries:
  description: Text of that file, empty when there is none. It may hold passwords, so keep it out of logs.
  returned: with O(state=described)
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.host.rancher import Node, find, restart, stale
from ..module_utils.host.units import HostError, run_command


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["described", "restarted"], "default": "described"},
            "will_change": {"type": "bool", "default": False},
            "wait_timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    options = module.params
    node = find(run_command) or Node("", "", False)
    path = node.registries() if node.unit else None
    result = {"distribution": node.distribution, "unit": node.unit, "server": node.server, "registries_file": str(path or "")}
    if options["state"] == "described":
        text = path.read_text(encoding="utf-8") if path and path.exists() else ""
        module.exit_json(changed=False, registries=text, **result)
    if not node.unit:
        module.exit_json(changed=False, **result)
    needed = stale(node, run_command) or (module.check_mode and options["will_change"])
    if needed and not module.check_mode:
        try:
            restart(node, run_command, options["wait_timeout"])
        except HostError as error:
            module.fail_json(msg=str(error))
    module.exit_json(changed=needed, **result)


if __name__ == "__main__":
    main()
