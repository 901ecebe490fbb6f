#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nomad_registration
short_description: See that the Nomad servers know the client of a host
version_added: 0.1.0
description:
  - Asks the client of the host for its node, and through it the servers for the nodes that they know.
  - Servers that lost their state, as when all of them were restarted together, deny a client that they do not know, and it goes on asking for ever.
    Such a client is stopped, gets a new identity and is started. What ran on it was lost with the state of the servers.
  - Where no client answers, or its servers do not, nothing is changed. Whether the client takes jobs is the matter of
    M(onprem.circleci_server.infrastructure_probe).
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  data_dir:
    description: C(data_dir) of the client's configuration.
    type: path
    default: /opt/nomad
  unit:
    description: Its systemd unit.
    type: str
    default: nomad
  patience:
    description: Seconds that the servers may take to know the client by themselves. A client tries again every 15 to 30 seconds.
    type: float
    default: 60
attributes:
  check_mode:
    support: full
    description: It looks once, without waiting.
  diff_mode:
    support: none
    description: An identity is made by Nomad and not known before.
"""

EXAMPLES = r"""
- name: See that the Nomad servers know the client
  onprem.circleci_server.nomad_registration:
"""

RETURN = r"""
state:
  description: >-
    V(known), V(unknown) (only in check mode: it would get a new identity), V(silent) (the servers do not answer), V(missing) (no client answers).
  returned: always
  type: str
detail:
  description: The same in words.
  returned: always
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.host.units import HostError
from ..module_utils.nomad.registration import ADDRESS, Registration
from ..module_utils.nomad.transport import AddressTransport


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "data_dir": {"type": "path", "default": "/opt/nomad"},
            "unit": {"type": "str", "default": "nomad"},
            "patience": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        found = Registration(AddressTransport(ADDRESS), Path(given["data_dir"]), given["unit"], given["patience"]).ensure(module.check_mode)
    except HostError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=found.changed, state=found.state, detail=found.detail)


if __name__ == "__main__":
    main()
