# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Agents out of the private registry, brought to where clients load them from: a bucket, or a folder that a host serves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Optional, Union

from ..mirror.artifact import describe_file, pull_file
from ..mirror.errors import NetworkError, RegistryError
from ..mirror.registry import RegistryClient
from . import objects
from .client import Response, S3Error
from .objects import Change, Source, Store

AGENTS_SPEC: dict[str, Any] = {
    "objects": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {name: {"type": "str", "required": True, "no_log": False} for name in ("key", "name", "version")},
    },
    "texts": {"type": "dict", "default": {}},
}


class FolderStore:
    """A folder of this host as a store of objects. A file appears under its name only when it is whole."""

    partial = ".partial"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, key: str) -> Path:
        path = self.folder / key
        if key.startswith("/") or ".." in Path(key).parts:
            raise S3Error(f"{key!r} is no name of an object below {self.folder}")
        return path

    def head(self, bucket: str, key: str) -> Optional[Response]:
        path = self._path(key)
        if not path.is_file() or path.is_symlink():
            return None
        return Response(200, {objects.DIGEST_HEADER: objects.file_sha256(path), "content-length": str(path.stat().st_size)}, b"")

    def put(
        self,
        bucket: str,
        key: str,
        body: Union[bytes, BinaryIO],
        *,
        length: Optional[int] = None,
        sha256: Optional[str] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> Response:
        path = self._path(key)
        partial = path.with_name(self.partial)
        try:
            self._folders(path.parent)
            with partial.open("wb") as stream:
                if isinstance(body, bytes):
                    stream.write(body)
                else:
                    shutil.copyfileobj(body, stream)
                os.fchmod(stream.fileno(), 0o644)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        except OSError as error:
            raise S3Error(f"{path} cannot be written: {error.strerror or error}") from error
        return Response(200, {}, b"")

    def _folders(self, path: Path) -> None:
        # Whatever umask the run has: the service reads as a user of its own.
        for folder in reversed([path, *path.parents]):
            if not folder.is_dir():
                folder.mkdir()
                folder.chmod(0o755)


def artifact_source(client: RegistryClient, item: Mapping[str, str]) -> Source:
    """An object that comes from a file artifact of the registry."""
    remote = describe_file(client, f"onprem/files/{item['name']}", item["version"].replace("+", "_"))

    def bring(path: Path) -> None:
        pull_file(client, remote, path)

    return Source(item["key"], remote.layer_digest.split(":", 1)[-1], remote.size, bring)


def check_sums(sources: list[Source], work: Path) -> list[str]:
    """The vendor's own sums against what is about to be brought."""
    texts = {}
    for source in sources:
        if source.key.endswith("/checksums.txt"):
            path = work / "checksums"
            source.bring(path)
            texts[source.key] = path.read_text(encoding="utf-8", errors="replace")
    return objects.checksum_problems(texts, {source.key: source.sha256 for source in sources})


def bring(
    options: Mapping[str, Any], registry: RegistryClient, open_store: Callable[[], Store], bucket: str, work: Path, *, check: bool, lenient: bool
) -> tuple[list[Change], int]:
    """What differs, in the order in which it was brought, and the bytes that moved.

    With *lenient* registry, artifacts and store may be missing, because the run itself would bring them.
    """
    unknown = []
    sources = []
    for item in options["objects"]:
        try:
            sources.append(artifact_source(registry, item))
        except (NetworkError, RegistryError) as error:
            if not (lenient and (isinstance(error, NetworkError) or error.status == 404)):
                raise
            unknown.append(Change(Source(item["key"], "?", 0, lambda path: None), ""))
    sources += [objects.text_source(key, f"{line}\n") for key, line in sorted(options["texts"].items())]
    store = open_store()
    try:
        changes = objects.compare(store, bucket, sources)
    except S3Error as error:
        if not (lenient and error.status in (0, 404)):
            raise
        changes = [Change(source, "") for source in sorted(sources, key=lambda item: objects.upload_order(item.key))]
    if not changes and not unknown:
        return [], 0
    moved = 0
    if not check:
        problems = check_sums(sources, work)
        if problems:
            raise S3Error("; ".join(problems) + ". Nothing was uploaded. Make the bundle again from the vendor's files.")
        moved = objects.apply(store, bucket, changes, work)
    return [*unknown, *changes], moved


def outcome(where: str, changes: list[Change], moved: int) -> dict[str, Any]:
    """The result of the modules that bring agents."""
    return {
        "changed": bool(changes),
        "uploaded": [change.source.key for change in changes],
        "bytes": moved,
        "diff": {
            "before_header": where,
            "after_header": where,
            "before": "".join(f"{change.source.key} {change.before}\n" for change in changes if change.before),
            "after": "".join(f"{change.source.key} {change.after}\n" for change in changes),
        },
    }
