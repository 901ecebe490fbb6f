# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock: what a bundle is to hold, with the reason for each entry. Written by discovery, read here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from .errors import UsageError
from .oci import OCI_EMPTY, Reference, canonical_json, check_repository, check_tag, is_digest, parse_target
from .together import map_together

if TYPE_CHECKING:
    from .access import Access

FORMAT = "onprem.circleci_server/lock/1"
FILE_TYPE = "application/vnd.onprem.file.v1"
FILES_REPOSITORY = "onprem/files"
CHARTS_REPOSITORY = "charts"
HELM_CONFIG = "application/vnd.cncf.helm.config.v1+json"
HELM_CONTENT = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MODE = re.compile(r"0?[0-7]{3}")


def check_file_name(name: str, where: str) -> str:
    """*name* when it stays inside the folder it is put into."""
    parts = name.split("/")
    if (
        not name
        or "\\" in name
        or any(ord(letter) < 32 or ord(letter) == 127 for letter in name)
        or any(part in ("", ".", "..") or len(part) > 255 for part in parts)
    ):
        raise UsageError(f"{where}: the file name {name!r} is refused. Allowed: a relative path without .., empty parts, backslashes and control characters.")
    return name


@dataclass(frozen=True)
class RefItem:
    """One image, chart or other artifact of a registry."""

    ref: Reference
    digest: Optional[str]
    platforms: tuple[str, ...] = ()
    target: Optional[str] = None
    why: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        return self.ref.name

    @property
    def target_name(self) -> str:
        """Where it goes inside the target registry: ``path:tag``, or ``path`` when there is no tag."""
        if self.target:
            repository, tag = parse_target(self.target)
            return f"{repository}:{tag}" if tag else repository
        return self.ref.repository + (f":{self.ref.tag}" if self.ref.tag else "")


@dataclass(frozen=True)
class FileSource:
    """One file from a URL or from the disk."""

    filename: str
    url: Optional[str]
    path: Optional[str]
    sha256: Optional[str]
    size: Optional[int]
    mode: str
    media_type: str

    @property
    def known(self) -> bool:
        return self.sha256 is not None and self.size is not None

    @property
    def origin(self) -> str:
        return self.url or self.path or ""


@dataclass(frozen=True)
class ArtifactItem:
    """Files that travel as one OCI artifact."""

    repository: str
    tag: str
    kind: str  # file, chart, packages
    artifact_type: str
    config: bytes
    config_type: str
    files: tuple[FileSource, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    why: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)

    @property
    def target_name(self) -> str:
        return f"{self.repository}:{self.tag}"


def _text(item: Mapping[str, Any], key: str, where: str, required: bool = False) -> Optional[str]:
    value = item.get(key)
    if value is None or value == "":
        if required:
            raise UsageError(f"{where}: {key} is missing.")
        return None
    if not isinstance(value, str):
        raise UsageError(f"{where}: {key} is {value!r}, a string is wanted.")
    return value


def _why(item: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    return tuple(reason for reason in item.get("why") or () if isinstance(reason, dict))


def _file(item: Any, where: str, media_type: str, base: Optional[Path], name_default: str = "") -> FileSource:
    if not isinstance(item, dict):
        raise UsageError(f"{where}: is {type(item).__name__}, a mapping is wanted.")
    url, path = _text(item, "url", where), _text(item, "path", where)
    if (url is None) == (path is None):
        raise UsageError(f"{where}: give either url or path.")
    if url is not None and not url.startswith(("https://", "http://")):
        raise UsageError(f"{where}: url {url!r} does not start with https:// or http://.")
    if path is not None and base is not None:
        path = str(base / path)
    sha256 = _text(item, "sha256", where)
    if sha256 is not None:
        sha256 = sha256.lower()
        sha256 = sha256[7:] if sha256.startswith("sha256:") else sha256
        if not _SHA256.fullmatch(sha256):
            raise UsageError(f"{where}: sha256 {sha256!r} is not 64 hexadecimal digits.")
    size = item.get("size")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise UsageError(f"{where}: size {size!r} is not a number of bytes.")
    mode = _text(item, "mode", where) or "0644"
    if not _MODE.fullmatch(mode):
        raise UsageError(f'{where}: mode {mode!r} is not like "0755" (set-user-id and sticky bits are refused).')
    origin = url.split("?")[0] if url else path or ""
    filename = _text(item, "filename", where) or name_default or origin.rstrip("/").rsplit("/", 1)[-1]
    return FileSource(check_file_name(filename, where), url, path, sha256, size, mode.zfill(4), media_type)


@dataclass(frozen=True)
class Lock:
    """References and files, in the order of the lock."""

    refs: tuple[RefItem, ...] = ()
    artifacts: tuple[ArtifactItem, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Lock:
        """Read a lock file."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(f"{path}: there is no such lock file.") from None
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: is not a lock file: {error}") from error
        return cls.from_data(data, Path(path).resolve().parent, str(path))

    @classmethod
    def from_data(cls, data: Any, base: Optional[Path] = None, where: str = "lock") -> Lock:
        """Check a lock; all problems are told at once."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise UsageError(f"{where}: format is {data.get('format') if isinstance(data, dict) else type(data).__name__!r}, this engine reads {FORMAT!r}.")
        unknown = sorted(set(data) - {"format", "refs", "files", "charts", "artifacts", "comment", "created", "source"})
        problems = [f"{where}: unknown key {key!r}." for key in unknown]
        refs: list[RefItem] = []
        artifacts: list[ArtifactItem] = []
        readers = (("refs", _ref_item, refs), ("files", _file_item, artifacts), ("charts", _chart_item, artifacts), ("artifacts", _artifact_item, artifacts))
        for key, reader, found in readers:
            items = data.get(key) or []
            if not isinstance(items, list):
                problems.append(f"{where}: {key} is not a list.")
                continue
            for number, item in enumerate(items):
                try:
                    if not isinstance(item, dict):
                        raise UsageError(f"{where}: {key}[{number}]: is {type(item).__name__}, a mapping is wanted.")
                    found.append(reader(item, f"{where}: {key}[{number}]", base))  # type: ignore[operator,arg-type]
                except UsageError as error:
                    problems.append(str(error))
        seen: dict[str, Any] = {}
        entries: list[Any] = [*refs, *artifacts]
        for entry in entries:
            name = entry.target_name
            other = seen.setdefault(name, entry)
            if other is not entry and ":" in name and getattr(other, "digest", 0) != getattr(entry, "digest", 1):
                problems.append(f"{where}: {_title(other)} and {_title(entry)} would both be {name} in the registry. Give one of them another target.")
        if problems:
            raise UsageError("\n".join(problems))
        unique = {(item.name, item.target_name, item.platforms): item for item in reversed(refs)}
        return cls(tuple(sorted(unique.values(), key=lambda item: (item.name, item.target_name))), tuple(sorted(artifacts, key=lambda item: item.target_name)))

    @classmethod
    def from_refs(cls, refs: Iterable[str], platforms: Sequence[str] = ()) -> Lock:
        """A lock from names alone, unpinned."""
        lines = [line.split("#", 1)[0].strip() for line in refs]
        return cls.from_data({"format": FORMAT, "refs": [{"ref": line, "platforms": list(platforms)} for line in lines if line]})

    def pinned(self, access: Access) -> Lock:
        """The same lock with each tag's digest of now."""

        def pin(item: RefItem) -> RefItem:
            if item.digest:
                return item
            digest = access.client(item.ref.registry).head_manifest(item.ref.repository, item.ref.lookup)
            if digest is None:
                raise UsageError(f"{item.name}: {item.ref.registry} has no such image.")
            return replace(item, digest=digest)

        return replace(self, refs=tuple(map_together(self.refs, pin)))

    def ref_data(self) -> list[dict[str, Any]]:
        """The references as they are written into a lock file."""
        found = []
        for item in self.refs:
            entry: dict[str, Any] = {"ref": item.name, "digest": item.digest, "platforms": list(item.platforms), "why": [dict(reason) for reason in item.why]}
            if item.target:
                entry["target"] = item.target
            found.append(entry)
        return found


def _title(item: Any) -> str:
    return item.name if isinstance(item, RefItem) else f"the {item.kind} {item.target_name}"


def _ref_item(item: Mapping[str, Any], where: str, _base: Optional[Path]) -> RefItem:
    ref = Reference.parse(_text(item, "ref", where, required=True) or "")
    digest = _text(item, "digest", where)
    if digest is not None and not is_digest(digest):
        raise UsageError(f"{where}: digest {digest!r} is not sha256: and 64 digits in 0-9a-f.")
    if digest and ref.digest and digest != ref.digest:
        raise UsageError(f"{where}: {ref.name} is pinned to {ref.digest}, but digest says {digest}.")
    platforms = item.get("platforms") or []
    if isinstance(platforms, str) or not all(isinstance(name, str) and 2 <= len(name.split("/")) <= 3 for name in platforms):
        raise UsageError(f"{where}: platforms {platforms!r} is not a list like [linux/amd64].")
    target = _text(item, "target", where)
    if target is not None:
        parse_target(target)
    return RefItem(ref, digest or ref.digest, tuple(sorted(set(platforms))), target, _why(item))


def _file_item(item: Mapping[str, Any], where: str, base: Optional[Path]) -> ArtifactItem:
    name, version = _text(item, "name", where, required=True) or "", _text(item, "version", where, required=True) or ""
    repository = check_repository(f"{FILES_REPOSITORY}/{name}", where)
    source = _file(item, where, "application/octet-stream", base)
    return ArtifactItem(repository, check_tag(version.replace("+", "_"), where), "file", FILE_TYPE, b"{}", OCI_EMPTY, (source,), {}, _why(item))


def _chart_item(item: Mapping[str, Any], where: str, base: Optional[Path]) -> ArtifactItem:
    name, version = _text(item, "name", where, required=True) or "", _text(item, "version", where, required=True) or ""
    repository = check_repository(f"{CHARTS_REPOSITORY}/{name}", where)
    source = _file(item, where, HELM_CONTENT, base, f"{name}-{version}.tgz")
    metadata = item.get("metadata") or {"apiVersion": "v2", "name": name, "version": version}
    # Helm writes + as _ in tags, as OCI tags have no +.
    tag = check_tag(version.replace("+", "_"), where)
    notes = {"org.opencontainers.image.title": name, "org.opencontainers.image.version": version}
    return ArtifactItem(repository, tag, "chart", "", canonical_json(metadata).rstrip(b"\n"), HELM_CONFIG, (source,), notes, _why(item))


def _artifact_item(item: Mapping[str, Any], where: str, base: Optional[Path]) -> ArtifactItem:
    repository = check_repository(_text(item, "repo", where, required=True) or "", where)
    tag = check_tag(_text(item, "tag", where, required=True) or "", where)
    kind = _text(item, "artifact_type", where) or FILE_TYPE
    raw = item.get("files")
    if not isinstance(raw, list) or not raw:
        raise UsageError(f"{where}: files is not a list with at least one file.")
    files = tuple(_file(entry, f"{where}: files[{number}]", "application/octet-stream", base) for number, entry in enumerate(raw))
    names = [source.filename for source in files]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise UsageError(f"{where}: the file names {', '.join(double)} are given twice.")
    return ArtifactItem(repository, tag, "packages", kind, b"{}", OCI_EMPTY, tuple(sorted(files, key=lambda source: source.filename)), {}, _why(item))
