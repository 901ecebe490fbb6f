# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules that work on an installed release, in check mode and for real, with a cluster that keeps its workloads in step."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.onprem.circleci_server.plugins.module_utils import database_step, operations_module
from ansible_collections.onprem.circleci_server.plugins.module_utils.operations.restore_points import (
    Owner,
    RestorePoints,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.records import write_record
from ansible_collections.onprem.circleci_server.plugins.modules import (
    installed_release,
    mongodb_upgrade,
    postgresql_upgrade,
    release_layers,
    restore_point,
    way_back,
)
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.operations.world import (
    NS,
    World,
    image,
    postgres_image,
)

MODULES = {
    "installed_release": installed_release, "release_layers": release_layers, "restore_point": restore_point, "mongodb_upgrade": mongodb_upgrade,
    "postgresql_upgrade": postgresql_upgrade,
}  # fmt: skip


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    made.api.put("/version", {"gitVersion": "v1.33.0"})
    monkeypatch.setattr(operations_module, "KubernetesClient", lambda *_given: made.api)
    for module in (restore_point, database_step, way_back):
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


def test_restore_points_of_another_site_in_the_same_folder_are_not_ours(world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "points"
    options: dict[str, Any] = {"path": str(path), "target": "4.10.0", "keep_stopped": True}
    run("restore_point", capsys, **options)
    (folder,) = path.iterdir()
    record = json.loads((folder / "restore-point.json").read_text())
    assert record["domain"] == "ci.example.com"
    # The other site has the same release at the same revision, and names of its release that are the default, too.
    other = folder.rename(path / "20990101T000000Z-4.9.5")
    (other / "restore-point.json").write_text(json.dumps({**record, "domain": "ci.other.example"}), encoding="utf-8")
    taken = run("restore_point", capsys, **options, keep=1)
    assert taken["changed"] and taken["removed"] == [] and other.is_dir()
    owner = Owner("circleci-server", NS, "ci.example.com")
    points = RestorePoints(path, world.api)
    assert points.get("", owner).id == taken["point"]["id"]
    assert not points.get(other.name, owner).is_of(owner)


def test_what_is_not_in_a_restore_point_is_said_before_and_kept_in_its_record(world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    check = run("restore_point", capsys, check=True, path=str(tmp_path / "points"))
    assert check["not_in_it"] == ["object store", "RabbitMQ and Redis (queues and caches)"]
    taken = run("restore_point", capsys, path=str(tmp_path / "points"))
    assert taken["not_in_it"] == taken["point"]["not_in_it"] == check["not_in_it"]
    record = json.loads((Path(taken["point"]["path"]) / "restore-point.json").read_text())
    assert record["not_in_it"] == check["not_in_it"]


def test_old_restore_points_go_only_when_a_number_to_keep_is_named(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = iter(range(24))
    monkeypatch.setattr(RestorePoints.__init__, "__defaults__", (lambda: datetime(2026, 1, 1, next(hours), tzinfo=timezone.utc),))
    path = tmp_path / "points"
    ids = [run("restore_point", capsys, path=str(path))["point"]["id"] for _number in range(3)]
    assert sorted(item.name for item in path.iterdir()) == ids
    # Of another release in the same folder, which is nobody's to delete.
    other = path / "20250101T000000Z-4.9.5"
    shutil.copytree(path / ids[0], other)
    record = json.loads((other / "restore-point.json").read_text())
    write_record(other / "restore-point.json", {**record, "name": "another"})
    check = run("restore_point", capsys, check=True, path=str(path), keep=2)
    assert check["removed"] == ids[:2] and all(one in check["diff"]["before"] for one in ids[:2])
    assert sorted(item.name for item in path.iterdir()) == [other.name, *ids]
    taken = run("restore_point", capsys, path=str(path), keep=2)
    assert taken["removed"] == check["removed"]
    assert sorted(item.name for item in path.iterdir()) == [other.name, ids[2], taken["point"]["id"]]
    assert "circleci_restore_point_keep is -1" in run("restore_point", capsys, path=str(path), keep=-1)["msg"]


def test_a_restore_point_that_fails_deletes_no_older_one(world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    kept = run("restore_point", capsys, path=str(tmp_path / "points"))["point"]["id"]
    del world.api.objects[f"/api/v1/namespaces/{NS}/secrets/mongodb-credentials"]
    assert run("restore_point", capsys, path=str(tmp_path / "points"), keep=1)["code"] == "secret"
    assert [item.name for item in (tmp_path / "points").iterdir()] == [kept]


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


def test_postgresql_says_what_it_would_do_and_does_it(world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options: dict[str, Any] = {"image": postgres_image("14.22.4094-x"), "path": str(tmp_path)}
    check = run("postgresql_upgrade", capsys, check=True, **options)
    assert (check["changed"], check["before"], check["after"], world.data_major) == (True, 12, 14, 12)
    taken = run("restore_point", capsys, path=str(tmp_path), target="4.9.5", keep_stopped=True)
    done = run("postgresql_upgrade", capsys, id=taken["point"]["id"], **options)
    assert (done["changed"], done["diff"], world.data_major) == (True, check["diff"], 14), done
    assert run("postgresql_upgrade", capsys, id=taken["point"]["id"], **options)["changed"] is False
    assert run("installed_release", capsys)["postgresql"] == "14.22.4094-x"
