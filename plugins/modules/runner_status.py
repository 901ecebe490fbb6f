#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: runner_status
short_description: See how the machine runner of a host does
version_added: 0.1.0
description:
  - Reads the state of C(circleci-runner.service) and says in words what it means. It changes nothing.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  settle:
    description: Seconds that the runner must have been up to be called well. A wrong configuration ends it at once, right after its start was a success.
    type: float
    default: 0
  fail:
    description: Whether to fail when it does not run, with the end of its log.
    type: bool
    default: false
  token:
    description: Its token. Should the log repeat it, it is masked.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: It only reads, and waits for nothing.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: See that the runner stays up
  onprem.circleci_server.runner_status:
    settle: 5
    fail: true
"""

RETURN = r"""
state:
  description: >-
    V(running), V(draining) (it ends its job, then it restarts or stops), V(restarting) (it does not stay up), V(failed), V(stopped) or V(missing).
  returned: always
  type: str
detail:
  description: The same in words.
  returned: always
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.runner.status import last_words, settled


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "settle": {"type": "float", "default": 0},
            "fail": {"type": "bool", "default": False},
            "token": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    status = settled(0 if module.check_mode else module.params["settle"])
    result = {"state": status.state, "detail": status.detail}
    if module.params["fail"] and not status.well:
        log = last_words()
        said = f" Last lines of its log: {log}" if log else ""
        module.fail_json(msg=f"The runner of this host is not well: {status.detail}.{said}", **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
