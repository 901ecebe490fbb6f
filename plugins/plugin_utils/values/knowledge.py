# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The documented keys of one release, as a tree that answers what is known at a path."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from .changes import Retired
from .model import Path

# Below these names Kubernetes, not the chart, says what is allowed.
FREE_NAMES = frozenset(
    {
        "annotations", "podAnnotations", "labels", "podLabels", "nodeSelector", "nodeAffinity", "affinity", "tolerations",
        "resources", "extraEnvVars", "tags", "statefulsetLabels", "securityContext", "podSecurityContext", "service_account",
    }
)


@dataclasses.dataclass(frozen=True)
class KeyFact:
    path: Path
    type: str
    default: Any
    secret: bool = False
    certainty: str = "documented"


class _Node:
    __slots__ = ("children", "fact")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.fact: KeyFact | None = None


class KeyBook:
    """The keys of a release."""

    def __init__(self, minor: tuple[int, int], facts: Iterable[KeyFact], retired: Iterable[Retired] = ()) -> None:
        self.minor = minor
        self.retired = {entry.path: entry for entry in retired}
        self.facts: dict[Path, KeyFact] = {}
        self._root = _Node()
        for fact in facts:
            self._add(fact)

    def _add(self, fact: KeyFact) -> None:
        self.facts[fact.path] = fact
        node = self._root
        for part in fact.path:
            node = node.children.setdefault(part, _Node())
        node.fact = fact

    def lists(self, path: Path) -> bool:
        """Whether the vendor's pages for this release hold the key, or one below or above it with free contents."""
        return self.look_up(path)[0]

    def retired_at(self, path: Path) -> Retired | None:
        """The retired key at a path or above it."""
        for end in range(len(path), 0, -1):
            entry = self.retired.get(path[:end])
            if entry is not None:
                return entry
        return None

    def retired_block(self, path: Path) -> tuple[Path, str] | None:
        """The largest block around a path of which earlier releases had keys and this one has none, and since when."""
        for end in range(1, len(path) + 1):
            block = path[:end]
            if self.has_children(block) or block in self.facts:
                continue
            gone = [entry for known, entry in self.retired.items() if known[:end] == block and entry.fate != "unlisted"]
            if gone:
                return block, max((entry.since for entry in gone), key=lambda text: [int(part) for part in text.split(".")])
            return None
        return None

    def fact(self, path: Path) -> KeyFact | None:
        return self.facts.get(path)

    def default(self, path: Path) -> Any:
        fact = self.facts.get(path)
        return fact.default if fact else None

    def is_secret(self, path: Path) -> bool:
        """Whether a key, or one above it, is marked as secret."""
        return any(self.facts[path[:end]].secret for end in range(1, len(path) + 1) if path[:end] in self.facts)

    def look_up(self, path: Path) -> tuple[bool, KeyFact | None, str]:
        """Known or not, the fact that decides, and the place where the path left the known tree."""
        node = self._root
        last: KeyFact | None = None
        for index, part in enumerate(path):
            if part in FREE_NAMES and index:
                return True, None, ""
            child = node.children.get(part)
            if child is None:
                if node.fact is not None and node.fact.type in ("any", "list", "object") and not node.children:
                    default = node.fact.default
                    if not isinstance(default, dict) or not default or part in default:
                        return True, None, ""
                if node.fact is not None and isinstance(node.fact.default, dict) and part in node.fact.default:
                    return True, None, ""
                return False, last, part
            node = child
            last = node.fact or last
        return True, node.fact, ""

    def siblings(self, path: Path) -> list[str]:
        """The known names at the place of the last part of a path that is still in the tree."""
        node = self._root
        for part in path:
            if part not in node.children:
                break
            node = node.children[part]
        return sorted(node.children)

    def has_children(self, path: Path) -> bool:
        node = self._root
        for part in path:
            child = node.children.get(part)
            if child is None:
                return False
            node = child
        return bool(node.children)
