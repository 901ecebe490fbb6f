# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""MongoDB version by version, as MongoDB wants it: program, then featureCompatibilityVersion, then the next program.

Where it stands is read from the server each time, so a killed run goes on with the same call. A program that does not start before
anything was written gives way to the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from .kubectl import OperationError
from .stores import MONGODB, Databases, StatefulStore, number_of, tag_of


@dataclass(frozen=True)
class Version:
    """A version on the way and the image that brings it."""

    version: str
    image: str

    @property
    def number(self) -> tuple[int, ...]:
        return number_of(self.version)


@dataclass
class Progress:
    before: str
    after: str
    done: list[str]


class MongoUpgrade:
    def __init__(self, databases: Databases, progress: Optional[Callable[[dict[str, Any]], None]] = None) -> None:
        self.databases = databases
        self.progress = progress or (lambda _state: None)

    def _store(self) -> StatefulStore:
        store = self.databases.store(MONGODB)
        if store is None:
            raise OperationError("mongodb", "the release brings no MongoDB: its owner upgrades it.")
        return store

    def open_steps(self, way: Sequence[Version]) -> tuple[str, list[Version]]:
        """featureCompatibilityVersion, and the steps that are left."""
        server = self.databases.mongo()
        store = self._store()
        if server is None:
            raise OperationError("mongodb", "the release brings no MongoDB: its owner upgrades it.")
        if not self.databases.healthy(store):
            raise OperationError("mongodb", f"pod {store.place.pod} is not ready: mend it before the upgrade.")
        files = server.feature_version()
        program = number_of(tag_of(self.databases.live_image(store)))[:2]
        return files, [step for step in way if step.number > number_of(files) or step.number > program]

    def run(self, way: Sequence[Version]) -> Progress:
        before, steps = self.open_steps(way)
        result = Progress(before, before, [])
        store = self._store()
        for count, step in enumerate(steps):
            self.progress({"phase": "MongoDB", "done": count, "total": len(steps), "waiting_for": [f"version {step.version}"]})
            earlier = self.databases.live_image(store)
            try:
                self.databases.set_image(store, step.image)
            except OperationError as error:
                raise self._back(store, earlier, step, result, error) from error
            server = self.databases.mongo()
            if server is None:
                raise OperationError("mongodb", "the release brings no MongoDB.")
            server.set_feature_version(step.version)
            result.after = server.feature_version()
            if number_of(result.after) != step.number:
                raise OperationError("mongodb", f"featureCompatibilityVersion is {result.after} after {step.version} was set.")
            result.done.append(step.version)
        return result

    def _back(self, store: StatefulStore, earlier: str, step: Version, result: Progress, error: OperationError) -> OperationError:
        """The program before opens the files still, since the feature version is set only after a good start."""
        self.databases.set_image(store, earlier)
        return OperationError(
            "mongodb_step",
            f"MongoDB {step.version} did not start ({error}). MongoDB runs with {earlier.rsplit('/', 1)[-1]} again, its data are of {result.after}"
            + (f" after {', '.join(result.done)}" if result.done else ", as before")
            + ".",
        )
