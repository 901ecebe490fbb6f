# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds what the stand-in vendor publishes: one OCI layout with images and charts, and the bucket of agents."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from ..common import SandboxError, say, short_hash, write_atomic
from . import agents, chart, images, layers
from .oci import Layout

HERE = Path(__file__).parent
STAMP = "standin.json"
ENCODED = "gzip-encoded.txt"


def fingerprint(releases: list[str]) -> str:
    """Changes when anything that is built may change."""
    sources = {
        str(path.relative_to(HERE)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(HERE.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"
    }
    charts = {release: hashlib.sha256(chart.archive(release)).hexdigest() for release in releases}
    return short_hash({"sources": sources, "charts": charts, "releases": releases})


def _blobs_there(output: Path) -> bool:
    """Whether the layout is complete: index, manifests and what they name."""
    root = output / "oci" / "blobs" / "sha256"
    try:
        index = json.loads((output / "oci" / "index.json").read_text(encoding="utf-8"))
        for entry in index["manifests"]:
            manifest = json.loads((root / entry["digest"].split(":")[1]).read_text(encoding="utf-8"))
            for blob in [manifest["config"], *manifest["layers"]]:
                if (root / blob["digest"].split(":")[1]).stat().st_size != blob["size"]:
                    return False
    except (OSError, ValueError, KeyError):
        return False
    return True


def is_current(output: Path, releases: list[str]) -> bool:
    try:
        stamp = json.loads((output / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(stamp.get("fingerprint") == fingerprint(releases)) and _blobs_there(output) and (output / "files" / ENCODED).is_file()


def _agents(output: Path, releases: list[str]) -> None:
    target = output / "files"
    work = output / ".files.partial"
    shutil.rmtree(work, ignore_errors=True)
    stored, encoded = agents.files(releases)
    if agents.needs_patched_nomad(releases):
        stored.update(agents.patched_nomad())
    for path, data in stored.items():
        write_atomic(work / agents.HOST / path, data)
    write_atomic(work / ENCODED, "".join(f"{agents.HOST}/{path}\n" for path in encoded))
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)


def build(output: Path, cache: Path, releases: list[str]) -> None:
    """Leave `output/oci` and `output/files`; does nothing when they are what these sources give."""
    if not releases:
        raise SandboxError("no release is named: name at least one of " + ", ".join(chart.known_releases()))
    ordered = [release for release in chart.known_releases() if release in releases]
    for release in releases:
        chart.images_of(release)
    if is_current(output, ordered):
        return
    output.mkdir(parents=True, exist_ok=True)
    wanted = images.wanted(ordered)
    kinds = {images.kind_of(ref) for ref in wanted}
    shared = layers.debian(cache)
    shared.update(images.program_layers(cache, kinds))
    shared["service"] = images.service_layer(cache)
    layout = Layout(output / "oci")
    for ref in wanted:
        images.add(layout, ref, shared)
    for release in ordered:
        layout.chart(f"{chart.OWN}/{chart.NAME}:{release}", chart.metadata_of(release), chart.archive(release))
    digests = layout.finish()
    _agents(output, ordered)
    record = {"fingerprint": fingerprint(ordered), "releases": ordered, "digests": digests}
    write_atomic(output / STAMP, json.dumps(record, indent=1, sort_keys=True) + "\n")
    say(f"stand-in vendor: {len(wanted)} images and {len(ordered)} charts of {', '.join(ordered)}")
