#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: restore_point
short_description: Take a restore point of an installed release
version_added: 0.1.0
description:
  - Takes the application layer to zero, then writes each database of PostgreSQL, MongoDB, all Secrets of the namespace, the values and the Helm
    revision into a folder of its own below O(path), with a checksum of each file. Files have mode 0600, and the folder appears complete or not at all.
  - With O(keep_stopped) the application layer stays at zero. While it does, the same restore point is taken once only.
  - The object store, RabbitMQ, Redis and databases outside the cluster are not in it; the result says so, in check mode too.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.waiting
  - onprem.circleci_server.installed
requirements:
  - kubectl, within one minor of the cluster
  - kubernetes (Python library)
  - PyYAML
options:
  path:
    description: Folder on this host for restore points. It must outlive the run.
    type: path
    required: true
  target:
    description: Release that is to be installed next, empty when none.
    type: str
    default: ''
  keep_stopped:
    description: Whether the application layer stays at zero, for what is to be done next. Otherwise it comes up again, also after a failure.
    type: bool
    default: false
  keep:
    description:
      - How many restore points of this release to keep; the oldest ones beyond that are deleted after a new one was taken. V(0) deletes none.
      - Check mode lists them in RV(removed).
    type: int
    default: 0
  kubectl:
    description: The kubectl program, as a name or a path.
    type: str
    default: kubectl
attributes:
  check_mode:
    support: full
    description: Tells what would be stopped, and that a restore point would be taken.
  diff_mode:
    support: full
    description: Names of files, never their content.
"""

EXAMPLES = r"""
- name: Take a restore point
  onprem.circleci_server.restore_point:
    kubeconfig: /etc/kubernetes/admin.conf
    name: circleci-server
    namespace: circleci-server
    path: /var/lib/onprem-circleci/restore-points
"""

RETURN = r"""
point:
  description: The restore point with C(id), C(path), C(taken), C(release), C(revision), C(files) (size and checksum), C(databases) and C(not_in_it).
  returned: when there is one
  type: dict
not_in_it:
  description: What a restore point of this release does not hold.
  returned: success
  type: list
  elements: str
removed:
  description: Restore points that were deleted, or would be.
  returned: success
  type: list
  elements: str
scaled:
  description: Workloads that were taken to zero.
  returned: success
  type: list
  elements: str
code:
  description: The case of an error, such as C(no_release) or C(command).
  returned: on failure
  type: str
"""

from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.helm.lifecycle import ProgressFile
from ..module_utils.helm.objects import parse_documents
from ..module_utils.helm.releases import StoredRelease
from ..module_utils.helm.waiter import Patience
from ..module_utils.operations.kubectl import Kubectl
from ..module_utils.operations.layers import Layers
from ..module_utils.operations.restore_points import Owner, RestorePoint, RestorePoints, omitted
from ..module_utils.operations.stores import Databases
from ..module_utils.operations_module import RELEASE_SPEC, WAIT_SPEC, client, need_release, told


def still_good(points: RestorePoints, owner: Owner, present: StoredRelease, layers: Layers, target: str) -> Optional[RestorePoint]:
    """The last one, while nothing can have been written since: the application layer has been at zero from before it on."""
    last = points.own(owner)[-1:]
    if not last or not layers.stopped():
        return None
    point = last[0]
    return point if (point.revision, point.release, point.target) == (present.revision, present.chart_version, target) else None


def shown(point: RestorePoint) -> str:
    return "".join(f"{point.folder}/{name} ({entry['size']} bytes)\n" for name, entry in sorted(point.files.items()))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **RELEASE_SPEC,
            **WAIT_SPEC,
            "path": {"type": "path", "required": True},
            "target": {"type": "str", "default": ""},
            "keep_stopped": {"type": "bool", "default": False},
            "keep": {"type": "int", "default": 0},
            "kubectl": {"type": "str", "default": "kubectl"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if params["keep"] < 0:
        module.fail_json(msg=f"circleci_restore_point_keep is {params['keep']}: allowed is a number of restore points to keep, or 0 to delete none.")
    with told(module):
        api = client(module)
        present = need_release(api, params)
        documents = parse_documents(present.manifest)
        progress = ProgressFile("" if module.check_mode else params["progress_file"] or "")
        layers = Layers(
            api,
            params["namespace"],
            documents,
            patience=Patience(total=params["wait_timeout"]),
            expected_to_fail=params["expected_to_fail"],
            progress=progress,
        )
        points = RestorePoints(Path(params["path"]), api)
        owner = Owner(params["name"], params["namespace"], params["domain"])
        known = still_good(points, owner, present, layers, params["target"]) if params["keep_stopped"] else None
        common: dict[str, Any] = {"not_in_it": omitted(present, documents), "removed": []}
        if known is not None:
            points.verify(known)
            module.exit_json(changed=False, point=known.plain(), scaled=[], diff={"before": "", "after": ""}, **common)
        old = points.surplus(params["keep"], owner, coming=True)
        common["removed"] = [point.id for point in old]
        before = "".join(f"{point.folder}\n" for point in old)
        if module.check_mode:
            scaled = [str(scale) for scale in layers.scales(stopped=True) if scale.differs]
            after = "".join(f"{line}\n" for line in [*scaled, f"a restore point of revision {present.revision} below {params['path']}"])
            module.exit_json(changed=True, scaled=scaled, diff={"before": before, "after": after}, **common)
        pods = Kubectl(params["kubectl"], params["kubeconfig"], params["namespace"], context=params["context"])
        try:
            scales = layers.stop()
            progress({"phase": "restore point", "done": 0, "total": 0, "waiting_for": ["dumps of the databases"]})
            databases = Databases(api, pods, params["namespace"], present, documents, progress=progress)
            point = points.take(present, databases, params["namespace"], params["target"])
        finally:
            if not params["keep_stopped"]:
                layers.start()
        for surplus in old:
            points.forget(surplus)
        result: dict[str, Any] = {"point": point.plain(), "scaled": [str(scale) for scale in scales]}
        module.exit_json(changed=True, diff={"before": before, "after": shown(point)}, **result, **common)


if __name__ == "__main__":
    main()
