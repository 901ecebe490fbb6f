# SPDX-License-Identifier: GPL-3.0-or-later
"""What the main process of ansible-playbook has loaded, its workers need not load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.onprem.circleci_server.plugins.filter.with_filters_loaded import with_filters_loaded

ROOT = Path(__file__).resolve().parents[4]
# Runs in the worker before it asks for any filter of the collection.
PROBE = """
import sys
class FilterModule:
    def filters(self):
        return {'modules_of': lambda package: sorted(name for name in sys.modules if name.startswith(package))}
"""


@pytest.mark.parametrize(("hosts", "loaded"), [("localhost", False), ("{{ 'localhost' | onprem.circleci_server.with_filters_loaded }}", True)])
def test_a_worker_finds_every_filter_and_the_catalog_loaded(tmp_path: Path, hosts: str, loaded: bool) -> None:
    package = "ansible_collections.onprem.circleci_server.plugins"
    task = {"ansible.builtin.debug": {"msg": f"{{{{ '{package}' | modules_of }}}}"}}
    (tmp_path / "filter_plugins").mkdir()
    (tmp_path / "filter_plugins/probe.py").write_text(PROBE, encoding="utf-8")
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": hosts, "gather_facts": False, "tasks": [task]}]), encoding="utf-8")
    environment = {**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl", "ANSIBLE_HOME": str(tmp_path / "home"), "NO_COLOR": "1"}
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-c", "local", str(tmp_path / "play.yml")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = set(next(event["hosts"]["localhost"]["msg"] for event in events if event.get("_event") == "v2_runner_on_ok"))
    wanted = {f"{package}.plugin_utils.catalog.loader", *(f"{package}.filter.{path.stem}" for path in ROOT.glob("plugins/filter/*.py"))}
    assert (wanted <= found) if loaded else not wanted & found


def test_every_verb_begins_with_it() -> None:
    late = [
        path.name
        for path in ROOT.glob("playbooks/*.yml")
        if not path.name.endswith(".meta.yml") and "with_filters_loaded" not in yaml.safe_load(path.read_text(encoding="utf-8"))[0]["hosts"]
    ]
    assert late == []


def test_hosts_stay_as_they_are() -> None:
    assert with_filters_loaded("circleci_sites") == "circleci_sites"
