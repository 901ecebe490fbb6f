#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: human_gate
short_description: Find the first step of a site that only a person can take
version_added: 0.1.0
description:
  - Goes through the gates in their order and returns the first one that is open, with one sentence that says what to do.
  - A gate with C(resolves) is passed when each of its names resolves to its address, and only then.
  - A gate that no program can look at is passed by running the same command again after it was shown, or by naming it in O(passed).
  - What was passed is kept in a record, so that a gate is asked once in the life of a site.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  gates:
    description:
      - Gates in their order, each with C(name) and C(sentence).
      - C(resolves) may hold C(names) and C(address), which may be a name too, as load balancers of clouds have one.
      - C(waits_for) may be a list of what still has to be given. The gate is open as long as something is in it.
    type: list
    elements: dict
    required: true
  passed:
    description: Names of gates that are known to be done. They are not shown; one with C(resolves) or C(waits_for) is believed.
    type: list
    elements: str
    default: []
  record:
    description: File that keeps what was asked and passed.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: It returns the open gate and writes nothing.
  diff_mode:
    support: full
    description: Shows which gates the record names as passed.
"""

EXAMPLES = r"""
- name: Find the first open gate
  onprem.circleci_server.human_gate:
    gates:
      - name: dns
        sentence: Let ci.example.com and app.ci.example.com resolve to 10.0.0.5
        resolves: {names: [ci.example.com, app.ci.example.com], address: 10.0.0.5}
    record: /var/lib/onprem-circleci/records/gates.json
  register: gate
"""

RETURN = r"""
open:
  description: Name of the first open gate, empty when all are passed.
  returned: always
  type: str
sentence:
  description: What a person must do now, empty when all gates are passed.
  returned: always
  type: str
"""

import socket
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.records import RecordError, read_record, write_record


def resolved(name: str) -> list[str]:
    """Addresses of a name; an address is its own."""
    try:
        return sorted({str(info[4][0]) for info in socket.getaddrinfo(name, None)})
    except OSError:
        return []


def unresolved(names: list[str], address: str) -> list[str]:
    """Those of *names* that do not lead to *address* (or a name that the load balancer has), each with what they resolve to."""
    wanted = {address, *resolved(address)}
    wrong = []
    for name in names:
        found = resolved(name)
        if not wanted.intersection(found):
            wrong.append(f"{name} ({', '.join(found) or 'no address'})")
    return wrong


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "gates": {"type": "list", "elements": "dict", "required": True},
            "passed": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "record": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["record"])
    try:
        record = read_record(path)
    except RecordError as error:
        module.fail_json(msg=str(error))
    before: list[str] = list(record.get("passed", []))
    asked: list[str] = list(record.get("asked", []))
    passed: list[str] = list(before)
    result: dict[str, Any] = {"open": "", "sentence": ""}
    for gate in module.params["gates"]:
        name = gate["name"]
        wanted = gate.get("resolves")
        if wanted and name not in module.params["passed"]:
            wrong = unresolved(list(wanted["names"]), str(wanted["address"]))
            if wrong:
                result = {"open": name, "sentence": f"{gate['sentence']}; now: {', '.join(wrong)}. Then run the same command again."}
                passed = [item for item in passed if item != name]
                break
        elif "waits_for" in gate:
            if gate["waits_for"] and name not in module.params["passed"]:
                result = {"open": name, "sentence": f"{gate['sentence']}. Then run the same command again."}
                passed = [item for item in passed if item != name]
                break
        elif name not in passed and name not in module.params["passed"] and name not in asked:
            result = {"open": name, "sentence": f"{gate['sentence']}. Then run the same command again."}
            asked.append(name)
            break
        if name not in passed:
            passed.append(name)
    asked = [name for name in asked if name not in passed]
    changed = passed != before
    if not module.check_mode:
        write_record(path, {"passed": passed, "asked": asked})
    module.exit_json(
        changed=changed,
        diff={
            "before": "".join(f"{name}\n" for name in before),
            "after": "".join(f"{name}\n" for name in passed),
            "before_header": str(path),
            "after_header": str(path),
        },
        **result,
    )


if __name__ == "__main__":
    main()
