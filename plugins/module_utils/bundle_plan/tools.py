# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Getting what planning itself needs: small files, checksums, the chart, helm."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, Callable, Optional

from ..mirror.access import Access
from ..mirror.lock import HELM_CONTENT
from ..mirror.oci import Reference
from ..url_openers import download_opener

SMALL = 8 << 20
PIECE = 1 << 18
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_SUM = re.compile(r"^\s*([0-9a-fA-F]{64})(?:\s+\*?(\S.*?))?\s*$")


class PlanError(Exception):
    """One sentence or several lines for the operator."""


class NotThere(PlanError):
    """The server has no such file."""


class Web:
    """Plain files by URL, as curl would get them; what is stored gzip-encoded is unpacked on the way."""

    def __init__(self, tries: int = 3, ca_certificate: str = "") -> None:
        self.tries = tries
        self._opener = download_opener(ca_certificate)

    def small(self, url: str) -> bytes:
        """A file that fits into memory."""
        data = bytearray()
        self.stream(url, data.extend, SMALL)
        return bytes(data)

    def size(self, url: str) -> Optional[int]:
        """The size that the server tells, None when it does not, or when it tells that of the packed file."""
        with self._open(url, "HEAD") as answer:
            length = answer.headers.get("Content-Length") or ""
            return int(length) if length.isdigit() and answer.headers.get("Content-Encoding") in (None, "identity") else None

    def measure(self, url: str) -> tuple[str, int]:
        """sha256 and size of what the URL holds, for files whose publisher says neither."""
        digest, size = hashlib.sha256(), 0

        def take(data: bytes) -> None:
            nonlocal size
            size += len(data)
            digest.update(data)

        self.stream(url, take)
        return digest.hexdigest(), size

    def to_file(self, url: str, path: Path) -> None:
        """A file of any size, onto the disk."""
        with path.open("wb") as stream:
            self.stream(url, stream.write)

    def stream(self, url: str, sink: Callable[[bytes], Any], limit: Optional[int] = None) -> None:
        """Hand the unpacked content on in pieces."""
        done = 0
        with self._open(url, "GET") as answer:
            packed = answer.headers.get("Content-Encoding") == "gzip"
            unpacker = zlib.decompressobj(31) if packed else None
            while data := answer.read(PIECE):
                if unpacker is not None:
                    data = unpacker.decompress(data)
                done += len(data)
                if limit is not None and done > limit:
                    raise PlanError(f"{url} is larger than {limit} bytes, which is not what was expected there")
                sink(data)
            if unpacker is not None and not unpacker.eof:
                raise PlanError(f"{url}: the content ends too early; run the same command again")

    def _open(self, url: str, method: str) -> Any:
        reason = ""
        for attempt in range(self.tries):
            if attempt:
                time.sleep(attempt)
            try:
                request = urllib.request.Request(url, method=method, headers={"User-Agent": "onprem-circleci-bundle/1"})  # noqa: S310
                return self._opener.open(request, timeout=60)
            except urllib.error.HTTPError as error:
                if error.code in (403, 404, 410):
                    # The vendor's bucket answers 403 for what is not there.
                    raise NotThere(f"{url}: there is no such file ({error.code})") from error
                reason = f"status {error.code}"
            except (urllib.error.URLError, OSError, ValueError) as error:
                reason = str(getattr(error, "reason", error))
        raise PlanError(f"{url}: cannot be downloaded: {reason}. Can the connected host reach it?")


def checksum_of(text: str, url: str) -> Optional[str]:
    """The sha256 that a list of checksums has for the file behind *url*; a list of one line may leave the name out.

    Machine runners are listed in JSON instead, each file with its ``url`` and ``sha256``.
    """
    path = url.split("?", 1)[0]
    if text.lstrip().startswith("{"):
        return _listed(text, path)
    entries = [match for line in text.splitlines() if (match := _SUM.match(line))]
    for match in entries:
        name = (match[2] or "").strip()
        if name and path.endswith("/" + name.removeprefix("./").lstrip("/")):
            return match[1].lower()
    unnamed = [match for match in entries if not match[2] or match[2].strip() == "-"]
    return unnamed[0][1].lower() if len(entries) == 1 and unnamed else None


def _listed(text: str, path: str) -> Optional[str]:
    try:
        waiting: list[Any] = [json.loads(text)]
    except ValueError:
        return None
    found = set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if str(item.get("url") or "").split("?", 1)[0] == path and _SHA256.fullmatch(str(item.get("sha256") or "")):
                found.add(str(item["sha256"]).lower())
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return found.pop() if len(found) == 1 else None


def fetch_chart(access: Access, chart: str, target: Path) -> tuple[Path, str]:
    """Pull the chart as the OCI artifact that it is and unpack it; returns its folder and the digest of its manifest."""
    reference = Reference.parse(chart)
    client = access.client(reference.registry)
    manifest = client.get_manifest(reference.repository, reference.lookup)
    layers = [layer for layer in manifest.data.get("layers") or [] if str(layer.get("mediaType", "")).startswith(HELM_CONTENT.rsplit(".tar", 1)[0])]
    if len(layers) != 1:
        raise PlanError(f"{chart} is no Helm chart: it has no layer of type {HELM_CONTENT}. Check circleci_release and the name of the chart.")
    archive = target / "chart.tgz"
    client.blob_to_file(reference.repository, str(layers[0]["digest"]), archive)
    return unpack_chart(archive, target / "chart"), manifest.digest


def unpack_chart(archive: Path, target: Path) -> Path:
    """Unpack a chart archive and believe nothing: only files and folders, only below the target."""
    total = 0
    try:
        with tarfile.open(archive, "r:*") as bundle:
            for member in bundle:
                parts = PurePosixPath(member.name).parts
                if member.name.startswith("/") or ".." in parts or not (member.isfile() or member.isdir()):
                    raise PlanError(f"the chart archive holds {member.name!r}, which is refused: only plain files below one folder are unpacked")
                total += member.size
                if total > 256 << 20:
                    raise PlanError("the chart archive unpacks to more than 256 MiB, which no chart does")
                place = target.joinpath(*parts)
                if member.isdir():
                    place.mkdir(parents=True, exist_ok=True)
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                stream = bundle.extractfile(member)
                place.write_bytes(stream.read() if stream else b"")
    except tarfile.TarError as error:
        raise PlanError(f"the chart archive cannot be read: {error}") from error
    charts = sorted(target.glob("*/Chart.yaml"))
    if len(charts) != 1:
        raise PlanError("the chart archive holds no single folder with Chart.yaml")
    return charts[0].parent


def sha256_file(path: Path) -> tuple[str, int]:
    """Digest and size of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while data := stream.read(1 << 20):
            digest.update(data)
            size += len(data)
    return digest.hexdigest(), size


def fingerprint(data: Any) -> str:
    """One short text for one set of inputs."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


def write_private(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            os.fchmod(stream.fileno(), mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
