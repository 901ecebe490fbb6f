# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Orbs of a bundle into the registry of a server: what is missing there, in an order that it takes. Nothing is ever overwritten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .graphql import Api
from .index import OrbVersion


@dataclass
class Step:
    """What is to be done, found out without changing anything."""

    missing: list[OrbVersion] = field(default_factory=list)
    there: list[OrbVersion] = field(default_factory=list)
    other: list[OrbVersion] = field(default_factory=list)
    """Versions that the server has with another source; they stay as they are."""

    @property
    def problems(self) -> list[str]:
        """A sentence for each version that cannot be had as it is in the bundle."""
        return [
            f"{orb.ref} is published on this server with another source than that of the bundle (sha256 {orb.sha256[:12]}…); it was left as it is"
            for orb in self.other
        ]


def _same(one: str, two: str) -> bool:
    # The last line feed of a source is lost where it goes through a form.
    return one.rstrip() == two.rstrip()


def look(api: Api, orbs: Sequence[OrbVersion], sources: Mapping[str, str]) -> Step:
    """Compare the orbs of the bundle with those of the server; one request for each version."""
    step = Step()
    for orb in orbs:
        found = api.version(orb.ref)
        if found is None:
            step.missing.append(orb)
        elif _same(found[1], sources[orb.ref]):
            step.there.append(orb)
        else:
            step.other.append(orb)
    return step


def publish(api: Api, step: Step, sources: Mapping[str, str], done: list[str]) -> None:
    """Publish what is missing, namespace and orb first where they are missing too; *done* gets each version that is published.

    It stops at the first refusal, as what comes later may import what was refused. The same call goes on from there.
    """
    namespaces: dict[str, str] = {}
    ids: dict[str, str] = {}
    for orb in step.missing:
        if orb.name not in ids:
            namespace, found = api.ids(orb.namespace, orb.short_name)
            namespaces[orb.namespace] = namespace or namespaces.get(orb.namespace) or api.import_namespace(orb.namespace)
            ids[orb.name] = found or api.import_orb(orb.namespace, namespaces[orb.namespace], orb.short_name)
        api.import_version(orb.ref, ids[orb.name], orb.version, sources[orb.ref])
        done.append(orb.ref)
