#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: private_registry
short_description: Run the private registry of a site on a host
version_added: 0.1.0
description:
  - Brings package, configuration, certificate, login, storage folder and systemd unit of a distribution registry into being with one call,
    and waits until it asks for a login and takes the given one.
  - The service that the Debian package would start by itself is kept from starting, as it would be open to everybody.
  - The password is kept as a bcrypt hash. As long as the hash fits the password, nothing changes.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  state:
    description:
      - V(present) sets it up, V(absent) takes it away.
      - V(inspected) only tells which packages are missing.
      - V(garbage_collected) deletes blobs that no manifest names. The registry stands still meanwhile.
    type: str
    choices: [present, absent, inspected, garbage_collected]
    default: present
  packages:
    description: Packages as M(onprem.circleci_server.bundle_extract) returns them, each with C(package), C(version), C(name) and C(sha256).
    type: list
    elements: dict
    default: []
  archive:
    description: Archive on the host with the files of O(packages). It is only looked at when one is to be installed.
    type: path
  storage_dir:
    description: Folder for what the registry holds.
    type: path
    required: true
  needed_bytes:
    description: Bytes that the disk of O(storage_dir) must have room for. What is stored already counts.
    type: int
    default: 0
  port:
    description: TCP port.
    type: int
    default: 5000
  address:
    description: Address to listen on. Empty listens on all.
    type: str
    default: ""
  certificate:
    description: PEM chain for the name of the registry.
    type: str
    default: ""
  private_key:
    description: PEM key that belongs to O(certificate).
    type: str
    default: ""
  username:
    description: User that reads and writes.
    type: str
    default: ""
  password:
    description: Password of O(username), at most 72 bytes.
    type: str
    default: ""
  purge_storage:
    description: With O(state=absent), delete what the registry holds as well. It cannot be undone.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Compares and writes nothing; the package's files need not be there.
  diff_mode:
    support: full
    description: Packages, files by digest, and the unit. Secrets are not shown.
"""

EXAMPLES = r"""
- name: Run the private registry
  onprem.circleci_server.private_registry:
    packages: "{{ feed.files }}"
    archive: /var/tmp/onprem-circleci-registry.tar
    storage_dir: /var/lib/onprem-circleci/registry
    certificate: "{{ certificate }}"
    private_key: "{{ private_key }}"
    username: site
    password: "{{ circleci_registry_password }}"
"""

RETURN = r"""
missing_packages:
  description: Packages that are or were to be installed.
  returned: when O(state=present) or O(state=inspected)
  type: list
  elements: str
restarted:
  description: Whether the service was or would be restarted.
  returned: when O(state=present)
  type: bool
freed_bytes:
  description: Bytes that collecting garbage gave back.
  returned: when O(state=garbage_collected)
  type: int
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.private_registry import Outcome, Registry, RegistryHostError, Wanted


def difference(outcome: Outcome) -> dict[str, str]:
    return {"before": "".join(f"{line}\n" for line in outcome.before), "after": "".join(f"{line}\n" for line in outcome.after)}


def run(module: AnsibleModule) -> dict[str, Any]:
    given = module.params
    write = not module.check_mode
    registry = Registry(
        Wanted(
            storage_dir=Path(given["storage_dir"]),
            certificate=given["certificate"],
            private_key=given["private_key"],
            users={given["username"]: given["password"]} if given["username"] else {},
            port=given["port"],
            address=given["address"],
            packages=given["packages"],
            archive=Path(given["archive"]) if given["archive"] else None,
            needed_bytes=given["needed_bytes"],
        )
    )
    state = given["state"]
    if state == "inspected":
        return {"changed": False, "missing_packages": [package["package"] for package in registry.missing_packages()]}
    if state == "absent":
        outcome = registry.remove(write=write, purge_storage=given["purge_storage"])
        return {"changed": outcome.changed, "diff": difference(outcome)}
    if state == "garbage_collected":
        outcome, freed = registry.collect_garbage(write=write)
        return {"changed": outcome.changed, "diff": difference(outcome), "freed_bytes": freed}
    outcome = registry.apply(write=write)
    return {"changed": outcome.changed, "diff": difference(outcome), "missing_packages": outcome.packages, "restarted": outcome.restarted}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent", "inspected", "garbage_collected"], "default": "present"},
            "packages": {"type": "list", "elements": "dict", "default": []},
            "archive": {"type": "path"},
            "storage_dir": {"type": "path", "required": True},
            "needed_bytes": {"type": "int", "default": 0},
            "port": {"type": "int", "default": 5000},
            "address": {"type": "str", "default": ""},
            "certificate": {"type": "str", "default": ""},
            "private_key": {"type": "str", "default": "", "no_log": True},
            "username": {"type": "str", "default": ""},
            "password": {"type": "str", "default": "", "no_log": True},
            "purge_storage": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except RegistryHostError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'the registry'}: {error.strerror or error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
