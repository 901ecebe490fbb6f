#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: installed_release
short_description: Tell which release of CircleCI Server is installed, and what an upgrade has to know of it
version_added: 0.1.0
description:
  - Reads what Helm has stored, the version of the cluster and the databases that run. Changes nothing.
  - A release of another chart, or one of another site, is refused.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.installed
requirements:
  - kubernetes (Python library)
  - PyYAML
attributes:
  check_mode:
    support: full
    description: Nothing is ever changed.
  diff_mode:
    support: none
    description: Nothing is ever changed.
"""

EXAMPLES = r"""
- name: Ask what is installed
  onprem.circleci_server.installed_release:
    kubeconfig: /etc/kubernetes/admin.conf
    name: circleci-server
    namespace: circleci-server
"""

RETURN = r"""
version:
  description: Version of the chart of the last revision, empty when there is none.
  returned: success
  type: str
  sample: 4.9.5
status:
  description: Status of the last revision in Helm's words.
  returned: success
  type: str
  sample: deployed
revision:
  description: Number of the last revision, 0 when there is none.
  returned: success
  type: int
kubernetes:
  description: Version of the cluster.
  returned: success
  type: str
mongodb:
  description: Tag of the image of the MongoDB of the chart, empty when it lies outside the cluster.
  returned: success
  type: str
postgresql:
  description: Tag of the image of the PostgreSQL of the chart, empty when it lies outside the cluster.
  returned: success
  type: str
postgresql_unfinished:
  description: Restore point that its data are on their way from into another version, empty when they are whole.
  returned: success
  type: str
vault:
  description: Whether Vault is in use.
  returned: success
  type: bool
machine_service:
  description: Whether machine-provisioner (before 4.3 vm-service) is switched on.
  returned: success
  type: bool
code:
  description: The case of an error, such as C(foreign_release).
  returned: on failure
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.helm.kube import KubeApi, get_or_none
from ..module_utils.helm.objects import parse_documents
from ..module_utils.helm.releases import StoredRelease
from ..module_utils.operations.stores import MONGODB, POSTGRES, UNFINISHED, find_store, tag_of, value_at
from ..module_utils.operations_module import RELEASE_SPEC, client, find_release, told


def vault_in_use(values: dict[str, Any], chart_values: dict[str, Any]) -> bool:
    """Tink takes its place where it is switched on; releases before 4.1 know no Tink."""
    enabled = value_at(values, "tink.enabled", value_at(chart_values, "tink.enabled", False))
    return str(enabled).lower() not in ("true", "1")


def machines(values: dict[str, Any], chart_values: dict[str, Any]) -> bool:
    for key in ("machine_provisioner.enabled", "vm_service.enabled"):
        found = value_at(values, key, value_at(chart_values, key))
        if found is not None:
            return str(found).lower() in ("true", "1")
    return False


def live_store(api: KubeApi, namespace: str, present: StoredRelease, product: str) -> tuple[str, str]:
    """Tag of a database that runs, and what its data are on their way from. The manifest says what Helm wanted; steps are made beside it."""
    store = find_store(parse_documents(present.manifest), product)
    if store is None:
        return "", ""
    live = get_or_none(api, f"/apis/apps/v1/namespaces/{namespace}/statefulsets/{store.name}")
    containers = live["spec"]["template"]["spec"]["containers"] if live else []
    image = next((str(item["image"]) for item in containers if item["name"] == store.container), store.image)
    return tag_of(image), str(((live or {}).get("metadata", {}).get("annotations") or {}).get(UNFINISHED) or "")


def facts(api: KubeApi, namespace: str, present: StoredRelease) -> dict[str, Any]:
    postgresql, unfinished = live_store(api, namespace, present, POSTGRES)
    return {
        "version": present.chart_version,
        "status": present.status,
        "revision": present.revision,
        "mongodb": live_store(api, namespace, present, MONGODB)[0],
        "postgresql": postgresql,
        "postgresql_unfinished": unfinished,
        "vault": vault_in_use(present.values, present.chart_values),
        "machine_service": machines(present.values, present.chart_values),
    }


def main() -> None:
    module = AnsibleModule(argument_spec={**RELEASE_SPEC}, supports_check_mode=True)
    with told(module):
        api = client(module)
        found: dict[str, Any] = {
            "version": "", "status": "", "revision": 0, "mongodb": "", "postgresql": "", "postgresql_unfinished": "", "vault": False,
            "machine_service": False,
        }  # fmt: skip
        present = find_release(api, module.params)
        if present is not None:
            found = facts(api, module.params["namespace"], present)
        kubernetes = str(api.request("GET", "/version").get("gitVersion", ""))
        module.exit_json(changed=False, kubernetes=kubernetes, **found)


if __name__ == "__main__":
    main()
