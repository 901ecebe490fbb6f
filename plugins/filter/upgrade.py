# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of an upgrade, for playbooks."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..plugin_utils.catalog import Catalog, CatalogError
from ..plugin_utils.upgrade import Situation, plan_upgrade


def upgrade_plan(installed: Mapping[str, Any], release: str, platform: str, accepted: Sequence[str] = (), postgresql_version: str = "") -> dict[str, Any]:
    """See upgrade_plan.yml."""
    situation = Situation(
        target=release,
        installed=str(installed.get("version", "")),
        status=str(installed.get("status", "")),
        platform=platform,
        kubernetes=str(installed.get("kubernetes", "")),
        mongodb=str(installed.get("mongodb", "")),
        postgresql=str(installed.get("postgresql", "")),
        postgresql_unfinished=str(installed.get("postgresql_unfinished", "")),
        postgresql_version=str(postgresql_version or ""),
        vault=bool(installed.get("vault", False)),
        machine_service=bool(installed.get("machine_service", False)),
        accepted=tuple(accepted),
    )
    try:
        plan = plan_upgrade(situation)
    except (CatalogError, TypeError) as error:
        raise AnsibleFilterError(f"upgrade_plan: {error}") from error
    return {
        **dataclasses.asdict(plan),
        "path": list(plan.path),
        "steps": [dataclasses.asdict(step) for step in plan.steps],
        "mongodb": [dataclasses.asdict(step) for step in plan.mongodb],
        "postgresql": [dataclasses.asdict(step) for step in plan.postgresql],
        "problems": list(plan.problems),
        "warnings": list(plan.warnings),
        "needed": plan.needed,
        "irreversible": [step.id for step in plan.irreversible],
        "lines": plan.lines(),
    }


def restart_workloads(names: Sequence[str], release: str) -> list[str]:
    """See restart_workloads.yml."""
    if not release:
        raise AnsibleFilterError("circleci_release_name: nothing is installed that could be restarted. Run the verb install.")
    try:
        services = Catalog.load().services(release)
    except CatalogError as error:
        raise AnsibleFilterError(f"restart_workloads: {error}") from error
    by_name: dict[str, list[str]] = {}
    for service in services:
        for name in (service.name, *service.aka):
            by_name.setdefault(name, []).extend(workload.name for workload in service.workloads)
        for workload in service.workloads:
            by_name.setdefault(workload.name, []).append(workload.name)
    problems, found = [], []
    for name in names:
        if not by_name.get(name):
            close = difflib.get_close_matches(name, sorted(by_name), n=3, cutoff=0.6)
            hint = f"Did you mean {', '.join(close)}?" if close else "docs/reference/catalog-services.md lists them."
            problems.append(f"circleci_restart_services: {name} is no service of {release}. {hint}")
        found += by_name.get(name, [])
    if problems:
        raise AnsibleFilterError("\n".join(problems))
    return list(dict.fromkeys(found))


def relocated_steps(steps: Sequence[Mapping[str, Any]], registry: str) -> list[dict[str, str]]:
    """See relocated_steps.yml."""
    return [
        {"version": str(step["version"]), "image": f"{registry}/{str(step['repository']).partition('/')[2]}:{step['tag']}"} for step in steps
    ]


def upgrade_failure(failure: str, way: Mapping[str, Any], started: Mapping[str, Any] | None = None) -> str:
    """See upgrade_failure.yml."""
    lines = ["The upgrade has failed.", failure.strip()]
    again = "Mend what has failed, then run the verb upgrade again."
    if way.get("gone"):
        lines += [*way["lines"], f"CircleCI Server {way['point']['release']} runs again. {again}"]
    elif "gone" in way:
        lines += [
            *way["lines"],
            "The application layer is stopped, so that nothing more is written. Mend what has failed and run the verb upgrade again, or choose the restore: "
            f"the verb rollback with circleci_restore_point: {way['point']['id']} and circleci_rollback_confirmed: true.",
        ]
    elif way.get("msg"):
        lines.append(f"The way back was not gone: {way['msg']} {again} Or go back with the verb rollback.")
    elif started and started.get("code"):
        lines.append(f"The application layer was not started again: {started['msg']} {again}")
    elif started and "scaled" in started:
        lines.append(f"There is no restore point, nothing was switched, and the application layer is up. {again}")
    else:
        lines.append(f"{again} The verb rollback goes back to the last restore point.")
    return "\n".join(line for line in lines if line)


class FilterModule:
    """Filters of the verbs upgrade and restart."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"upgrade_plan": upgrade_plan, "restart_workloads": restart_workloads, "relocated_steps": relocated_steps, "upgrade_failure": upgrade_failure}
