# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Orbs in a bundle: one source file for each version, and an index that says in which order they can be published."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .graphql import OrbError

REPOSITORY = "onprem/orbs"
INDEX = "orbs.json"
FORMAT = "onprem.circleci_server/orbs/1"
_NAME = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9_-]+")
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class OrbVersion:
    """One version of an orb as it travels."""

    name: str
    version: str
    sha256: str
    imports: tuple[tuple[str, str], ...] = ()
    """What its source imports, as written there and as it was resolved: ``("circleci/node@5.2", "circleci/node@5.2.0")``."""
    why: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def filename(self) -> str:
        return f"{self.ref}.yml"

    @property
    def namespace(self) -> str:
        return self.name.partition("/")[0]

    @property
    def short_name(self) -> str:
        return self.name.partition("/")[2]


def parse_exact(ref: str) -> tuple[str, str]:
    """Name and version of ``namespace/orb@1.2.3``."""
    name, _at, version = ref.partition("@")
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        raise OrbError(f"{ref!r} is no exact version of an orb; write namespace/orb@major.minor.patch, like circleci/node@5.2.0")
    return name, version


def index_text(orbs: Sequence[OrbVersion]) -> str:
    """The index, in the order of publication; the same orbs give the same text."""
    entries = [
        {
            "orb": orb.name,
            "version": orb.version,
            "file": orb.filename,
            "sha256": orb.sha256,
            "imports": [{"ref": ref, "resolved": resolved} for ref, resolved in orb.imports],
            "why": list(orb.why),
        }
        for orb in orbs
    ]
    return json.dumps({"format": FORMAT, "orbs": entries}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_index(text: str, where: str) -> list[OrbVersion]:
    """The index of a bundle, which is believed nothing."""
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise ValueError(f"format is {data['format']!r}, this collection reads {FORMAT!r}")
        return [_entry(item) for item in data["orbs"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OrbError(f"{where} is no index of orbs: {error}") from error
    except OrbError as error:
        raise OrbError(f"{where}: {error}") from error


def _entry(item: Mapping[str, Any]) -> OrbVersion:
    name, version = parse_exact(f"{item['orb']}@{item['version']}")
    if not _SHA256.fullmatch(item["sha256"]):
        raise ValueError(f"sha256 of {name}@{version} is {item['sha256']!r}")
    imports = tuple((str(entry["ref"]), str(entry["resolved"])) for entry in item["imports"])
    return OrbVersion(name, version, item["sha256"], imports, tuple(str(reason) for reason in item["why"]))
