# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OCI names, digests, manifests and platforms."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import BundleError, MirrorError, UsageError

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_SCHEMA1 = ("application/vnd.docker.distribution.manifest.v1+json", "application/vnd.docker.distribution.manifest.v1+prettyjws")
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))

MANIFEST_LIMIT = 4 << 20  # the distribution specification lets registries refuse more

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
DOCKER_HUB = "docker.io"
_HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


def is_digest(text: str) -> bool:
    """Whether *text* is a sha256 digest in its only written form."""
    return DIGEST.fullmatch(text) is not None


def digest_of(body: bytes) -> str:
    """The digest of *body*."""
    return "sha256:" + hashlib.sha256(body).hexdigest()


def canonical_json(data: Any) -> bytes:
    """One form for one value: sorted keys, no spaces, UTF-8, a newline at the end."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8") + b"\n"


def check_repository(path: str, whole: str) -> str:
    """*path* when it is a repository path that every registry takes."""
    if not _PATH.fullmatch(path) or len(path) > 255:
        hint = " Repository paths are lower case." if path != path.lower() else ""
        raise UsageError(f"{whole!r}: {path!r} is not a repository path.{hint} Allowed: letters a-z, digits, and . _ - / between them.")
    return path


def check_tag(tag: str, whole: str) -> str:
    """*tag* when it is a tag."""
    if not _TAG.fullmatch(tag):
        raise UsageError(f"{whole!r}: {tag!r} is not a tag. Allowed: letters, digits, _ . - (at most 128, not starting with . or -).")
    return tag


@dataclass(frozen=True)
class Reference:
    """An image name taken apart: registry, repository path, tag and digest."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Take *text* apart; ``nginx`` is ``docker.io/library/nginx:latest`` as everywhere."""
        name, at, digest = text.partition("@")
        if at and not is_digest(digest):
            raise UsageError(f"{text!r}: the part after @ must be sha256: and 64 digits in 0-9a-f, found {digest!r}.")
        first, slash, rest = name.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            registry, path = first, rest
        else:
            registry, path = DOCKER_HUB, name
        if not _HOST.fullmatch(registry):
            raise UsageError(f"{text!r}: {registry!r} is not a host or host:port.")
        path, colon, tag = path.partition(":")
        if colon:
            check_tag(tag, text)
        if registry in _HUB_NAMES:
            registry = DOCKER_HUB
            if "/" not in path:
                path = "library/" + path
        check_repository(path, text)
        return cls(registry.lower(), path, tag if colon else (None if at else "latest"), digest or None)

    @property
    def name(self) -> str:
        """The full name as it is written in locks, bundles and receipts."""
        return f"{self.registry}/{self.local}"

    @property
    def local(self) -> str:
        """The name without the registry."""
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def lookup(self) -> str:
        """What to ask a registry for: the digest when there is one."""
        return self.digest or self.tag or "latest"


def parse_target(text: str) -> tuple[str, str | None]:
    """A name inside a registry, ``path[:tag]``."""
    path, colon, tag = text.partition(":")
    check_repository(path, text)
    return path, check_tag(tag, text) if colon else None


@dataclass(frozen=True)
class Descriptor:
    """A pointer to content by digest and size."""

    digest: str
    size: int
    media_type: str
    platform: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)
    urls: tuple[str, ...] = ()

    @classmethod
    def from_data(cls, data: Any, where: str) -> Descriptor:
        """Read one from JSON and believe nothing."""
        if not isinstance(data, dict):
            raise BundleError(f"{where}: a descriptor is {type(data).__name__}, not a mapping.")
        digest, size = data.get("digest"), data.get("size")
        if not isinstance(digest, str) or not is_digest(digest):
            raise BundleError(f"{where}: {str(digest)[:80]!r} is not a sha256 digest.")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise BundleError(f"{where}: {digest} has the impossible size {size!r}.")
        platform = data.get("platform")
        urls = data.get("urls")
        return cls(
            digest,
            size,
            str(data.get("mediaType") or ""),
            platform if isinstance(platform, dict) else {},
            tuple(str(url) for url in urls) if isinstance(urls, list) else (),
        )


@dataclass(frozen=True)
class Manifest:
    """The bytes of a manifest or an index, and what they point to."""

    digest: str
    media_type: str
    body: bytes

    @classmethod
    def from_body(cls, body: bytes, media_type: str = "", where: str = "") -> Manifest:
        """Read *body*; the media type inside wins over the header, as clients do."""
        digest = digest_of(body)
        where = where or digest
        try:
            data = json.loads(body)
        except ValueError as error:
            raise MirrorError(f"{where}: is not JSON ({error}).") from error
        if not isinstance(data, dict):
            raise MirrorError(f"{where}: is not a manifest but {type(data).__name__}.")
        kind = data.get("mediaType") or media_type.split(";")[0].strip()
        if data.get("schemaVersion") == 1 or kind in DOCKER_SCHEMA1:
            raise MirrorError(
                f"{where}: is a schema 1 manifest, a form that registries stopped taking years ago and whose digest cannot be kept. "
                "Push the image anew with any current client, then fetch again."
            )
        if kind not in INDEX_TYPES and kind not in MANIFEST_TYPES:
            kind = OCI_INDEX if "manifests" in data else OCI_MANIFEST if "layers" in data or "config" in data else kind
        if kind not in INDEX_TYPES and kind not in MANIFEST_TYPES:
            raise MirrorError(f"{where}: has the media type {kind!r}; known are images and indexes of OCI and Docker schema 2.")
        return cls(digest, kind, body)

    @property
    def size(self) -> int:
        return len(self.body)

    @property
    def data(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES

    def children(self) -> list[Descriptor]:
        """The manifests that an index lists, in its order."""
        if not self.is_index:
            return []
        return [Descriptor.from_data(item, self.digest) for item in self.data.get("manifests") or []]

    def blobs(self) -> list[Descriptor]:
        """Config and layers that a registry holds; layers that only exist elsewhere (foreign layers) are left out."""
        if self.is_index:
            return []
        data = self.data
        items = ([data["config"]] if data.get("config") else []) + list(data.get("layers") or [])
        found: dict[str, Descriptor] = {}
        for item in items:
            descriptor = Descriptor.from_data(item, self.digest)
            if descriptor.urls and ("foreign" in descriptor.media_type or "nondistributable" in descriptor.media_type):
                continue
            known = found.setdefault(descriptor.digest, descriptor)
            if known.size != descriptor.size:
                raise BundleError(f"{self.digest}: names {descriptor.digest} with two sizes, {known.size} and {descriptor.size}.")
        return list(found.values())

    @property
    def subject(self) -> Descriptor | None:
        """What a referrer (signature, SBOM) belongs to."""
        subject = self.data.get("subject")
        return Descriptor.from_data(subject, self.digest) if subject else None


def platform_name(platform: Mapping[str, Any]) -> str:
    """``os/architecture[/variant]``."""
    parts = [str(platform.get("os") or "unknown"), str(platform.get("architecture") or "unknown")]
    if platform.get("variant"):
        parts.append(str(platform["variant"]))
    return "/".join(parts)


def platform_wanted(platform: Mapping[str, Any], wanted: Sequence[str]) -> bool:
    """Whether one of *wanted* asks for *platform*; nothing wanted means everything."""
    if not wanted:
        return True
    name = platform_name(platform)
    plain = "/".join(name.split("/")[:2])
    # arm64 is written with and without v8 for one and the same machine.
    return any(item in (name, plain) or (item == "linux/arm64/v8" and plain == "linux/arm64") for item in wanted)


def walk_strings(data: Any) -> Iterator[str]:
    """All strings in *data*."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for value in data.values():
            yield from walk_strings(value)
    elif isinstance(data, list):
        for value in data:
            yield from walk_strings(value)
