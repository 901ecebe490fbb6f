# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prune: take away what an earlier load brought and the new bundle does not name any more. Shows what it would do unless told to do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .bundle import Bundle
from .delta import RECEIPT_FORMAT
from .errors import UsageError
from .load import map_target
from .progress import Progress
from .registry import RegistryClient


@dataclass
class PrunePlan:
    """What would go, and what is kept though it was expected to go."""

    remove: list[dict[str, Any]] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    removed: int = 0

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


def plan_prune(client: RegistryClient, receipt: Mapping[str, Any], bundle: Bundle, mapping: Mapping[str, str]) -> PrunePlan:
    """Compare an earlier receipt with a bundle. Only names from the receipt are ever touched, and only if they still are what was loaded."""
    if receipt.get("format") != RECEIPT_FORMAT:
        raise UsageError(f"The receipt has the format {receipt.get('format')!r}, wanted is {RECEIPT_FORMAT!r}.")
    if receipt.get("registry") != client.host:
        raise UsageError(f"The receipt is about {receipt.get('registry')}, not about {client.host}.")
    wanted: set[tuple[str, str]] = set()
    digests: dict[str, set[str]] = {}
    for ref in bundle.refs:
        repository, tag = map_target(ref, mapping)
        wanted.add((repository, tag or ref.digest))
        digests.setdefault(repository, set()).update({ref.digest, ref.chosen})
        if not bundle.media.get(ref.digest) or bundle.has(ref.digest):
            digests[repository].update(child.digest for child in bundle.read_manifest(ref.digest).children())
    plan = PrunePlan()
    gone: dict[str, set[str]] = {}
    for entry in receipt.get("refs") or ():
        repository, tag, digest = str(entry["repository"]), entry.get("tag"), str(entry["digest"])
        if (repository, tag or digest) in wanted:
            continue
        name = f"{client.host}/{repository}" + (f":{tag}" if tag else f"@{digest}")
        now = client.head_manifest(repository, str(tag or digest))
        if now is None:
            continue
        if now != digest:
            plan.kept.append(f"{name}: is {now} now, not the {digest} that was loaded; somebody else put it there.")
        elif digest in digests.get(repository, ()):
            plan.kept.append(f"{name}: the new bundle uses the same content under another tag, and deleting by digest would take both.")
        else:
            plan.remove.append({"name": name, "repository": repository, "digest": digest})
            gone.setdefault(repository, set()).add(digest)
    # A digest may have tags that are not ours: deleting it would take them too.
    for repository in sorted(gone):
        ours = {str(entry.get("tag")) for entry in receipt.get("refs") or () if entry["repository"] == repository}
        for tag in client.list_tags(repository):
            if tag in ours:
                continue
            foreign = client.head_manifest(repository, tag)
            if foreign in gone[repository]:
                plan.kept.append(f"{client.host}/{repository}@{foreign}: has the tag {tag} too, which no load brought.")
                plan.remove = [item for item in plan.remove if (item["repository"], item["digest"]) != (repository, foreign)]
                gone[repository].discard(str(foreign))
    return plan


def prune(client: RegistryClient, plan: PrunePlan, progress: Progress) -> PrunePlan:
    """Do what the plan says. Space comes back with the registry's own garbage collection."""
    client.push = True
    progress.begin("prune", 0, len(plan.remove))
    done: set[tuple[str, str]] = set()
    for item in plan.remove:
        key = (str(item["repository"]), str(item["digest"]))
        if key not in done:
            done.add(key)
            plan.removed += client.delete_manifest(*key)
        progress.item()
    progress.end("done")
    return plan
