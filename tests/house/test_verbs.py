# SPDX-License-Identifier: GPL-3.0-or-later
"""A verb demands at its gate what it cannot do without, instead of failing half-way at a variable that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.arguments import load_arguments

ROOT = Path(__file__).resolve().parents[2]
VERBS = sorted(path.stem for path in ROOT.glob("playbooks/*.yml") if not path.name.endswith(".meta.yml"))
DERIVED = {name: yaml.safe_dump(value, width=1000) for name, value in yaml.safe_load((ROOT / "roles/site/vars/main.yml").read_text(encoding="utf-8")).items()}
# Read only where they are there.
GUARDED = re.compile(r"(circleci_[a-z_]+)(?: \| default\(|( \| bool\})?.{0,80}if \1 is defined)", re.DOTALL)


def text_of(path: Path) -> str:
    """A playbook with the task files that it imports."""
    text = path.read_text(encoding="utf-8")
    below = [ROOT / f"playbooks/tasks/{name}.yml" for name in re.findall(r"import_tasks: (?:tasks/)?(\w+)\.yml", text)]
    return text + "".join(text_of(item) for item in below)


def whole(text: str) -> str:
    """The text with the definitions of all derived variables that it uses."""
    seen: set[str] = set()
    todo = [text]
    parts = []
    while todo:
        part = todo.pop()
        parts.append(part)
        for name in set(re.findall(r"\b__circleci_site_[a-z_]+", part)) & set(DERIVED) - seen:
            seen.add(name)
            todo.append(DERIVED[name])
    return "\n".join(parts)


@pytest.mark.parametrize("verb", VERBS)
def test_what_has_no_default_and_is_read_is_demanded(verb: str) -> None:
    text = whole(text_of(ROOT / f"playbooks/{verb}.yml"))
    guarded = {found[0] for found in GUARDED.findall(text)}
    arguments = load_arguments(ROOT)
    read = {name for name in re.findall(r"(?<![a-z_])circleci_[a-z_]+", text) if name in arguments}
    assert sorted(name for name in read - guarded if not arguments[name].has_default and verb not in arguments[name].required) == []
