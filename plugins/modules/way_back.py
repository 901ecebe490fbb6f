#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: way_back
short_description: Go back to the release of a restore point
version_added: 0.1.0
description:
  - As long as no table of PostgreSQL has been migrated, Helm goes back and nothing is lost. Afterwards databases and Secrets are brought back
    from the restore point, and Helm goes back then. Which way is open is looked up by comparing the tables, not remembered.
  - Says what would be lost before it does anything, and refuses without O(confirmed).
  - A killed run goes on with the same call. A restore point that has been brought back is not brought back again.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.chart_registry
  - onprem.circleci_server.waiting
  - onprem.circleci_server.installed
requirements:
  - kubectl, within one minor of the cluster
  - helm 3.16 or later
  - kubernetes (Python library)
  - PyYAML
options:
  path:
    description: Folder on this host with the restore points.
    type: path
    required: true
  id:
    description: Which restore point. The last one when empty.
    type: str
    default: ''
  confirmed:
    description: Whether the operator has read what is lost and said yes.
    type: bool
    default: false
  only_lossless:
    description:
      - Go only where nothing is lost, and ask for no yes then; otherwise leave everything stopped and tell what is open.
      - For the end of an upgrade that has failed.
    type: bool
    default: false
  chart:
    description: The chart as C(oci://host/path) in the private registry, of the release of the restore point. Needed when MongoDB stays newer.
    type: str
    default: ''
  helm:
    description: The helm program, as a name or a path.
    type: str
    default: helm
  kubectl:
    description: The kubectl program, as a name or a path.
    type: str
    default: kubectl
  state_file:
    description: File on this host that remembers what the cluster itself changes on objects right after a rollout.
    type: path
attributes:
  check_mode:
    support: full
    description: Looks which way is open and tells it.
  diff_mode:
    support: full
    description: The release before and after.
"""

EXAMPLES = r"""
- name: Go back
  onprem.circleci_server.way_back:
    kubeconfig: /etc/kubernetes/admin.conf
    name: circleci-server
    namespace: circleci-server
    path: /var/lib/onprem-circleci/restore-points
    confirmed: true
"""

RETURN = r"""
way:
  description: C(none), C(helm), C(helm_keep_databases), C(restore), or C(unknown) while a database cannot be asked.
  returned: always
  type: str
lines:
  description: What is done and what is lost, for people.
  returned: always
  type: list
  elements: str
gone:
  description: Whether the way was gone.
  returned: success
  type: bool
point:
  description: The restore point.
  returned: always
  type: dict
revision:
  description: Revision that is installed now.
  returned: when the way was gone
  type: int
code:
  description: The case of an error, such as C(not_confirmed), C(damaged) or C(no_restore_point).
  returned: on failure
  type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.helm.cli import Helm, Source
from ..module_utils.helm.kube import KubeApi
from ..module_utils.helm.lifecycle import Lifecycle, ProgressFile, Wanted
from ..module_utils.helm.objects import Masker
from ..module_utils.helm.releases import StoredRelease
from ..module_utils.helm.waiter import Patience
from ..module_utils.mirror_module import forget_payload
from ..module_utils.operations.kubectl import Kubectl, OperationError
from ..module_utils.operations.restore_points import Owner, RestorePoints
from ..module_utils.operations.way_back import NONE, UNKNOWN, Way, WayBack
from ..module_utils.operations_module import (
    REGISTRY_SPEC,
    RELEASE_SPEC,
    WAIT_SPEC,
    chart_source,
    client,
    need_release,
    told,
)


def wait_until_ready(api: KubeApi, helm: Helm, module: AnsibleModule, source: Source, release: StoredRelease, progress: ProgressFile) -> None:
    params = module.params
    wanted = Wanted(params["name"], params["namespace"], source, release.values, state_file=params["state_file"] or "")
    lifecycle = Lifecycle(api, helm, wanted, progress=progress)
    outcome = lifecycle.wait(release, Patience(total=params["wait_timeout"]), params["expected_to_fail"])
    if not outcome.ready:
        raise OperationError("not_ready", f"CircleCI Server {release.chart_version} is back and did not become ready: {' '.join(outcome.problems)}")
    lifecycle.remember()


def go(back: WayBack, way: Way, module: AnsibleModule, result: dict[str, Any]) -> Way:
    """Decide with the application layer stopped; afterwards nothing can change what was found."""
    params = module.params
    if not params["confirmed"] and not params["only_lossless"]:
        sentence = " ".join(way.lines())
        module.fail_json(
            msg=f"{sentence} Run the same command again with circleci_rollback_confirmed: true.", code="not_confirmed", changed=False, **result
        )
    way = back.prepare(way.point)
    if way.kind == UNKNOWN:
        raise OperationError("unknown", " ".join(way.lines()))
    return way


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **RELEASE_SPEC,
            **WAIT_SPEC,
            **REGISTRY_SPEC,
            "path": {"type": "path", "required": True},
            "id": {"type": "str", "default": ""},
            "confirmed": {"type": "bool", "default": False},
            "only_lossless": {"type": "bool", "default": False},
            "chart": {"type": "str", "default": ""},
            "helm": {"type": "str", "default": "helm"},
            "kubectl": {"type": "str", "default": "kubectl"},
            "state_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    forget_payload(module)
    params = module.params
    masker = Masker([params["registry_password"]])
    progress = ProgressFile("" if module.check_mode else params["progress_file"] or "")
    with told(module):
        api = client(module)
        before = need_release(api, params)
        points = RestorePoints(Path(params["path"]), api)
        owner = Owner(params["name"], params["namespace"], params["domain"])
        point = points.get(params["id"], owner)
        if not point.is_of(owner):
            site = f" of the site {point.domain}" if point.domain else ""
            raise OperationError("foreign", f"circleci_restore_point: {point.id} is of release {point.name} in namespace {point.namespace}{site}.")
        source = chart_source(params["chart"], point.release, params)
        pods = Kubectl(params["kubectl"], params["kubeconfig"], params["namespace"], context=params["context"], masker=masker)
        with Helm(params["helm"], params["kubeconfig"], params["namespace"], context=params["context"], masker=masker) as helm:
            back = WayBack(api, helm, pods, points, source=source, only_lossless=params["only_lossless"], progress=progress)
            way = back.look(point)
            result: dict[str, Any] = {"way": way.kind, "lines": way.lines(), "point": point.plain()}
            diff = {"before": f"{before.chart_version}\n", "after": f"{point.release}\n"}
            if way.kind == NONE:
                if not module.check_mode:
                    wait_until_ready(api, helm, module, source, before, progress)
                module.exit_json(changed=False, gone=True, revision=before.revision, **result)
            if module.check_mode:
                module.exit_json(changed=True, gone=False, diff=diff, **result)
            points.verify(point)
            way = go(back, way, module, result)
            result.update(way=way.kind, lines=way.lines())
            if params["only_lossless"] and not way.lossless:
                module.exit_json(changed=True, gone=False, **result)
            release = back.go(way)
            wait_until_ready(api, helm, module, source, release, progress)
            module.exit_json(changed=True, gone=True, revision=release.revision, diff=diff, **result)


if __name__ == "__main__":
    main()
