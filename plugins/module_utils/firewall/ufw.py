# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""ufw: tuples of our own in its own rule files, told apart by their comment, loaded the way ufw itself loads them."""

from __future__ import annotations

import binascii
import re
from typing import Optional

from .base import Backend, Change, Snapshot, quote
from .errors import FirewallError
from .iptables import ANYWHERE, Iptables, chunks
from .plan import Plan
from .system import System

USER = {4: "/etc/ufw/user.rules", 6: "/etc/ufw/user6.rules"}
CONF = "/etc/ufw/ufw.conf"
MARK = "onprem-circleci"
START = "### RULES ###\n"
END = "### END RULES ###\n"


def _hex(text: str) -> str:
    return binascii.hexlify(text.encode()).decode()


def tuples(plan: Plan, version: int) -> str:
    """Our tuples of one address family in ufw's own form."""
    chain = "ufw-user-input" if version == 4 else "ufw6-user-input"
    result = []

    def add(action: str, protocol: str, span: list[tuple[int, int]], source: str, rule_id: str) -> None:
        ports = ",".join(str(low) if low == high else f"{low}:{high}" for low, high in span)
        match = f"-m multiport --dports {ports}" if "," in ports or ":" in ports else f"--dport {ports}"
        origin = "" if source == ANYWHERE[version] else f" -s {source}"
        plain = source.split("/")[0] if source.endswith("/32") or source.endswith("/128") else source
        target = "ACCEPT" if action == "allow" else "DROP"
        result.append(
            f"\n### tuple ### {action} {protocol} {ports} {ANYWHERE[version]} any {plain} in"
            f" comment={_hex(f'{MARK} {rule_id}')}\n"
            f"-A {chain} -p {protocol} {match}{origin.replace(source, plain)} -j {target}\n"
        )

    for item in plan.accepts:
        sources = [ANYWHERE[version]] if item.anywhere(version) else list(item.family(version))
        for source in sources:
            for span in chunks(item.ports):
                add("allow", item.protocol, span, source, item.id)
    if plan.mode == "guard":
        for protocol in ("tcp", "udp"):
            for span in chunks(plan.guarded(protocol)):
                add("deny", protocol, span, ANYWHERE[version], "everybody else")
    return "".join(result)


_TUPLE = re.compile(r"\n### tuple ### [^\n]* comment=([0-9a-f]+)\n(?:-A [^\n]*\n)*")


def without_ours(text: str) -> tuple[str, str]:
    """A rule file without our tuples, and our tuples."""
    mine: list[str] = []

    def drop(match: re.Match[str]) -> str:
        try:
            comment = binascii.unhexlify(match.group(1)).decode(errors="replace")
        except ValueError:
            return match.group(0)
        if comment.split(" ")[0] != MARK:
            return match.group(0)
        mine.append(match.group(0))
        return ""

    return _TUPLE.sub(drop, text), "".join(mine)


def merged(text: str, ours: str, first: bool) -> str:
    """The file with our tuples before those of others (guard), or behind them (open)."""
    rest, _mine = without_ours(text)
    mark = START if first else END
    if mark not in rest:
        raise FirewallError("ufw's rule file has no RULES section; run `ufw reload` once, or restore the file")
    # ufw writes an empty line before the end mark.
    if first:
        return rest.replace(START, START + ours, 1)
    return rest.replace("\n" + END, ours + "\n" + END, 1)


class Ufw(Backend):
    """Tuples in ufw's files; ports that Docker publishes go through mangle FORWARD, which ufw leaves empty."""

    name = "ufw"

    def __init__(self, system: System) -> None:
        super().__init__(system)
        self.forward = _ForwardOnly(self.system)

    def snapshot(self) -> Snapshot:
        forward = self.forward.snapshot()
        files = {**self._files(list(USER.values())), **forward.files}
        lines = []
        for version, chain in ((4, "ufw-user-input"), (6, "ufw6-user-input")):
            result = self.system.run(["iptables" if version == 4 else "ip6tables", "-S", chain])
            lines.append(result.out)
        return Snapshot(files, "".join(lines) + forward.live)

    def _script(self) -> str:
        text = "#!/bin/sh\nset -eu\n"
        for version, path in USER.items():
            tool = "iptables-restore" if version == 4 else "ip6tables-restore"
            chain = "ufw-user-input" if version == 4 else "ufw6-user-input"
            # Only the chain that carries users' rules is loaded anew, as one transaction; ufw's other chains stay.
            text += (
                f"if [ -f {quote(self.system.path(path))} ]; then\n"
                f"\t{{ echo '*filter'; echo ':{chain} - [0:0]'; grep '^-A {chain} ' {quote(self.system.path(path))} || :; "
                f"echo COMMIT; }} | {tool} -w --noflush\nfi\n"
            )
        return text

    def _forward_script(self) -> str:
        # In a shell of its own: it ends with the tool's exit status and must not end the rest.
        return "(\n" + self.forward._script() + ")\n"

    def change(self, plan: Optional[Plan], now: Snapshot) -> Change:
        files: dict[str, Optional[str]] = {}
        for version, path in USER.items():
            text = now.files.get(path)
            if text is None:
                if version == 4:
                    raise FirewallError(f"{path} is missing though ufw is active; run `ufw reload`, or reinstall ufw")
                continue
            ours = "" if plan is None else tuples(plan, version)
            files[path] = merged(text, ours, plan is not None and plan.mode == "guard")
        forward = self.forward.change(plan, now)
        files.update(forward.files)
        return Change(files, self._script() + self._forward_script(), unit=True)

    def undo(self, now: Snapshot, plan: Optional[Plan]) -> Change:
        return Change(dict(now.files), self._script() + self._forward_script(), unit=True)

    def reached(self, plan: Optional[Plan], now: Snapshot, recorded: str) -> bool:
        wanted = self.change(plan, now)
        if any(now.files.get(name) != content for name, content in wanted.files.items()):
            return False
        return plan is None or now.live == recorded or self._loaded(now)

    def _loaded(self, now: Snapshot) -> bool:
        """Others may add rules of their own after us: what counts is that ufw's chain is what its file says."""
        for version, path in USER.items():
            chain = "ufw-user-input" if version == 4 else "ufw6-user-input"
            wanted = sum(line.startswith(f"-A {chain} ") for line in (now.files.get(path) or "").splitlines())
            have = sum(line.startswith(f"-A {chain} ") for line in now.live.splitlines())
            if wanted != have:
                return False
        return self.forward.snapshot().live != ""


class _ForwardOnly(Iptables):
    tables = ("mangle",)


def running(system: System) -> Optional[Ufw]:
    """ufw, when it is switched on; asking the program would cost a Python start."""
    text = system.read(CONF) or ""
    return Ufw(system) if re.search(r"(?mi)^\s*ENABLED\s*=\s*[\"']?yes", text) else None
