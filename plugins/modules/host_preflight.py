#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_preflight
short_description: Check whether a host can serve its purpose in a site
version_added: 0.1.0
description:
  - Reads operating system, Python, memory, disk, links, cgroup version, networks and clock of a host and compares them with what its purposes need.
  - It never fails because of what it finds, and a host that cannot be reached or has no usable Python is a finding as well.
    M(onprem.circleci_server.site_preflight) joins the findings of all hosts and fails once.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  name:
    description: Name of the host in findings.
    type: str
    required: true
  purposes:
    description: Groups of the site model that the host is in, without C(circleci_).
    type: list
    elements: str
    default: []
  needs:
    description:
      - What the purposes need.
      - C(memory_bytes), C(disk) as a mapping of folder to free bytes, C(clock_seconds) as the allowed difference.
    type: dict
    default: {}
  controller_time:
    description: Time of the controller in seconds since the epoch; V(0) skips the comparison of clocks.
    type: float
    default: 0
  link_gbps:
    description: Speed in Gb/s that the vendor advises for Kubernetes nodes; V(0) does not look. It only warns, and says so where links tell no speed.
    type: int
    default: 0
  docker:
    description:
      - Options of C(daemon.json) of a Nomad client as install writes them. Their pools of addresses must meet none of O(networks) and none of the networks
        that the host has a way to. Empty does not look.
    type: dict
    default: {}
  networks:
    description: Networks of the site, from the filter P(onprem.circleci_server.site_networks#filter).
    type: list
    elements: dict
    default: []
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: Check the Nomad client
  onprem.circleci_server.host_preflight:
    name: nomad1
    purposes: [nomad_clients]
    needs:
      disk: {/var/lib/docker: 10737418240}
"""

RETURN = r"""
findings:
  description: One mapping for each check with C(check), C(level), C(subject), C(found), C(expected), C(source) and C(remedy).
  returned: always
  type: list
  elements: dict
docker_networks:
  description: Networks that O(docker) lets Docker take on a Nomad client.
  returned: when the host was looked at
  type: list
  elements: str
  sample: [10.10.0.0/16]
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.preflight.docker_networks import networks_of_docker
from ..module_utils.preflight.host import check_host


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "purposes": {"type": "list", "elements": "str", "default": []},
            "needs": {"type": "dict", "default": {}},
            "controller_time": {"type": "float", "default": 0},
            "link_gbps": {"type": "int", "default": 0},
            "docker": {"type": "dict", "default": {}},
            "networks": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    options = module.params
    findings = check_host(
        options["name"],
        options["purposes"],
        needs=options["needs"],
        controller_time=options["controller_time"],
        link_gbps=options["link_gbps"],
        docker=options["docker"] or None,
        networks=options["networks"],
    )
    taken = [str(network) for network in networks_of_docker(options["docker"])] if "nomad_clients" in options["purposes"] else []
    module.exit_json(changed=False, findings=[finding.as_dict() for finding in findings], docker_networks=taken)


if __name__ == "__main__":
    main()
