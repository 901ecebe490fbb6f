# SPDX-License-Identifier: GPL-3.0-or-later
"""House rules that a machine can check; each class says which sentence of CONTRIBUTING.md it guards."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ansiblelint.rules import AnsibleLintRule

if TYPE_CHECKING:
    from ansiblelint.file_utils import Lintable
    from ansiblelint.utils import Task

_CROSS_SITE = re.compile(r"\b(groups|hostvars)\s*\[|\bgroups\.get\(|\bhostvars\.get\(")
_INJECTED_FACT = re.compile(r"\bansible_(distribution|os_family|hostname|default_ipv4|all_ipv4_addresses|memtotal_mb|processor_vcpus|kernel|date_time)\b")


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, item in value.items() if not str(key).startswith("__") for text in _texts(item)]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _texts(item)]
    return []


def _in_role(file: Lintable | None) -> bool:
    return file is not None and "roles/" in str(file.path)


class NoCrossSiteReads(AnsibleLintRule):
    """A role reads no other host's variables by group: with many sites in one inventory it gets another site's."""

    id = "house-no-cross-site-reads"
    description = "Use the filter onprem.circleci_server.site_hosts in the playbook and pass the result to the role."
    severity = "VERY_HIGH"
    tags = ["idempotency"]
    version_changed = "0.1.0"

    def matchtask(self, task: Task, file: Lintable | None = None) -> bool | str:
        if not _in_role(file):
            return False
        for text in _texts(task.raw_task):
            if _CROSS_SITE.search(text):
                return f"Reads groups[] or hostvars[] in a role: {text.strip()[:80]}"
        return False


class NoControllerDelegation(AnsibleLintRule):
    """No verb has delegate_to: localhost or run_once: a gate there cannot see a site's variables."""

    id = "house-no-controller-delegation"
    description = "Work of the operator runs on the control host of the site, in a play on circleci_sites."
    severity = "VERY_HIGH"
    tags = ["idempotency"]
    version_changed = "0.1.0"

    def matchtask(self, task: Task, file: Lintable | None = None) -> bool | str:
        if task.get("run_once"):
            return "run_once is silently another host under --limit"
        if str(task.get("delegate_to", "")) in ("localhost", "127.0.0.1"):
            return "delegate_to: localhost cannot see a site's variables"
        return False


class NoInjectedFacts(AnsibleLintRule):
    """Facts are read as ansible_facts['name'], so that INJECT_FACTS_AS_VARS may be off."""

    id = "house-no-injected-facts"
    description = "Write ansible_facts['distribution'] instead of ansible_distribution."
    severity = "HIGH"
    tags = ["deprecations"]
    version_changed = "0.1.0"

    def matchtask(self, task: Task, file: Lintable | None = None) -> bool | str:
        for text in _texts(task.raw_task):
            if match := _INJECTED_FACT.search(text):
                return f"Reads the injected fact {match.group(0)}"
        return False


class RoleVariablesCarryTheirRole(AnsibleLintRule):
    """Variables that a role sets are called circleci_<role>_* or __circleci_<role>_*."""

    id = "house-role-variable-names"
    description = "Register and set variables as __circleci_<role>_<what>."
    severity = "HIGH"
    tags = ["idiom"]
    version_changed = "0.1.0"

    def matchtask(self, task: Task, file: Lintable | None = None) -> bool | str:
        if not _in_role(file) or file is None:
            return False
        parts = file.path.parts
        role = parts[parts.index("roles") + 1]
        allowed = (f"circleci_{role}_", f"__circleci_{role}_")
        names = [task.get("register")] if task.get("register") else []
        names += [name for name in (task.get("vars") or {}) if not str(name).startswith(("ansible_", "__line__", "__file__"))]
        for name in names:
            if not str(name).startswith(allowed):
                return f"{name} must begin with {allowed[1]}"
        return False
