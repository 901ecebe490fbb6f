# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a delta bundle builds on: an earlier bundle, or a receipt of what the far side has proved to have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .bundle import FORMAT as BUNDLE_FORMAT
from .bundle import parse_manifest
from .errors import MirrorError, UsageError
from .oci import digest_of, is_digest

RECEIPT_FORMAT = "onprem.circleci_server/receipt/1"


@dataclass(frozen=True)
class Base:
    """Blobs that are on the far side already, and in which repositories there."""

    kind: str  # bundle or receipt
    identity: str
    sizes: Mapping[str, int]
    repositories: Mapping[str, list[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Base:
        """Read an earlier bundle.json, the folder with it, or a receipt."""
        path = Path(path)
        if path.is_dir():
            path = path / "bundle.json"
        try:
            raw = path.read_bytes()
            data = json.loads(raw)
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: cannot be read as a bundle.json or a receipt: {error}") from error
        kind = data.get("format") if isinstance(data, dict) else None
        if kind == BUNDLE_FORMAT:
            return cls._bundle(raw)
        if kind == RECEIPT_FORMAT:
            return cls._receipt(data, raw, path)
        raise UsageError(f"{path}: has the format {kind!r}; a base is a bundle.json ({BUNDLE_FORMAT}) or a receipt ({RECEIPT_FORMAT}).")

    @classmethod
    def _bundle(cls, raw: bytes) -> Base:
        data, _refs, _places, sizes, _media = parse_manifest(raw)
        known = dict(sizes)
        repositories: dict[str, list[str]] = {}
        for blob in (data.get("requires") or {}).get("blobs") or ():
            known[str(blob["d"])] = int(blob["s"])
            repositories[str(blob["d"])] = [str(name) for name in blob.get("repos") or ()]
        names = [str(name) for name in data.get("repositories") or ()]
        for blob in data["blobs"]:
            known_in = repositories.setdefault(str(blob["d"]), [])
            known_in.extend(names[index] for index in blob.get("r") or () if isinstance(index, int) and 0 <= index < len(names))
        return cls("bundle", str(data["id"]), known, repositories)

    @classmethod
    def _receipt(cls, data: Mapping[str, object], raw: bytes, path: Path) -> Base:
        sizes: dict[str, int] = {}
        repositories: dict[str, list[str]] = {}
        try:
            for digest, entry in data["blobs"].items():  # type: ignore[attr-defined]
                if not is_digest(digest):
                    raise MirrorError(f"{path}: {str(digest)[:80]!r} is not a digest.")
                sizes[digest] = int(entry["size"])
                repositories[digest] = [str(name) for name in entry["repos"]]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UsageError(f"{path}: the receipt has not the right shape ({error}).") from error
        return cls("receipt", digest_of(raw)[7:], sizes, repositories)

    def spared(self, wanted: Mapping[str, int]) -> set[str]:
        """The blobs of *wanted* that need not travel again."""
        return {digest for digest, size in wanted.items() if self.sizes.get(digest) == size}
