#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cloud_registry_access
short_description: Let the nodes of a cluster pull from the registry of its cloud
version_added: 0.1.0
description:
  - Attaches a policy of AWS to the roles of the nodes, binds a role of a repository of Artifact Registry to their service accounts, assigns a role of a
    registry of Azure to the identity of their kubelets, or integrates the registry of DigitalOcean with the cluster.
  - A right that is there already, also by a role that lets do more, is left as it is. Nothing is ever taken away.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.cloud
requirements:
  - boto3 (AWS)
  - google-auth and requests (Google Cloud, without O(token))
  - azure-identity (Azure, without O(token))
options:
  registry_host:
    description: Address of the registry, C(host) without a scheme.
    type: str
    required: true
  registry:
    description:
      - C(projects/<project>/locations/<place>/repositories/<name>) of Google Cloud, or the id of the registry of Azure. Its address has to be O(registry_host).
        AWS and DigitalOcean need none.
    type: str
    default: ""
  nodes:
    description:
      - Names of IAM roles of AWS, service accounts of Google Cloud, ids of clusters of Azure or DigitalOcean.
    type: list
    elements: str
    required: true
  grants:
    description:
      - Roles that let pull, as the filter P(onprem.circleci_server.cloud_registry_options#filter) gives them from the catalog. DigitalOcean needs none.
    type: list
    elements: dict
    default: []
    suboptions:
      role:
        description: Its name for people.
        type: str
        required: true
      id:
        description: What the API of the cloud takes.
        type: str
        required: true
      mode:
        description: Mode of the registry of Azure that it is for.
        type: str
      also:
        description: Ids of roles that let pull as well.
        type: list
        elements: str
        default: []
attributes:
  check_mode:
    support: full
    description: Reads the cloud, compares, and changes nothing.
  diff_mode:
    support: full
    description: Shows who may pull, and by what, before and after.
"""

EXAMPLES = r"""
- name: Let the nodes pull from ECR
  onprem.circleci_server.cloud_registry_access:
    provider: aws
    site: osaka
    region: us-west-2
    registry_host: 123456789012.dkr.ecr.us-west-2.amazonaws.com
    nodes: [example-nodes]
    grants:
      - role: AmazonEC2ContainerRegistryPullOnly
        id: AmazonEC2ContainerRegistryPullOnly
        also: [AmazonEC2ContainerRegistryReadOnly]
"""

RETURN = r"""
changes:
  description: One line for each right that was or would be given.
  returned: success
  type: list
  elements: str
notes:
  description: What somebody else has to do, and why.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.cloud import CloudError, part_api
from ..module_utils.cloud_module import CLOUD_SPEC, Part, run
from ..module_utils.cloud_registry_access import (
    IntegratedClusters,
    KubeletIdentities,
    NodeAccounts,
    NodeRoles,
)
from ..module_utils.cloud_registry_access.model import grants


def _part(given: dict[str, Any]) -> Part:
    site, region, token, endpoint, host, registry = (str(given[name]) for name in ("site", "region", "token", "endpoint", "registry_host", "registry"))
    nodes, roles = given["nodes"], grants(given["grants"])
    if given["provider"] == "digitalocean":
        return IntegratedClusters(host, nodes, token, endpoint)
    if not roles:
        raise CloudError("grants: found none; name a role that lets pull, as the filter cloud_registry_options gives them")
    if given["provider"] == "aws":
        return NodeRoles(region, host, nodes, roles[0], endpoint)
    if given["provider"] == "gcp":
        return NodeAccounts(registry, host, nodes, roles[0], token, part_api("registry", "gcp", region, "", endpoint))
    return KubeletIdentities(site, registry, host, nodes, roles, region, token, endpoint)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CLOUD_SPEC,
            "registry_host": {"type": "str", "required": True},
            "registry": {"type": "str", "default": ""},
            "nodes": {"type": "list", "elements": "str", "required": True},
            "grants": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "role": {"type": "str", "required": True},
                    "id": {"type": "str", "required": True},
                    "mode": {"type": "str"},
                    "also": {"type": "list", "elements": "str", "default": []},
                },
            },
        },
        supports_check_mode=True,
    )
    run(module, _part)


if __name__ == "__main__":
    main()
