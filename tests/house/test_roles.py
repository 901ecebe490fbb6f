# SPDX-License-Identifier: GPL-3.0-or-later
"""Each role has the same shape, and its defaults are what its argument specification says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent for path in ROOT.glob("roles/*/tasks"))
NAMES = [role.name for role in ROLES]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None


def options(role: Path) -> dict[str, Any]:
    spec = load(role / "meta/argument_specs.yml") or {"argument_specs": {}}
    return {name: option for entry in spec["argument_specs"].values() for name, option in (entry.get("options") or {}).items()}


@pytest.mark.parametrize("role", ROLES, ids=NAMES)
def test_has_the_common_shape(role: Path) -> None:
    expected = ["README.md", "meta/main.yml", "tasks/main.yml", "defaults/main.yml"]
    if role.name != "site":  # lends defaults only; its README says why it has no specification
        expected.append("meta/argument_specs.yml")
    assert [name for name in expected if not (role / name).is_file()] == []


@pytest.mark.parametrize("role", [role for role in ROLES if role.name != "site"], ids=[name for name in NAMES if name != "site"])
def test_defaults_equal_the_specification(role: Path) -> None:
    specified = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert (load(role / "defaults/main.yml") or {}) == specified


@pytest.mark.parametrize("role", [role for role in ROLES if role.name != "site"], ids=[name for name in NAMES if name != "site"])
def test_options_are_described_and_carry_the_name_of_the_role(role: Path) -> None:
    for name, option in options(role).items():
        assert name.startswith(f"circleci_{role.name}_"), name
        assert option.get("description"), name
        assert option.get("type"), name
        assert option.get("required") or "default" in option or option.get("type"), name
        if any(word in name for word in ("password", "secret_key", "private_key", "token")) and option["type"] == "str":
            assert option.get("no_log"), f"{name} looks like a secret and lacks no_log"


@pytest.mark.parametrize("role", [role for role in ROLES if role.name != "site"], ids=[name for name in NAMES if name != "site"])
def test_every_entry_point_has_tasks(role: Path) -> None:
    entries = load(role / "meta/argument_specs.yml")["argument_specs"]
    assert [entry for entry in entries if not (role / f"tasks/{entry}.yml").is_file()] == []


@pytest.mark.parametrize("role", ROLES, ids=NAMES)
def test_has_no_dependencies_and_includes_no_other_role(role: Path) -> None:
    assert not (load(role / "meta/main.yml") or {}).get("dependencies")
    for tasks in role.glob("tasks/**/*.yml"):
        text = tasks.read_text(encoding="utf-8")
        assert "include_role" not in text and "import_role" not in text, tasks


def test_site_lends_exactly_the_defaults_of_the_arguments() -> None:
    arguments = load(ROOT / "arguments.yml")["arguments"]
    assert load(ROOT / "roles/site/defaults/main.yml") == {name: a["default"] for name, a in arguments.items() if "default" in a}


def test_the_verb_bundle_hands_on_every_variable_that_it_reads() -> None:
    arguments = load(ROOT / "arguments.yml")["arguments"]
    text = (ROOT / "playbooks/bundle.yml").read_text(encoding="utf-8")
    read = [name for name, argument in arguments.items() if "bundle" in argument["verbs"]]
    # The platform is asked for by the gate only: what a bundle holds does not depend on it. The overlay is read by the catalog itself.
    assert [name for name in read if name not in text and name not in ("circleci_platform", "circleci_catalog_overlay")] == []


def test_registries_of_two_distributions_do_not_share_their_packages_on_the_controller() -> None:
    """Two sites of one inventory may load the same bundle onto registries of different systems."""

    def path(task: Any, module: str, option: str, variable: str, archive: str) -> str:
        text = task[module][option].replace(" | basename", ".rpartition('/')[2]")
        feed = {"bundle_id": "b1", "archive": f"/var/lib/onprem-circleci/feed/{archive}"}
        return str(jinja2.Template(text).render({"circleci_registry_controller_dir": "/c", variable: feed}))

    tasks = {name: load(ROOT / f"roles/registry/tasks/{name}.yml") for name in ("feed", "main")}
    fetched = next(task for task in tasks["feed"] if "ansible.builtin.fetch" in task)
    copied = next(task for task in tasks["main"] if "ansible.builtin.copy" in task)
    names = ("registry-debian-12-amd64.tar", "registry-ubuntu-22.04-amd64.tar")
    down = [path(fetched, "ansible.builtin.fetch", "dest", "__circleci_registry_feed", name) for name in names]
    up = [path(copied, "ansible.builtin.copy", "src", "circleci_registry_feed", name) for name in names]
    assert down == up and len(set(up)) == 2
    assert fetched["throttle"] == 1


def test_a_text_that_says_false_is_not_taken_for_true() -> None:
    """Options that stand in an inventory as they are come as texts out of INI files and --extra-vars; the gate looks at site variables only."""
    arguments = load(ROOT / "arguments.yml")["arguments"]
    bridges = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("playbooks/**/*.yml") if not path.name.endswith(".meta.yml"))
    wrong = []
    for role in ROLES:
        texts = {path: path.read_text(encoding="utf-8") for folder in ("tasks", "templates", "vars") for path in role.glob(f"{folder}/*")}
        for name, option in options(role).items():
            if option["type"] != "bool" or name in arguments or f"{name}:" in bridges:
                continue
            # A module turns the text into what it says; Jinja does not.
            use = re.compile(rf"\b{name}\b(?! \| bool)(?! }}}}\")")
            wrong += [f"{path.relative_to(ROOT)}: {name}" for path, text in texts.items() if use.search(text)]
    assert wrong == []
