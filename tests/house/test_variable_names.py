# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever names a variable, an error or a page of the documentation, names one that exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.arguments import load_arguments, role_option_names
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.port_model.inventory import GROUPS
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values.model import VARIABLES

ROOT = Path(__file__).resolve().parents[2]
# Names of the same form that are none of variables: the collection, a work folder, a user of the runner, and a word of the vendor.
OTHERS = {"circleci_server", "circleci_mirror", "circleci_zip", "circleci_connected"}
NAME = re.compile(r"(?<![\w./])circleci_[a-z0-9_]+")
TEXTS = ("plugins/**/*.py", "plugins/**/*.yml", "roles/**/*.yml", "roles/**/*.j2", "roles/**/*.md", "playbooks/**/*.yml", "docs/**/*.md", "inventories/**/*.yml", "*.md")


def known() -> set[str]:
    return set(load_arguments(ROOT)) | role_option_names(ROOT) | set(GROUPS) | OTHERS


def unknown(text: str, names: set[str]) -> Iterator[str]:
    """Names in a text that nobody knows. One that ends with an underscore is the beginning of several."""
    for found in NAME.findall(text):
        if found not in names and not (found.endswith("_") and any(name.startswith(found) for name in names)):
            yield found


def test_every_variable_that_is_named_exists() -> None:
    names = known()
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {name}"
        for pattern in TEXTS
        for path in sorted(ROOT.glob(pattern))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for name in unknown(line, names)
    ]
    assert wrong == []


def test_a_name_that_nobody_knows_is_found() -> None:
    assert list(unknown("set circleci_releaze, circleci_release or circleci_smtp_*; plugins/circleci_x, __circleci_y", known())) == ["circleci_releaze", "circleci_smtp_"]


def test_facts_of_a_site_are_called_after_the_variables_that_they_come_from() -> None:
    facts = yaml.safe_load((ROOT / "roles/site/vars/main.yml").read_text(encoding="utf-8"))["__circleci_site_facts"]
    # What the facts of GitHub are made of stands in one expression.
    facts["github"] = dict(re.findall(r"'(\w+)': (circleci_\w+)", facts["github"]))
    made = {
        name if part is None else f"{name}.{part}": set(re.findall(r"\bcircleci_[a-z_]+", str(value))) - OTHERS
        for name, block in facts.items()
        for part, value in (block.items() if isinstance(block, dict) else [(None, block)])
    }
    # A block may be one expression as a whole.
    known = {fact: made.get(fact, made.get(fact.partition(".")[0], ())) for fact in VARIABLES}
    wrong = {fact: variable for fact, variable in VARIABLES.items() if not fact.startswith("tls.") and variable not in known[fact]}
    assert wrong == {}
    assert set(VARIABLES.values()) <= set(load_arguments(ROOT))


REMEDY = re.compile(r"(circleci_[a-z_]+)[^\"']{0,60}\b[Rr]un (?:the verb )?(secrets|install|upgrade|verify|bundle|preflight|plan|report)\b")


def test_a_verb_that_a_remedy_names_reads_the_variable_that_it_names() -> None:
    arguments = load_arguments(ROOT)
    wrong = [
        f"{path.relative_to(ROOT)}: {found[0]} is not read by {found[1]}"
        for path in sorted(ROOT.glob("plugins/**/*.py"))
        for found in REMEDY.findall(path.read_text(encoding="utf-8"))
        if found[0] in arguments and found[1] not in arguments[found[0]].verbs
    ]
    assert wrong == []
