# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check found: one shape for every check of the product, and how waivers apply to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

OK = "ok"
WARNING = "warning"
PROBLEM = "problem"
WAIVED = "waived"
_SHOWN = 8


@dataclass(frozen=True)
class Finding:
    """One check with its outcome.

    ``level`` is ``ok``, ``warning``, ``problem`` or ``waived``; ``subject`` is the variable, host or object it is about;
    ``remedy`` says what to do and is empty for ``ok``.
    """

    check: str
    level: str
    subject: str
    found: str
    expected: str
    source: str
    remedy: str = ""
    reason: str = ""

    def as_dict(self) -> dict[str, str]:
        """The finding as the modules return it."""
        return asdict(self)

    def sentence(self) -> str:
        """The finding as one line for people."""
        tail = f" {self.remedy}" if self.remedy else ""
        reason = f" Waived: {self.reason}." if self.reason else ""
        return f"{self.check}: {self.subject}: found {self.found}; expected {self.expected}.{tail}{reason} [{self.source}]"


def apply_waivers(findings: Iterable[Finding], waivers: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Turn problems whose check is waived into ``waived``; a waiver for something that cannot be waived is a problem."""
    reasons = {str(waiver["name"]): str(waiver["reason"]) for waiver in waivers}
    used: set[str] = set()
    result: list[Finding] = []
    for finding in findings:
        if finding.level == PROBLEM and finding.check in reasons and finding.check in WAIVABLE:
            used.add(finding.check)
            result.append(replace(finding, level=WAIVED, reason=reasons[finding.check]))
        else:
            result.append(finding)
    for name in sorted(set(reasons) - used):
        if name in WAIVABLE or name.startswith(WAIVED_BY_VERIFY):
            continue
        result.append(
            Finding(
                check="waivers",
                level=PROBLEM,
                subject="circleci_waivers",
                found=f"name {name!r}",
                expected="one of " + ", ".join(sorted(WAIVABLE)) + ", or service_<name> or port_<rule> for verify",
                source="onprem.circleci_server",
                remedy="Remove the waiver; what it names cannot be waived or is not known.",
            )
        )
    return result


WAIVABLE = frozenset({
    "cluster_size", "cgroup_version", "host_memory", "host_disk", "host_operating_system", "clock", "support_period", "external_database",
    "external_database_tls", "external_database_extension", "docker_addresses",
})  # fmt: skip
"""Requirements of the vendor that a site can knowingly miss and still work. What would break the install is not among them."""

WAIVED_BY_VERIFY = ("service_", "port_")
"""Beginnings of waivers that only the verdict about the finished site reads: a service or a port rule of the report."""


def summary(findings: Iterable[Finding]) -> str:
    """All problems as one text, most useful as the message of a failing task."""
    problems = [finding for finding in findings if finding.level == PROBLEM]
    lines = "\n".join(f"  - {finding.sentence()}" for finding in problems)
    return f"{len(problems)} problem(s), nothing was changed:\n{lines}"


def brief(findings: Iterable[Finding]) -> str:
    """All problems by name, for a message below a table that says the rest; empty when there are none."""
    groups: dict[str, list[str]] = {}
    for finding in findings:
        if finding.level == PROBLEM:
            groups.setdefault(finding.check, []).append(finding.subject)
    if not groups:
        return ""
    parts = []
    for check, subjects in groups.items():
        shown = ", ".join(dict.fromkeys(subjects[:_SHOWN]))
        parts.append(f"{check} ({shown}{f' and {len(subjects) - _SHOWN} more' if len(subjects) > _SHOWN else ''})")
    count = sum(len(subjects) for subjects in groups.values())
    return f"{count} problem(s), nothing was changed. The table above says what was found, what is expected and what to do: {', '.join(parts)}."
