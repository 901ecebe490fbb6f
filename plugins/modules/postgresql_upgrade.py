#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgresql_upgrade
short_description: Bring the PostgreSQL of the chart to another major version
version_added: 0.1.0
description:
  - Takes the volume of PostgreSQL away, starts the new version on an empty one, fills it from the dumps of a restore point, compares the rows of every
    table and makes the statistics anew. The application layer must be at zero since that restore point.
  - When the new version does not take the data, the old one gets them back, and nothing is lost.
  - While the data are on their way the StatefulSet carries the annotation C(onprem.circleci-server/unfinished-upgrade). A run that was killed is finished by
    the next one, and no verb of this collection starts CircleCI meanwhile.
  - The vendor's script runs C(pg_upgrade --link) as root instead. It is quicker with large databases, and has no way back.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.installed
  - onprem.circleci_server.database_step
options:
  image:
    description: Image that brings the version, in the private registry. Its tag begins with the version.
    type: str
    required: true
  path:
    description: Folder of the restore points on this host.
    type: path
    required: true
  id:
    description: The restore point that was just taken. Empty takes the last one of the release. Not needed in check mode.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Tells from which version to which it would go.
  diff_mode:
    support: full
    description: The major version before and after.
"""

EXAMPLES = r"""
- name: Bring PostgreSQL to 14
  onprem.circleci_server.postgresql_upgrade:
    kubeconfig: /etc/kubernetes/admin.conf
    name: circleci-server
    namespace: circleci-server
    image: registry.example.com:5000/server-postgres:14.22.4094-4922444
    path: /var/lib/onprem-circleci/restore-points
    id: "{{ restore_point.point.id }}"
"""

RETURN = r"""
before:
  description: The major version before.
  returned: success
  type: int
after:
  description: The major version afterwards, or what it would be.
  returned: success
  type: int
code:
  description: >-
    The case of an error, such as C(postgresql_step) (the old version runs again) or C(unfinished) (the data are whole in the restore point only).
  returned: on failure
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.database_step import DATABASE_STEP_SPEC, open_databases
from ..module_utils.operations.postgres_upgrade import PostgresUpgrade, open_step, postgres_of
from ..module_utils.operations.restore_points import Owner, RestorePoints
from ..module_utils.operations.stores import major_of
from ..module_utils.operations_module import told


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **DATABASE_STEP_SPEC,
            "image": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "id": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    with told(module):
        databases, progress = open_databases(module)
        store, _server = postgres_of(databases)
        before, after = major_of(databases.live_image(store)), major_of(params["image"])
        changed = open_step(databases, store, params["image"])
        if changed and not module.check_mode:
            points = RestorePoints(Path(params["path"]), databases.api)
            point = points.get(params["id"], Owner(params["name"], params["namespace"], params["domain"]))
            PostgresUpgrade(databases, points, point, progress).run(params["image"])
        module.exit_json(
            changed=changed, before=before, after=after, diff={"before": f"PostgreSQL {before}\n", "after": f"PostgreSQL {after}\n"}
        )


if __name__ == "__main__":
    main()
