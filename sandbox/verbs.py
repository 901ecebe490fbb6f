# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the product's verbs in the sandbox as an operator does: from workstation (connected side) and bastion (site)."""

from __future__ import annotations

import json
import secrets
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import docker, layout, machine
from .common import SandboxError, cache_dir, write_atomic

INVENTORY = "/root/inventory"
SECRETS = "/etc/onprem-circleci/secrets.yml"
VAULT_PASSWORD = "/etc/onprem-circleci/vault-password"
NAMESPACE = "onprem.circleci_server"
INSTALLED = "/usr/share/ansible/collections/ansible_collections/onprem/circleci_server"
VENV = "/opt/onprem/venv/bin"
CONNECTED_VERBS = ("bundle", "chart_check")
_EXEC = ("docker", "exec", "--env", "HOME=/root", "--workdir", "/root")
# Each gate that a person would pass; the sandbox has no person, so it answers in advance where a test does not look at gates.
ANSWERED_GATES = ["oauth_application", "first_administrator", "personal_token", "organization_namespace"]
QUIET = {
    "ANSIBLE_FORCE_COLOR": "false",
    "ANSIBLE_DEPRECATION_WARNINGS": "true",
    "ANSIBLE_INJECT_FACT_VARS": "false",
    "ANSIBLE_PIPELINING": "true",
    "ANSIBLE_SSH_CONTROL_PERSIST": "60s",
    "LANG": "C.UTF-8",
}


@dataclass(frozen=True)
class Result:
    """What one run of a verb did, read from the events of Ansible's JSON callback, never from its text."""

    verb: str
    code: int
    events: Sequence[Mapping[str, Any]]
    errors: str
    stats: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def changed(self) -> dict[str, int]:
        """Changed tasks by host, hosts without any left out."""
        return {host: numbers["changed"] for host, numbers in self.stats.items() if numbers.get("changed")}

    def changes(self) -> list[tuple[str, str]]:
        """Host and task of every change, in order."""
        return [
            (host, event["task"]["name"])
            for event in self.events
            if event.get("_event") == "v2_runner_on_ok"
            for host, result in event.get("hosts", {}).items()
            if result.get("changed")
        ]

    def failures(self) -> list[str]:
        """Messages of failed tasks."""
        return [
            str(result.get("msg", ""))
            for event in self.events
            if event.get("_event") in ("v2_runner_on_failed", "v2_runner_on_unreachable")
            for result in event.get("hosts", {}).values()
        ]

    def results(self, action: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Host and result of every successful call of the module *action*."""
        for event in self.events:
            if event.get("_event") == "v2_runner_on_ok":
                for host, result in event.get("hosts", {}).items():
                    if str(result.get("action", "")).endswith(action):
                        yield host, result


def made_secrets() -> dict[str, str]:
    """The secrets that an operator would bring, made anew for each sandbox and kept beside its other state."""
    path = cache_dir() / "sandbox" / "operator-secrets.json"
    if path.exists():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    names = {
        "circleci_registry_password": 24,
        "circleci_object_storage_secret_key": 24,
        "circleci_github_client_secret": 20,
        "circleci_github_default_token": 20,
        "circleci_license": 40,
    }
    made = {name: f"canary{secrets.token_hex(length // 2)}" for name, length in names.items()}
    made["circleci_github_client_id"] = f"Iv1.{secrets.token_hex(8)}"
    made["circleci_vendor_registry_username"] = layout.VENDOR_USERNAME
    made["circleci_vendor_registry_password"] = layout.VENDOR_PASSWORD
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(made, indent=2) + "\n", mode=0o600)
    return made


def prepare(host: str, more: Mapping[str, str] | None = None) -> None:
    """Put inventory and vaulted secrets on *host*, as an operator would once; *more* are further secrets."""
    if not machine.daemon_answers():
        raise SandboxError("no docker daemon answers, so the sandbox is not up: run `python3 -m sandbox up`")
    target = layout.host(host).container
    given = {**made_secrets(), **(more or {})}
    password = cache_dir() / "sandbox" / "vault-password"
    if not password.exists():
        write_atomic(password, secrets.token_hex(16) + "\n", mode=0o600)
    small = Path(__file__).with_name("standin") / "values-small.yml"
    script = f"""
set -eu
umask 077
mkdir -p /etc/onprem-circleci
rm -rf {INVENTORY} && cp -r {INSTALLED}/inventories/sandbox {INVENTORY}
cat > {SECRETS}.plain
{VENV}/ansible-vault encrypt --vault-password-file {VAULT_PASSWORD} --output {SECRETS} {SECRETS}.plain 2>/dev/null
rm -f {SECRETS}.plain
"""
    docker.execute(target, ["sh", "-c", f"umask 077; mkdir -p /etc/onprem-circleci; cat > {VAULT_PASSWORD}"], stdin=password.read_bytes())
    docker.execute(target, ["sh", "-c", script], stdin=json.dumps(given).encode())
    docker.execute(target, ["sh", "-c", "cat > /root/values-small.yml"], stdin=small.read_bytes())


def command(verb: str, *, extra: Mapping[str, Any] | None = None, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> list[str]:
    """The command line of a verb, as it is typed on the host."""
    words = [f"{VENV}/ansible-playbook", "-i", INVENTORY, f"{NAMESPACE}.{verb}"]
    words += ["--extra-vars", f"@{SECRETS}", "--vault-password-file", VAULT_PASSWORD]
    if extra:
        words += ["--extra-vars", json.dumps(dict(extra))]
    words += list(arguments)
    return ["env", *(f"{name}={value}" for name, value in {**QUIET, **(environment or {})}.items()), *words]


def host_of(verb: str) -> str:
    """Where a verb is run from."""
    return "workstation" if verb in CONNECTED_VERBS else "bastion"


def read(host: str, path: str) -> bytes:
    """A file of a host."""
    done = subprocess.run(["docker", "exec", layout.host(host).container, "cat", path], check=False, capture_output=True)
    if done.returncode != 0:
        raise SandboxError(f"{host}: {path} cannot be read: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def show(verb: str, *, extra: Mapping[str, Any] | None = None, arguments: Sequence[str] = ()) -> int:
    """Run a verb with its ordinary output on this terminal and return its exit code."""
    container = layout.host(host_of(verb)).container
    words = command(verb, extra=extra, arguments=arguments)
    return subprocess.run([*_EXEC, container, *words], check=False).returncode


def run(
    verb: str,
    *,
    extra: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
    log: Path | None = None,
    kill_at: str = "",
) -> Result:
    """Run a verb and read its events. *kill_at* names a task at whose start ansible-playbook gets SIGKILL, as at a power cut of its host."""
    container = layout.host(host_of(verb)).container
    words = command(verb, extra=extra, arguments=arguments, environment={"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl"})
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen([*_EXEC, container, *words], stdout=subprocess.PIPE, stderr=errors, text=True)
        lines = []
        for line in process.stdout or ():
            lines.append(line.rstrip("\n"))
            if kill_at and '"v2_playbook_on_task_start"' in line and json.loads(line).get("task", {}).get("name", "").endswith(kill_at):
                docker.execute(container, ["pkill", "-KILL", "-f", "ansible-playbook"], check=False)
                kill_at = ""
        code = process.wait()
        errors.seek(0)
        told = errors.read()
    if kill_at:
        raise SandboxError(f"{verb} never came to the task {kill_at!r}; it ended with {code}")
    if log is not None:
        log.write_text(shlex.join(words) + "\n" + "\n".join(lines) + "\n" + told, encoding="utf-8")
    events, other = [], []
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:
            other.append(line)
    stats: dict[str, Any] = next((event["stats"] for event in reversed(events) if event.get("_event") == "v2_playbook_on_stats"), {})
    return Result(verb, code, events, told + "\n".join(other), stats)
