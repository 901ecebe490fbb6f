# SPDX-License-Identifier: GPL-3.0-or-later
"""Seeded sets of images with layers that really are gzip (stored blocks: cheap to make, as large as their content), written into a registry's storage tree.

Set S: 43 references (41 images over 4 shared bases, 5 of them for two platforms, one with a 300 MiB layer, and 2 charts), 309 blobs, 1.26 GB.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest_of(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


def stored_gzip(content: bytes) -> bytes:
    """A gzip stream of stored blocks: every reader unpacks it, and nothing is won by packing it again."""
    out = io.BytesIO()
    out.write(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03")
    for start in range(0, len(content), 65535):
        piece = content[start : start + 65535]
        out.write(struct.pack("<BHH", start + 65535 >= len(content), len(piece), 0xFFFF ^ len(piece)))
        out.write(piece)
    out.write(struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF))
    return out.getvalue()


def layer(seed: str, size: int) -> tuple[bytes, str]:
    """A layer with one file of about *size* random bytes; returns the packed layer and the digest of the tar in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo(f"data/{hashlib.sha256(seed.encode()).hexdigest()[:12]}")
        info.size = size
        source = random.Random(seed)
        archive.addfile(info, io.BytesIO(b"".join(source.randbytes(min(1 << 24, size - start)) for start in range(0, size, 1 << 24))))
    content = out.getvalue()
    return stored_gzip(content), digest_of(content)


class Storage:
    """The storage tree of a distribution registry, written directly."""

    def __init__(self, root: Path) -> None:
        self.base = root / "docker" / "registry" / "v2"
        self.bytes = 0
        self.count = 0

    def blob(self, body: bytes) -> str:
        digest = digest_of(body)
        path = self.base / "blobs" / "sha256" / digest[7:9] / digest[7:] / "data"
        if not path.exists():
            path.parent.mkdir(parents=True)
            path.write_bytes(body)
            self.bytes += len(body)
            self.count += 1
        return digest

    def _link(self, path: Path, digest: str) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "link").write_text(digest)

    def layer_link(self, repository: str, digest: str) -> None:
        self._link(self.base / "repositories" / repository / "_layers" / "sha256" / digest[7:], digest)

    def manifest(self, repository: str, body: bytes, tag: str | None = None) -> str:
        digest = self.blob(body)
        manifests = self.base / "repositories" / repository / "_manifests"
        self._link(manifests / "revisions" / "sha256" / digest[7:], digest)
        if tag:
            self._link(manifests / "tags" / tag / "index" / "sha256" / digest[7:], digest)
            self._link(manifests / "tags" / tag / "current", digest)
        return digest


@dataclass
class Layers:
    """Layers are made once for each seed."""

    storage: Storage
    thin: bool = False  # only names and sizes: for plans, which move no layers
    known: dict[tuple[str, int], tuple[str, int, str]] = field(default_factory=dict)

    def get(self, seed: str, size: int) -> tuple[str, int, str]:
        if (seed, size) not in self.known:
            if self.thin:
                name = digest_of(f"{seed} {size}".encode())
                self.known[(seed, size)] = (name, size, name)
                return self.known[(seed, size)]
            body, inner = layer(seed, size)
            self.known[(seed, size)] = (self.storage.blob(body), len(body), inner)
        return self.known[(seed, size)]


def image(storage: Storage, repository: str, tag: str | None, layers: list[tuple[str, int, str]], arch: str = "amd64", extra: str = "") -> tuple[str, int]:
    """One image; returns the digest and the size of its manifest."""
    config = json.dumps(
        {
            "architecture": arch,
            "os": "linux",
            "config": {"Labels": {"name": repository, "extra": extra}},
            "rootfs": {"type": "layers", "diff_ids": [inner for _digest, _size, inner in layers]},
            "history": [{"created_by": f"layer {number}"} for number in range(len(layers))],
        }
    ).encode()
    config_digest = storage.blob(config)
    storage.layer_link(repository, config_digest)
    for digest, _size, _inner in layers:
        storage.layer_link(repository, digest)
    body = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": len(config)},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size} for digest, size, _inner in layers],
        }
    ).encode()
    return storage.manifest(repository, body, tag), len(body)


def index(storage: Storage, repository: str, tag: str, children: list[tuple[str, int, str]]) -> str:
    """An index over images (digest, size, architecture)."""
    body = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [{"mediaType": OCI_MANIFEST, "digest": digest, "size": size, "platform": {"os": "linux", "architecture": arch}} for digest, size, arch in children],
        }
    ).encode()
    return storage.manifest(repository, body, tag)


def chart(storage: Storage, repository: str, tag: str) -> str:
    content = stored_gzip(random.Random(repository).randbytes(100_000))
    config = json.dumps({"apiVersion": "v2", "name": repository.rsplit("/", 1)[-1], "version": tag}).encode()
    body = json.dumps(
        {
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": storage.blob(config), "size": len(config)},
            "layers": [{"mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip", "digest": storage.blob(content), "size": len(content)}],
        }
    ).encode()
    for blob in (config, content):
        storage.layer_link(repository, digest_of(blob))
    return storage.manifest(repository, body, tag)


def make_set_s(root: Path, scale: float = 1.0, rebuilt: int = 0, thin: bool = False) -> dict[str, Any]:
    """Set S; *scale* shrinks all layers, *rebuilt* images have half of their own layers new (release n + 1), a *thin* set has manifests only."""
    storage = Storage(root)
    layers = Layers(storage, thin)
    rng = random.Random("S")
    # 9 base layers of about 20 MB: 83 mounts for 41 repositories.
    bases = [
        [layers.get(f"base {base} {number}", int(size * scale)) for number, size in enumerate(rng.sample(range(12_000_000, 26_000_000), 3 if base == 3 else 2))]
        for base in range(4)
    ]
    budget = 1_257_000_000 - 315_000_000 - sum(size for base in bases for _digest, size, _inner in base) / scale
    counts = [5] * 12 + [4] * 34
    weights = [[min(rng.lognormvariate(0, 1), 4.5) for _ in range(count)] for count in counts]
    total = sum(sum(row) for row in weights)
    slots = iter([[int(weight / total * budget) for weight in row] for row in weights])
    refs: list[str] = []
    for number in range(41):
        repository = f"team{number % 7}/app{number:02d}"
        tag = f"1.{number}"
        refs.append(f"{repository}:{tag}")
        new = number < rebuilt

        def own(arch: str, number: int = number, new: bool = new) -> list[tuple[str, int, str]]:
            return [layers.get(f"own {number} {arch} {place}{' new' if new and place % 2 else ''}", max(200, int(size * scale))) for place, size in enumerate(next(slots))]

        base = bases[number % 4]
        extra = "new" if new else ""
        if number >= 36:
            children = []
            for arch in ("amd64", "arm64"):
                digest, size = image(storage, repository, None, base + own(arch), arch, extra)
                children.append((digest, size, arch))
            index(storage, repository, tag, children)
        else:
            large = [layers.get("large", int(314_572_800 * scale))] if number == 35 else []
            image(storage, repository, tag, base + own("amd64") + large, "amd64", extra)
    for number in range(2):
        refs.append(f"charts/chart{number}:{number}.0.0")
        chart(storage, f"charts/chart{number}", f"{number}.0.0")
    return {"refs": refs, "blobs": storage.count, "bytes": storage.bytes}


def make_many(root: Path, references: int = 2000, blobs: int = 8000) -> dict[str, Any]:
    """Many small images: *references* of them with *blobs* small blobs in all."""
    storage = Storage(root)
    layers = Layers(storage)
    refs = []
    each = max(1, blobs // references - 1)
    for number in range(references):
        repository = f"many/r{number % 200:03d}"
        refs.append(f"{repository}:{number}")
        image(storage, repository, str(number), [layers.get(f"many {number} {place}", 500 + (number * 37 + place * 991) % 20_000) for place in range(each)], extra=str(number))
    return {"refs": refs, "blobs": storage.count, "bytes": storage.bytes}
