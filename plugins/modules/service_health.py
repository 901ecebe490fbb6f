#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Ansible module service_health: which services of the release run, and what fails for users when one does not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_health
short_description: Look at all services of a release, what runs out, and known ways to fail
version_added: 0.1.0
description:
  - Compares the workloads of the namespace with the services of the catalog and gives each service a state, its restarts and the images that run.
  - Tells days left of each certificate in the namespace's Secrets, how full disks and volumes are, what waits in queues, versions apart from each
    other, and which of the known ways to fail the site shows. What cannot be asked is told as not measured. No content of a Secret is returned.
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
  further_namespaces:
    description: Namespaces of workloads that belong to the site and not to the release. One that is not there has none.
    type: list
    elements: str
    default: []
  services:
    description: Services of the release, from the filter P(onprem.circleci_server.service_wants#filter).
    type: list
    elements: dict
    required: true
  kubernetes_range:
    description: Kubernetes versions that fit the release, as C(minimum-maximum). Empty does not compare.
    type: str
    default: ""
  platform:
    description: Platform of the site, for the known ways to fail.
    type: str
    default: ""
  registry:
    description: Private registry as images name it. Empty does not look where images come from.
    type: str
    default: ""
  failure_modes:
    description: Known ways to fail of the release, from the filter P(onprem.circleci_server.failure_wants#filter).
    type: list
    elements: dict
    default: []
  licence_end:
    description: Last day of the licence as C(YYYY-MM-DD). The vendor does not document where the licence itself says it; empty reports it as unknown.
    type: str
    default: ""
  clients:
    description: What M(onprem.circleci_server.nomad_client_status) found on Nomad clients, by host. Clients that are not in it are not judged.
    type: dict
    default: {}
  agents:
    description:
      - Where jobs load their agents, with C(url) and C(trees) of the filter P(onprem.circleci_server.agent_trees#filter). They are loaded from there without
        a login, and compared with the sums beside them. Empty does not look.
    type: dict
    default: {}
  ca_certificate:
    description: PEM of a private authority that signed the certificate of the address in O(agents).
    type: str
    default: ""
  nomad_service:
    description: Nomad's service as the API server's proxy names it.
    type: str
    default: nomad-server:4646
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
    - C(certificates), each with C(name) and C(days_left); C(licence) with C(present), C(end) and C(days_left); C(storage), each with C(name),
      C(used_bytes), C(capacity_bytes) and C(used_percent); C(queues), each with C(name) and C(waiting); C(versions), each with C(component),
      C(found), C(expected) and C(state); C(findings) for known ways to fail; C(unmeasured), each with C(what) and C(why).
  returned: success
  type: dict
"""

import datetime
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.health import assess, known_failures, licence_of, read_namespace, read_upkeep, versions_of
from ..module_utils.health.agents import look_at_agents
from ..module_utils.helm.kube import KubeApi, KubeError, KubernetesClient


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


def is_date(text: str) -> bool:
    """Whether a text is a day."""
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def upkeep(api: KubeApi, workloads: list[dict[str, Any]], options: dict[str, Any]) -> dict[str, Any]:
    """What runs out or drifts; a user of the cluster who may not look is told, and the services are judged all the same."""
    try:
        found = read_upkeep(api, options["namespace"], options["nomad_service"])
        kubernetes = str(api.request("GET", "/version").get("gitVersion", ""))
    except KubeError as error:
        return {"unmeasured": [{"what": "certificates, licence, disks, queues and versions", "why": error.sentence}]}
    agents = options["agents"]
    site = {
        **found, "workloads": workloads, "platform": options["platform"], "registry": options["registry"], "clients": options["clients"],
        "agents": look_at_agents(str(agents.get("url") or ""), agents.get("trees") or (), options["ca_certificate"]),
    }  # fmt: skip
    today = datetime.datetime.now(datetime.timezone.utc).date()
    return {
        **{name: found[name] for name in ("certificates", "storage", "queues", "unmeasured")},
        "licence": licence_of(found["licence"], options["licence_end"], today),
        "versions": versions_of(found, kubernetes),
        "findings": known_failures(options["failure_modes"], site),
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "namespace": {"type": "str", "required": True},
            "further_namespaces": {"type": "list", "elements": "str", "default": []},
            "services": {"type": "list", "elements": "dict", "required": True},
            "kubernetes_range": {"type": "str", "default": ""},
            "platform": {"type": "str", "default": ""},
            "registry": {"type": "str", "default": ""},
            "failure_modes": {"type": "list", "elements": "dict", "default": []},
            "licence_end": {"type": "str", "default": ""},
            "clients": {"type": "dict", "default": {}},
            "agents": {"type": "dict", "default": {}},
            "ca_certificate": {"type": "str", "default": ""},
            "nomad_service": {"type": "str", "default": "nomad-server:4646"},
        },
        supports_check_mode=True,
    )
    options = module.params
    if options["licence_end"] and not is_date(options["licence_end"]):
        module.fail_json(msg=f"licence_end is {options['licence_end']!r}; a day written as 2027-03-31 is needed, or nothing")
    try:
        api = KubernetesClient(options["kubeconfig"])
        found = read_namespace(api, options["namespace"])
        for namespace in options["further_namespaces"]:
            more = read_namespace(api, namespace)
            for part in ("workloads", "pods", "claims"):
                found[part] += more[part]
    except KubeError as error:
        module.fail_json(msg=error.sentence)
    health: dict[str, Any] = assess(options["services"], found)
    if options["kubernetes_range"]:
        health["kubernetes_range"] = options["kubernetes_range"]
        health["kubernetes_state"] = "ok" if in_range(health["kubernetes"], options["kubernetes_range"]) else "wrong"
    health.update(upkeep(api, found["workloads"], options))
    module.exit_json(changed=False, health=health)


if __name__ == "__main__":
    main()
