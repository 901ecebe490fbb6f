# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Brings one host's own scope to the plan, with a way back that the host takes by itself."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from . import firewalld, ufw
from .base import FOLDER, UNIT, Backend, Change, Snapshot
from .errors import FirewallError
from .firewalld import Firewalld
from .iptables import Iptables
from .nftables import Nftables
from .plan import Plan, plan_of, together
from .system import System
from .ufw import Ufw
from .way_in import WayIn, check_way_in

STATE = "/var/lib/onprem-circleci-firewall"
RECORD = STATE + "/record.json"
PENDING = STATE + "/pending"
REVERTED = STATE + "/reverted"
REVERT = STATE + "/revert.sh"
BACKUP = STATE + "/backup"
TIMER = "onprem-circleci-firewall-revert"
BACKENDS: dict[str, type[Backend]] = {"nftables": Nftables, "firewalld": Firewalld, "ufw": Ufw, "iptables": Iptables}
VERSION = 1


@dataclass
class Outcome:
    """What a call did or would do."""

    changed: bool = False
    backend: str = ""
    before: str = ""
    after: str = ""
    rules: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    pending: bool = False
    reverted: str = ""
    warnings: list[str] = field(default_factory=list)


class Engine:
    """Packet filter of the host behind ``system``."""

    def __init__(self, system: System) -> None:
        self.system = system

    # Which filter rules the host

    def active(self) -> list[Backend]:
        """Filters with a manager that runs."""
        return [found for found in (firewalld.running(self.system), ufw.running(self.system)) if found is not None]

    def choose(self, wanted: str) -> Backend:
        """The backend; two managers at once, and another one than asked for, are refused."""
        if wanted not in ("auto", *BACKENDS):
            raise FirewallError(f"backend {wanted!r} is unknown; known are auto, {', '.join(BACKENDS)}")
        if self.system.kernel != "Linux":
            raise FirewallError(
                f"this host runs {self.system.kernel}, and there is no backend for its packet filter; put it into circleci_runners_macos or "
                "circleci_runners_windows and load what the verb plan prints for it"
            )
        managers = self.active()
        active = [manager.name for manager in managers]
        if len(active) > 1:
            raise FirewallError(
                f"two packet filters are active on this host ({' and '.join(active)}) and undo each other's work; "
                f"switch one off, for instance with `systemctl disable --now {active[0]}` or `ufw disable`"
            )
        if active and wanted not in ("auto", active[0]):
            raise FirewallError(
                f"backend {wanted} is asked for, but {active[0]} is active on this host and decides first; "
                f"use backend {active[0]} or auto, or switch it off"
            )
        if wanted in ("firewalld", "ufw") and not active:
            raise FirewallError(f"backend {wanted} is asked for, but it is not active on this host; start it or use auto")
        if active:
            return managers[0]
        if wanted in ("auto", "nftables") and self.system.which("nft"):
            return Nftables(self.system)
        if wanted in ("auto", "iptables") and self.system.which("iptables-restore"):
            return Iptables(self.system)
        missing = {"nftables": "nft", "iptables": "iptables"}.get(wanted, "nft or iptables")
        raise FirewallError(f"no packet filter to work with: {missing} is not installed on this host; install it")

    # What was recorded

    def _record(self) -> dict[str, Any]:
        text = self.system.read(RECORD)
        if not text:
            return {}
        try:
            data = json.loads(text)
        except ValueError:
            return {}
        return data if isinstance(data, dict) and data.get("version") == VERSION else {}

    def _plans(self, record: dict[str, Any], without: set[str]) -> dict[str, Plan]:
        """Plans that other sites have on this host. What an earlier release recorded names no site, and is that of whoever comes."""
        try:
            return {str(name): plan_of(data) for name, data in record.get("sites", {}).items() if name and name not in without}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise FirewallError(
                f"{RECORD} cannot be read, so that rules of other sites on this host would be lost: restore it, or remove it and run "
                "the same command for each site"
            ) from None

    # The three verbs

    def apply(
        self,
        plan: Optional[Plan],
        backend: str = "auto",
        check: bool = False,
        revert_after: int = 60,
        ways: Sequence[WayIn] = (),
        site: str = "",
        former_sites: Sequence[str] = (),
    ) -> Outcome:
        """Bring our scope to the plan, or take it away with None, and with a plan that would hold nothing.

        With a C(site) the plan is that site's, and those that others have on this host stay. Without, it is all that our scope holds.
        """
        record = self._record()
        sites = self._plans(record, {site, *former_sites}) if site else {}
        if plan is not None and plan.lines():
            sites[site] = plan
        plan = together([sites[name] for name in sorted(sites)])
        recorded_sites = {name: found.as_data() for name, found in sorted(sites.items())}
        chosen = self.choose(backend)
        if plan is not None and plan.mode not in chosen.modes:
            raise FirewallError(
                f"mode {plan.mode} is for {', '.join(n for n, c in BACKENDS.items() if plan.mode in c.modes)}; {chosen.name} "
                "has a default policy of its own, use guard with it"
            )
        if plan is not None:
            check_way_in(plan, list(ways))
        self._refuse_second_scope(chosen, record)
        now = chosen.snapshot()
        recorded = str(record.get("live", ""))
        outcome = Outcome(backend=chosen.name, warnings=chosen.warnings(), reverted=(self.system.read(REVERTED) or "").strip())
        wanted = plan.lines() if plan is not None else []
        have = [str(line) for line in record.get("lines", [])]
        outcome.changed = not chosen.reached(plan, now, recorded) or self._unit_wrong(chosen, plan, now)
        outcome.changed = outcome.changed or record.get("sites", recorded_sites) != recorded_sites
        present = chosen.reached_recorded(record, now) if record else bool(have)
        if outcome.changed and not present and have:
            # Somebody took our rules away or edited them: then the record is not what the host has.
            have = [f"(differs from what was recorded) {line}" for line in have]
        outcome.rules = wanted
        outcome.added = [line for line in wanted if line not in have]
        outcome.removed = [line for line in have if line not in wanted]
        outcome.before = "".join(f"{line}\n" for line in have)
        outcome.after = "".join(f"{line}\n" for line in wanted)
        if not outcome.changed or check:
            return outcome
        self._apply(chosen, plan, now, record, revert_after, {"lines": wanted, "sites": recorded_sites})
        outcome.pending = revert_after > 0
        if plan is None and not outcome.pending:
            self._forget()
        return outcome

    def confirm(self) -> Outcome:
        """Keep the last change: called over a connection that was opened after it."""
        outcome = Outcome(backend=str(self._record().get("backend", "")))
        reverted = self.system.read(REVERTED)
        pending = self.system.read(PENDING)
        if pending is None:
            outcome.reverted = (reverted or "").strip()
            if reverted is not None:
                raise FirewallError(
                    "the change of packet filter rules was not confirmed in time and the host took it back "
                    f"at {reverted.strip()}; the rules would have cut Ansible off, or the run was too slow for revert_after"
                )
            return outcome
        self.system.remove(PENDING)
        # Whoever took the pending mark away first has won; the revert script looks for it under a rename.
        if self.system.systemd():
            self.system.run(["systemctl", "stop", TIMER + ".timer"])
            self.system.run(["systemctl", "reset-failed", TIMER + ".timer", TIMER + ".service"])
        self._clean_backup()
        if not self._record().get("backend"):
            self._forget()
        return outcome

    # Inside

    def _forget(self) -> None:
        """Nothing of ours is left on the host, so nothing has to be remembered or undone."""
        shutil.rmtree(self.system.path(STATE), ignore_errors=True)
        with contextlib.suppress(OSError):  # it may hold what somebody else put there
            os.rmdir(self.system.path(FOLDER))

    def _refuse_second_scope(self, chosen: Backend, record: dict[str, Any]) -> None:
        before = str(record.get("backend", ""))
        if not before or before == chosen.name or not record.get("lines"):
            return
        old = BACKENDS[before](self.system)
        if before in ("nftables", "iptables") and old.snapshot().live:
            raise FirewallError(
                f"this host still has our rules in {before}, but {chosen.name} is to be used now; "
                f"take them away first with state absent and backend {before}"
            )

    def _unit_wrong(self, chosen: Backend, plan: Optional[Plan], now: Snapshot) -> bool:
        if plan is None or not self.system.systemd():
            return False
        return self.system.run(["systemctl", "is-enabled", "--quiet", UNIT]).code != 0

    def _apply(
        self,
        chosen: Backend,
        plan: Optional[Plan],
        now: Snapshot,
        record: dict[str, Any],
        revert_after: int,
        told: dict[str, Any],
    ) -> None:
        change = chosen.change(plan, now)
        token = secrets.token_hex(8)
        self._prepare_way_back(chosen.undo(now, plan), record, token)
        self.system.remove(REVERTED)
        if revert_after > 0:
            self.system.write(PENDING, token + "\n")
            self._arm(revert_after, token)
        try:
            systemd = change.unit and self.system.systemd()
            if systemd and plan is None:
                self.system.run(["systemctl", "disable", "--quiet", UNIT])
            self._write(change)
            self._run(change.script)
            if systemd:
                self.system.run(["systemctl", "daemon-reload"], check=True)
            if systemd and plan is None:
                # Its file is gone, and with it what it would run at its end; it only has to stop counting as active.
                self.system.run(["systemctl", "stop", "--quiet", UNIT])
            if systemd and plan is not None:
                self.system.run(["systemctl", "enable", "--quiet", UNIT], check=True)
                # Started at once, so that a restart of nftables.service takes it along; loading twice changes nothing.
                self.system.run(["systemctl", "start", UNIT], check=True)
        except FirewallError:
            # Half a change is worse than none.
            self.system.write(PENDING, token + "\n")
            self.system.run(["sh", self.system.path(REVERT), token])
            self.system.remove(REVERTED)
            raise
        after = chosen.settled(plan, now)
        self.system.write(
            RECORD,
            json.dumps(
                {
                    "version": VERSION,
                    "backend": chosen.name if plan is not None else "",
                    **told,
                    "live": after.live if plan is not None else "",
                    "files": after.files if plan is not None else {},
                },
                sort_keys=True,
            )
            + "\n",
        )

    def _write(self, change: Change) -> None:
        for name, content in change.files.items():
            if content is None:
                self.system.remove(name)
            else:
                self.system.write(name, content, 0o644 if name.endswith(".service") else 0o600)

    def _run(self, script: str) -> None:
        done = self.system.run(["sh", "-s"], stdin=script)
        if done.code:
            raise FirewallError(f"the packet filter refused the rules: {(done.err or done.out).strip()[-600:]}")

    def _prepare_way_back(self, undo: Change, record: dict[str, Any], token: str) -> None:
        """A script that needs nothing but a shell, since it runs when nobody can come in."""
        self._clean_backup()
        text = "#!/bin/sh\n# Undoes the last change of packet filter rules; see docs/how-to/firewall.md of the collection.\n"
        text += "set -u\n"
        pending = shlex.quote(self.system.path(PENDING))
        # The rename decides the race with a confirmation that comes at the last moment.
        text += f'[ "$(cat {pending} 2>/dev/null)" = "$1" ] || exit 0\n'
        text += f"mv {pending} {pending}.taken || exit 0\n"
        for number, (name, content) in enumerate(sorted(undo.files.items())):
            target = shlex.quote(self.system.path(name))
            if content is None:
                text += f"rm -f {target}\n"
            else:
                saved = f"{BACKUP}/{number}"
                self.system.write(saved, content)
                text += f"cat {shlex.quote(self.system.path(saved))} > {target}\n"
        text += f"sh -s <<'END_OF_SCRIPT'\n{undo.script}\nEND_OF_SCRIPT\n"
        if self.system.systemd():
            text += "systemctl daemon-reload\n"
        saved = f"{BACKUP}/record"
        self.system.write(saved, json.dumps(record) if record else "{}")
        text += f"cat {shlex.quote(self.system.path(saved))} > {shlex.quote(self.system.path(RECORD))}\n"
        text += f"date -u +%Y-%m-%dT%H:%M:%SZ > {shlex.quote(self.system.path(REVERTED))}\n"
        text += f"rm -f {pending}.taken\n"
        self.system.write(REVERT, text, 0o700)

    def _arm(self, seconds: int, token: str) -> None:
        script = self.system.path(REVERT)
        if self.system.systemd():
            self.system.run(["systemctl", "stop", TIMER + ".timer"])
            self.system.run(["systemctl", "reset-failed", TIMER + ".timer", TIMER + ".service"])
            self.system.run(
                ["systemd-run", "--quiet", f"--unit={TIMER}", f"--on-active={seconds}", "--timer-property=AccuracySec=1s",
                 "/bin/sh", script, token],
                check=True,
            )  # fmt: skip
        else:
            self.system.spawn(["/bin/sh", "-c", f"sleep {int(seconds)}; exec /bin/sh {shlex.quote(script)} {token}"])

    def _clean_backup(self) -> None:
        folder = self.system.path(BACKUP)
        if os.path.isdir(folder):
            for name in os.listdir(folder):
                os.unlink(os.path.join(folder, name))
