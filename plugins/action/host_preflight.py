# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module of the same name and makes a finding of a host that cannot be looked at, so that the others are looked at all the same."""

from __future__ import annotations

import getpass
import typing as t

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.onprem.circleci_server.plugins.module_utils.preflight.findings import PROBLEM, Finding

_SSH = ("ssh", "ansible.builtin.ssh", "paramiko", "ansible.builtin.paramiko_ssh", "paramiko_ssh")


class ActionModule(ActionBase):
    """See the module."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        host = str((task_vars or {}).get("inventory_hostname", "the host"))
        try:
            result: dict[str, t.Any] = self._execute_module(task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            return _told(self._unreachable(host, _words(error)))
        except AnsibleError as error:
            return _told(_unusable(host, _words(error)))
        if result.get("unreachable"):
            return _told(self._unreachable(host, _words(result.get("msg"))))
        if "findings" not in result:
            return _told(_unusable(host, " ".join(_words(result.get(key)) for key in ("msg", "module_stderr") if result.get(key))))
        return result

    def _unreachable(self, host: str, words: str) -> Finding:
        transport = str(getattr(self._connection, "transport", ""))
        if transport not in _SSH:
            remedy = "Correct ansible_connection and its options, or take the host out of the inventory."
            return _finding("host_reachable", host, f"no way in by {transport}: {words}", "a connection of Ansible", remedy)
        # Ansible leaves out what ssh decides by itself.
        user = self._option("remote_user") or getpass.getuser()
        address, port = self._option("host") or host, self._option("port") or "22"
        remedy = f"Try `ssh -p {port} {user}@{address} true`; correct ansible_host, ansible_port or ansible_user."
        return _finding("host_reachable", host, f"{user}@{address}:{port} could not be reached: {words}", "a login over ssh", remedy)

    def _option(self, name: str) -> str:
        try:
            return str(self._connection.get_option(name) or "")
        except KeyError:
            return ""


def _unusable(host: str, words: str) -> Finding:
    remedy = "Install Python 3.9 or newer on the host and let ansible_python_interpreter name it; see that ansible_become works."
    return _finding("host_python", host, f"the check could not run: {words[:400]}", "a Python that Ansible can use", remedy)


def _finding(check: str, host: str, found: str, expected: str, remedy: str) -> Finding:
    return Finding(check, PROBLEM, host, found, expected, "onprem.circleci_server", remedy)


def _words(text: object) -> str:
    return " ".join(str(text or "").split()).removeprefix("Task failed: ").removeprefix("Failed to connect to the host via ssh: ")


def _told(finding: Finding) -> dict[str, t.Any]:
    return {"changed": False, "findings": [finding.as_dict()]}
