# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""PostgreSQL of the chart to another major version: the dumps of a restore point into an empty server of the new one.

The vendor's script runs C(pg_upgrade --link) as root in a Job, which a namespace that enforces Pod Security restricted forbids and from which
no way leads back. Dumps take longer, need no rights, and go back by themselves when the new version does not take them. From the moment on in
which the old volume goes until all of it is in the new one, the StatefulSet says so: a run that was killed is finished by the next one, and
nothing else starts CircleCI on half of its data.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from .kubectl import OperationError
from .postgres import Postgres
from .restore_points import RestorePoint, RestorePoints
from .stores import POSTGRES, Databases, StatefulStore, major_of


class PostgresUpgrade:
    """One release, whose application layer is at zero, and the restore point that was taken of it since."""

    def __init__(
        self, databases: Databases, points: RestorePoints, point: RestorePoint, progress: Optional[Callable[[dict[str, Any]], None]] = None
    ) -> None:
        self.databases = databases
        self.points = points
        self.point = point
        self.progress = progress or (lambda _state: None)

    def run(self, image: str) -> bool:
        """Bring the data into *image*. False when they are there already."""
        store, server = postgres_of(self.databases)
        if not open_step(self.databases, store, image):
            return False
        self.points.verify(self.point)
        begun = self.databases.unfinished(store)
        if begun not in ("", self.point.id):
            raise OperationError(
                "unfinished",
                f"PostgreSQL is on its way into another version from restore point {begun}, not from {self.point.id}: run the verb rollback with "
                f"circleci_restore_point: {begun}.",
            )
        if not begun:
            self._same_as_dumped(server)
            self.databases.mark_unfinished(store, self.point.id)
        earlier = str(self.point.postgres["image"])
        try:
            rows = self._move(store, image)
        except OperationError as error:
            raise self._back(store, earlier, image, error) from error
        self.points.mark_postgres(self.point, image, server.schemas())
        self.databases.mark_unfinished(store, "")
        self._tell(f"{rows} rows are in PostgreSQL {major_of(image)}")
        return True

    def _same_as_dumped(self, server: Postgres) -> None:
        if self.points.migrated(self.point, self.databases):
            raise OperationError(
                "postgresql", f"the tables are no longer those of restore point {self.point.id}: run the verb upgrade again, which takes a new one."
            )
        self.points.count_rows(self.point, server)

    def _move(self, store: StatefulStore, image: str) -> int:
        """An empty server with *image*, the dumps into it, and every row counted."""
        self._tell(f"an empty PostgreSQL {major_of(image)}")
        self.databases.renew_volume(store, image)
        server = postgres_of(self.databases)[1]
        self._tell(f"dumps of {len(self.point.schemas)} databases")
        self.points.fill_postgres(self.point, server)
        expected = self.points.rows(self.point)
        found = server.rows()
        wrong = sorted(f"{name} has {found.get(name, 0)} rows of {count}" for name, count in expected.items() if found.get(name) != count)
        if wrong:
            raise OperationError("postgresql", f"not all rows came over: {'; '.join(wrong[:5])}.")
        self._tell("statistics")
        server.analyze()
        return sum(found.values())

    def _back(self, store: StatefulStore, earlier: str, image: str, error: OperationError) -> OperationError:
        """The application layer has been at zero since the restore point, so the way back to the older version loses nothing."""
        self._tell(f"back to PostgreSQL {major_of(earlier)}")
        failed = f"PostgreSQL {major_of(image)} did not take the data ({error})"
        try:
            self.databases.renew_volume(store, earlier)
            self.points.fill_postgres(self.point, postgres_of(self.databases)[1])
        except OperationError as again:
            return OperationError(
                "unfinished",
                f"{failed}, nor did PostgreSQL {major_of(earlier)} take them back ({again}). They are whole in restore point {self.point.id}: mend what "
                f"has failed and run the verb upgrade again, or the verb rollback with circleci_restore_point: {self.point.id}.",
            )
        self.databases.mark_unfinished(store, "")
        return OperationError("postgresql_step", f"{failed}. PostgreSQL {major_of(earlier)} runs with them again; nothing is lost.")

    def _tell(self, what: str) -> None:
        self.progress({"phase": "PostgreSQL", "done": 0, "total": 0, "waiting_for": [what]})


def postgres_of(databases: Databases) -> tuple[StatefulStore, Postgres]:
    store, server = databases.store(POSTGRES), databases.postgres()
    if store is None or server is None:
        raise OperationError("postgresql", "the release brings no PostgreSQL: its owner upgrades it.")
    return store, server


def open_step(databases: Databases, store: StatefulStore, image: str) -> bool:
    """Whether the data are not, or not all, in the major version of *image* yet. An older one than they are in is refused."""
    live = databases.live_image(store)
    have, want = major_of(live), major_of(image)
    if databases.unfinished(store):
        return True
    if have > want:
        raise OperationError("postgresql", f"PostgreSQL {have} runs, and its data do not open with {want}: only a restore point leads back.")
    return have != want
