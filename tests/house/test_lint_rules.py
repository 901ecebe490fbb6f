# SPDX-License-Identifier: GPL-3.0-or-later
"""The lint rules of the house fire under the settings that the gate uses, each on what it is for and on nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# rule -> tasks that it must refuse
REFUSED = {
    "house-no-cross-site-reads": [
        "msg: \"{{ groups['circleci_registry'] | first }}\"",
        "msg: \"{{ hostvars['other']['circleci_domain'] }}\"",
        "msg: \"{{ groups.get('circleci_registry') }}\"",
        "msg: \"{{ hostvars.get('other') }}\"",
    ],
    "house-no-controller-delegation": ["msg: x\n  run_once: true", "msg: x\n  delegate_to: localhost", "msg: x\n  delegate_to: 127.0.0.1"],
    "house-no-injected-facts": ['msg: "{{ ansible_distribution }}"', 'msg: "{{ ansible_default_ipv4.address }}"'],
    "house-role-variable-names": ["msg: x\n  register: result", "msg: x\n  vars:\n    circleci_other_name: x"],
}
ACCEPTED = [
    "msg: \"{{ 'circleci_registry' | onprem.circleci_server.site_hosts(groups, hostvars, inventory_hostname) }}\"",
    "msg: x\n  delegate_to: \"{{ circleci_demo_host }}\"",
    "msg: \"{{ ansible_facts['distribution'] }}\"",
    "msg: x\n  register: __circleci_demo_result",
    "msg: x\n  vars:\n    circleci_demo_name: x",
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Names of tasks in a role ``demo`` -> rules of the house that refuse them."""
    folder = tmp_path_factory.mktemp("lint")
    shutil.copytree(ROOT / ".config", folder / ".config", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    tasks = folder / "roles/demo/tasks/main.yml"
    tasks.parent.mkdir(parents=True)
    bodies = {f"Task {rule} {number}": body for rule, texts in REFUSED.items() for number, body in enumerate(texts)}
    bodies |= {f"Task accepted {number}": body for number, body in enumerate(ACCEPTED)}
    text = "---\n"
    lines: dict[int, str] = {}
    for name, body in bodies.items():
        lines[text.count("\n") + 1] = name
        text += f"- name: {name}\n  ansible.builtin.debug:\n    {body}\n\n"
    tasks.write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["ansible-lint", "--offline", "-c", ".config/ansible-lint.yml", "-f", "json", str(tasks.relative_to(folder))],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    result: dict[str, set[str]] = {name: set() for name in bodies}
    for finding in json.loads(done.stdout):
        rule = finding["check_name"]
        if rule.startswith("house-"):
            place = finding["location"].get("lines") or finding["location"]["positions"]
            begin = place["begin"]
            line = begin if isinstance(begin, int) else begin["line"]
            result[lines[max(start for start in lines if start <= line)]].add(rule)
    return result


@pytest.mark.parametrize(("rule", "number"), [(rule, number) for rule, texts in REFUSED.items() for number in range(len(texts))])
def test_refuses(rule: str, number: int, found: dict[str, set[str]]) -> None:
    assert found[f"Task {rule} {number}"] == {rule}


@pytest.mark.parametrize("number", range(len(ACCEPTED)))
def test_accepts(number: int, found: dict[str, set[str]]) -> None:
    assert found[f"Task accepted {number}"] == set()


def test_every_rule_of_the_house_is_tried() -> None:
    source = (ROOT / ".config/ansible-lint-rules/house.py").read_text(encoding="utf-8")
    assert set(re.findall(r'^    id = "(.+)"$', source, flags=re.MULTILINE)) == set(REFUSED)
