# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files of a chart, whether it is a folder or an archive."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Helm refuses larger charts too.
LIMIT = 100 << 20


class ChartFileError(Exception):
    """One sentence for the operator."""


def _members(archive: tarfile.TarFile, name: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    total = 0
    for member in archive:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise ChartFileError(f"circleci_chart: {name} holds {member.name}, which leads out of the chart: it is no chart that helm made")
        total += member.size
        if total > LIMIT:
            raise ChartFileError(f"circleci_chart: {name} holds more than {LIMIT >> 20} MiB: it is no chart that helm made")
        if member.isfile() and len(path.parts) > 1:
            stream = archive.extractfile(member)
            yield PurePosixPath(*path.parts[1:]), stream.read() if stream else b""


def chart_files(path: Path) -> dict[str, bytes]:
    """Every file of a chart by its path below the folder of the chart."""
    if path.is_dir():
        return {item.relative_to(path).as_posix(): item.read_bytes() for item in sorted(path.rglob("*")) if item.is_file()}
    try:
        with tarfile.open(path) as archive:
            return {str(name): data for name, data in _members(archive, path.name)}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ChartFileError(f"circleci_chart: {path} cannot be read as a chart ({error}): give the folder of a chart, or the .tgz of helm pull") from error


def content_digest(path: Path) -> str:
    """A digest of names and contents, the same for an archive and for the folder that helm makes of it."""
    digest = hashlib.sha256()
    for name, data in sorted(chart_files(path).items()):
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return f"sha256:{digest.hexdigest()}"


def unpacked(path: Path, target: Path) -> Path:
    """The chart as a folder below *target*, sub-charts that are archives as folders too."""
    folder = target / "chart"
    files = chart_files(path)
    for name in [name for name in files if name.startswith("charts/") and name.count("/") == 1 and name.endswith(".tgz")]:
        data = files.pop(name)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            first = archive.next()
            below = PurePosixPath(first.name).parts[0] if first else ""
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            files.update({f"charts/{below}/{inner}": content for inner, content in _members(archive, name)})
    if "Chart.yaml" not in files:
        raise ChartFileError(f"circleci_chart: {path} holds no Chart.yaml: give the folder of a chart, or the .tgz of helm pull")
    for name, data in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return folder
