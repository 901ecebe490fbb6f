# SPDX-License-Identifier: GPL-3.0-or-later
"""Every trap of the vendor's guide is named in the documentation with a test that exists, and the traps that are no matter of values."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from ansible_collections.onprem.circleci_server.plugins.module_utils.health.known_failures import LOOKS
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (?:`(\w+\.py)::(\w+)`|none) \|$", re.MULTILINE)


def test_each_trap_has_its_row_and_its_test() -> None:
    rows = ROW.findall((ROOT / "docs/explanation/traps.md").read_text(encoding="utf-8"))
    data = yaml.safe_load((ROOT / "plugins/plugin_utils/catalog/data/failure_modes.yml").read_text(encoding="utf-8"))
    numbers = sorted(int(row["number"]) for row in data["failure_modes"] if row["number"] is not None)
    assert [int(row[0]) for row in rows] == numbers
    missing = []
    for _number, _trap, _done, file, test in rows:
        texts = [path.read_text(encoding="utf-8") for path in ROOT.glob(f"tests/**/{file}")] if file else ["none"]
        if file and not any(f"def {test}(" in text for text in texts):
            missing.append(f"{file}::{test}")
    assert missing == []


def test_what_a_running_site_shows_is_said_of_each_trap() -> None:
    text = (ROOT / "docs/explanation/traps.md").read_text(encoding="utf-8").partition("## What a running site shows")[2]
    rows = {told: [int(number) for number in numbers.split(", ")] for numbers, told in re.findall(r"^\| ([\d, ]+) \| (.+?) \|$", text, re.MULTILINE)}
    data = yaml.safe_load((ROOT / "plugins/plugin_utils/catalog/data/failure_modes.yml").read_text(encoding="utf-8"))
    numbers = {str(row["id"]): row["number"] for row in data["failure_modes"]}
    assert rows["a look of its own"] == sorted(number for name in LOOKS if (number := numbers[name]) is not None)
    assert sorted(number for found in rows.values() for number in found) == sorted(number for number in numbers.values() if number is not None)


def test_docker_gc_pulls_nothing() -> None:
    text = (ROOT / "roles/nomad_client/templates/docker-gc.service.j2").read_text(encoding="utf-8")
    unit = text.partition("[Unit]")[2]
    assert "docker pull" not in unit
    assert "{{ circleci_nomad_client_registry['registry'] }}/{{ circleci_nomad_client_gc_image }}" in unit
    assert "WantedBy=multi-user.target" in unit


def test_retention_is_a_step_of_the_upgrade() -> None:
    steps = Catalog.load().upgrade_steps("4.10.0")
    assert any("retention" in f"{step.title} {step.action}".lower() for step in steps)
