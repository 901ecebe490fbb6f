#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cloud_firewall
short_description: Set the rules of a site in the firewall of its cloud
version_added: 0.1.0
description:
  - Makes one group for each kind of host and keeps its rules. A group is a security group of AWS, a network security group of Azure, a firewall of
    DigitalOcean, and in Google Cloud the VPC firewall rules for one target tag.
  - Groups and rules of others stay as they are. A group of the same name that lacks the mark of this collection is refused.
  - Which machines use a group is not its concern.
  - Without O(token) the credentials are those of the control host, as the library of the cloud finds them (boto3, google-auth, azure-identity).
  - Longer changes of Google, Azure and DigitalOcean are awaited. A cloud that asks for fewer questions is asked again when it says so, if that is
    within a minute.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.cloud
requirements:
  - boto3 (AWS)
  - google-auth and requests (Google Cloud, without O(token))
  - azure-identity (Azure, without O(token))
options:
  groups:
    description: Groups by their names, each with its rules, as the filter P(onprem.circleci_server.cloud_firewalls#filter) gives them.
    type: dict
    required: true
attributes:
  check_mode:
    support: full
    description: Reads the cloud, compares, and changes nothing.
  diff_mode:
    support: full
    description: Shows the rules of this collection, before and after, and what somebody else did to them.
"""

EXAMPLES = r"""
- name: Set the security groups
  onprem.circleci_server.cloud_firewall:
    provider: aws
    site: osaka
    region: us-west-2
    network: vpc-0123456789abcdef0
    groups: "{{ groups | onprem.circleci_server.cloud_firewalls(hostvars, inventory_hostname, '4.10.0', 'eks', {}, 'osaka') }}"
"""

RETURN = r"""
changes:
  description: One entry for each group that differed, with C(name), C(added), C(removed) and C(repaired), what somebody else had given another effect.
  returned: success
  type: list
  elements: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.cloud import CloudError
from ..module_utils.cloud_firewall import Provider, changes, shown
from ..module_utils.cloud_firewall.aws import Aws
from ..module_utils.cloud_firewall.azure import Azure
from ..module_utils.cloud_firewall.digitalocean import DigitalOcean
from ..module_utils.cloud_firewall.google import Google
from ..module_utils.cloud_module import CLOUD_SPEC


def _cloud(given: dict[str, Any]) -> Provider:
    site, region, network, token, endpoint = (str(given[name]) for name in ("site", "region", "network", "token", "endpoint"))
    if given["provider"] == "aws":
        return Aws(site, region, network, endpoint)
    if given["provider"] == "gcp":
        return Google(site, network, token, endpoint)
    if given["provider"] == "azure":
        return Azure(site, region, network, token, endpoint)
    return DigitalOcean(site, token, endpoint)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CLOUD_SPEC,
            "groups": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    done: list[str] = []
    try:
        cloud = _cloud(given)
        found = cloud.read(given["groups"])
        todo = changes(given["groups"], found)
        if not module.check_mode:
            for change in todo:
                cloud.apply(change)
                done.append(change.name)
    except CloudError as error:
        half = f" Already done: {', '.join(done)}; the same command goes on." if done else ""
        module.fail_json(msg="; ".join(error.problems) + "." + half, changed=bool(done))
    before, after = shown(found, todo)
    module.exit_json(
        changed=bool(todo),
        diff={"before": before, "after": after, "before_header": given["provider"], "after_header": given["provider"]},
        changes=[
            {
                "name": item.name,
                "added": [str(key) for key in item.add],
                "removed": [str(key) for key in item.remove],
                "repaired": [f"{key} ({found[item.name].edited[key]})" for key in item.repair],
            }
            for item in todo
        ],
    )


if __name__ == "__main__":
    main()
