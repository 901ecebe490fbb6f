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
  - Makes one group for each kind of host (a security group of AWS, a firewall of DigitalOcean) and keeps its rules.
  - Groups and rules of others stay as they are. A group of the same name that lacks the mark of this collection is refused.
  - Which machines use a group is not its concern.
  - Credentials of AWS are those of the control host, as boto3 finds them; they are never an option.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
requirements:
  - boto3 (AWS only)
options:
  provider:
    description: The cloud.
    type: str
    required: true
    choices: [aws, digitalocean]
  site:
    description: Name of the site. It is part of the mark.
    type: str
    required: true
  groups:
    description: Groups by their names, each with its rules, as the filter P(onprem.circleci_server.cloud_firewalls#filter) gives them.
    type: dict
    required: true
  region:
    description: Region of AWS.
    type: str
    default: ""
  network:
    description: Id of the VPC of AWS.
    type: str
    default: ""
  token:
    description: Token of DigitalOcean. Empty takes E(DIGITALOCEAN_TOKEN) of the control host.
    type: str
    default: ""
  endpoint:
    description: URL of the API, where it is not the public one, for instance an interface endpoint of the VPC.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Reads the cloud, compares, and changes nothing.
  diff_mode:
    support: full
    description: Shows the rules of this collection, before and after.
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
  description: One entry for each group that differed, with C(name), C(added) and C(removed).
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.cloud_firewall import CloudError, Provider, changes, shown
from ..module_utils.cloud_firewall.aws import Aws
from ..module_utils.cloud_firewall.digitalocean import DigitalOcean


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "provider": {"type": "str", "required": True, "choices": ["aws", "digitalocean"]},
            "site": {"type": "str", "required": True},
            "groups": {"type": "dict", "required": True},
            "region": {"type": "str", "default": ""},
            "network": {"type": "str", "default": ""},
            "token": {"type": "str", "default": "", "no_log": True},
            "endpoint": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    done: list[str] = []
    try:
        cloud: Provider
        if given["provider"] == "aws":
            cloud = Aws(given["site"], given["region"], given["network"], given["endpoint"])
        else:
            cloud = DigitalOcean(given["site"], given["token"], given["endpoint"])
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
        changes=[{"name": item.name, "added": [str(key) for key in item.add], "removed": [str(key) for key in item.remove]} for item in todo],
    )


if __name__ == "__main__":
    main()
