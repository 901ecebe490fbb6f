# SPDX-License-Identifier: GPL-3.0-or-later
"""60 rules on one host: our one call against the conventional loop, one item per rule, of ansible.posix.firewalld and community.general.ufw.

Real firewalld and ufw in network namespaces, the real ansible-playbook, local connection for both, so that a round trip over SSH, of which the loop has
60 and we have two, is not even counted. Root. Times are published; what is gated is counted:
both sides end with the same 60 rules, and our second run is one call that changes nothing.

    make benchmark-ports BENCHMARK='rules --runs 3'
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.onprem.circleci_server.tests.integration_firewall.lab import Host, Lab, usable

from .playbooks import Run, play

# 20 peers of three ports each, as 20 Nomad clients and runners are to one host.
RULES = [(f"10.77.1.{peer}", port) for peer in range(1, 21) for port in (443, 4647, 5000)]
INVENTORY = {
    # Of the system, since python3-firewall is there.
    "all": {"hosts": {"host": {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}}}
}


def ours() -> list[dict[str, Any]]:
    """The role, with rules that only let in, as those of the loop do."""
    rules = [{"id": f"rule-{number}", "ports": [port], "peers": [peer]} for number, (peer, port) in enumerate(RULES)]
    role = {"role": "onprem.circleci_server.firewall", "vars": {"circleci_firewall_rules": rules, "circleci_firewall_mode": "open"}}
    return [{"hosts": "host", "gather_facts": False, "roles": [role]}]


def loop(backend: str) -> list[dict[str, Any]]:
    """What a playbook without us looks like."""
    items = [{"peer": peer, "port": port} for peer, port in RULES]
    task: dict[str, Any] = {"loop": items}
    if backend == "firewalld":
        rule = 'rule family="ipv4" source address="{{ item.peer }}" port port="{{ item.port }}" protocol="tcp" accept'
        task["ansible.posix.firewalld"] = {"rich_rule": rule, "zone": "public", "permanent": True, "immediate": True, "state": "enabled"}
    else:
        task["community.general.ufw"] = {"rule": "allow", "proto": "tcp", "src": "{{ item.peer }}", "port": "{{ item.port }}"}
    return [{"hosts": "host", "gather_facts": False, "tasks": [task]}]


def present(host: Host, backend: str) -> int:
    """How many of the rules the filter has, asked from the filter itself."""
    if backend == "firewalld":
        listed = [host.run("firewall-cmd", *more, "--zone=public", "--list-rich-rules").splitlines() for more in ((), ("--permanent",))]
        found = [sum(any(f'"{peer}"' in line and f'port="{port}"' in line for line in lines) for peer, port in RULES) for lines in listed]
        return min(found)
    lines = host.run("ufw", "status").splitlines()
    return sum(any(line.split()[:1] == [f"{port}/tcp"] and peer in line.split() for line in lines) for peer, port in RULES)


def contest(backend: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Both sides once, each on a host of its own, twice in a row."""
    result: dict[str, dict[str, Any]] = {}
    for name, plays in (("ours", ours()), ("loop", loop(backend))):
        place = folder / name
        place.mkdir()
        lab = Lab(place)
        try:
            host = lab.guarded("host", 1, backend)
            runs: list[Run] = [play(place / "plays", f"{name}-{turn}", plays, INVENTORY, host.pid) for turn in ("first", "second")]
            result[name] = {
                "first": runs[0].seconds, "second": runs[1].seconds, "first_cpu": runs[0].cpu, "second_cpu": runs[1].cpu, "first_calls": runs[0].remote_calls, "second_calls": runs[1].remote_calls,
                "first_changed": runs[0].changed, "second_changed": runs[1].changed, "rules": present(host, backend),
            }  # fmt: skip
        finally:
            lab.close()
    return result


def refusals(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is counted, and must hold in each contest."""
    wanted = [(side, "rules", len(RULES)) for side in ("ours", "loop")]
    wanted += [("ours", "second_calls", 1), ("ours", "second_changed", 0), ("loop", "first_calls", len(RULES)), ("loop", "second_changed", 0)]
    return [f"{side}: {name} is {found[side][name]}, not {number}" for side, name, number in wanted if found[side][name] != number]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="rules", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--backends", nargs="*", default=["firewalld", "ufw"])
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(argv)
    if usable():
        sys.stderr.write(usable() + "\n")
        return 1
    everything: dict[str, Any] = {}
    wrong: list[str] = []
    for backend in given.backends:
        contests = []
        for number in range(given.runs):
            with tempfile.TemporaryDirectory(prefix="benchmark-rules-") as folder:
                contests.append(contest(backend, Path(folder)))
            wrong += [f"{backend}, run {number + 1}: {text}" for text in refusals(contests[-1])]
        everything[backend] = contests
        for turn in ("first", "second"):
            mine, theirs = (statistics.median(one[side][turn] for one in contests) for side in ("ours", "loop"))
            calls = [contests[0][side][f"{turn}_calls"] for side in ("ours", "loop")]
            ratios = sorted(one["ours"][turn] / one["loop"][turn] for one in contests)
            sys.stdout.write(
                f"{backend:9} {turn:6} run: ours {mine:5.1f} s in {calls[0]} calls, loop {theirs:5.1f} s in {calls[1]}; "
                f"ours is 1/{theirs / mine:.1f} (ratios {', '.join(f'{ratio:.3f}' for ratio in ratios)})\n"
            )
            sys.stdout.flush()
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    for text in wrong:
        sys.stderr.write(f"REFUSED {text}\n")
    return 1 if wrong else 0
