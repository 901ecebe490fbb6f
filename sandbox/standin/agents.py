# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree of agents as the vendor's bucket has it. What the files do is nothing; where they lie and how they are sent is as documented."""

from __future__ import annotations

import hashlib
import io
import zipfile

from .. import artifacts
from . import chart
from .oci import gzip_bytes

HOST = "circleci-binary-releases.s3.amazonaws.com"
PATCHED_NOMAD = "1.4.568-bfc9a6ec4"


def agent(name: str, version: str) -> bytes:
    return f'#!/bin/sh\n# Stand-in for {name} {version}: it runs no job.\necho "stand-in for {name} {version}" >&2\nexit 64\n'.encode()


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in chart.minor(release).split("."))


def files(releases: list[str]) -> tuple[dict[str, bytes], list[str]]:
    """Path below the host → bytes as stored, and which of them are stored (and sent) gzip-encoded."""
    stored: dict[str, bytes] = {}
    encoded: list[str] = []

    def put(folder: str, name: str, version: str, program: str) -> None:
        content = agent(program, version)
        path = f"linux/amd64/{name}"
        stored[f"{folder}/{version}/{path}"] = gzip_bytes(content)
        encoded.append(f"{folder}/{version}/{path}")
        # of the file as it is after decoding
        stored[f"{folder}/{version}/checksums.txt"] = f"{hashlib.sha256(content).hexdigest()}  {path}\n".encode()

    for release in releases:
        tags = chart.images_of(release)["binaries"]
        put("circleci-agent", "circleci-agent", tags["circleci/picard"], "circleci-agent")
        if "circleci/docker-agent" in tags:
            put("docker-provisioner", "agent", tags["circleci/docker-agent"], "docker-agent")
            put("machine-provisioner", "agent", tags["circleci/machine-agent"], "machine-agent")
        if _number(release) >= (4, 5):
            stored["circleci-agent/canary.txt"] = f"{tags['circleci/picard']}\n".encode()
        if (4, 5) <= _number(release) <= (4, 7):
            stored["circleci-launch-agent/candidate.txt"] = b"1.1.73189-8792751\n"
    return dict(sorted(stored.items())), sorted(encoded)


def needs_patched_nomad(releases: list[str]) -> bool:
    return any((4, 3) <= _number(release) <= (4, 7) for release in releases)


def patched_nomad() -> dict[str, bytes]:
    """The archive of Nomad for clients of 4.3 to 4.7. Inside is Nomad 1.7.7: the vendor's patched build is not to be had.

    What stands behind its last byte makes it another program than the upstream one, as the patched build is.
    """
    program = artifacts.ensure(artifacts.find("nomad", "1.7.7")) / "nomad"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=4) as archive:
        info = zipfile.ZipInfo("nomad", (2026, 1, 1, 0, 0, 0))
        info.external_attr, info.compress_type = 0o100755 << 16, zipfile.ZIP_DEFLATED
        archive.writestr(info, program.read_bytes() + f"stand-in for {PATCHED_NOMAD}\n".encode())
    path = f"nomad/{PATCHED_NOMAD}/linux_amd64.zip"
    return {path: buffer.getvalue(), f"{path}.sha": hashlib.sha256(buffer.getvalue()).hexdigest().encode() + b"\n"}
