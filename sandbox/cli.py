# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of the sandbox: python3 -m sandbox <command>."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from . import artifacts, docker, layout, machine, scenarios, site, snapshots, tripwire, verbs
from .common import SandboxError, cache_dir, lock, say

# The path of the lock, told to what a command that holds it starts.
HELD = "ONPREM_CIRCLECI_SANDBOX_HELD"


@contextlib.contextmanager
def held(command: str) -> Iterator[None]:
    """One changing command at a time; a second one says who is at it. What `hold` has started is part of the first."""
    path = cache_dir() / "locks" / "sandbox.lock"
    if os.environ.get(HELD) == str(path):
        yield
        return
    with lock(path, command, wait=False):
        os.environ[HELD] = str(path)
        try:
            yield
        finally:
            del os.environ[HELD]


def prepare(*, start: bool) -> None:
    machine.check()
    if start:
        artifacts.check_builder(artifacts.wanted(["up", "content"]))
        machine.install_tools()
        machine.start_daemon()
    elif not machine.daemon_answers():
        raise SandboxError("no docker daemon answers, so the sandbox is not up: run `python3 -m sandbox up`")


def up(args: argparse.Namespace) -> int:
    begin = time.monotonic()
    machine.check()
    with held("up"):
        prepare(start=True)
        if args.fresh:
            site.down()
        site.up()
    say(f"the sandbox is up after {time.monotonic() - begin:.0f} s. Hosts: {', '.join(item.name for item in layout.HOSTS)}")
    say("next: python3 -m sandbox status | exec bastion -- bash | tripwire | snapshot NAME | down")
    return 0


def down(args: argparse.Namespace) -> int:
    with held("down"):
        if machine.daemon_answers():
            site.down()
        elif machine.daemon_dir().is_dir():
            machine.start_daemon()
            site.down()
        if args.daemon:
            machine.stop_daemon()
    say("the sandbox is down; the cache stays in " + str(cache_dir()))
    return 0


def status(args: argparse.Namespace) -> int:
    if not machine.daemon_answers():
        report = {"up": False, "docker": False, "hosts": {}}
    else:
        known = site.containers()
        hosts = {
            item.name: {
                "address": item.address,
                "network": item.network,
                "state": known[item.container]["State"]["Status"] if item.container in known else "absent",
            }
            for item in layout.HOSTS
        }
        running = all(entry["state"] == "running" for entry in hosts.values())
        kubernetes = running and site.kubernetes_ready()
        report = {"up": running and kubernetes, "docker": True, "kubernetes_ready": kubernetes, "hosts": hosts, "snapshots": snapshots.names()}
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0 if report["up"] else 3


def execute(args: argparse.Namespace) -> int:
    item = layout.host(args.host)
    prepare(start=False)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise SandboxError("name a command after --")
    flags = ["-i"] + (["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else [])
    for pair in args.env:
        flags += ["--env", pair]
    return subprocess.run(["docker", "exec", *flags, "--env", "HOME=/root", "--workdir", "/root", item.container, *command], check=False).returncode


def carry(args: argparse.Namespace) -> int:
    """Across the gap: what a person would do with a disk."""
    prepare(start=False)
    begin = time.monotonic()
    workstation, bastion = layout.host("workstation").container, layout.host("bastion").container
    if docker.execute(workstation, ["test", "-e", args.source], check=False).returncode != 0:
        raise SandboxError(f"{args.source} is not on the workstation")
    if args.source.rstrip("/") in ("", ".") or args.destination.rstrip("/") in ("", "/etc", "/usr", "/var"):
        raise SandboxError("name a folder of its own for the bundle")
    docker.execute(bastion, ["mkdir", "-p", args.destination])
    reader = subprocess.Popen(["docker", "exec", workstation, "tar", "-C", args.source, "-cf", "-", "."], stdout=subprocess.PIPE)
    writer = subprocess.run(["docker", "exec", "-i", bastion, "tar", "-C", args.destination, "-xf", "-"], stdin=reader.stdout, check=False)
    if reader.wait() != 0 or writer.returncode != 0:
        raise SandboxError(f"copying {args.source} failed")
    size = docker.execute(bastion, ["du", "-sm", args.destination]).stdout.split()[0]
    say(f"carried {args.source} from the workstation to {args.destination} on the bastion: {size} MiB in {time.monotonic() - begin:.1f} s")
    return 0


def hold(args: argparse.Namespace) -> int:
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise SandboxError("name a command after --")
    with held(args.what):
        return subprocess.run(command, check=False).returncode


def install_collection(args: argparse.Namespace) -> int:
    tarball = Path(args.tarball)
    if not tarball.is_file():
        raise SandboxError(f"{tarball} is no file; build it with ansible-galaxy collection build")
    prepare(start=False)
    for name in ("workstation", "bastion"):
        container = layout.host(name).container
        docker.call(["cp", str(tarball), f"{container}:/root/{tarball.name}"])
        docker.execute(
            container,
            ["ansible-galaxy", "collection", "install", "--offline", "--force", "-p", "/usr/share/ansible/collections", f"/root/{tarball.name}"],
        )
        say(f"{tarball.name} is installed on {name}")
    return 0


def run_verb(args: argparse.Namespace) -> int:
    prepare(start=False)
    for name in ("workstation", "bastion"):
        verbs.prepare(name)
    answers = {} if args.stop_at_gates else {"circleci_gates_passed": verbs.ANSWERED_GATES}
    arguments = args.arguments[1:] if args.arguments[:1] == ["--"] else args.arguments
    return verbs.show(args.name, extra=answers, arguments=arguments)


def run_scenario(args: argparse.Namespace) -> int:
    prepare(start=False)
    changed = scenarios.STEPS[args.step](args.name)
    sys.stdout.write(json.dumps({"changed": changed or {}}) + "\n")
    return 0


def show_tripwire(args: argparse.Namespace) -> int:
    prepare(start=False)
    if args.reset:
        tripwire.reset()
        return 0
    report = tripwire.read()
    sys.stdout.write(json.dumps(report, indent=2, sort_keys=True) + "\n")
    return 0 if report["total"] == 0 or not args.fail else 1


def show_artifacts(args: argparse.Namespace) -> int:
    items = artifacts.load()
    if args.names:
        items = [item for name in args.names for item in items if name in (item.name, f"{item.name}-{item.version}")]
        if not items:
            artifacts.find(args.names[0])
    if args.build:
        for item in items if args.names else artifacts.wanted(["up", "content"], items):
            artifacts.ensure(item)
    for item in items:
        state = "missing"
        if artifacts.is_ready(item):
            artifacts.verify(item)
            state = json.loads((item.folder() / "artifact.json").read_text(encoding="utf-8"))["way"]
        release = item.release or {}
        known = "checksum known" if release.get("sha256") or release.get("sha512") else "no checksum of upstream's: built from Go modules only"
        sys.stdout.write(f"{item.label:32} {state:8} {','.join(item.use):12} usually {item.seconds:4} s  {known}  {item.folder()}\n")
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python3 -m sandbox", description="A connected network with a stand-in vendor and a site network that is really cut off.")
    commands = top.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    one = commands.add_parser("up", help="make and start everything; does nothing when it is up")
    one.add_argument("--fresh", action="store_true", help="take the present sandbox down first")
    one.set_defaults(function=up)
    one = commands.add_parser("down", help="remove hosts, networks and their state; the cache stays")
    one.add_argument("--daemon", action="store_true", help="stop the docker daemon that the sandbox started, too")
    one.set_defaults(function=down)
    commands.add_parser("status", help="what is up, as JSON; exit code 3 when it is not").set_defaults(function=status)
    one = commands.add_parser("snapshot", help="keep the state of all hosts under a name")
    one.add_argument("name")
    one.set_defaults(function=lambda args: _snapshot(args.name))
    one = commands.add_parser("restore", help="put all hosts back to a snapshot")
    one.add_argument("name")
    one.set_defaults(function=lambda args: _restore(args.name))
    one = commands.add_parser("exec", help="run a command on a host")
    one.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    one.add_argument("host")
    one.add_argument("command", nargs=argparse.REMAINDER)
    one.set_defaults(function=execute)
    one = commands.add_parser("hold", help="run a command that uses the sandbox while nobody else changes it")
    one.add_argument("what", help="what a second run is told, as in 'make demo'")
    one.add_argument("command", nargs=argparse.REMAINDER)
    one.set_defaults(function=hold)
    one = commands.add_parser("carry", help="copy a folder from the workstation to the bastion, across the gap")
    one.add_argument("source")
    one.add_argument("destination")
    one.set_defaults(function=_held(carry, "carry"))
    one = commands.add_parser("install-collection", help="install a built collection on workstation and bastion")
    one.add_argument("tarball")
    one.set_defaults(function=_held(install_collection, "install-collection"))
    one = commands.add_parser("verb", help="run a verb of the collection where an operator would: bundle on the workstation, all others on the bastion")
    one.add_argument("--stop-at-gates", action="store_true", help="do not answer the gates of a person in advance")
    one.add_argument("name")
    one.add_argument("arguments", nargs=argparse.REMAINDER, help="further arguments for ansible-playbook")
    one.set_defaults(function=lambda args: _held(run_verb, f"verb {args.name}")(args))
    one = commands.add_parser("scenario", help="one step of a platform's scenario; what was seen lies in build/scenarios")
    one.add_argument("name", choices=list(scenarios.SCENARIOS))
    one.add_argument("step", choices=list(scenarios.STEPS))
    one.set_defaults(function=lambda args: _held(run_scenario, f"scenario {args.name}")(args))
    one = commands.add_parser("tripwire", help="how often site hosts asked for or sent to anything outside, as JSON")
    one.add_argument("--reset", action="store_true", help="start counting anew")
    one.add_argument("--fail", action="store_true", help="exit 1 when anything was counted")
    one.set_defaults(function=show_tripwire)
    one = commands.add_parser("artifacts", help="list the programs of the catalogue, or build them")
    one.add_argument("names", nargs="*")
    one.add_argument("--build", action="store_true")
    one.set_defaults(function=show_artifacts)
    return top


def _held(function: Callable[[argparse.Namespace], int], command: str) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        with held(command):
            return function(args)

    return run


def _snapshot(name: str) -> int:
    with held(f"snapshot {name}"):
        prepare(start=False)
        snapshots.save(name)
    return 0


def _restore(name: str) -> int:
    with held(f"restore {name}"):
        prepare(start=True)
        snapshots.restore(name)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        return int(args.function(args))
    except SandboxError as exc:
        sys.stderr.write(f"sandbox: {exc}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("sandbox: stopped; the same command goes on from here\n")
        return 130
