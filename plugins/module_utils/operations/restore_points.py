# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restore points: what is needed to be again where one was, in a folder that only root reads.

A restore point is complete or it is not there: it is written beside its place and renamed at the end. It holds each database of
PostgreSQL, MongoDB, all Secrets of the namespace, the values and the Helm revision; each file with its checksum. It does not hold
the object store, and no database that lies outside the cluster.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Callable, Optional

from ..helm import releases
from ..helm.kube import MERGE_PATCH, KubeApi, core, get_or_none
from ..helm.releases import StoredRelease
from ..records import RecordError, read_record, write_record
from .kubectl import OperationError
from .postgres import Postgres
from .stores import MONGODB, POSTGRES, Databases, StatefulStore, find_store, value_at

RECORD = "restore-point.json"
USED = "restored.json"
ROWS = "postgresql-rows.json"
MOVED = "postgresql-moved.json"
TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Owner:
    """The release of a site. C(domain) is empty where it is not known."""

    name: str
    namespace: str
    domain: str = ""


@dataclass(frozen=True)
class RestorePoint:
    """One restore point. C(files): path below its folder to C(sha256) and C(size)."""

    id: str
    folder: Path
    taken: str
    release: str
    revision: int
    name: str
    namespace: str
    target: str
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    schemas: Mapping[str, str] = field(default_factory=dict)
    postgres: Mapping[str, Any] = field(default_factory=dict)
    mongodb: Mapping[str, Any] = field(default_factory=dict)
    not_in_it: tuple[str, ...] = ()
    domain: str = ""

    def is_of(self, owner: Owner) -> bool:
        """Whether it was taken of that release. Two sites may use one control host, and one folder on it by mistake."""
        return (self.name, self.namespace) == (owner.name, owner.namespace) and (self.domain or owner.domain) == (owner.domain or self.domain)

    @property
    def window(self) -> str:
        """The time since which data would be lost."""
        return f"everything that happened in CircleCI since {self.taken}"

    def plain(self) -> dict[str, Any]:
        """What may be shown: names, sizes and times, no content."""
        return {
            "id": self.id, "path": str(self.folder), "taken": self.taken, "release": self.release, "revision": self.revision,
            "target": self.target, "files": {name: dict(entry) for name, entry in self.files.items()},
            "databases": sorted(self.schemas), "not_in_it": list(self.not_in_it),
        }  # fmt: skip


def now() -> datetime:
    return datetime.now(timezone.utc)


def omitted(release: StoredRelease, documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a restore point of this release does not hold, so that it can be said before one is taken."""
    left = ["object store", "RabbitMQ and Redis (queues and caches)"]
    left += [f"{title} outside the cluster" for title, product in (("PostgreSQL", POSTGRES), ("MongoDB", MONGODB)) if find_store(documents, product) is None]
    if str(value_at(release.values, "rabbitmq.internal", True)).lower() in ("false", "0"):
        left.append("RabbitMQ outside the cluster")
    return left


class _File:
    """Writes one file of mode 0600 and counts it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._stream: IO[bytes] = os.fdopen(descriptor, "wb")
        self._digest = hashlib.sha256()
        self._size = 0

    def __call__(self, block: bytes) -> None:
        self._stream.write(block)
        self._digest.update(block)
        self._size += len(block)

    def close(self) -> dict[str, Any]:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        return {"sha256": self._digest.hexdigest(), "size": self._size}


class RestorePoints:
    """All restore points of one site, below *root*."""

    def __init__(self, root: Path, api: KubeApi, clock: Callable[[], datetime] = now) -> None:
        self.root = root
        self.api = api
        self.clock = clock

    # -- finding ------------------------------------------------------------------------------------------------------

    def all(self) -> list[RestorePoint]:
        """Complete ones, oldest first."""
        folders = sorted(path.parent for path in self.root.glob(f"*/{RECORD}")) if self.root.is_dir() else []
        return [self._read(folder) for folder in folders if not folder.name.startswith(".")]

    def own(self, owner: Owner) -> list[RestorePoint]:
        """Those of one release, oldest first."""
        return [point for point in self.all() if point.is_of(owner)]

    def get(self, identifier: str = "", owner: Optional[Owner] = None) -> RestorePoint:
        """One by its id; when empty, the last one of *owner*."""
        found = self.own(owner) if owner and not identifier else self.all()
        chosen = [point for point in found if point.id == identifier] if identifier else found[-1:]
        if not chosen:
            known = f"there are {', '.join(point.id for point in found)}" if found else "there is none"
            raise OperationError("no_restore_point", f"circleci_restore_point: no restore point {identifier or ''} in {self.root}; {known}.")
        return chosen[0]

    def _read(self, folder: Path) -> RestorePoint:
        try:
            record = read_record(folder / RECORD)
            return RestorePoint(id=folder.name, folder=folder, not_in_it=tuple(record.pop("not_in_it", ())), **record)
        except (RecordError, TypeError) as error:
            raise OperationError("record", f"restore point {folder}: {error}") from error

    def verify(self, point: RestorePoint) -> None:
        """Every file is there and is what was written."""
        wrong = []
        for name, entry in sorted(point.files.items()):
            path = point.folder / name
            if not path.is_file():
                wrong.append(f"{name} is missing")
                continue
            digest = hashlib.sha256()
            with path.open("rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
            if digest.hexdigest() != entry["sha256"]:
                wrong.append(f"{name} has changed")
        if wrong:
            raise OperationError("damaged", f"restore point {point.folder} is not whole: {'; '.join(wrong)}. Nothing was touched; choose another one.")

    def used(self, point: RestorePoint) -> int:
        """Revision that this restore point was last brought back as, 0 when never."""
        return int(read_record(point.folder / USED).get("revision", 0))

    def mark_used(self, point: RestorePoint, revision: int) -> None:
        write_record(point.folder / USED, {"revision": revision, "time": self.clock().strftime(TIME)})

    # -- PostgreSQL of another major version --------------------------------------------------------------------------

    def count_rows(self, point: RestorePoint, server: Postgres) -> None:
        """Remember how many rows there are while nothing has been written since *point*."""
        write_record(point.folder / ROWS, {"rows": server.rows()})

    def rows(self, point: RestorePoint) -> dict[str, int]:
        return dict(read_record(point.folder / ROWS).get("rows", {}))

    def mark_postgres(self, point: RestorePoint, image: str, schemas: Mapping[str, str]) -> None:
        """Its data have moved into *image*. What pg_dump of that version says of the same tables is what later looks compare with."""
        write_record(point.folder / MOVED, {"image": image, "schemas": dict(schemas)})

    def moved_to(self, point: RestorePoint) -> str:
        """Image of PostgreSQL that the data of *point* have moved into, empty when they have not."""
        return str(read_record(point.folder / MOVED).get("image", ""))

    # -- taking -------------------------------------------------------------------------------------------------------

    def take(self, release: StoredRelease, databases: Databases, namespace: str, target: str) -> RestorePoint:
        """The application layer must be at zero, or databases do not agree with each other."""
        store = databases.store(POSTGRES)
        begun = databases.unfinished(store) if store is not None else ""
        if begun:
            raise OperationError(
                "unfinished",
                f"PostgreSQL is on its way into another version, from restore point {begun}; one taken now would hold half of it. Run the verb upgrade "
                f"again as it was begun, or the verb rollback with circleci_restore_point: {begun}.",
            )
        moment = self.clock()
        identifier = f"{moment.strftime('%Y%m%dT%H%M%SZ')}-{release.chart_version}"
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in self.root.glob(".*.partial"):
            shutil.rmtree(leftover)
        work = self.root / f".{identifier}.partial"
        work.mkdir(mode=0o700)
        try:
            self._fill(work, moment, release, databases, namespace, target)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        final = self.root / identifier
        os.replace(work, final)
        return self._read(final)

    def _fill(self, work: Path, moment: datetime, release: StoredRelease, databases: Databases, namespace: str, target: str) -> None:
        files: dict[str, dict[str, Any]] = {}
        record: dict[str, Any] = {
            "taken": moment.strftime(TIME), "release": release.chart_version, "revision": release.revision, "name": release.name,
            "namespace": namespace, "target": target, "not_in_it": omitted(release, databases.documents),
            "domain": str(value_at(release.values, "global.domainName", "")),
        }  # fmt: skip
        self._text(work, files, "values.json", json.dumps(release.values, indent=1, sort_keys=True))
        self._text(work, files, "secrets.json", json.dumps(self._secrets(namespace), indent=1, sort_keys=True))
        self._text(work, files, "helm-release.json", json.dumps(self.api.request("GET", core(namespace, "secrets", release.secret))))
        self._postgres(work, files, databases, record)
        self._mongo(work, files, databases, record)
        record["files"] = files
        write_record(work / RECORD, record)

    @staticmethod
    def _text(work: Path, files: dict[str, dict[str, Any]], name: str, text: str) -> None:
        out = _File(work / name)
        out(text.encode())
        files[name] = out.close()

    def _secrets(self, namespace: str) -> list[dict[str, Any]]:
        """All Secrets but Helm's records and tokens that the cluster makes itself."""
        kept = []
        for item in self.api.request("GET", core(namespace, "secrets")).get("items", []):
            metadata = item["metadata"]
            if (metadata.get("labels") or {}).get("owner") == "helm" or item.get("type") == "kubernetes.io/service-account-token":
                continue
            slim = {key: metadata[key] for key in ("name", "labels", "annotations") if metadata.get(key)}
            kept.append({"metadata": slim, "type": item.get("type", "Opaque"), "data": item.get("data") or {}})
        return kept

    @staticmethod
    def _postgres(work: Path, files: dict[str, dict[str, Any]], databases: Databases, record: dict[str, Any]) -> None:
        server, store = databases.postgres(), databases.store(POSTGRES)
        if server is None or store is None:
            return
        record["schemas"] = server.schemas()
        record["postgres"] = {"image": databases.live_image(store), "major": server.major()}
        for name in record["schemas"]:
            out = _File(work / "postgresql" / f"{name}.dump")
            server.dump(name, out)
            files[f"postgresql/{name}.dump"] = out.close()
        out = _File(work / "postgresql" / "roles.sql")
        server.dump_roles(out)
        files["postgresql/roles.sql"] = out.close()

    @staticmethod
    def _mongo(work: Path, files: dict[str, dict[str, Any]], databases: Databases, record: dict[str, Any]) -> None:
        server, store = databases.mongo(), databases.store(MONGODB)
        if server is None or store is None:
            return
        record["mongodb"] = {"image": databases.live_image(store), "feature_version": server.feature_version()}
        out = _File(work / "mongodb.archive.gz")
        server.dump(out)
        files["mongodb.archive.gz"] = out.close()

    # -- forgetting ---------------------------------------------------------------------------------------------------

    def surplus(self, keep: int, owner: Owner, coming: bool = False) -> list[RestorePoint]:
        """Those of a release beyond its newest *keep*, oldest first; *coming* counts one that is yet to be taken. 0 keeps all."""
        known = self.own(owner)
        return known[: max(0, len(known) + coming - keep)] if keep > 0 else []

    def forget(self, point: RestorePoint) -> None:
        """It is there as a whole or not at all, when it goes too."""
        gone = self.root / f".{point.id}.partial"
        os.replace(point.folder, gone)
        shutil.rmtree(gone)

    # -- comparing ----------------------------------------------------------------------------------------------------

    def migrated(self, point: RestorePoint, databases: Databases) -> list[str]:
        """What has been migrated since, in words; empty while Helm alone can go back."""
        found = []
        server = databases.postgres()
        if server is not None:
            now_there = server.schemas()
            then = read_record(point.folder / MOVED).get("schemas") or point.schemas
            changed = sorted(name for name, schema in now_there.items() if then.get(name) != schema)
            gone = sorted(set(then) - set(now_there))
            if changed or gone:
                found.append(f"the tables of {', '.join([*changed, *gone])}")
        return found

    # -- bringing back ------------------------------------------------------------------------------------------------

    def restore(self, point: RestorePoint, databases: Databases, note: Optional[Callable[[str], None]] = None) -> None:
        """Secrets and databases as they were. The application layer must be at zero. *databases* are those of the restored manifest."""
        tell = note or (lambda _text: None)
        tell("Secrets")
        self._restore_secrets(point)
        tell("PostgreSQL")
        self._restore_postgres(point, databases)
        tell("MongoDB")
        self._restore_mongo(point, databases)

    def _restore_secrets(self, point: RestorePoint) -> None:
        for item in json.loads((point.folder / "secrets.json").read_text(encoding="utf-8")):
            name = item["metadata"]["name"]
            path = core(point.namespace, "secrets", name)
            live = get_or_none(self.api, path)
            if live is None:
                self.api.request("POST", core(point.namespace, "secrets"), None, {"apiVersion": "v1", "kind": "Secret", **item})
            elif (live.get("data") or {}) != item["data"]:
                gone = dict.fromkeys(set(live.get("data") or {}) - set(item["data"]))
                self.api.request("PATCH", path, None, {"data": {**item["data"], **gone}}, MERGE_PATCH)

    @staticmethod
    def _bring(databases: Databases, store: StatefulStore, image: str, keeps: bool) -> bool:
        """The database with the image it had. True when its volume had to be made anew."""
        if databases.live_image(store) == image and keeps:
            databases.ensure_running(store)
            return False
        databases.renew_volume(store, image)
        return True

    def _restore_postgres(self, point: RestorePoint, databases: Databases) -> None:
        store = databases.store(POSTGRES)
        if store is None or not point.postgres:
            return
        # Data that have moved, or are on their way, do not open with the older version.
        self._bring(databases, store, str(point.postgres["image"]), keeps=not (self.moved_to(point) or databases.unfinished(store)))
        server = databases.postgres()
        if server is None:
            raise OperationError("postgresql", "the release of the restore point has no PostgreSQL.")
        self.fill_postgres(point, server)
        wrong = sorted(name for name, schema in server.schemas().items() if point.schemas.get(name) != schema)
        if wrong:
            raise OperationError("postgresql", f"after the restore the tables of {', '.join(wrong)} are not those of the restore point.")
        (point.folder / MOVED).unlink(missing_ok=True)
        databases.mark_unfinished(store, "")

    @staticmethod
    def fill_postgres(point: RestorePoint, server: Postgres) -> None:
        """Roles and databases of the dumps, in place of those that are there."""
        for name in sorted({*server.databases(), *point.schemas}):
            server.drop(name)
        with (point.folder / "postgresql/roles.sql").open("rb") as stream:
            server.restore_roles(stream)
        for name in sorted(point.schemas):
            with (point.folder / f"postgresql/{name}.dump").open("rb") as stream:
                server.restore(stream)

    def _restore_mongo(self, point: RestorePoint, databases: Databases) -> None:
        store = databases.store(MONGODB)
        if store is None or not point.mongodb:
            return
        image = str(point.mongodb["image"])
        keeps = databases.live_image(store) == image
        if keeps:
            databases.ensure_running(store)
            server = databases.mongo()
            keeps = server is not None and server.feature_version() == point.mongodb["feature_version"]
        self._bring(databases, store, image, keeps)
        server = databases.mongo()
        if server is None:
            raise OperationError("mongodb", "the release of the restore point has no MongoDB.")
        if server.feature_version() != point.mongodb["feature_version"]:
            server.set_feature_version(str(point.mongodb["feature_version"]))
        with (point.folder / "mongodb.archive.gz").open("rb") as stream:
            server.restore(stream)

    def bring_revision(self, point: RestorePoint) -> None:
        """Helm forgets old revisions; the restore point has kept its own."""
        kept = json.loads((point.folder / "helm-release.json").read_text(encoding="utf-8"))
        name = kept["metadata"]["name"]
        if get_or_none(self.api, core(point.namespace, "secrets", name)) is not None:
            return
        metadata = {"name": name, "labels": {**(kept["metadata"].get("labels") or {}), "status": "superseded"}}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kept["type"], "data": kept["data"]}
        self.api.request("POST", core(point.namespace, "secrets"), None, body)


def stored_revision(point: RestorePoint) -> StoredRelease:
    """The Helm revision that a restore point keeps."""
    return releases.stored(json.loads((point.folder / "helm-release.json").read_text(encoding="utf-8")))
