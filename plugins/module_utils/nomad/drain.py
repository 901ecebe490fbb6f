# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drains the Nomad client of this host before something under its jobs is restarted, and lets it take jobs again after that.

The client is asked at its own address on this host, which hands on to the servers, so it needs no rights in the cluster. A file
tells a later run that the client was drained by us: a run that was killed in between is finished by the next one, and a client
that somebody else has set aside stays aside.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable, Optional

from .client import Node, NomadClient
from .transport import NomadError, Transport

ADDRESS = "http://127.0.0.1:4646"
READY_SECONDS = 180
"""How long a client may take after its restart until the servers call it ready; its heartbeats are up to half a minute apart."""
BEYOND_SECONDS = 300
"""How long the servers may take after the deadline to stop what still runs."""


class DrainError(Exception):
    """One sentence for the operator."""


class NodeDrain:
    """The client of this host."""

    def __init__(
        self,
        transport: Transport,
        deadline: int,
        marker: Path,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nomad = NomadClient(transport)
        self._deadline = deadline
        self._marker = marker
        self._sleep, self._clock = sleep, clock
        self.notes: list[str] = []

    def due(self) -> bool:
        """Whether an earlier run drained the client and did not come to its end."""
        return self._marker.exists()

    def before(self, check: bool) -> str:
        """Let the jobs end and take no new ones. What was, or would be, done; empty when there is nothing to drain."""
        if self._deadline <= 0:
            return ""
        node = self._find()
        if node is None:
            return ""
        if node.eligible and not check:
            self._marker.parent.mkdir(parents=True, exist_ok=True)
            self._marker.write_text(f"{node.id}\n", encoding="ascii")
        if not check:
            self._drain(node)
        return "drain the Nomad client"

    def after(self, check: bool, drained: bool) -> str:
        """Take jobs again, if it was us who set the client aside. *drained* is what check mode has to go by."""
        if check:
            node = self._find() if drained else None
            return "let the Nomad client take jobs again" if self.due() or (node is not None and node.eligible) else ""
        if not self.due():
            return ""
        wanted = self._marker.read_text(encoding="ascii").strip()
        end = self._clock() + READY_SECONDS
        last = "no answer"
        while True:
            try:
                node = self._nomad.node(self._nomad.own_node())
                if node.id != wanted:
                    break  # a client that lost its data is a new one, and takes jobs
                if node.status == "ready":
                    self._nomad.make_eligible(node.id)
                    break
                last = f"its state is {node.status}"
            except NomadError as error:
                last = str(error)
            if self._clock() >= end:
                raise DrainError(
                    f"The Nomad client was restarted and is not ready after {READY_SECONDS} seconds ({last}): it takes no jobs. "
                    "Look at `journalctl -u nomad`, then run the same command again."
                )
            self._sleep(1)
        self._marker.unlink()
        return "let the Nomad client take jobs again"

    def _find(self) -> Optional[Node]:
        """The node of this host, None where there is none whose jobs a drain could save."""
        try:
            own = self._nomad.own_node()
        except NomadError:
            return None  # nothing listens: a host without a client, or one that does not run
        if not own:
            return None
        try:
            return self._nomad.node(own)
        except NomadError as error:
            # Jobs outlive a restart of their client. Refusing it here would keep a client from being mended that cannot reach its servers.
            self.notes.append(f"The Nomad client of this host is restarted without being drained: its servers do not answer ({error}).")
            return None

    def _drain(self, node: Node) -> None:
        try:
            self._nomad.drain(node.id, self._deadline)
            end = self._clock() + self._deadline + BEYOND_SECONDS
            while True:
                # The servers end the drain when nothing runs any more, at the latest by stopping what is left at the deadline.
                running = self._nomad.running(node.id)
                if not running and not self._nomad.node(node.id).draining:
                    return
                if self._clock() >= end:
                    names = ", ".join(sorted(running)[:5]) or "nothing that can be seen"
                    raise DrainError(
                        f"{node.name} is not drained {BEYOND_SECONDS} seconds after its deadline: {names} runs still. Stop it with `nomad job stop`, or "
                        "set circleci_nomad_client_drain_deadline to 0 to restart the client all the same; then run the same command again."
                    )
                self._sleep(1)
        except NomadError as error:
            raise DrainError(f"{node.name} cannot be drained: {error} Set circleci_nomad_client_drain_deadline to 0 to restart it all the same.") from error
