# SPDX-License-Identifier: GPL-3.0-or-later
"""An OCI image layout, written so that the same content always gives the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# 2026-01-01: every date in a layer and a config, so that two builds agree
EPOCH = 1767225600
CREATED = "2026-01-01T00:00:00Z"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
HELM_CONFIG = "application/vnd.cncf.helm.config.v1+json"
HELM_LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True)
class Layer:
    """A compressed layer in a file."""

    path: Path
    digest: str
    size: int
    diff_id: str


@dataclass(frozen=True)
class Entry:
    """A file to put into a layer."""

    name: str
    data: bytes
    mode: int = 0o644


def canonical(value: Any) -> bytes:
    """JSON with one spelling."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def normalise(ref: str) -> str:
    """The full name of an image: Docker Hub's short forms are spelled out and a missing tag is `latest`."""
    name, _, rest = ref.partition("/")
    if not rest:
        ref = f"docker.io/library/{ref}"
    elif "." not in name and ":" not in name and name != "localhost":
        ref = f"docker.io/{ref}"
    if ":" not in ref.rsplit("/", 1)[1]:
        ref += ":latest"
    return ref


def tar_bytes(entries: Iterable[Entry]) -> bytes:
    """A tar of files with their parent folders, in one order and with one date."""
    files = {entry.name.strip("/"): entry for entry in entries}
    folders: set[str] = set()
    for name in files:
        parts = name.split("/")[:-1]
        folders.update("/".join(parts[: depth + 1]) for depth in range(len(parts)))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in sorted(folders | set(files)):
            info = tarfile.TarInfo(name)
            info.mtime = EPOCH
            if name in folders:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            else:
                entry = files[name]
                info.mode, info.size = entry.mode, len(entry.data)
                archive.addfile(info, io.BytesIO(entry.data))
    return buffer.getvalue()


def gzip_bytes(data: bytes, level: int = 6) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0, compresslevel=level) as stream:
        stream.write(data)
    return buffer.getvalue()


class Layout:
    """Collects blobs and named manifests; `finish` replaces the old layout as a whole."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self._named: dict[str, dict[str, Any]] = {}
        self._kept: set[str] = set()

    def blob(self, data: bytes) -> tuple[str, int]:
        digest = sha256(data)
        target = self.blobs / digest.split(":", 1)[1]
        if not target.is_file() or target.stat().st_size != len(data):
            temporary = target.with_name(f".{target.name}.{os.getpid()}")
            temporary.write_bytes(data)
            temporary.replace(target)
        self._kept.add(target.name)
        return digest, len(data)

    def blob_file(self, layer: Layer) -> None:
        target = self.blobs / layer.digest.split(":", 1)[1]
        if not target.is_file() or target.stat().st_size != layer.size:
            temporary = target.with_name(f".{target.name}.{os.getpid()}")
            try:
                os.link(layer.path, temporary)
            except OSError:
                shutil.copyfile(layer.path, temporary)
            temporary.replace(target)
        self._kept.add(target.name)

    def _name(self, ref: str, manifest: dict[str, Any]) -> str:
        body = canonical(manifest)
        digest, size = self.blob(body)
        self._named[ref] = {
            "mediaType": MANIFEST,
            "digest": digest,
            "size": size,
            "annotations": {REF_NAME: ref},
        }
        return digest

    def image(self, ref: str, layers: Iterable[Layer], top: Iterable[Entry], config: Mapping[str, Any], labels: Mapping[str, str]) -> str:
        """Shared layers plus one small layer of its own."""
        descriptors: list[dict[str, Any]] = []
        diff_ids: list[str] = []
        for layer in layers:
            self.blob_file(layer)
            descriptors.append({"mediaType": LAYER, "digest": layer.digest, "size": layer.size})
            diff_ids.append(layer.diff_id)
        raw = tar_bytes(top)
        digest, size = self.blob(gzip_bytes(raw))
        descriptors.append({"mediaType": LAYER, "digest": digest, "size": size})
        diff_ids.append(sha256(raw))
        body = canonical(
            {
                "architecture": "amd64",
                "os": "linux",
                "created": CREATED,
                "config": {**config, "Labels": dict(labels)},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
                "history": [{"created": CREATED, "created_by": labels["org.opencontainers.image.title"]} for _ in diff_ids],
            }
        )
        config_digest, config_size = self.blob(body)
        return self._name(
            ref,
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": CONFIG, "digest": config_digest, "size": config_size},
                "layers": descriptors,
                "annotations": {"org.opencontainers.image.title": labels["org.opencontainers.image.title"]},
            },
        )

    def chart(self, ref: str, metadata: Mapping[str, Any], archive: bytes) -> str:
        config_digest, config_size = self.blob(canonical(metadata))
        digest, size = self.blob(archive)
        return self._name(
            ref,
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": HELM_CONFIG, "digest": config_digest, "size": config_size},
                "layers": [{"mediaType": HELM_LAYER, "digest": digest, "size": size}],
                "annotations": {
                    "org.opencontainers.image.title": str(metadata["name"]),
                    "org.opencontainers.image.version": str(metadata["version"]),
                    "org.opencontainers.image.description": str(metadata["description"]),
                },
            },
        )

    def finish(self) -> dict[str, str]:
        """Write index.json last and drop blobs that nothing names any more. Returns reference → digest."""
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [self._named[ref] for ref in sorted(self._named)],
        }
        for name, data in (
            ("oci-layout", canonical({"imageLayoutVersion": "1.0.0"})),
            ("index.json", json.dumps(index, indent=1, sort_keys=True).encode() + b"\n"),
        ):
            temporary = self.root / f".{name}.{os.getpid()}"
            temporary.write_bytes(data)
            temporary.replace(self.root / name)
        for path in self.blobs.iterdir():
            if path.name not in self._kept:
                path.unlink()
        return {ref: str(entry["digest"]) for ref, entry in sorted(self._named.items())}
