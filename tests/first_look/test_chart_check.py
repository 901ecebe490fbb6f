# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb chart_check on a chart that was changed on purpose, and what the other verbs make of its overlay."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.tests.first_look.world import ROOT, World
from ansible_collections.onprem.circleci_server.tests.unit.standin import planted

CONNECTED = ("connected.example.com",)
BASTION = ("bastion.example.com",)
RELEASE = "4.10.0"


def tool(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", *words], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def helm() -> str:
    found = Path(tool("sandbox", "artifacts", "helm").splitlines()[-1].split()[-1]) / "helm"
    if not found.is_file():
        pytest.skip("helm is not in the cache: make helm")
    return str(found)


@pytest.fixture
def chart(world: World) -> Path:
    """A chart in which another key moves the image of Kong, and that does not call itself a stand-in."""
    tool("sandbox.standin", "chart", RELEASE, str(world.home))
    folder = world.home / "circleci-server"
    planted.image_key_renamed(folder)
    planted.not_called_a_stand_in(folder)
    return folder


def variables(world: World, helm: str, chart: Path) -> dict[str, Any]:
    return {"circleci_chart": str(chart), "circleci_chart_check_output": f"{world.home}/checked", "circleci_chart_check_helm": helm}


def values_of(world: World) -> dict[str, str]:
    return {row["key"]: row["value"] for row in world.plan("site")["values"]}


def test_overlay_is_used_by_the_verbs_that_follow(world: World, helm: str, chart: Path) -> None:
    extra = variables(world, helm, chart)
    foreseen = world.run("chart_check", "single-site", local=CONNECTED, extra=extra, arguments=["--check", "--diff"])
    assert (foreseen.code, foreseen.changed) == (0, {CONNECTED[0]: 1}), foreseen.messages() + foreseen.said
    assert not (world.home / "checked").exists()
    assert world.run("chart_check", "single-site", local=CONNECTED, extra=extra).changed == {CONNECTED[0]: 1}
    again = world.run("chart_check", "single-site", local=CONNECTED, extra=extra)
    assert (again.code, again.changed) == (0, {}), again.messages()

    report = json.loads((world.home / f"checked/circleci-server-{RELEASE}.json").read_text(encoding="utf-8"))
    found = {row["what"]: row for row in report["differences"]}
    assert found["kong: key of repository"]["chart"] == "kong.image.name"
    assert found["image kong:3.4.2"]["level"] == "breaks"
    assert report["left"] == []
    text = (world.home / f"checked/circleci-server-{RELEASE}.md").read_text(encoding="utf-8")
    assert "| differs | kong: key of repository | kong.image.repository | kong.image.name |" in text

    plain = world.run("plan", "single-site", local=BASTION)
    assert plain.code == 0, plain.messages()
    assert "not compared with the vendor's chart" in world.plan("site")["summary"]
    assert "kong.image.repository" in values_of(world)
    overlay = f"{world.home}/checked/circleci-server-{RELEASE}.overlay.json"
    compared = world.run("plan", "single-site", local=BASTION, extra={"circleci_catalog_overlay": overlay})
    assert compared.code == 0, compared.messages()
    assert f"Compared with circleci-server-{RELEASE}, {report['chart']['digest']}" in world.plan("site")["summary"]
    assert values_of(world)["kong.image.name"] == "registry.example.com:5000/library/kong"
    assert "kong.image.repository" not in values_of(world)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("missing.json", None, "missing.json cannot be read (No such file or directory)"),
        ("broken.json", "{", "broken.json is no JSON"),
        ("other.json", '{"format": "x"}', "other.json is no catalog overlay: its format is 'x'"),
    ],
)
def test_overlay_that_is_none_is_refused(world: World, name: str, content: str | None, expected: str) -> None:
    path = world.home / name
    if content is not None:
        path.write_text(content, encoding="utf-8")
    result = world.run("plan", "single-site", local=BASTION, extra={"circleci_catalog_overlay": str(path)})
    assert result.code == 2
    assert expected in result.messages()
    assert "circleci_catalog_overlay: " in result.messages()
    assert not world.plans.exists()


def test_overlay_needs_a_full_path(world: World) -> None:
    result = world.run("plan", "single-site", local=BASTION, extra={"circleci_catalog_overlay": "overlay.json"})
    assert result.code == 2
    assert "circleci_catalog_overlay: found 'overlay.json'; allowed is a full path on the controller" in result.messages()


def test_what_is_no_chart_is_told_in_one_sentence(world: World, helm: str) -> None:
    (world.home / "no.tgz").write_text("nothing", encoding="utf-8")
    for path, expected in (("/nowhere", "circleci_chart: there is no /nowhere on this host"), (f"{world.home}/no.tgz", "cannot be read as a chart")):
        result = world.run("chart_check", "single-site", local=CONNECTED, extra={"circleci_chart": path, "circleci_chart_check_helm": helm})
        assert result.code == 2
        assert expected in result.messages()
