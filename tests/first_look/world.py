# SPDX-License-Identifier: GPL-3.0-or-later
"""An operator's machine: the installed collection, an inventory, and a home of its own, all below one temporary folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.site_plan.ownership import load_ownership

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
NAMESPACE = "onprem.circleci_server"


@dataclass(frozen=True)
class Result:
    """What one run did, from the events of Ansible's JSON callback."""

    code: int
    events: Sequence[Mapping[str, Any]]
    said: str
    stats: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def changed(self) -> dict[str, int]:
        """Changed tasks by host, hosts without any left out."""
        return {host: numbers["changed"] for host, numbers in self.stats.items() if numbers["changed"]}

    def messages(self) -> str:
        """Messages of failed tasks."""
        return "\n".join(str(result.get("msg", "")) for _host, result in self._results("v2_runner_on_failed"))

    def results(self, action: str) -> dict[str, Mapping[str, Any]]:
        """Result of the last successful call of a module by host."""
        return {host: result for host, result in self._results("v2_runner_on_ok") if str(result.get("action", "")).endswith(action)}

    def _results(self, name: str) -> list[tuple[str, Mapping[str, Any]]]:
        return [(host, result) for event in self.events if event.get("_event") == name for host, result in event.get("hosts", {}).items()]

    def findings(self, host: str) -> dict[str, list[Mapping[str, Any]]]:
        """Findings of preflight about the site of a control host, by level."""
        found: dict[str, list[Mapping[str, Any]]] = {"problem": [], "warning": [], "waived": [], "ok": []}
        for item in self.results("site_preflight")[host]["findings"]:
            found[item["level"]].append(item)
        return found

    def problems(self, host: str) -> set[tuple[str, str]]:
        """Check and subject of each problem."""
        return {(item["check"], item["subject"]) for item in self.findings(host)["problem"]}


@dataclass(frozen=True)
class World:
    """Where the tests run verbs."""

    home: Path
    collections: Path

    @property
    def plans(self) -> Path:
        return self.home / "plans"

    def inventory(self, name: str) -> Path:
        """An example of the collection that was installed, not of the tree."""
        return self.collections / "ansible_collections/onprem/circleci_server/inventories" / name

    def overlay(self, hosts: Mapping[str, Mapping[str, Any]]) -> Path:
        """A second inventory with variables of hosts, which win over those of groups."""
        path = self.home / "overlay.yml"
        path.write_text(yaml.safe_dump({"all": {"hosts": {name: dict(variables) for name, variables in hosts.items()}}}), encoding="utf-8")
        return path

    def run(
        self,
        verb: str,
        inventory: str,
        *,
        local: Sequence[str],
        extra: Mapping[str, Any] | None = None,
        hosts: Mapping[str, Mapping[str, Any]] | None = None,
        arguments: Sequence[str] = (),
        readable: bool = False,
    ) -> Result:
        """Run a verb, or the playbook of a test, with the hosts of *local* on this machine; all others are documentation addresses that nobody answers."""
        here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        variables: dict[str, dict[str, Any]] = {name: dict(here) for name in local}
        for name, more in (hosts or {}).items():
            variables.setdefault(name, {}).update(more)
        defaults = {"circleci_plan_dir": f"{self.plans}/{{{{ circleci_site | default('site') }}}}", "circleci_state_dir": f"{self.home}/state/{{{{ circleci_site | default('site') }}}}"}
        words = [
            str(BIN / "ansible-playbook"), "-i", str(self.inventory(inventory)), "-i", str(self.overlay(variables)), verb if "/" in verb else f"{NAMESPACE}.{verb}",
            "--extra-vars", json.dumps({**defaults, **(extra or {})}), *arguments,
        ]  # fmt: skip
        environment = {
            "HOME": str(self.home),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "ANSIBLE_HOME": str(self.home / ".ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_TIMEOUT": "2",
            "ANSIBLE_FORKS": "20",
            "ANSIBLE_INJECT_FACT_VARS": "false",
            "ANSIBLE_DEPRECATION_WARNINGS": "true",
            "COLUMNS": "120",
            **({} if readable else {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl"}),
        }
        done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=self.home, env=environment)
        events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        said = done.stderr + "\n".join(line for line in done.stdout.splitlines() if not line.startswith("{"))
        stats: Mapping[str, Mapping[str, int]] = next((event["stats"] for event in reversed(events) if event.get("_event") == "v2_playbook_on_stats"), {})
        return Result(done.returncode, events, said, stats)

    def plan(self, site: str) -> dict[str, Any]:
        """The document of a site as data."""
        return dict(json.loads((self.plans / site / "change-request.json").read_text(encoding="utf-8")))

    def files(self) -> dict[str, int]:
        """Everything of this world but Ansible's own working folder, with the time of its last change."""
        return {
            str(path.relative_to(self.home)): path.stat().st_mtime_ns
            for path in sorted(self.home.rglob("*"))
            if ".ansible" not in path.relative_to(self.home).parts and path.name != "overlay.yml"
        }


def state_of_this_machine() -> dict[str, tuple[int, int]]:
    """What an installation would write, as far as it is there on this machine, with size and time of the last change."""
    found = {}
    for thing in load_ownership().hosts:
        path = Path("/etc/systemd/system") / thing.name if thing.kind == "unit" else Path(thing.name)
        for one in [path, *(path.rglob("*") if thing.kind == "folder" else ())] if path.is_absolute() else ():
            if os.path.lexists(one):
                found[str(one)] = (one.lstat().st_size, one.lstat().st_mtime_ns)
    return found
