# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules that work on an installed release, in check mode and for real, with a cluster that keeps its workloads in step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.onprem.circleci_server.plugins.module_utils import operations_module
from ansible_collections.onprem.circleci_server.plugins.modules import (
    installed_release,
    mongodb_upgrade,
    release_layers,
    restore_point,
    way_back,
)
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.operations.world import NS, World, image

MODULES = {"installed_release": installed_release, "release_layers": release_layers, "restore_point": restore_point, "mongodb_upgrade": mongodb_upgrade}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    made.api.put("/version", {"gitVersion": "v1.33.0"})
    monkeypatch.setattr(operations_module, "KubernetesClient", lambda *_given: made.api)
    for module in (restore_point, mongodb_upgrade, way_back):
        monkeypatch.setattr(module, "Kubectl", lambda *_given, **_more: made)
    # Controllers are done before anybody looks.
    made.api.hooks.append(lambda method, _path: made.settle() if method == "GET" else None)
    return made


def run(module: str, capsys: pytest.CaptureFixture[str], check: bool = False, **options: Any) -> dict[str, Any]:
    given = {"kubeconfig": "/kubeconfig", "name": "circleci-server", "namespace": NS, "domain": "ci.example.com"}
    with patch_module_args({**given, **options, "_ansible_check_mode": check}):
        with pytest.raises(SystemExit):
            MODULES[module].main()  # type: ignore[attr-defined]
    basic._ANSIBLE_ARGS = None
    return dict(json.loads(capsys.readouterr().out))


def test_what_is_installed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    found = run("installed_release", capsys)
    assert (found["version"], found["status"], found["revision"], found["kubernetes"]) == ("4.9.5", "deployed", 1, "v1.33.0")
    assert (found["mongodb"], found["changed"]) == ("4.4.15-debian-10-r8", False)


def test_no_release_is_no_error_to_the_planner_and_one_to_the_others(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("installed_release", capsys, namespace="another")["version"] == ""
    assert "verb install" in run("release_layers", capsys, namespace="another", state="stopped")["msg"]


def test_foreign_releases_are_refused(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("installed_release", capsys, domain="other.example")["code"] == "foreign_site"
    assert run("installed_release", capsys, name="another")["code"] == "second_release"
    world.api.forbidden.add(("GET", "namespaces"))
    assert run("installed_release", capsys)["version"] == "4.9.5", "rights in the namespace alone are enough"


def test_check_mode_tells_what_the_run_then_does(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    before = world.api.writes()
    check = run("release_layers", capsys, check=True, state="stopped")
    assert world.api.writes() == before
    done = run("release_layers", capsys, state="stopped")
    assert (check["changed"], check["scaled"]) == (True, done["scaled"])
    assert run("release_layers", capsys, state="stopped")["changed"] is False
    pods = run("release_layers", capsys, check=True, state="restarted", workloads=["mongodb"])
    assert pods["pods"] == ["mongodb-0"]


def test_a_restore_point_is_taken_once_while_nothing_runs(world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options: dict[str, Any] = {"path": str(tmp_path / "points"), "target": "4.10.0", "keep_stopped": True}
    check = run("restore_point", capsys, check=True, **options)
    assert check["changed"] and not (tmp_path / "points").exists()
    taken = run("restore_point", capsys, **options)
    assert taken["changed"] and taken["scaled"] == check["scaled"]
    assert "pg-secret" not in json.dumps(taken) and "SCRAM" not in json.dumps(taken)
    again = run("restore_point", capsys, **options)
    assert (again["changed"], again["point"]["id"]) == (False, taken["point"]["id"])
    assert run("restore_point", capsys, check=True, **options)["changed"] is False


def test_by_itself_it_lets_circleci_run_again_even_when_it_fails(world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("restore_point", capsys, path=str(tmp_path / "points"))["changed"]
    frontend = world.api.objects[f"/apis/apps/v1/namespaces/{NS}/deployments/frontend"]
    assert frontend["spec"]["replicas"] == 2
    del world.api.objects[f"/api/v1/namespaces/{NS}/secrets/mongodb-credentials"]
    failed = run("restore_point", capsys, path=str(tmp_path / "points"))
    assert failed["code"] == "secret" and frontend["spec"]["replicas"] == 2
    assert len(list((tmp_path / "points").iterdir())) == 1, "what is half done is taken away"


def test_steps_of_mongodb(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [{"version": "5.0", "image": image("5.0.24-x")}, {"version": "6.0", "image": image("6.0.13-x")}]
    check = run("mongodb_upgrade", capsys, check=True, steps=steps)
    assert (check["changed"], check["steps"], check["before"], check["after"]) == (True, ["5.0", "6.0"], "4.4", "6.0")
    done = run("mongodb_upgrade", capsys, steps=steps)
    assert (done["steps"], done["after"]) == (check["steps"], "6.0")
    assert run("mongodb_upgrade", capsys, steps=steps)["changed"] is False


def test_an_api_that_is_gone_is_one_sentence(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.api.down = True
    failed = run("release_layers", capsys, state="stopped")
    assert failed["code"] == "kubernetes" and "cannot be reached" in failed["msg"]
