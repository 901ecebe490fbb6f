# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives the Nomad client of this host a new identity where its servers do not know the one it has.

Servers that lost their state, as when all of them were restarted together, deny a client that shows them the secret of a node they have
never seen: Nomad 1.11 answers Permission denied to its heartbeats, and a client of 1.7 sends them for ever, since it registers again only
when it is told that its node is not found, or when its fingerprint changes. What ran on it is lost with the state of the servers, so
nothing more is lost by a new identity.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from ..host.units import HostError, Runner, run_command
from .client import NomadClient
from .transport import NomadError, Transport

ADDRESS = "http://127.0.0.1:4646"
REGISTERED_SECONDS = 120
"""How long a client with a new identity may take until the servers know it."""
IDENTITY = ("client-id", "secret-id")


@dataclass(frozen=True)
class Found:
    """What was found and done. *state* is ``known``, ``unknown`` (the servers answer and do not know the client), ``silent`` (they do not
    answer, so nobody knows) or ``missing`` (no client answers on this host)."""

    state: str
    changed: bool
    detail: str


class Registration:
    """The client of this host and what its servers know of it. *patience* is how long they may take to know it by themselves, in seconds."""

    def __init__(
        self,
        transport: Transport,
        data: Path,
        unit: str,
        patience: float,
        *,
        run: Runner = run_command,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nomad = NomadClient(transport)
        self._data, self._unit, self._patience = data, unit, patience
        self._run, self._sleep, self._clock = run, sleep, clock

    def ensure(self, check: bool) -> Found:
        """A client that the servers do not know gets a new identity, or with *check* would get it. HostError when they do not know that either."""
        # A look does not wait: what it sees unknown might be known a moment later, and would then be left alone.
        found = self._wait(0 if check else self._patience)
        if found.state != "unknown":
            return found
        if check:
            return Found("unknown", True, f"{found.detail} It would get a new identity.")
        self._systemctl("stop")
        for name in IDENTITY:
            (self._data / "client" / name).unlink(missing_ok=True)
        self._systemctl("start")
        now = self._wait(REGISTERED_SECONDS)
        if now.state != "known":
            raise HostError(
                f"The Nomad client of this host got a new identity, since its servers did not know the one it had, and is not known after "
                f"{REGISTERED_SECONDS} seconds either. {now.detail} Its log: journalctl -u {self._unit}"
            )
        return Found("known", True, "The servers did not know the client, as after the loss of their state. It has a new identity now, which they know.")

    def _wait(self, seconds: float) -> Found:
        end = self._clock() + seconds
        while True:
            found = self._look()
            if found.state == "known" or self._clock() >= end:
                return found
            self._sleep(1)

    def _look(self) -> Found:
        own: Optional[str] = None
        try:
            own = self._nomad.own_node()
            if not own:
                return Found("missing", False, "The Nomad agent of this host is no client.")
            if any(node.id == own for node in self._nomad.nodes()):
                return Found("known", False, "The servers know the client.")
        except NomadError as error:
            if own is None:
                return Found("missing", False, f"No Nomad client answers on this host ({error}).")
            return Found("silent", False, f"The servers of the client do not answer ({error}).")
        return Found("unknown", False, f"The servers answer, and do not know node {own[:8]}.")

    def _systemctl(self, verb: str) -> None:
        done = self._run(["systemctl", verb, self._unit])
        if done.returncode != 0:
            raise HostError(f"systemctl {verb} {self._unit}: {(done.stderr or done.stdout).strip()}. Its log: journalctl -u {self._unit}")
