#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""STAND-IN for the vendor's machine runner 3. It is not the vendor's program and takes no CircleCI jobs.

It refuses what the real one would refuse, as far as the vendor documents it, and more where in doubt: keys and types of the configuration, a
configuration that others can read, an address without https, a certificate that the trust store of the system does not vouch for, and a token
that its server does not know. A stop lets the job that runs go on to its end.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Optional

sys.path.insert(0, "/lab/python")

import yaml

TEXT, FLAG, WORDS = "text", "flag", "words"
KEYS = {
    "api": {"auth_token": TEXT, "url": TEXT},
    "runner": {
        "name": TEXT, "task_agent_directory": TEXT, "command_prefix": WORDS, "working_directory": TEXT, "cleanup_working_directory": FLAG,
        "use_home_ssh_dir_for_checkout_keys": FLAG, "mode": TEXT, "cache_task_agent": FLAG, "max_run_time": TEXT, "idle_timeout": TEXT, "ssh": {"advertise_addr": TEXT},
    },
    "logging": {"level": TEXT, "format": TEXT, "file": TEXT},
}  # fmt: skip
REQUIRED = (("api", "auth_token"), ("api", "url"), ("runner", "name"), ("runner", "working_directory"))


def refuse(text: str) -> None:
    sys.stderr.write(f"stand-in runner: {text}\n")
    raise SystemExit(1)


def check(value: Any, wanted: Any, where: str) -> None:
    if isinstance(wanted, dict):
        if not isinstance(value, dict):
            refuse(f"{where or 'configuration'} is no mapping")
        for key, item in value.items():
            if key not in wanted:
                refuse(f"unknown key {where}{key}")
            check(item, wanted[key], f"{where}{key}.")
        return
    good = {TEXT: isinstance(value, str) and value != "", FLAG: isinstance(value, bool), WORDS: isinstance(value, list) and all(isinstance(item, str) for item in value)}
    if not good[wanted]:
        refuse(f"{where[:-1]} must be {wanted}")


def configuration(path: Path) -> dict[str, Any]:
    found = path.stat()
    if stat.S_IMODE(found.st_mode) != 0o600 or found.st_uid != os.geteuid():
        refuse(f"{path} has mode {stat.S_IMODE(found.st_mode):04o} and uid {found.st_uid}; it holds a token")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    check(config, KEYS, "")
    for section, key in REQUIRED:
        if key not in config.get(section, {}):
            refuse(f"{section}.{key} is missing")
    if not config["api"]["url"].startswith("https://"):
        refuse("api.url has no https://")
    if not set(config["runner"]["name"]) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.()-_"):
        refuse("runner.name has characters that are not allowed")
    return dict(config)


class Runner:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config, self.stopping = config, False
        # As Go does: the trust store of the system, and nothing else.
        handler = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        self.opener = urllib.request.build_opener(handler)

    def stop(self, *_signal: Any) -> None:
        self.stopping = True

    def post(self, path: str, **body: Any) -> Optional[dict[str, Any]]:
        headers = {"Authorization": f"Bearer {self.config['api']['auth_token']}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.config["api"]["url"] + path, json.dumps(body).encode(), headers, method="POST")
        try:
            with self.opener.open(request, timeout=10) as answer:
                return dict(json.loads(answer.read() or b"{}"))
        except urllib.error.HTTPError as error:
            if error.code == 401:
                refuse("the server refuses the token: unauthorized")
            return None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLError):
                refuse(f"the certificate of the server is not trusted: {error.reason}")
            return None

    def run(self) -> None:
        while not self.stopping:
            job = self.post("/api/v3/runner/claim", name=self.config["runner"]["name"], version="stand-in")
            if job and job.get("id"):
                self.work(job)
                if self.config["runner"].get("mode") == "single-task":
                    return
            else:
                time.sleep(0.2)

    def work(self, job: dict[str, Any]) -> None:
        """A job is a program of its own that writes into the working directory, as the task-agent is."""
        folder = Path(self.config["runner"]["working_directory"])
        agent = Path(self.config["runner"]["task_agent_directory"]) / "task-agent"
        agent.write_text(f'#!/bin/sh\necho begun > "{folder}/job"\nuntil [ -e "{job["until"]}" ]; do sleep 0.2; done\necho "$HTTPS_PROXY $HOME" > "{folder}/job"\n')
        agent.chmod(0o755)
        done = subprocess.run([*self.config["runner"].get("command_prefix", []), str(agent)], check=False)
        result = (folder / "job").read_text().strip() if done.returncode == 0 else ""
        if self.config["runner"].get("cleanup_working_directory"):
            (folder / "job").unlink(missing_ok=True)
        self.post("/standin/done", id=job["id"], status=done.returncode, result=result)


def main() -> None:
    words = sys.argv[1:]
    if len(words) != 3 or words[0] != "machine" or words[1] not in ("-c", "--config"):
        refuse(f"usage: circleci-runner machine --config FILE, not {' '.join(words)}")
    if any(name.startswith("CIRCLECI_RUNNER_") for name in os.environ):
        refuse("an environment variable would win over the configuration")
    runner = Runner(configuration(Path(words[2])))
    signal.signal(signal.SIGTERM, runner.stop)
    runner.run()


if __name__ == "__main__":
    main()
