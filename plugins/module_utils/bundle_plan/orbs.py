# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Orbs as an artifact of the bundle. What an earlier lock holds is kept, as long as its files are there and are what it pins."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ..orbs import INDEX, REPOSITORY, Api, OrbError, index_text, read_index
from ..orbs.sources import ASKED, Known, collect, images_of

CLOUD = "https://circleci.com"
ORBS_TYPE = "application/vnd.onprem.orbs.v1"


@dataclass
class CollectedOrbs:
    """What the lock gets, and what is to be written beside it."""

    artifact: dict[str, Any] = field(default_factory=dict)
    side_files: dict[str, str] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def collect_orbs(refs: Sequence[str], api: Api, lock: Mapping[str, Any], folder: Path, *, refresh: bool) -> CollectedOrbs:
    """The orbs and all that they import, each with its digest; a refresh resolves imports anew, but a version never changes."""
    orbs, sources, problems = collect(refs, api, _known(lock, folder, refresh=refresh))
    result = CollectedOrbs(problems=problems)
    if problems or not orbs:
        return result
    texts = {INDEX: index_text(orbs), **{orb.filename: sources[orb.ref] for orb in orbs}}
    result.side_files = {f"orbs/{name}": text for name, text in texts.items()}
    result.images = [image for orb in orbs for image in images_of(sources[orb.ref], orb.ref)]
    result.artifact = {
        "repo": REPOSITORY,
        "artifact_type": ORBS_TYPE,
        "files": [
            {"path": f"orbs/{name}", "sha256": _sha256(text.encode()), "size": len(text.encode()), "filename": name, "mode": "0644"}
            for name, text in texts.items()
        ],
        "why": [{"file": "your variables", "path": ASKED, "rule": f"{orb.ref}: {', '.join(orb.why)}"} for orb in orbs],
    }
    return result


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _known(lock: Mapping[str, Any], folder: Path, *, refresh: bool) -> Known:
    files = {str(item["filename"]): item for entry in lock.get("artifacts", []) if entry.get("repo") == REPOSITORY for item in entry["files"]}
    digests = {name[: -len(".yml")]: str(item["sha256"]) for name, item in files.items() if name != INDEX}
    index = _text(files.get(INDEX), folder)
    if refresh or index is None:
        return Known(digests)
    texts = {name[: -len(".yml")]: _text(item, folder) for name, item in files.items() if name != INDEX}
    try:
        resolved = {ref: exact for orb in read_index(index, INDEX) for ref, exact in orb.imports}
    except OrbError:
        resolved = {}
    return Known(digests, {exact: text for exact, text in texts.items() if text is not None}, resolved)


def _text(item: Optional[Mapping[str, Any]], folder: Path) -> Optional[str]:
    """A file beside the lock, when it is what the lock says."""
    try:
        data = (folder / str(item["path"])).read_bytes() if item else None
        return data.decode() if item and data is not None and _sha256(data) == item["sha256"] else None
    except (OSError, ValueError):
        return None
