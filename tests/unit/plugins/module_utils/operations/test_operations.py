# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers, steps of MongoDB, restore points and the way back, on a cluster that keeps its workloads in step."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.cli import Chart, Source
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import KubeError
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.objects import Masker, parse_documents
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.releases import StoredRelease
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.waiter import Patience
from ansible_collections.onprem.circleci_server.plugins.module_utils.operations import kubectl
from ansible_collections.onprem.circleci_server.plugins.module_utils.operations.kubectl import OperationError
from ansible_collections.onprem.circleci_server.plugins.module_utils.operations.layers import Layers
from ansible_collections.onprem.circleci_server.plugins.module_utils.operations.mongo_upgrade import (
    MongoUpgrade,
    Version,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.operations.postgres_upgrade import PostgresUpgrade
from ansible_collections.onprem.circleci_server.plugins.module_utils.operations.restore_points import (
    RestorePoint,
    RestorePoints,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.operations.stores import Databases, tag_of
from ansible_collections.onprem.circleci_server.plugins.module_utils.operations.way_back import WayBack, image_values
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.operations.world import (
    NS,
    REGISTRY,
    World,
    image,
    postgres_image,
    statefulset,
)

WAY = [Version("5.0", image("5.0.24-x")), Version("6.0", image("6.0.13-x")), Version("7.0", image("7.0.15-x"))]


@pytest.fixture
def world() -> World:
    return World()


def layers(world: World, release: StoredRelease | None = None) -> Layers:
    documents = parse_documents((release or world.stored()).manifest)
    return Layers(world.api, NS, documents, patience=Patience(total=60, poll=1), clock=world.clock, sleep=world.sleep)


def databases(world: World, release: StoredRelease | None = None, patience: float = 60) -> Databases:
    release = release or world.stored()
    return Databases(world.api, world, NS, release, parse_documents(release.manifest), patience=patience, clock=world.clock, sleep=world.sleep)


def replicas(world: World) -> dict[str, int]:
    return {path.rpartition("/")[2]: item["spec"]["replicas"] for path, item in world.api.objects.items() if "/apps/v1/" in path}


# --- layers -----------------------------------------------------------------------------------------------------------


def test_application_goes_down_and_databases_stay(world: World) -> None:
    assert [str(scale) for scale in layers(world).stop()] == ["Deployment/frontend replicas 2 → 0", "Deployment/kong replicas 1 → 0"]
    assert replicas(world) == {"frontend": 0, "kong": 0, "postgresql": 1, "mongodb": 1}
    assert layers(world).stopped()
    assert layers(world).stop() == []


def test_it_comes_up_with_the_replicas_of_the_release(world: World) -> None:
    layers(world).stop()
    changed, outcome = layers(world).start()
    assert [scale.want for scale in changed] == [2, 1] and outcome.ready
    assert layers(world).start()[0] == []


def test_it_is_not_started_on_databases_that_are_not_ready(world: World) -> None:
    layers(world).stop()
    world.broken.add("postgresql")
    world.settle()
    with pytest.raises(OperationError, match="what it needs is not ready"):
        layers(world).start()
    assert replicas(world)["frontend"] == 0


def test_a_pod_that_does_not_go_is_named(world: World) -> None:
    world.sleep = lambda seconds: setattr(world, "now", world.now + seconds)  # type: ignore[method-assign]
    with pytest.raises(OperationError, match="frontend-0, frontend-1, kong-0"):
        layers(world).stop()


def test_a_restart_replaces_the_pods_of_one_service(world: World) -> None:
    assert layers(world).restart(["frontend"]) == ["frontend-0", "frontend-1"]
    assert [path.rpartition("/")[2] for method, path in world.api.writes()] == ["frontend-0", "frontend-1"]
    with pytest.raises(OperationError, match="no workload frontent"):
        layers(world).restart(["frontent"])


# --- MongoDB ----------------------------------------------------------------------------------------------------------


def test_mongodb_goes_step_by_step(world: World) -> None:
    result = MongoUpgrade(databases(world)).run(WAY)
    assert (result.before, result.after, result.done) == ("4.4", "7.0", ["5.0", "6.0", "7.0"])
    assert databases(world).live_image(databases(world).store("mongodb")) == image("7.0.15-x")  # type: ignore[arg-type]
    assert MongoUpgrade(databases(world)).open_steps(WAY)[1] == []


def test_a_killed_run_goes_on_where_it_was(world: World) -> None:
    store = databases(world).store("mongodb")
    assert store is not None
    databases(world).set_image(store, image("5.0.24-x"))  # killed before the feature version was set
    assert MongoUpgrade(databases(world)).run(WAY).done == ["5.0", "6.0", "7.0"]


def test_a_version_that_does_not_start_gives_way_to_the_one_before(world: World) -> None:
    broken = World()
    settle = broken.settle

    def refuse() -> None:
        broken.broken = {"mongodb"} if "mongodb" in replicas(broken) and broken.mongodb_program() == "5.0" else set()
        settle()

    broken.settle = refuse  # type: ignore[method-assign]
    with pytest.raises(OperationError, match=r"MongoDB 5.0 did not start .* its data are of 4.4, as before"):
        MongoUpgrade(databases(broken)).run(WAY)
    store = databases(broken).store("mongodb")
    assert store is not None and databases(broken).live_image(store) == image("4.4.15-debian-10-r8") and databases(broken).healthy(store)


def test_an_image_that_does_not_come_ends_long_before_the_time_is_over() -> None:
    lacking = World()
    settle = lacking.settle

    def refuse() -> None:
        lacking.broken = {"mongodb"} if "mongodb" in replicas(lacking) and lacking.mongodb_program() == "5.0" else set()
        settle()
        if lacking.broken:
            pod = lacking.api.objects[f"/api/v1/namespaces/{NS}/pods/mongodb-0"]
            waiting = {"reason": "ErrImagePull" if lacking.now % 20 < 10 else "ImagePullBackOff", "message": "connection refused"}
            pod["status"]["containerStatuses"] = [{"name": "mongodb", "state": {"waiting": waiting}}]

    lacking.settle = refuse  # type: ignore[method-assign]
    with pytest.raises(OperationError, match=r"MongoDB 5.0 did not start \(waited 12\d s for .* connection refused"):
        MongoUpgrade(databases(lacking, patience=900)).run(WAY)
    assert lacking.feature == "4.4" and lacking.mongodb_program() == "4.4"


# --- restore points ---------------------------------------------------------------------------------------------------


@pytest.fixture
def points(world: World, tmp_path: Path) -> RestorePoints:
    return RestorePoints(tmp_path / "restore-points", world.api, lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc))


@pytest.fixture
def point(world: World, points: RestorePoints) -> RestorePoint:
    layers(world).stop()
    return points.take(world.stored(), databases(world), NS, "4.10.0")


def test_a_restore_point_is_whole_checked_and_private(world: World, points: RestorePoints, point: RestorePoint) -> None:
    assert point.id == "20260102T030405Z-4.9.5" and point.target == "4.10.0"
    assert set(point.files) == {
        "values.json", "secrets.json", "helm-release.json", "mongodb.archive.gz", "postgresql/domain.dump",
        "postgresql/conductor_production.dump", "postgresql/roles.sql",
    }  # fmt: skip
    for path in (point.folder, *point.folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    points.verify(point)
    assert "pg-secret" not in json.dumps(point.plain()) and "SCRAM" not in json.dumps(point.plain())
    names = {item["metadata"]["name"] for item in json.loads((point.folder / "secrets.json").read_text())}
    assert names == {"postgresql", "mongodb-credentials"}, "records of Helm are kept apart"
    assert [entry.id for entry in points.all()] == [point.id]


def test_damage_is_found_before_anything_is_touched(points: RestorePoints, point: RestorePoint) -> None:
    (point.folder / "postgresql/domain.dump").write_text("x")
    (point.folder / "mongodb.archive.gz").unlink()
    with pytest.raises(OperationError, match=r"mongodb\.archive\.gz is missing; postgresql/domain\.dump has changed"):
        points.verify(point)


def test_a_failed_one_leaves_nothing_that_looks_whole(world: World, points: RestorePoints) -> None:
    world.api.secret(NS, "mongodb-credentials", {"mongodb-root-password": "another"})
    with pytest.raises((OperationError, AssertionError)):
        points.take(world.stored(), databases(world), NS, "")
    assert points.all() == []
    with pytest.raises(OperationError, match="there is none"):
        points.get()


def test_comments_and_keys_of_a_dump_are_no_migration(world: World, points: RestorePoints, point: RestorePoint) -> None:
    assert points.migrated(point, databases(world)) == []
    world.rows["domain"] = "more rows"
    assert points.migrated(point, databases(world)) == []
    world.schemas["domain"] = "CREATE TABLE records (record text);"
    assert points.migrated(point, databases(world)) == ["the tables of domain"]


# --- the way back -----------------------------------------------------------------------------------------------------


class FakeHelm:
    """helm rollback as it is: a new revision with the old manifest, applied to what lives."""

    namespace = NS

    def __init__(self, world: World) -> None:
        self.world = world
        self.upgraded: dict[str, Any] = {}

    def rollback(self, name: str, revision: int) -> None:
        path = f"/api/v1/namespaces/{NS}/secrets/sh.helm.release.v1.{name}.v{revision}"
        if path not in self.world.api.objects:
            raise KubeError(404, "release: not found")
        from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.releases import stored

        old = stored(self.world.api.objects[path])
        documents = parse_documents(old.manifest)
        self.world.release(self.world.stored().revision + 1, old.chart_version, documents)
        for item in documents:
            self.world.api.objects[self.world.path(item)]["spec"] = json.loads(json.dumps(item["spec"]))
        self.world.settle()

    def obtain(self, source: Source) -> Chart:
        return Chart(Path("/chart"), "circleci-server", source.version, "abc")

    def values_file(self, values: dict[str, Any]) -> Path:
        self.upgraded = values
        return Path("/values.json")

    def upgrade(self, chart: Chart, name: str, values: Path, description: str) -> None:
        tags = {product: value["image"]["tag"] for product, value in self.upgraded.items() if "tag" in (value.get("image") or {})}
        made = {"mongodb": image, "postgresql": postgres_image}
        documents = [
            statefulset(name, made[name](tags[name])) if (name := item["metadata"]["name"]) in tags else item for item in self.world.documents_of_release
        ]
        self.world.release(self.world.stored().revision + 1, chart.version, documents)
        for item in documents:
            self.world.api.objects[self.world.path(item)]["spec"] = json.loads(json.dumps(item["spec"]))
        self.world.settle()


def back(world: World, points: RestorePoints) -> WayBack:
    helm: Any = FakeHelm(world)
    return WayBack(
        world.api, helm, world, points, source=Source("oci://registry/charts/circleci-server", "4.9.5"),
        layers=lambda release: layers(world, release), databases=lambda release: databases(world, release),
    )  # fmt: skip


def newer(world: World, status: str = "deployed") -> None:
    documents = [item for item in world.documents_of_release if item["metadata"]["name"] != "mongodb"]
    world.release(2, "4.10.0", [*documents, statefulset("mongodb", image("7.0.15-x"))], status)


def test_before_a_migration_helm_goes_back_and_nothing_is_lost(world: World, points: RestorePoints, point: RestorePoint) -> None:
    newer(world, "failed")
    world.rows["domain"] = "rows of the meantime"
    way = back(world, points).look(point)
    assert (way.kind, way.lossless) == ("helm", True)
    release = back(world, points).go(back(world, points).prepare(point))
    assert (release.chart_version, release.revision) == ("4.9.5", 3)
    assert world.rows["domain"] == "rows of the meantime" and replicas(world)["frontend"] == 2
    assert back(world, points).look(point).kind == "none", "a second run changes nothing"


def test_a_newer_mongodb_stays_with_the_older_release(world: World, points: RestorePoints, point: RestorePoint) -> None:
    MongoUpgrade(databases(world)).run(WAY)
    newer(world, "failed")
    way = back(world, points).prepare(point)
    assert (way.kind, way.lossless) == ("helm_keep_databases", True)
    back(world, points).go(way)
    assert world.stored().chart_version == "4.9.5" and world.mongodb_opens() and world.feature == "7.0"
    assert world.documents == {"before": "kept"}


def test_after_a_migration_only_the_restore_point_leads_back(world: World, points: RestorePoints, point: RestorePoint) -> None:
    MongoUpgrade(databases(world)).run(WAY)
    newer(world)
    world.schemas["domain"] = "CREATE TABLE records (record text);"
    world.schemas["new_service"], world.rows["new_service"] = "CREATE TABLE x ();", "x"
    world.rows["domain"], world.documents = "new rows", {"after": "lost"}
    world.api.secret(NS, "postgresql", {"postgres-password": "pg-secret", "made-later": "x"})
    layers(world).start()
    way = back(world, points).look(point)
    assert way.kind == "restore" and "domain, new_service" in "\n".join(way.lines())
    assert "everything that happened in CircleCI since 2026-01-02T03:04:05Z" in "\n".join(way.lines())
    release = back(world, points).go(back(world, points).prepare(point))
    assert release.chart_version == "4.9.5" and replicas(world) == {"frontend": 2, "kong": 1, "postgresql": 1, "mongodb": 1}
    assert world.rows == {"domain": "old rows", "conductor_production": "old rows"}
    assert (world.documents, world.feature) == ({"before": "kept"}, "4.4") and world.mongodb_opens()
    assert "made-later" not in world.api.objects[f"/api/v1/namespaces/{NS}/secrets/postgresql"]["data"]
    assert back(world, points).look(point).kind == "none"


def test_a_revision_that_helm_forgot_comes_from_the_restore_point(world: World, points: RestorePoints, point: RestorePoint) -> None:
    newer(world)
    world.schemas["domain"] = "CREATE TABLE records (record text);"
    del world.api.objects[f"/api/v1/namespaces/{NS}/secrets/sh.helm.release.v1.circleci-server.v1"]
    back(world, points).go(back(world, points).prepare(point))
    assert world.stored().chart_version == "4.9.5"


def test_a_database_that_cannot_be_asked_counts_as_migrated_until_it_runs(world: World, points: RestorePoints, point: RestorePoint) -> None:
    newer(world, "failed")
    world.broken.add("postgresql")
    world.settle()
    way = back(world, points).look(point)
    assert (way.kind, way.lossless) == ("unknown", False) and "Lost is" in "\n".join(way.lines())
    settle = world.settle

    def heal() -> None:
        # The template of the older release lets it start.
        world.broken.discard("postgresql")
        settle()

    world.settle = heal  # type: ignore[method-assign]
    assert back(world, points).prepare(point).kind == "helm"


def test_a_mongodb_that_cannot_be_scheduled_is_asked_before_helm_goes_back(world: World, points: RestorePoints, point: RestorePoint) -> None:
    MongoUpgrade(databases(world)).run(WAY)
    newer(world, "failed")
    world.broken.add("mongodb")
    world.settle()
    assert back(world, points).look(point).kind == "unknown"
    settle = world.settle

    def heal() -> None:
        world.broken.discard("mongodb")
        settle()

    world.settle = heal  # type: ignore[method-assign]
    assert back(world, points).prepare(point).kind == "helm_keep_databases", "its files are of 7.0: the older program would refuse them"


def test_an_api_that_is_gone_is_said(world: World, points: RestorePoints, point: RestorePoint) -> None:
    world.api.down = True
    with pytest.raises(KubeError) as caught:
        back(world, points).prepare(point)
    assert "cannot be reached" in caught.value.sentence


# --- PostgreSQL of another major version ------------------------------------------------------------------------------

TO_14 = postgres_image("14.22.4094-x")


def to_14(world: World, points: RestorePoints, point: RestorePoint) -> bool:
    return PostgresUpgrade(databases(world), points, point).run(TO_14)


def unfinished(world: World) -> str:
    store = databases(world).store("postgresql")
    assert store is not None
    return databases(world).unfinished(store)


def test_postgresql_goes_to_another_major_version_with_every_row(world: World, points: RestorePoints, point: RestorePoint) -> None:
    rows = dict(world.rows)
    assert to_14(world, points, point)
    assert (world.data_major, world.rows, unfinished(world)) == (14, rows, "")
    assert sum("ANALYZE" in line for line in world.ran) == 2, "dumps hold no statistics"
    assert to_14(world, points, point) is False
    assert points.migrated(point, databases(world)) == [], "pg_dump of 14 says the same tables in other words"


def test_helm_goes_back_and_the_newer_postgresql_stays(world: World, points: RestorePoints, point: RestorePoint) -> None:
    to_14(world, points, point)
    newer(world, "failed")
    way = back(world, points).prepare(point)
    assert (way.kind, way.lossless, way.newer) == ("helm_keep_databases", True, ("postgresql",))
    assert "PostgreSQL stays at the newer version" in way.lines()[1] and "keep circleci_postgresql_version until" in way.lines()[1]
    back(world, points).go(way)
    assert world.stored().chart_version == "4.9.5" and world.postgresql_opens() and world.data_major == 14


def test_a_restore_brings_the_older_postgresql_back(world: World, points: RestorePoints, point: RestorePoint) -> None:
    before = dict(world.rows)
    to_14(world, points, point)
    newer(world)
    world.schemas["domain"] = "CREATE TABLE records (record text);"
    way = back(world, points).prepare(point)
    assert way.kind == "restore"
    back(world, points).go(way)
    assert (world.data_major, world.rows, points.moved_to(point)) == (12, before, "")


def test_who_goes_back_from_the_version_alone_gets_the_older_one(world: World, points: RestorePoints) -> None:
    layers(world).stop()
    point = points.take(world.stored(), databases(world), NS, world.stored().chart_version)
    to_14(world, points, point)
    lossless = back(world, points)
    lossless.only_lossless = True
    assert lossless.look(point).kind == "helm_keep_databases", "a run that fails afterwards loses nothing"
    way = back(world, points).prepare(point)
    assert way.kind == "restore" and "into another version" in "\n".join(way.lines())
    back(world, points).go(way)
    assert world.data_major == 12


def test_rows_that_did_not_come_over_lead_back(world: World, points: RestorePoints, point: RestorePoint) -> None:
    rows = dict(world.rows)
    restore = world._postgres

    def lose(script: str, arguments: list[str], given: bytes) -> str:
        done = restore(script, arguments, given)
        if "pg_restore" in script and world.postgresql_program() == 14:
            world.rows["domain"] = ""
        return done

    world._postgres = lose  # type: ignore[method-assign]
    with pytest.raises(OperationError, match=r"not all rows came over: domain.public.records has 0 rows of 8.*PostgreSQL 12 runs with them again"):
        to_14(world, points, point)
    assert (world.data_major, world.rows, unfinished(world)) == (12, rows, "")


def test_a_killed_move_is_finished_by_the_next_run_and_nothing_starts_on_half_of_it(world: World, points: RestorePoints, point: RestorePoint) -> None:
    rows = dict(world.rows)
    world.refused_dumps[14] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        to_14(world, points, point)
    assert unfinished(world) == point.id and world.rows == {}
    with pytest.raises(OperationError, match=f"not started: PostgreSQL is on its way .* restore point {point.id}"):
        layers(world).start()
    with pytest.raises(OperationError, match="one taken now would hold half of it"):
        points.take(world.stored(), databases(world), NS, "4.10.0")
    assert back(world, points).look(point).kind == "restore"
    world.refused_dumps.clear()
    with pytest.raises(OperationError, match=f"from restore point {point.id}, not from another"):
        to_14(world, points, replace(point, id="another"))
    assert to_14(world, points, point)
    assert (world.data_major, world.rows, unfinished(world)) == (14, rows, "")


def test_a_killed_move_can_be_restored(world: World, points: RestorePoints, point: RestorePoint) -> None:
    rows = dict(world.rows)
    world.refused_dumps[14] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        to_14(world, points, point)
    back(world, points).go(back(world, points).prepare(point))
    assert (world.data_major, world.rows, unfinished(world)) == (12, rows, "")


def test_data_that_no_version_takes_stay_whole_in_the_restore_point(world: World, points: RestorePoints, point: RestorePoint) -> None:
    world.refused_dumps = {14: OperationError("command", "no space left"), 12: OperationError("command", "no space left at all")}
    with pytest.raises(OperationError, match=f"no space left.*nor did PostgreSQL 12.*whole in restore point {point.id}"):
        to_14(world, points, point)
    assert unfinished(world) == point.id
    points.verify(point)


def test_an_older_version_and_tables_that_changed_since_are_refused(world: World, points: RestorePoints, point: RestorePoint) -> None:
    with pytest.raises(OperationError, match="PostgreSQL 12 runs, and its data do not open with 9"):
        PostgresUpgrade(databases(world), points, point).run(postgres_image("9.6.1"))
    world.schemas["domain"] = "CREATE TABLE records (record text);"
    with pytest.raises(OperationError, match="no longer those of restore point"):
        to_14(world, points, point)
    assert world.data_major == 12 and unfinished(world) == ""


# --- small ones -------------------------------------------------------------------------------------------------------


def test_names_of_images() -> None:
    assert tag_of(f"{REGISTRY}/server-mongodb:4.4.15-debian-10-r8") == "4.4.15-debian-10-r8"
    assert tag_of(f"{REGISTRY}/server-mongodb") == ""
    values = {"mongodb": {"image": {"registry": REGISTRY}}}
    assert image_values(values, "mongodb", f"{REGISTRY}/server-mongodb", "7.0.15-x") == {"registry": REGISTRY, "repository": "server-mongodb", "tag": "7.0.15-x"}


def test_commands_get_secret_and_data_by_their_standard_input(tmp_path: Path) -> None:
    program = "import sys; secret = sys.stdin.buffer.readline(); sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1] + secret)"
    (tmp_path / "data").write_bytes(b"0123" * 1_000_000)
    taken = bytearray()
    with (tmp_path / "data").open("rb") as stream:
        kubectl.run([sys.executable, "-c", program], "pod x", "hidden", stream, taken.extend, Masker())
    assert bytes(taken) == b"3210" * 1_000_000 + b"hidden\n"


def test_an_error_is_told_without_the_secret() -> None:
    program = "import sys; sys.stderr.write('no such database for ' + sys.stdin.readline()); sys.exit(3)"
    with pytest.raises(OperationError) as caught:
        kubectl.run([sys.executable, "-c", program], "pod x", "hidden-password", None, None, Masker())
    assert "no such database" in str(caught.value) and "hidden-password" not in str(caught.value)


def test_a_command_that_reads_nothing_does_not_hang() -> None:
    done = kubectl.run([sys.executable, "-c", "print('done')"], "pod x", "s" * 3_000_000, None, None, Masker())
    assert done == "done\n"


def kubectl_that_begins_late(folder: Path, refusals: int, words: str) -> kubectl.Kubectl:
    """A kubectl whose kubelet has just been started: it refuses a few times, and then gives back what it got."""
    program = folder / "kubectl"
    program.write_text(
        f"""#!{sys.executable}
import pathlib, sys
count = pathlib.Path({str(folder / "count")!r})
before = int(count.read_text()) if count.exists() else 0
count.write_text(str(before + 1))
got = sys.stdin.buffer.read()
if before < {refusals}:
    sys.exit("error: Internal error occurred: {words}: pod does not exist")
sys.stdout.buffer.write(got)
""",
        encoding="utf-8",
    )
    program.chmod(0o755)
    return kubectl.Kubectl(str(program), "/nowhere", "ns")


def test_a_command_that_did_not_begin_is_sent_again_with_all_that_belongs_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubectl, "PAUSE", 0.0)
    late = kubectl_that_begins_late(tmp_path, 3, "unable to upgrade connection")
    (tmp_path / "data").write_bytes(b"head" + b"0123" * 500_000)
    with (tmp_path / "data").open("rb") as stream:
        stream.seek(4)
        assert late.run(kubectl.Place("postgresql-0", "postgresql"), "cat", secret="hidden", source=stream) == "hidden\n" + "0123" * 500_000
    assert (tmp_path / "count").read_text() == "4"


def test_a_command_that_never_begins_and_one_that_failed_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubectl, "PAUSE", 0.0)
    place = kubectl.Place("postgresql-0", "postgresql")
    with pytest.raises(OperationError, match="pod postgresql-0: error: Internal error occurred: unable to upgrade connection"):
        kubectl_that_begins_late(tmp_path, 99, "unable to upgrade connection").run(place, "cat")
    assert (tmp_path / "count").read_text() == str(kubectl.TRIES)
    (tmp_path / "count").unlink()
    with pytest.raises(OperationError, match="something else"):
        kubectl_that_begins_late(tmp_path, 1, "something else").run(place, "cat")
    assert (tmp_path / "count").read_text() == "1"
