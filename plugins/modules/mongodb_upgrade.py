#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mongodb_upgrade
short_description: Bring the MongoDB of the chart version by version to the one that a release wants
version_added: 0.1.0
description:
  - For each version gives the StatefulSet its image, waits until it is ready, sets the featureCompatibilityVersion and reads it back.
  - Where it stands is read from the server, so that a killed run goes on with the same call.
  - A version that does not start gives way to the one before it, whose data it has not touched.
  - Once a featureCompatibilityVersion is set, only a restore point leads back to the older MongoDB.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.installed
  - onprem.circleci_server.database_step
options:
  steps:
    description: The versions in order. The filter P(onprem.circleci_server.upgrade_plan#filter) computes them.
    type: list
    elements: dict
    required: true
    suboptions:
      version:
        description: Version in two parts.
        type: str
        required: true
      image:
        description: Image that brings it, in the private registry.
        type: str
        required: true
attributes:
  check_mode:
    support: full
    description: Tells which versions would be gone by.
  diff_mode:
    support: full
    description: The featureCompatibilityVersion before and after.
"""

EXAMPLES = r"""
- name: Bring MongoDB to 7.0
  onprem.circleci_server.mongodb_upgrade:
    kubeconfig: /etc/kubernetes/admin.conf
    name: circleci-server
    namespace: circleci-server
    steps:
      - version: "5.0"
        image: registry.example.com:5000/server-mongodb:5.0.24-debian-11-r20
      - version: "6.0"
        image: registry.example.com:5000/server-mongodb:6.0.13-debian-11-r21
      - version: "7.0"
        image: registry.example.com:5000/server-mongodb:7.0.15-debian-12-r2
"""

RETURN = r"""
before:
  description: The featureCompatibilityVersion before.
  returned: success
  type: str
after:
  description: The featureCompatibilityVersion afterwards, or what it would be.
  returned: success
  type: str
steps:
  description: Versions that were gone by, or would be.
  returned: success
  type: list
  elements: str
code:
  description: The case of an error, such as C(mongodb_step).
  returned: on failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.database_step import DATABASE_STEP_SPEC, open_databases
from ..module_utils.operations.mongo_upgrade import MongoUpgrade, Version
from ..module_utils.operations_module import told


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DATABASE_STEP_SPEC,
            "steps": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"version": {"type": "str", "required": True}, "image": {"type": "str", "required": True}},
            },
        },
        supports_check_mode=True,
    )
    params = module.params
    way = [Version(step["version"], step["image"]) for step in params["steps"]]
    with told(module):
        databases, progress = open_databases(module)
        upgrade = MongoUpgrade(databases, progress)
        before, left = upgrade.open_steps(way)
        after, done = (left[-1].version if left else before), [step.version for step in left]
        if left and not module.check_mode:
            went = upgrade.run(way)
            after, done = went.after, went.done
        module.exit_json(
            changed=bool(left),
            before=before,
            after=after,
            steps=done,
            diff={"before": f"featureCompatibilityVersion {before}\n", "after": f"featureCompatibilityVersion {after}\n"},
        )


if __name__ == "__main__":
    main()
