#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nomad_client_status
short_description: See on a Nomad client what makes its jobs fail though everything runs
version_added: 0.1.0
description:
  - Reads the version of cgroups, the state of C(docker-gc.service) and how full the disk of Docker is. It changes nothing and never fails because of what
    it finds; M(onprem.circleci_server.service_health) tells it with the catalog's words.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options: {}
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: See how the client does
  onprem.circleci_server.nomad_client_status:
"""

RETURN = r"""
cgroup:
  description: V(v1) or V(v2).
  returned: always
  type: str
docker_gc:
  description: V(running), V(restarting) (it was started at least three times and does not stay up), V(stopped) or V(missing).
  returned: always
  type: str
docker_disk_full:
  description: Whether nine tenths of the disk of C(/var/lib/docker) are used.
  returned: always
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.nomad.client_state import read_state


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(changed=False, **read_state())


if __name__ == "__main__":
    main()
