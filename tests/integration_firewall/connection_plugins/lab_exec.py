# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's way into a host of the lab: each command is one TCP connection to the server of lab.py, so that a packet filter can cut it off as it cuts SSH."""

from __future__ import annotations

import base64
import json
import socket

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: lab_exec
short_description: Run commands on a host of the lab
description: The address is ansible_host, the port ansible_port. Needs pipelining.
author: Contributors to onprem.circleci_server
options: {}
"""


class Connection(ConnectionBase):
    """One connection for each command."""

    transport = "lab_exec"
    has_pipelining = True

    def _connect(self) -> Connection:
        return self

    def _open(self, timeout: float) -> socket.socket:
        where = (str(self._play_context.remote_addr), int(self._play_context.port))
        try:
            return socket.create_connection(where, timeout)
        except OSError as error:
            raise AnsibleConnectionFailure(f"{where[0]} port {where[1]} cannot be reached: {error}") from error

    def transport_test(self, connect_timeout: float) -> None:
        """What wait_for_connection asks."""
        self._open(connect_timeout).close()

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        with self._open(3) as peer:
            peer.settimeout(None)
            peer.sendall(json.dumps({"command": cmd, "input": base64.b64encode(in_data or b"").decode()}).encode() + b"\n")
            with peer.makefile("rb") as stream:
                answer = json.loads(stream.readline())
        return answer["code"], base64.b64decode(answer["out"]), base64.b64decode(answer["err"])

    def put_file(self, in_path: str, out_path: str) -> None:
        raise NotImplementedError

    def fetch_file(self, in_path: str, out_path: str) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        """There is nothing that stays open."""

    def close(self) -> None:
        """There is nothing that stays open."""
