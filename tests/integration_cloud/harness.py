# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb cloud_prepare as an operator runs it, with an example inventory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from .standin import TOKEN

ROOT = Path(__file__).resolve().parents[2]
SECRET = "canary of the secret key"
NOMAD = "circleci-site-nomad-client"
PORTS: dict[str, Any] = {"kubernetes": ["192.0.2.128/26"], "users": ["198.51.100.0/24", "2001:db8:1::/48"], "administrators": ["203.0.113.0/28"]}


class Cloud:
    """An inventory of ours in a cloud, and the verb run for it."""

    def __init__(self, folder: Path, example: str, python: str, variables: dict[str, Any], environment: dict[str, str]) -> None:
        self.folder, self.python, self.environment = folder, python, environment
        self.example, self.host = example, f"bastion.{example}.example.com"
        self.variables = variables
        self.hidden: list[str] = []

    def run(self, *arguments: str, **variables: Any) -> dict[str, Any]:
        # The platform variables come from the example inventory, so that what an operator copies is what is tried.
        overlay = self.folder / "overlay.yml"
        overlay.write_text(yaml.safe_dump({"circleci_sites": {"hosts": {self.host: {
            "ansible_connection": "local", "ansible_python_interpreter": self.python}}}}))  # fmt: skip
        words = [
            str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(ROOT / "inventories" / self.example), "-i", str(overlay),
            "onprem.circleci_server.cloud_prepare", "--diff", *arguments,
            "--extra-vars", json.dumps({**self.variables, **variables}),
        ]  # fmt: skip
        environment = {
            "HOME": str(self.folder), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "ANSIBLE_HOME": str(self.folder / ".ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT.parents[2]), "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl",
            # Nobody asks for an identity of the machine that the tests run on.
            "AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true", "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
            **self.environment,
        }  # fmt: skip
        done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=self.folder, env=environment)
        said = done.stdout + done.stderr
        hidden = (TOKEN, SECRET, *self.hidden)
        assert not [secret for secret in hidden if secret in said]
        events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        results = [event["hosts"][self.host] for event in events if event.get("hosts") and self.host in event["hosts"]]
        # What the site does not ask for is skipped, and says nothing.
        said_something = [result for result in results if not result.get("skipped")]
        last = said_something[-1] if said_something else {}
        stats = [event["stats"][self.host] for event in events if event.get("_event") == "v2_playbook_on_stats" and self.host in event["stats"]]
        changed = stats[-1]["changed"] if stats else None
        endpoints = [result["msg"] for result in results if isinstance(result.get("msg"), list)]
        return {"code": done.returncode, "changed": changed, "last": last, "said": said, "endpoints": endpoints}
