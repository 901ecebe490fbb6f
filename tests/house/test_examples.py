# SPDX-License-Identifier: GPL-3.0-or-later
"""Examples of roles and modules in the documentation would not be refused: they give what is required, and nothing that is not known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "onprem.circleci_server."
PAGES = [path for pattern in ("docs/**/*.md", "roles/*/README.md", "README.md") for path in sorted(ROOT.glob(pattern))]
BLOCK = re.compile(r"```ya?ml\n(.*?)```", re.DOTALL)


@lru_cache
def entries(role: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    return found


def uses(node: Any, around: Mapping[str, Any] | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Role, entry and variables of each use below a node; variables of a play reach its roles and tasks."""
    around = dict(around or {})
    if isinstance(node, list):
        for item in node:
            yield from uses(item, around)
    if not isinstance(node, dict):
        return
    own = {**around, **(node.get("vars") or {})}
    for word in ("ansible.builtin.import_role", "ansible.builtin.include_role"):
        if word in node:
            yield str(node[word]["name"]), str(node[word].get("tasks_from", "main")), own
    for role in node.get("roles") or []:
        given = role if isinstance(role, dict) else {"role": role}
        yield str(given.get("role")), "main", {**own, **given, **(given.get("vars") or {})}
    for word in ("tasks", "pre_tasks", "post_tasks", "block"):
        yield from uses(node.get(word), own)


def documents(text: str) -> Iterator[Any]:
    for block in BLOCK.findall(text):
        try:
            yield yaml.safe_load(block)
        except yaml.YAMLError:
            continue  # a part of a file, or one with tags of Ansible


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_examples_of_roles_give_what_the_role_asks_for(page: Path) -> None:
    wrong = []
    for document in documents(page.read_text(encoding="utf-8")):
        for role, entry, given in uses(document):
            name = role.removeprefix(NAMESPACE)
            if name == role or name == "site":
                continue
            options = entries(name)[entry].get("options") or {}
            wrong += [f"{name}, {entry}: lacks {option}" for option, about in options.items() if about.get("required") and option not in given]
            wrong += [f"{name}, {entry}: does not know {option}" for option in given if option.startswith(f"circleci_{name}_") and option not in options]
    assert wrong == []
