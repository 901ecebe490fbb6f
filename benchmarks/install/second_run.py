# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of `install` that changes nothing costs, and how the cost grows with Nomad clients.

Needs the sandbox with an installed site (`make demo`). Prints wall time, CPU time of the controller and remote calls, and writes them as JSON:

    python3 benchmarks/install/second_run.py --runs 3 --clients 2 10 20 40 --output build/benchmark-install.json

More clients than the sandbox has are further names for its two: the verb `secrets` makes certificates for them, and `install --check` looks at them
all. Each is a connection, a set of files and a certificate of its own, so the controller works as for as many hosts; it leaves their Secrets behind.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sandbox import docker, layout, machine, verbs  # noqa: E402 - the path is set above

# Runs on the bastion: the events go to its standard output, what they cost to its last line of standard error.
_MEASURE = """
import json, resource, subprocess, sys, time
begin = time.monotonic()
code = subprocess.call(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"wall": time.monotonic() - begin, "cpu": used.ru_utime + used.ru_stime, "code": code}), file=sys.stderr)
"""
CONTROLLER_ONLY = ("check_arguments", "validate_argument_spec", "debug", "fail")


def measure(arguments: list[str], extra: dict[str, Any]) -> dict[str, Any]:
    """One run: seconds, CPU seconds, remote calls, changed tasks."""
    words = verbs.command("install", extra=extra, arguments=arguments, environment={"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl"})
    done = subprocess.run(
        ["docker", "exec", "--env", "HOME=/root", "--workdir", "/root", layout.host("bastion").container, "python3", "-c", _MEASURE, *words],
        check=False,
        capture_output=True,
        text=True,
    )
    cost: dict[str, Any] = json.loads(done.stderr.strip().splitlines()[-1])
    calls = changed = 0
    for line in done.stdout.splitlines():
        if not line.startswith("{"):
            continue
        event = json.loads(line)
        if event.get("_event") not in ("v2_runner_on_ok", "v2_runner_on_failed"):
            continue
        for result in event["hosts"].values():
            changed += bool(result.get("changed"))
            if not str(result.get("action", "")).endswith(CONTROLLER_ONLY):
                # Modules have results of their own; those of a loop name its variable.
                calls += sum("ansible_loop_var" in item for item in result.get("results", []) if isinstance(item, dict)) or 1
    return {**cost, "remote_calls": calls, "changed": changed}


def inventory(clients: int) -> list[str]:
    """Command line arguments for an inventory with that many clients."""
    known = ("nomad1", "nomad2")
    if clients <= len(known):
        return []
    hosts = {
        # An address of its own, since an address belongs to one host.
        f"{known[number % 2]}-as-{number}": {"ansible_host": layout.host(known[number % 2]).address, "circleci_addresses": [f"198.51.100.{number}"]}
        for number in range(len(known), clients)
    }
    text = json.dumps({"circleci_nomad_clients": {"hosts": hosts}, "site_sandbox": {"hosts": {name: {} for name in hosts}}})
    path = "/root/more-clients.json"
    docker.execute(layout.host("bastion").container, ["sh", "-c", f"cat > {path}"], stdin=text.encode())
    return ["--inventory", path]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="*", default=[], help="numbers of Nomad clients to look at with --check")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    if not machine.daemon_answers():
        sys.stderr.write("The sandbox is not up. Run make demo first.\n")
        return 1
    verbs.prepare("bastion")
    answers = {"circleci_gates_passed": verbs.ANSWERED_GATES}
    found: dict[str, Any] = {"second_run": [measure([], answers) for _run in range(given.runs)], "clients": {}}
    for one in found["second_run"]:
        sys.stdout.write(f"second run: {one['wall']:.1f} s, {one['cpu']:.1f} s CPU of the controller, {one['remote_calls']} remote calls, {one['changed']} changes\n")
    for clients in given.clients:
        more = inventory(clients)
        if more:
            done = verbs.run("secrets", arguments=more)
            if done.code != 0:
                sys.stderr.write("\n".join(done.failures()) + "\n")
                return 1
        one = measure([*more, "--check"], answers)
        if one["code"] != 0:
            sys.stderr.write(f"install --check with {clients} clients ended with {one['code']}; its cost says nothing\n")
            return 1
        found["clients"][clients] = one
        sys.stdout.write(f"{clients:4} clients, --check: {one['wall']:.1f} s, {one['cpu']:.1f} s CPU of the controller, {one['remote_calls']} remote calls\n")
        sys.stdout.flush()
    sizes = sorted(found["clients"])
    if len(sizes) > 1:
        first, last = found["clients"][sizes[0]], found["clients"][sizes[-1]]
        more_clients = sizes[-1] - sizes[0]
        sys.stdout.write(
            f"each further client: {(last['wall'] - first['wall']) / more_clients:.2f} s, {(last['cpu'] - first['cpu']) / more_clients:.2f} s CPU, "
            f"{(last['remote_calls'] - first['remote_calls']) / more_clients:.1f} remote calls\n"
        )
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
