# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that lie in a registry as OCI artifacts: what is there, and how to get it onto a host."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from .errors import MirrorError, RegistryError
from .lock import CHARTS_REPOSITORY, FILES_REPOSITORY, check_file_name
from .oci import Descriptor
from .registry import RegistryClient


@dataclass(frozen=True)
class RemoteFile:
    """One file of an artifact in a registry."""

    repository: str
    tag: str
    manifest_digest: str
    layer_digest: str
    size: int
    filename: str
    mode: str


def list_files(client: RegistryClient, repository: str, tag: str) -> list[RemoteFile]:
    """All files of an artifact."""
    try:
        manifest = client.get_manifest(repository, tag)
    except RegistryError as error:
        if error.status == 404:
            raise RegistryError(f"{client.host}/{repository}:{tag} is not in the registry. Load a bundle that holds it.", 404) from error
        raise
    if manifest.is_index:
        raise MirrorError(f"{client.host}/{repository}:{tag} is an index of images, not a file.")
    found = []
    for layer in manifest.data.get("layers") or ():
        descriptor = Descriptor.from_data(layer, f"{client.host}/{repository}:{tag}")
        notes = layer.get("annotations") or {}
        name = check_file_name(str(notes.get("org.opencontainers.image.title") or repository.rpartition("/")[2]), f"{client.host}/{repository}:{tag}")
        mode = str(notes.get("io.onprem.mode") or "0644")
        if not re.fullmatch(r"0?[0-7]{3}", mode):
            raise MirrorError(f"{client.host}/{repository}:{tag}: {name} has the mode {mode!r}, which is refused.")
        found.append(RemoteFile(repository, tag, manifest.digest, descriptor.digest, descriptor.size, name, mode.zfill(4)))
    return found


def describe_file(client: RegistryClient, repository: str, tag: str) -> RemoteFile:
    """The one file of an artifact; ``nomad`` is short for ``onprem/files/nomad``."""
    if "/" not in repository:
        repository = f"{FILES_REPOSITORY}/{repository}"
    files = list_files(client, repository, tag)
    if len(files) != 1:
        raise MirrorError(f"{client.host}/{repository}:{tag} holds {len(files)} files, one was expected.")
    return files[0]


def file_sha256(path: Union[str, Path]) -> Optional[str]:
    """The digest of a local file, None when there is none."""
    hasher = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            for data in iter(lambda: stream.read(1 << 20), b""):
                hasher.update(data)
    except FileNotFoundError:
        return None
    return "sha256:" + hasher.hexdigest()


def is_current(remote: RemoteFile, path: Union[str, Path], mode: Optional[str] = None) -> bool:
    """Whether *path* already holds the file with its mode."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return False
    if info.st_size != remote.size or stat.S_IMODE(info.st_mode) != int(mode or remote.mode, 8):
        return False
    return file_sha256(path) == remote.layer_digest


def pull_file(client: RegistryClient, remote: RemoteFile, path: Union[str, Path], mode: Optional[str] = None) -> bool:
    """Bring the file to *path* unless it is there; True when something changed."""
    if is_current(remote, path, mode):
        return False
    if file_sha256(path) == remote.layer_digest:
        os.chmod(path, int(mode or remote.mode, 8))
        return True
    client.blob_to_file(remote.repository, remote.layer_digest, path, int(mode or remote.mode, 8))
    return True


__all__ = ["CHARTS_REPOSITORY", "FILES_REPOSITORY", "RemoteFile", "describe_file", "file_sha256", "is_current", "list_files", "pull_file"]
