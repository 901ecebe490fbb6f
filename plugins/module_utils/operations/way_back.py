# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The way back from an upgrade: by Helm alone as long as no database has been migrated, from the restore point afterwards.

Which of them is open is not remembered but looked up: the tables that PostgreSQL has now are compared with those of the restore
point. MongoDB is brought up to date before the release, while the older release runs, so the older release goes on with the newer
MongoDB, and nothing is lost for its sake. So it is with a PostgreSQL of another major version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from ..helm import releases
from ..helm.cli import Helm, Source
from ..helm.kube import KubeApi, KubeError
from ..helm.objects import parse_documents
from ..helm.releases import StoredRelease
from .kubectl import OperationError, Pods
from .layers import Layers
from .restore_points import RestorePoint, RestorePoints, stored_revision
from .stores import MONGODB, POSTGRES, Databases, StatefulStore

NONE, HELM, HELM_KEEP, RESTORE, UNKNOWN = "none", "helm", "helm_keep_databases", "restore", "unknown"
TITLES = {MONGODB: "MongoDB", POSTGRES: "PostgreSQL"}


@dataclass
class Way:
    """What there is to do. C(kind): none, helm, helm_keep_databases, restore, or unknown while a database cannot be asked."""

    kind: str
    point: RestorePoint
    evidence: list[str] = field(default_factory=list)
    newer: tuple[str, ...] = ()
    """Databases that stay at the newer version which they were brought to."""

    @property
    def lossless(self) -> bool:
        return self.kind in (NONE, HELM, HELM_KEEP)

    def lines(self) -> list[str]:
        """For the person who has to choose."""
        point = self.point
        if self.kind == NONE:
            return [f"CircleCI Server {point.release} is already as restore point {point.id} has left it."]
        head = f"Back to CircleCI Server {point.release}, revision {point.revision}, restore point {point.id} of {point.taken}."
        if self.kind == HELM:
            return [head, "No database has been migrated: Helm goes back, and nothing is lost."]
        if self.kind == HELM_KEEP:
            names = " and ".join(TITLES[product] for product in self.newer)
            keep = " and ".join("circleci_postgresql_version" if product == POSTGRES else f"{product}.image in circleci_values" for product in self.newer)
            return [
                head,
                f"No table of PostgreSQL has been migrated: Helm goes back, and nothing is lost. {names} stay{'s' if len(self.newer) == 1 else ''} at the "
                f"newer version, which the older release runs with: keep {keep} until the next upgrade.",
            ]
        lost = [
            f"Lost is {point.window}: builds, pipelines, contexts, users, settings. Artifacts and logs stay in the object store, without the records "
            "that lead to them.",
            f"Not in the restore point and not touched: {', '.join(point.not_in_it)}.",
        ]
        if self.kind == UNKNOWN:
            return [head, "The databases cannot be asked what they were migrated to; it is assumed that only a restore leads back.", *lost]
        return [head, f"Migrated since: {'; '.join(self.evidence)}. Only a restore leads back.", *lost]


class WayBack:
    """One release and one restore point."""

    def __init__(
        self,
        api: KubeApi,
        helm: Helm,
        pods: Pods,
        points: RestorePoints,
        *,
        source: Source,
        only_lossless: bool = False,
        progress: Optional[Callable[[dict[str, Any]], None]] = None,
        layers: Optional[Callable[[StoredRelease], Layers]] = None,
        databases: Optional[Callable[[StoredRelease], Databases]] = None,
    ) -> None:
        self.api = api
        self.helm = helm
        self.pods = pods
        self.points = points
        self.source = source
        self.only_lossless = only_lossless
        self.progress = progress or (lambda _state: None)
        self._layers = layers or (lambda release: Layers(api, helm.namespace, parse_documents(release.manifest), progress=self.progress))
        self._databases = databases or (
            lambda release: Databases(api, pods, helm.namespace, release, parse_documents(release.manifest), progress=self.progress)
        )

    def current(self, point: RestorePoint) -> Optional[StoredRelease]:
        return releases.current(releases.history(self.api, point.namespace, point.name))

    # -- looking ------------------------------------------------------------------------------------------------------

    def look(self, point: RestorePoint) -> Way:
        """Which way is open. Changes nothing."""
        current = self.current(point)
        if current is not None and self._done(point, current):
            return Way(NONE, point)
        old = stored_revision(point)
        databases = self._databases(old)
        store = databases.store(POSTGRES)
        if store is not None and databases.unfinished(store):
            return Way(RESTORE, point, ["the data of PostgreSQL, which are on their way into another version"])
        if store is not None and not databases.healthy(store):
            return Way(UNKNOWN, point)
        try:
            evidence = self.points.migrated(point, databases)
        except (OperationError, KubeError) as error:
            return Way(UNKNOWN, point, [str(error)])
        if evidence:
            return Way(RESTORE, point, evidence)
        newer = [POSTGRES] if store is not None and self.points.moved_to(point) else []
        if newer and point.target == point.release and not self.only_lossless:
            # Nothing else was done: who wants to go back from it wants the older version.
            return Way(RESTORE, point, ["the data of PostgreSQL, into another version"])
        mongo = databases.store(MONGODB)
        if mongo is not None and point.mongodb and databases.live_image(mongo) != point.mongodb["image"]:
            server = databases.mongo()
            if server is None or not databases.healthy(mongo):
                return Way(UNKNOWN, point)
            # An image that was changed before anything was written can be changed back; later it stays.
            newer += [MONGODB] if server.feature_version() != point.mongodb["feature_version"] else []
        return Way(HELM_KEEP if newer else HELM, point, newer=tuple(newer))

    def _done(self, point: RestorePoint, current: StoredRelease) -> bool:
        back = current.chart_version == point.release and current.status == "deployed"
        return back and current.revision == self.points.used(point)

    # -- going --------------------------------------------------------------------------------------------------------

    def prepare(self, point: RestorePoint) -> Way:
        """Stop the application layer, so that nothing migrates any more, let the databases start, and look again."""
        old = stored_revision(point)
        self._layers(old).stop()
        databases = self._databases(old)
        for product in (POSTGRES, MONGODB):
            store = databases.store(product)
            if store is not None and not databases.healthy(store):
                self._let_start(databases, store)
        return self.look(point)

    @staticmethod
    def _let_start(databases: Databases, store: StatefulStore) -> None:
        """The newer program first: it opens what it has written, and what the older one has."""
        image = databases.live_image(store)
        try:
            databases.bring_template(store, image)
        except OperationError:
            if image == store.image:
                raise
            databases.bring_template(store, store.image)

    def go(self, way: Way) -> StoredRelease:
        """Take the way. Returns the revision that is installed now; it is not waited for."""
        point, old = way.point, stored_revision(way.point)
        databases = self._databases(old)
        if way.kind == RESTORE:
            self.points.verify(point)
            self._layers(old).stop()
            self.points.restore(point, databases, lambda what: self.progress({"phase": "restore", "done": 0, "total": 0, "waiting_for": [what]}))
        self.points.bring_revision(point)
        self.progress({"phase": "rollback", "done": 0, "total": 0, "waiting_for": ["helm"]})
        if way.kind == HELM_KEEP:
            self._older_release_with_newer_databases(old, databases, way.newer)
        else:
            mongo = databases.store(MONGODB)
            self.helm.rollback(point.name, point.revision)
            if way.kind == HELM and mongo is not None:
                # A pod that never started stays in the way of the one that would.
                databases.wait(mongo, mongo.image)
        current = self.current(point)
        if current is None:
            raise OperationError("helm", "helm ended well, yet there is no release.")
        self.points.mark_used(point, current.revision)
        return current

    def _older_release_with_newer_databases(self, old: StoredRelease, databases: Databases, newer: Sequence[str]) -> None:
        values: Mapping[str, Any] = old.values
        for product in newer:
            store = databases.store(product)
            if store is None:
                raise OperationError(product, f"the release has no {TITLES[product]}.")
            repository, _colon, tag = databases.live_image(store).rpartition(":")
            values = merged(values, {product: {"image": image_values(old.values, product, repository, tag)}})
        chart = self.helm.obtain(self.source)
        description = f"onprem.circleci_server rollback (chart sha256:{chart.digest})"
        self.helm.upgrade(chart, old.name, self.helm.values_file(values), description)


def image_values(values: Mapping[str, Any], product: str, repository: str, tag: str) -> dict[str, str]:
    """The image in the form that the values have it: with a registry of its own, or in one."""
    image = ((values.get(product) or {}).get("image")) or {}
    registry = str(image.get("registry") or "")
    if registry and repository.startswith(registry + "/"):
        return {"registry": registry, "repository": repository[len(registry) + 1 :], "tag": tag}
    host, _slash, path = repository.partition("/")
    return {"registry": host, "repository": path, "tag": tag}


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """*base* with what *more* says."""
    result = dict(base)
    for key, value in more.items():
        here = result.get(key)
        result[key] = merged(here, value) if isinstance(here, Mapping) and isinstance(value, Mapping) else value
    return result
