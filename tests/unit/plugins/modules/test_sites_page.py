# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of several sites, by the real ansible-playbook over two sites of one inventory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RESULT = "__circleci_report_result"
PLAY: list[dict[str, Any]] = [
    {"hosts": "circleci_sites", "gather_facts": False, "tasks": [
        {"ansible.builtin.import_role": {"name": "onprem.circleci_server.report"},
         "vars": {"circleci_report_path": "{{ folder }}",
                  "circleci_report_findings": "{{ {'site': circleci_site, 'services': services} | onprem.circleci_server.packed_json }}"}}]},
    {"hosts": "circleci_sites", "gather_facts": False, "tasks": [
        {"ansible.builtin.import_role": {"name": "onprem.circleci_server.report", "tasks_from": "sites"},
         "vars": {"circleci_report_path": "{{ folder }}",
                  "circleci_report_reports": f"{{{{ '{RESULT}' | onprem.circleci_server.site_reports(groups, hostvars) }}}}"},
         "when": "circleci_report_all_sites"}]},
]  # fmt: skip


def sites(tmp_path: Path, names: tuple[str, str] = ("kyoto", "osaka")) -> tuple[dict[str, Any], dict[str, Path]]:
    down = [{"name": "api-service", "state": "down", "impact": "The UI stops."}]
    folders = {host: tmp_path / host for host in ("first", "second")}
    hosts = {
        host: {"folder": str(folders[host]), "circleci_site": name, "services": services, "circleci_report_all_sites": host == "first",
               # What belongs to one site and must not be read from the other.
               "secret": "{{ undef(hint='read from another site') }}"}
        for host, name, services in (("first", names[0], []), ("second", names[1], down))
    }  # fmt: skip
    common = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    return {"all": {"vars": common, "children": {"circleci_sites": {"hosts": hosts}, "site_a": {"hosts": {"first": None}}, "site_b": {"hosts": {"second": None}}}}}, folders


def run(tmp_path: Path, inventory: dict[str, Any], *arguments: str) -> tuple[int, dict[str, int], str]:
    (tmp_path / "play.yml").write_text(json.dumps(PLAY), encoding="utf-8")
    (tmp_path / "inventory.json").write_text(json.dumps(inventory), encoding="utf-8")
    environment = {**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl", "ANSIBLE_HOME": str(tmp_path / "home"), "NO_COLOR": "1"}
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(tmp_path / "inventory.json"), str(tmp_path / "play.yml"), *arguments]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    stats: dict[str, dict[str, int]] = next((event["stats"] for event in events if "stats" in event), {})
    return done.returncode, {host: numbers["changed"] for host, numbers in stats.items()}, done.stdout + done.stderr


def test_only_where_it_is_asked_for_the_troubled_site_first(tmp_path: Path) -> None:
    inventory, folders = sites(tmp_path)
    code, changed, said = run(tmp_path, inventory, "--check")
    assert code == 0 and changed == {"first": 2, "second": 1}, said
    assert not folders["first"].exists()
    code, changed, said = run(tmp_path, inventory)
    assert code == 0 and changed == {"first": 2, "second": 1}, said
    page = (folders["first"] / "sites.html").read_text(encoding="utf-8")
    assert page.index('id="site-osaka"') < page.index('id="site-kyoto"')
    assert not (folders["second"] / "sites.html").exists()
    assert "site-osaka" not in (folders["first"] / "report.html").read_text(encoding="utf-8")
    code, changed, said = run(tmp_path, inventory)
    assert code == 0 and changed == {"first": 0, "second": 0}, said


@pytest.mark.parametrize("names", [("kyoto", "kyoto")])
def test_two_sites_of_one_name_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    code, _changed, said = run(tmp_path, sites(tmp_path, names)[0])
    assert code == 2 and "reports holds kyoto twice" in said
