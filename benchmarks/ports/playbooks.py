# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays of a benchmark, run by the real ansible-playbook inside a host of the lab; figures come from its JSON events, never from text."""

from __future__ import annotations

import datetime
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTROLLER_ONLY = ("debug", "fail", "assert", "set_fact", "meta", "reset_connection", "include_tasks", "validate_argument_spec")


@dataclass(frozen=True)
class Run:
    """What one run cost: wall seconds, CPU seconds of all its processes, calls of modules on hosts, changed results."""

    seconds: float
    cpu: float
    remote_calls: int
    changed: int
    results: Sequence[Mapping[str, Any]]
    tasks: Mapping[str, float]


def cpu_seconds() -> float:
    """CPU of all children that have ended: on a machine that other work shares it says more than the clock."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def play(folder: Path, name: str, plays: Sequence[Mapping[str, Any]], inventory: Mapping[str, Any], inside: int | None, forks: int = 5) -> Run:
    """Run plays; ``inside`` is the process whose network and files they see."""
    folder.mkdir(parents=True, exist_ok=True)
    book, hosts = folder / f"{name}.yml", folder / f"{name}-inventory.json"
    book.write_text(json.dumps(plays), encoding="utf-8")
    hosts.write_text(json.dumps(inventory), encoding="utf-8")
    environment = {
        **os.environ,
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl",
        "ANSIBLE_HOME": str(folder / ".ansible"),
        "ANSIBLE_PIPELINING": "true",
        "ANSIBLE_FORKS": str(forks),
        "ANSIBLE_RETRY_FILES_ENABLED": "false",
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        "NO_COLOR": "1",
    }
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(hosts), str(book)]
    if inside is not None:
        words = ["nsenter", "-t", str(inside), "-m", "-n", *words]
    begin, used = time.monotonic(), cpu_seconds()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    seconds, used = time.monotonic() - begin, cpu_seconds() - used
    results: list[Mapping[str, Any]] = []
    calls = changed = 0
    begun: list[tuple[str, float]] = []
    for line in done.stdout.splitlines():
        if not line.startswith("{"):
            continue
        event = json.loads(line)
        if event.get("_event") in ("v2_playbook_on_task_start", "v2_playbook_on_stats"):
            moment = datetime.datetime.fromisoformat(str(event["_timestamp"]).replace("Z", "+00:00")).timestamp()
            begun.append((str((event.get("task") or {}).get("name", "")), moment))
        if event.get("_event") not in ("v2_runner_on_ok", "v2_runner_on_failed", "v2_runner_on_unreachable"):
            continue
        for result in event["hosts"].values():
            results.append(result)
            if str(result.get("action", "")).rpartition(".")[2] in CONTROLLER_ONLY:
                continue
            # Only what a loop returns is one call each; a module may have results of its own.
            parts = [part for part in result.get("results") or [] if isinstance(part, dict) and "ansible_loop_var" in part] or [result]
            calls += len(parts)
            changed += sum(bool(part.get("changed")) for part in parts)
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:]}")
    tasks = {name: round(after - before, 1) for (name, before), (_next, after) in zip(begun, begun[1:])}
    return Run(seconds, used, calls, changed, results, tasks)
