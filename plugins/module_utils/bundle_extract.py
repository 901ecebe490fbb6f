# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of artifacts, straight from the parts of a bundle."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .mirror.bundle import Bundle
from .mirror.lock import check_file_name
from .oci_file import sha256_of

INDEX = "Packages"
INDEX_LIMIT = 64 << 20
_FIELD = re.compile(r"^(Package|Version|Depends|Pre-Depends|Provides|Filename|Priority|Essential): (.*)$", re.MULTILINE)


class ExtractError(Exception):
    """One sentence for the operator."""


@dataclass(frozen=True)
class Layer:
    """One file of an artifact."""

    name: str
    digest: str
    size: int
    mode: int
    package: str = ""
    version: str = ""

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "sha256": self.digest.split(":", 1)[-1], "size": self.size}
        return {**found, "package": self.package, "version": self.version} if self.package else found


def find_artifact(bundle: Bundle, name: str) -> list[Layer]:
    """The files of the artifact with that name in the registry."""
    refs = [ref for ref in bundle.refs if ref.target.partition(":")[0] == name]
    if len(refs) != 1:
        similar = sorted({ref.target.partition(":")[0] for ref in bundle.refs if ref.target.startswith("onprem/")})
        found = f"has it {len(refs)} times" if refs else f"has no {name}; it has {', '.join(similar) or 'no files at all'}"
        raise ExtractError(f"circleci_bundle_dir: the bundle {found}. Make a bundle that holds it once.")
    layers = []
    for item in bundle.read_manifest(refs[0].digest).data.get("layers") or []:
        notes = item.get("annotations") or {}
        # A bundle comes from outside: a name with .. in it must not lead out of the folder.
        title = check_file_name(str(notes.get("org.opencontainers.image.title") or ""), name)
        layers.append(Layer(title, str(item["digest"]), int(item["size"]), int(str(notes.get("io.onprem.mode") or "0644"), 8) & 0o777))
    return layers


def choose(bundle: Bundle, layers: Sequence[Layer], wanted: Sequence[str], *, packages: bool) -> list[Layer]:
    """The files that are asked for, and with *packages* what they depend on."""
    if packages:
        return _closure(bundle, layers, wanted)
    if not wanted:
        return list(layers)
    found = [layer for layer in layers if any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in wanted)]
    missing = [pattern for pattern in wanted if not any(fnmatch.fnmatchcase(layer.name, pattern) for layer in found)]
    if missing:
        raise ExtractError(f"files: the artifact has no {', '.join(missing)}; it has {', '.join(sorted(layer.name for layer in layers)[:40])}")
    return found


def _closure(bundle: Bundle, layers: Sequence[Layer], wanted: Sequence[str]) -> list[Layer]:
    by_name = {layer.name: layer for layer in layers}
    if INDEX not in by_name:
        raise ExtractError("packages: the artifact holds no Debian packages: its index is missing")
    stanzas: dict[str, dict[str, str]] = {}
    provided: dict[str, str] = {}
    for paragraph in bundle.read_blob(by_name[INDEX].digest, INDEX_LIMIT).decode("utf-8").split("\n\n"):
        fields = dict(_FIELD.findall(paragraph))
        if fields.get("Package"):
            stanzas[fields["Package"]] = fields
            for names in _names(fields.get("Provides", "")):
                provided.setdefault(names[0], fields["Package"])
    missing = [name for name in wanted if name not in stanzas]
    if missing:
        raise ExtractError(
            f"circleci_bundle_packages: the bundle has no package {', '.join(missing)} for this distribution; name it there and make the bundle again"
        )
    queue, chosen = list(wanted), {}
    while queue:
        name = queue.pop(0)
        if name in chosen:
            continue
        fields = stanzas[name]
        layer = by_name.get(fields["Filename"].removeprefix("./"))
        if layer is None:
            raise ExtractError(f"packages: the index names {fields['Filename']}, which the artifact does not hold; the bundle was not made by this collection")
        chosen[name] = Layer(layer.name, layer.digest, layer.size, layer.mode, name, fields["Version"])
        for choices in _names(f"{fields.get('Depends', '')}, {fields.get('Pre-Depends', '')}"):
            there = next((choice if choice in stanzas else provided[choice] for choice in choices if choice in stanzas or choice in provided), None)
            # What every installation has from its first day need not be carried to a host.
            if there is not None and stanzas[there].get("Priority") != "required" and stanzas[there].get("Essential") != "yes":
                queue.append(there)
    return [chosen[name] for name in sorted(chosen)]


def _names(relation: str) -> list[list[str]]:
    """``a (>= 1) | b, c:any`` as ``[[a, b], [c]]``."""
    return [[re.split(r"[\s(:\[]", choice.strip(), maxsplit=1)[0] for choice in part.split("|")] for part in relation.split(",") if part.strip()]


def extract(bundle: Bundle, layers: Sequence[Layer], dest: Path, *, write: bool) -> list[str]:
    """Write what is not there yet; returns the names of those."""
    changed = [layer for layer in layers if sha256_of(dest / layer.name) != layer.digest.split(":", 1)[-1]]
    if not write or not changed:
        return [layer.name for layer in changed]
    dest.mkdir(parents=True, exist_ok=True, mode=0o755)
    needed = sum(layer.size for layer in changed)
    free = shutil.disk_usage(dest).free
    if free < needed:
        raise ExtractError(f"dest: {dest} has {free} bytes free, {needed} are needed; make room, then run the same command again")
    for layer in changed:
        target = dest / layer.name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                bundle.stream(layer.digest, stream.write)
                os.fchmod(stream.fileno(), layer.mode)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    return [layer.name for layer in changed]


def pack(bundle: Bundle, layers: Sequence[Layer], dest: Path, *, write: bool) -> bool:
    """All files in one tar archive, the same bytes for the same files; True when it was not there like that."""
    order = sorted(layers, key=lambda layer: layer.name)
    # The archive follows from names and digests, so what is there is known by them without being packed again.
    stamp = hashlib.sha256("".join(f"{layer.name} {layer.digest}\n" for layer in order).encode()).hexdigest()
    note = dest.with_name(f"{dest.name}.contents")
    if dest.is_file() and note.is_file() and note.read_text(encoding="ascii").strip() == f"{stamp} {sha256_of(dest)}":
        return False
    if not write:
        return True
    dest.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    handle, temporary = tempfile.mkstemp(prefix=f".{dest.name}.", dir=dest.parent)
    try:
        with os.fdopen(handle, "wb") as raw, tempfile.TemporaryFile(dir=dest.parent) as spool:
            archive = tarfile.TarFile(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT)
            for layer in order:
                spool.seek(0)
                spool.truncate()
                bundle.stream(layer.digest, spool.write)
                spool.seek(0)
                member = tarfile.TarInfo(layer.name)
                member.size, member.mode = layer.size, layer.mode
                archive.addfile(member, spool)
            archive.close()
        Path(temporary).chmod(0o644)
        Path(temporary).replace(dest)
        note.write_text(f"{stamp} {sha256_of(dest)}\n", encoding="ascii")
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True
