# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""What the right to pull is called in a cloud, and what all clouds say of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..cloud import CloudError

NODES, REGISTRY = "circleci_cloud_registry_nodes", "circleci_cloud_registry"


@dataclass(frozen=True)
class Grant:
    """A role that lets pull, by its name for people and its id, and ids of those that let pull as well. C(mode) is that of the registry it is for."""

    role: str
    id: str
    mode: str
    also: tuple[str, ...]

    @property
    def enough(self) -> frozenset[str]:
        return frozenset((self.id, *self.also))


def grants(raw: Iterable[Mapping[str, Any]]) -> tuple[Grant, ...]:
    """From the catalog."""
    return tuple(Grant(str(item["role"]), str(item["id"]), str(item.get("mode") or ""), tuple(item.get("also") or ())) for item in raw)


def wrong_nodes(nodes: Sequence[str], known: re.Pattern[str], form: str) -> Iterator[str]:
    wrong = [name for name in nodes if not known.fullmatch(name)]
    if wrong:
        yield f"{NODES}: found {', '.join(map(repr, wrong))}; allowed are {form}"


class Rights:
    """Who may pull, and by what. Each adapter fills it when it reads."""

    def __init__(self, host: str, nodes: Sequence[str]) -> None:
        self.host = host
        self.nodes = list(dict.fromkeys(nodes))
        self.found: dict[str, str] = {}
        """By what a node may pull already, for those that may."""
        self.wanted: dict[str, str] = {}
        """By what the others are to."""

    @property
    def missing(self) -> list[str]:
        return [name for name in self.nodes if name not in self.found]

    def lines(self, problems: Sequence[str]) -> tuple[list[str], list[str]]:
        """Before and after; with problems none of them."""
        if problems:
            raise CloudError(*problems)
        before = [self._line(name, self.found[name]) for name in self.nodes if name in self.found]
        return before, [self._line(name, self.found.get(name) or self.wanted[name]) for name in self.nodes]

    def _line(self, node: str, means: str) -> str:
        return f"{node} may pull from {self.host} by {means}"
