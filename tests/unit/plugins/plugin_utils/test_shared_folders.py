# SPDX-License-Identifier: GPL-3.0-or-later
"""Which sites of an inventory name the same folder of the same host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.arguments import load_arguments
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.shared_folders import shared_folder

ARGUMENTS = load_arguments()
DEFAULT = "/var/lib/onprem-circleci"


class Poisoned(Mapping[str, Any]):
    """Variables of a site that cannot be resolved."""

    def __getitem__(self, name: str) -> Any:
        raise AnsibleError("a variable of another site was read")

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def found(a: Mapping[str, Any], b: Mapping[str, Any], *, verb: str = "install", folder: str = DEFAULT) -> list[str]:
    groups = {"circleci_sites": ["a", "b"], "all": ["a", "b", "c"]}
    return [str(problem) for problem in shared_folder(verb, groups, {"a": a, "b": b}, "a", folder, ARGUMENTS)]


HERE = {"ansible_host": "192.0.2.10"}


@pytest.mark.parametrize(
    ("a", "b", "folder"),
    [
        (HERE, HERE, DEFAULT),
        (HERE, {**HERE, "circleci_state_dir": f"{DEFAULT}/"}, DEFAULT),
        (HERE, {**HERE, "circleci_state_dir": "/srv/x/../one"}, "/srv/one"),
        (HERE, {**HERE, "ansible_port": 22}, DEFAULT),
        ({}, {"ansible_host": "a"}, DEFAULT),
        ({"ansible_connection": "local"}, {"ansible_connection": "local", "ansible_host": "192.0.2.10"}, DEFAULT),
    ],
)
def test_the_same_folder_of_the_same_host(a: Mapping[str, Any], b: Mapping[str, Any], folder: str) -> None:
    (text,) = found(a, {**b, "circleci_site": "osaka"}, folder=folder)
    assert f"circleci_state_dir: found '{folder}', which b (site osaka) has on the same host too; allowed is a folder of its own" in text
    assert "site_<name>" in text


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({}, {}),
        (HERE, {"ansible_host": "192.0.2.11"}),
        (HERE, {**HERE, "circleci_state_dir": f"{DEFAULT}-b"}),
        (HERE, {**HERE, "ansible_port": 2222}),
        (HERE, Poisoned()),
        (HERE, {**HERE, "ansible_connection": "local"}),
    ],
)
def test_different_hosts_or_folders(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    assert found(a, b) == []


def test_a_plan_of_all_sites_may_be_made_on_one_machine() -> None:
    local = {"ansible_connection": "local"}
    assert found({**local, **HERE}, {**local, "ansible_host": "192.0.2.11"}, verb="plan") == []
    assert found({**local, **HERE}, {**local, **HERE}, verb="plan")


def test_a_verb_without_the_folder_and_a_site_alone_are_not_asked() -> None:
    assert found(HERE, HERE, verb="bundle") == []
    assert shared_folder("install", {"circleci_sites": ["a"]}, {"a": HERE}, "a", DEFAULT, ARGUMENTS) == []
