# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Records of a site, and which of those in a zone are its own.

Where a record can carry no mark itself, a TXT record beside it does, under a name of its own since a CNAME bears none beside it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional, Protocol

from ..cloud import MARK, CloudError

TTL = 300
"""Seconds that others may keep an answer. An address that moves is known everywhere after that."""
TYPES = ("A", "AAAA", "CNAME")
PREFIX = "_onprem-circleci-"
"""How the name of a TXT record of ours begins; the type of the record that it marks follows, then its name."""


@dataclass(frozen=True)
class RecordSet:
    """All values of one name and type. C(special) is what makes it more than its values, for instance an alias."""

    name: str
    type: str
    values: tuple[str, ...]
    ttl: int = TTL
    site: str = ""
    """Whose it is; empty when nothing says so."""
    special: str = ""
    raw: Any = field(default=None, compare=False)
    """What the cloud has for it; an adapter may need it again."""

    @property
    def there(self) -> bool:
        """Whether there is a record, and not its mark alone."""
        return bool(self.values or self.special)

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.type

    def __str__(self) -> str:
        note = f" (TTL {self.ttl})" if self.ttl != TTL else ""
        return f"{self.name} {self.type} {self.special or ', '.join(self.values)}{note}"


@dataclass(frozen=True)
class Change:
    """What has to happen to one record. Without C(new) it goes, with the mark."""

    old: Optional[RecordSet]
    new: Optional[RecordSet]
    marked: bool
    """Whether the mark is there already."""

    @property
    def name(self) -> str:
        return (self.new or self.old or RecordSet("", "", ())).name

    @property
    def type(self) -> str:
        return (self.new or self.old or RecordSet("", "", ())).type


class Zone(Protocol):
    """One zone. Both calls raise CloudError."""

    def read(self) -> tuple[str, list[RecordSet]]:
        """Its domain, and all records in it with their marks."""

    def apply(self, changes: Sequence[Change]) -> Iterator[str]:
        """Make the changes, and name each that is made."""


def mark_name(name: str, kind: str) -> str:
    return f"{PREFIX}{kind.lower()}.{name}"


def mark_text(site: str) -> str:
    return f"{MARK} site={site}"


def plain_name(name: str) -> str:
    return name.rstrip(".").lower()


def plain_value(kind: str, value: str) -> str:
    """A value as it is compared: names without the dot at their end, addresses in their short form."""
    if kind == "CNAME":
        return plain_name(value)
    try:
        return str(ipaddress.ip_address(value)) if kind in ("A", "AAAA") else value
    except ValueError:
        return value


def with_marks(sets: Iterable[RecordSet]) -> list[RecordSet]:
    """The records with what the TXT records beside them say; a mark whose record is gone stands for a record without values."""
    marks: dict[tuple[str, str], str] = {}
    others = []
    for item in sets:
        kind, _dot, name = item.name.removeprefix(PREFIX).partition(".")
        sites = [text.removeprefix(mark_text("")) for text in item.values if text.startswith(mark_text(""))]
        if item.type == "TXT" and item.name.startswith(PREFIX) and kind.upper() in TYPES and sites:
            marks[name, kind.upper()] = sites[0]
        else:
            others.append(item)
    found = [replace(item, site=marks.get(item.key, "")) for item in others]
    there = {item.key for item in found}
    return found + [RecordSet(name, kind, (), site=site) for (name, kind), site in sorted(marks.items()) if (name, kind) not in there]


class Names:
    """The names of a site in a zone, as a part of its cloud that modules can set."""

    def __init__(self, zone: Zone, site: str, records: Iterable[Mapping[str, Any]]) -> None:
        self.zone, self.site = zone, site
        self.asked = [dict(item) for item in records]
        self.notes: list[str] = []
        self.todo: list[Change] = []

    def read(self) -> tuple[list[str], list[str]]:
        domain, there = self.zone.read()
        found = {item.key: item for item in there}
        wanted, kept = self._wanted(domain)
        problems = [text for item in wanted for text in self._problems(item, there)]
        if problems:
            raise CloudError(*problems)
        before, after = [], []
        for item in wanted:
            old = found.get(item.key)
            ours = old is not None and old.site == self.site
            if old is not None and old.there:
                before.append(str(old))
            if old is not None and old.there and not ours:
                # Somebody else has set what we want; it is neither ours to change nor to take away.
                after.append(str(old))
                continue
            after.append(str(item))
            if old is None or str(old) != str(item):
                self.todo.append(Change(old if old and old.there else None, item, ours))
        names = {item.key for item in wanted}
        for key, old in sorted(found.items()):
            if old.site == self.site and key not in names and old.name not in kept:
                before.append(str(old) if old.there else f"{old.name} {old.type}, of which only the mark is left")
                self.todo.append(Change(old, None, True))
        return before, after

    def apply(self) -> Iterator[str]:
        # What goes makes room for what comes: a name is either a CNAME or has other records.
        yield from self.zone.apply(sorted(self.todo, key=lambda change: change.new is not None))

    def _wanted(self, domain: str) -> tuple[list[RecordSet], set[str]]:
        """Records of the site, and names that are left as they are since nobody knows yet where they lead."""
        wanted, kept, problems = [], set(), []
        for item in self.asked:
            name, values = plain_name(item["name"]), list(item.get("values") or [])
            if name != domain and not name.endswith(f".{domain}"):
                said = f"{name} is not in the zone of {domain}"
                if item.get("needed"):
                    problems.append(f"circleci_cloud_dns_zone: {said}; name the zone that holds circleci_domain")
                else:
                    self.notes.append(f"{said}; its record is left to whoever keeps the other zone")
                continue
            if not values:
                self.notes.append(f"{name} gets no record: {item.get('unknown') or 'its address is not known yet'}")
                kept.add(name)
                continue
            kinds: dict[str, list[str]] = {}
            for value in values:
                kinds.setdefault(kind_of(value), []).append(value)
            if "CNAME" in kinds and name == domain:
                problems.append(f"circleci_cloud_dns_target: {name} is the top of its zone, where DNS has no CNAME; give circleci_load_balancer_address, or "
                                "make an alias of the cloud by hand")  # fmt: skip
                continue
            wanted += [RecordSet(name, kind, tuple(sorted({plain_value(kind, value) for value in texts})), site=self.site) for kind, texts in kinds.items()]
        if problems:
            raise CloudError(*problems)
        return list({item.key: item for item in wanted}.values()), kept

    def _problems(self, item: RecordSet, there: Iterable[RecordSet]) -> Iterator[str]:
        for old in there:
            if old.name != item.name or old.site == self.site or not (old.there or old.site):
                continue
            if old.site:
                yield f"{old} belongs to the site {old.site!r}, this one is {self.site!r}; two sites cannot share a name"
            elif old.type == item.type and (old.special or old.values != item.values):
                yield (f"{old} is there and was not made by this collection for this site (it lacks the mark), and it should be "
                       f"{', '.join(item.values)}; change or remove it, or leave circleci_cloud_dns_zone empty and keep the names by hand")  # fmt: skip
            elif old.type != item.type and "CNAME" in (old.type, item.type):
                yield f"{old} is there and lacks the mark of this collection; it cannot stand beside {item}, remove it"


def kind_of(value: str) -> str:
    """Type of the record that leads to a value: an address, or a name."""
    try:
        return "A" if ipaddress.ip_address(value).version == 4 else "AAAA"
    except ValueError:
        return "CNAME"
