# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sandbox import scenarios
from sandbox.common import SandboxError

ROOT = Path(__file__).resolve().parents[3]
ARGUMENTS = set(yaml.safe_load((ROOT / "arguments.yml").read_text(encoding="utf-8"))["arguments"])


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_each_scenario_is_one_of_molecule_and_has_its_example(name: str) -> None:
    assert (ROOT / "molecule" / name / "molecule.yml").is_file()
    assert (ROOT / "inventories" / name / "hosts.yml").is_file()


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_variables_are_those_of_the_example_with_addresses_of_the_sandbox(name: str) -> None:
    given = yaml.safe_load((ROOT / "inventories" / name / "group_vars" / "all.yml").read_text(encoding="utf-8"))
    extra = scenarios.find(name).extra()
    assert set(extra) <= ARGUMENTS
    assert extra["circleci_platform"] == name == given["circleci_platform"]
    assert not {"circleci_domain", "circleci_registry_host"} & set(extra)
    kept = set(given) - scenarios.SANDBOX_SAYS
    assert kept <= set(extra)


def test_names_that_the_sandbox_decides_are_site_variables() -> None:
    assert scenarios.SANDBOX_SAYS <= ARGUMENTS


def test_groups_that_are_empty_in_the_example_are_empty_on_the_sandbox() -> None:
    assert scenarios.find("rancher").empty_groups() == []
    assert scenarios.find("azure").empty_groups() == ["circleci_cluster_nodes"]
    assert scenarios.find("eks").empty_groups() == ["circleci_object_storage", "circleci_cluster_nodes"]


def test_evidence_is_kept_cell_by_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "EVIDENCE", tmp_path)
    scenarios.note("azure", bucket=scenarios.cell("yes", "two", "emulator"))
    scenarios.note("azure", second_run=scenarios.cell("changed=0"))
    found = scenarios.evidence("azure")
    assert set(found["cells"]) == {"bucket", "second_run"} and found["level"] == "emulator"


def test_unknown_scenario_is_named() -> None:
    with pytest.raises(SandboxError, match="known: eks, gke, azure"):
        scenarios.find("mainframe")
