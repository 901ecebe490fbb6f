# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is it whole? Fast: shapes and sizes. Deep: every byte is read and hashed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from .bundle import READ, Bundle, between, padded, part_members, part_name, pread_all
from .errors import MirrorError
from .load import map_target
from .oci import Descriptor, Manifest
from .progress import Progress
from .registry import RegistryClient
from .sign import Trust, check_trust
from .together import map_together


@dataclass
class Report:
    """What a check found."""

    problems: list[str] = field(default_factory=list)
    checked_bytes: int = 0
    checked_items: int = 0
    trusted: str = ""
    parts: list[int] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__, ok=self.ok)


def verify_bundle(bundle: Bundle, deep: bool = False, part: Optional[int] = None, trust: Optional[Trust] = None, progress: Optional[Progress] = None) -> Report:
    """Check the parts that should be there (or only *part*, which needs only its medium); all problems are told at once."""
    progress = progress or Progress()
    report = Report()
    if trust is not None:
        try:
            report.trusted = check_trust(bundle.raw, bundle.signature_files(), trust)
        except MirrorError as error:
            report.problems.append(str(error))
    numbers = [part] if part is not None else list(range(1, bundle.parts + 1))
    progress.begin(
        "verify", sum(bundle.manifest["parts"][number - 1]["extents"] for number in numbers if 1 <= number <= bundle.parts) if deep else 0, len(numbers)
    )
    for number in numbers:
        if not 1 <= number <= bundle.parts:
            report.problems.append(f"There is no part {number}: the bundle has {bundle.parts}.")
            continue
        try:
            fd = bundle.part_fd(number)
            report.parts.append(number)
            _verify_frame(bundle, fd, number, deep, report, progress)
        except (MirrorError, OSError) as error:
            report.problems.append(str(error))
        progress.item()
    for problem in _unresolved(bundle) if 1 in report.parts else ():
        report.problems.append(problem)
    progress.end("done")
    return report


def _verify_frame(bundle: Bundle, fd: int, number: int, deep: bool, report: Report, progress: Progress) -> None:
    name = part_name(bundle.id, number)
    members = part_members(bundle.id, number, bundle.parts, bundle.places)
    extents = bundle.manifest["parts"][number - 1]["extents"]
    position = 0
    for start, head, member in between(members):
        # Headers, filler and padding follow from bundle.json: compared byte for byte.
        lead = pread_all(fd, member.offset - position, position)
        if lead != bytes(start - position) + head:
            report.problems.append(f"{name}: the tar header before {member.name} is damaged. Copy the part again.")
        position = member.offset + member.size
        if deep or member.body is not None:
            hasher, offset = hashlib.sha256(), member.offset
            while offset < position:
                data = os.pread(fd, min(READ, position - offset), offset)
                if not data:
                    break
                hasher.update(data)
                offset += len(data)
                progress.add(len(data))
            report.checked_bytes += member.size
            if hasher.hexdigest() != member.sha256:
                report.problems.append(f"{name}: {member.name} is damaged. Copy the part again.")
        report.checked_items += 1
    end = members[-1].offset + padded(members[-1].size)
    if pread_all(fd, end - position, position) != bytes(end - position) or end != extents:
        report.problems.append(f"{name}: the padding after {members[-1].name} is damaged. Copy the part again.")


def _unresolved(bundle: Bundle) -> list[str]:
    """Manifests whose content is neither in the bundle nor in the base that it names."""
    problems = []
    required = bundle.required
    for ref in bundle.refs:
        try:
            root = bundle.read_manifest(ref.digest)
            missing = set(ref.missing)
            wanted = [child for child in root.children() if child.digest not in missing]
            for child in wanted:
                if not bundle.has(child.digest):
                    problems.append(f"{ref.name}: its manifest {child.digest} is not in the bundle.")
            images = [bundle.read_manifest(child.digest) for child in wanted if bundle.has(child.digest)] if root.is_index else [root]
            for image in images:
                for blob in image.blobs():
                    if bundle.sizes.get(blob.digest, required.get(blob.digest, {}).get("size")) != blob.size:
                        problems.append(f"{ref.name}: {blob.digest} ({blob.size} bytes) is not in the bundle.")
        except MirrorError as error:
            if error.exit_code == 75:
                break
            problems.append(f"{ref.name}: {error}")
    return problems


def verify_registry(
    bundle: Bundle, client: RegistryClient, deep: bool = False, mapping: Optional[Mapping[str, str]] = None, progress: Optional[Progress] = None
) -> Report:
    """Has the registry what the bundle holds? Fast: one HEAD for each name. Deep: every manifest and blob is read back and hashed."""
    progress = progress or Progress()
    report = Report()
    targets = [(ref, *map_target(ref, mapping or {})) for ref in bundle.refs]
    progress.begin("verify registry", sum(bundle.sizes.values()) if deep else 0, len(targets))

    def head(item: Any) -> Optional[str]:
        ref, repository, tag = item
        found: Optional[str] = client.head_manifest(repository, tag or ref.digest)
        progress.item()
        if found == ref.digest or (ref.chosen and found == ref.chosen):
            return None
        return f"{client.host}/{repository}:{tag or ref.digest}: " + ("is not there." if found is None else f"is {found}, expected {ref.digest}.")

    report.problems.extend(problem for problem in map_together(targets, head) if problem)
    report.checked_items = len(targets)
    if deep and not report.problems:
        seen: dict[str, str] = {}

        def walk(repository: str, digest: str, skip: frozenset[str]) -> None:
            manifest: Manifest = client.get_manifest(repository, digest)
            report.checked_bytes += manifest.size
            for child in manifest.children():
                if child.digest not in skip:
                    walk(repository, child.digest, skip)
            for blob in manifest.blobs():
                deep_blob(repository, blob)

        def deep_blob(repository: str, blob: Descriptor) -> None:
            if blob.digest in seen:
                # The bytes are proven; that this repository has them too, a HEAD shows.
                if seen[blob.digest] != repository and client.head_blob(repository, blob.digest) is None:
                    report.problems.append(f"{client.host}/{repository}@{blob.digest}: is not there.")
                return
            seen[blob.digest] = repository
            report.checked_bytes += client.stream_blob(repository, blob.digest, lambda view: progress.add(len(view)), blob.size)

        for ref, repository, tag in targets:
            found = client.head_manifest(repository, tag or ref.digest)
            try:
                walk(repository, found or ref.digest, frozenset(ref.missing))
            except MirrorError as error:
                if error.exit_code == 75:
                    raise
                report.problems.append(str(error))
    progress.end("done")
    return report
