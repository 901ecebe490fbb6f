#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: runner_instances
short_description: Ask a CircleCI server which machine runners it hears
version_added: 0.1.0
description:
  - Asks C(GET /api/v3/runner), which the vendor documents, once for each resource class. It changes nothing.
  - A server that does not answer, or refuses the token, is no failure but in RV(missing), so that a report can be written all the same.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  server:
    description: URL of the server, C(https://) and its domain.
    type: str
    required: true
  server_ca_certificate:
    description: PEM of the authority that signed the certificate of O(server). Empty trusts what the host trusts.
    type: str
    default: ""
  token:
    description: Personal API token of a member of the organization. Empty asks nothing, and RV(missing) says so.
    type: str
    default: ""
  resource_classes:
    description: Resource classes to ask for, C(namespace/class).
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: Ask which runners the server hears
  onprem.circleci_server.runner_instances:
    server: https://ci.example.com
    token: "{{ circleci_personal_token }}"
    resource_classes: [acme/linux]
"""

RETURN = r"""
asked:
  description: Whether the server answered for every class.
  returned: always
  type: bool
missing:
  description: Why it was not asked or did not answer, a sentence; empty when it did.
  returned: always
  type: str
runners:
  description: By name of the runner C(online), C(version) and C(last_connected). A runner that was not heard for 12 hours is not in it.
  returned: always
  type: dict
"""

import datetime
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.runner.api import RunnerApi, RunnerApiError, Unauthorized


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "server": {"type": "str", "required": True},
            "server_ca_certificate": {"type": "str", "default": ""},
            "token": {"type": "str", "default": "", "no_log": True},
            "resource_classes": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    found: dict[str, dict[str, Any]] = {}
    missing = "" if options["token"] else "Missing: circleci_personal_token"
    if not missing:
        try:
            api = RunnerApi(options["server"], options["token"], options["server_ca_certificate"])
            for name in dict.fromkeys(options["resource_classes"]):
                for item in api.instances(name):
                    online = item.online(datetime.datetime.now(datetime.timezone.utc))
                    found[item.name] = {"online": online, "version": item.version, "last_connected": item.last_connected}
        except Unauthorized as error:
            missing = f"{error}: circleci_personal_token must be that of a member of the organization"
        except RunnerApiError as error:
            missing = str(error)
    module.exit_json(changed=False, asked=not missing, missing=missing, runners=found)


if __name__ == "__main__":
    main()
