#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_units
short_description: Users, folders, files and systemd units of one concern in one call
version_added: 0.1.0
description:
  - Compares all users, folders, files and units of a concern with the host in memory and applies the difference once.
  - A unit is restarted exactly when a file that it watches has changed; it is started when it is not running.
  - In check mode it works on an empty host too, where neither the folders nor the units exist yet.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  users:
    description: System users, each with a group of the same name, that services run as and nobody can log in as.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name of user and group., type: str, required: true}
      home:
        description: Home of a user that is made here. One that is there keeps its own. The folder itself belongs into O(directories).
        type: path
        default: /nonexistent
      state:
        description: V(absent) takes the user away when its units are stopped and its folders are gone.
        type: str
        choices: [present, absent]
        default: present
  directories:
    description: Folders that must be there, parents before children.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Full path., type: path, required: true}
      mode: {description: Permissions., type: str, default: "0755"}
      owner: {description: User. Empty is the one that the module runs as., type: str, default: root}
      group: {description: Group. Empty is the one that the module runs as., type: str, default: root}
  absent_directories:
    description: Folders that must not be there. They are removed with all that is in them; a disk that is mounted at one is emptied and stays.
    type: list
    elements: path
    default: []
  files:
    description: Files with their contents, or files that must not be there.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Full path., type: path, required: true}
      content: {description: Text of the file., type: str}
      secret_content: {description: "Text of the file that is never shown; wins over O(files[].content).", type: str}
      mode: {description: Permissions., type: str, default: "0644"}
      owner: {description: User., type: str, default: root}
      group: {description: Group., type: str, default: root}
      state: {description: Whether the file is to be there., type: str, choices: [present, absent], default: present}
  units:
    description: Systemd units, in the order in which they are started.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name of the unit. Without a dot it is a service., type: str, required: true}
      content: {description: Text of the unit's file in /etc/systemd/system. Without it a package brings the file., type: str}
      enabled: {description: Whether it starts at boot., type: bool, default: true}
      state:
        description: V(absent) stops and disables the unit and removes its file.
        type: str
        choices: [started, stopped, absent]
        default: started
      restart: {description: "Restart the unit if it runs, since something changed that is no file of this call.", type: bool, default: false}
      wait:
        description:
          - Whether to wait until a unit that runs has been restarted. With V(false) systemd restarts it when it has ended what it does, which may take hours,
            and a run that finds it ending changes nothing.
        type: bool
        default: true
      restart_on: {description: Paths whose change restarts the unit. Without it every file of the call does., type: list, elements: path}
  drain:
    description:
      - Drains the Nomad client of this host before one of the units that runs is stopped or restarted, and lets it take jobs again when it is ready after
        that. A client that somebody else has set aside stays aside.
      - It asks the client at its own address on this host. Where none answers there is nothing to drain; where its servers do not, it says so and goes on.
    type: dict
    suboptions:
      units: {description: Names of the units., type: list, elements: str, required: true}
      deadline: {description: "Seconds that jobs have to end; then the servers stop them. V(0) does not drain.", type: int, required: true}
      marker:
        description: File that tells the next run of a client that was drained and does not take jobs again yet.
        type: path
        required: true
attributes:
  check_mode:
    support: full
    description: Says what would change.
  diff_mode:
    support: full
    description: Shows the contents of files, those of secret files only as differing, and nothing of files that go.
"""

EXAMPLES = r"""
- name: Run the registry
  onprem.circleci_server.host_units:
    directories:
      - {path: /etc/docker/registry, mode: "0750"}
    files:
      - path: /etc/docker/registry/config.yml
        content: "{{ config }}"
    units:
      - name: docker-registry
"""

RETURN = r"""
changes:
  description: One line for each thing that was or would be changed.
  returned: always
  type: list
  elements: str
  sample: ["file /etc/docker/registry/config.yml", "restart docker-registry.service"]
restarted:
  description: Units that were or would be restarted.
  returned: always
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.host.units import HostError, HostUnits, file_from, folder_from, unit_from, user_from
from ..module_utils.nomad.drain import ADDRESS, DrainError, NodeDrain
from ..module_utils.nomad.transport import AddressTransport

_ATTRIBUTES = {"owner": {"type": "str", "default": "root"}, "group": {"type": "str", "default": "root"}}


class QuietModule(AnsibleModule):
    """Ansible writes the options of each call to the log of the system, where it does not mask a secret of several lines that is an option of an option."""

    def log(self, msg: Any, log_args: Any = None) -> None:
        """Write nothing."""


def main() -> None:
    module = QuietModule(
        argument_spec={
            "users": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "home": {"type": "path", "default": "/nonexistent"},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                },
            },
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"path": {"type": "path", "required": True}, "mode": {"type": "str", "default": "0755"}, **_ATTRIBUTES},
            },
            "absent_directories": {"type": "list", "elements": "path", "default": []},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str"},
                    "secret_content": {"type": "str", "no_log": True},
                    "mode": {"type": "str", "default": "0644"},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                    **_ATTRIBUTES,
                },
            },
            "units": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "content": {"type": "str"},
                    "enabled": {"type": "bool", "default": True},
                    "state": {"type": "str", "choices": ["started", "stopped", "absent"], "default": "started"},
                    "restart": {"type": "bool", "default": False},
                    "restart_on": {"type": "list", "elements": "path"},
                    "wait": {"type": "bool", "default": True},
                },
            },
            "drain": {
                "type": "dict",
                "options": {
                    "units": {"type": "list", "elements": "str", "required": True},
                    "deadline": {"type": "int", "required": True},
                    "marker": {"type": "path", "required": True},
                },
            },
        },
        supports_check_mode=True,
    )
    options = module.params
    drain, around = options["drain"], {}
    if drain:
        client = NodeDrain(AddressTransport(ADDRESS), drain["deadline"], Path(drain["marker"]))
        around = {name if "." in name else f"{name}.service": client for name in drain["units"]}
    try:
        outcome = HostUnits(
            [folder_from(item) for item in options["directories"]],
            [file_from(item) for item in options["files"]],
            [unit_from(item) for item in options["units"]],
            users=[user_from(item) for item in options["users"]],
            absent_folders=[Path(path) for path in options["absent_directories"]],
            around=around,
        ).apply(check=module.check_mode)
    except (HostError, DrainError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'the host'}: {error.strerror or error}.")
    for note in client.notes if drain else ():
        module.warn(note)
    module.exit_json(changed=outcome.changed, changes=outcome.changes, restarted=outcome.restarted, diff=outcome.diff)


if __name__ == "__main__":
    main()
