#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Ansible module service_health: which services of the release run, and what fails for users when one does not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_health
short_description: Look at all services of a release and say what fails when one is down
version_added: 0.1.0
description:
  - Compares the workloads of the namespace with the services of the catalog and gives each service a state, its restarts and the images that run.
  - Changes nothing and does not fail because of what it finds.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
requirements:
  - kubernetes
options:
  kubeconfig:
    description: Kubeconfig file on this host.
    type: path
    required: true
  namespace:
    description: Namespace of the release.
    type: str
    required: true
  services:
    description: Services of the release, from the filter P(onprem.circleci_server.service_wants#filter).
    type: list
    elements: dict
    required: true
  kubernetes_range:
    description: Kubernetes versions that fit the release, as C(minimum-maximum). Empty does not compare.
    type: str
    default: ""
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Will return details on what has changed when in diff mode; nothing ever changes.
    support: none
  platform:
    description: Target OS or families that can be operated against.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Look at the services
  onprem.circleci_server.service_health:
    kubeconfig: /etc/onprem-circleci/kubeconfig
    namespace: circleci-server
    services: "{{ '4.10.0' | onprem.circleci_server.service_wants }}"
"""

RETURN = r"""
health:
  description:
    - C(services), each with C(name), C(component), C(description), C(impact), C(state) (V(healthy), V(degraded), V(down), V(missing),
      V(not installed), V(unknown)), C(detail) and C(workloads).
    - C(unexplained) names workloads of the namespace that no service explains, C(unbound_claims) volume claims that are not bound,
      C(kubernetes) the version of the cluster.
  returned: success
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.health import assess, read_namespace
from ..module_utils.helm.kube import KubeError, KubernetesClient


def minor(text: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(part) for part in text.strip().split(".")[:2])


def in_range(version: str, span: str) -> bool:
    """Whether a version lies within C(minimum-maximum), minors compared."""
    low, _dash, high = span.partition("-")
    try:
        return minor(low) <= minor(version) <= minor(high or low)
    except ValueError:
        return False


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "namespace": {"type": "str", "required": True},
            "services": {"type": "list", "elements": "dict", "required": True},
            "kubernetes_range": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        found = read_namespace(KubernetesClient(options["kubeconfig"]), options["namespace"])
    except KubeError as error:
        module.fail_json(msg=error.sentence)
    health: dict[str, Any] = assess(options["services"], found)
    if options["kubernetes_range"]:
        health["kubernetes_range"] = options["kubernetes_range"]
        health["kubernetes_state"] = "ok" if in_range(health["kubernetes"], options["kubernetes_range"]) else "wrong"
    module.exit_json(changed=False, health=health)


if __name__ == "__main__":
    main()
