# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine as one file, ``circleci-mirror.pyz``: run by any Python from 3.9 on, the same bytes wherever it is built."""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Never run. AnsiballZ reads it and packs all of them with a module that fetches, so that the bundle it makes carries the whole engine.
    from . import (  # noqa: F401
        access,
        artifact,
        bundle,
        cli,
        delta,
        ed25519,
        errors,
        fetch,
        limits,
        listing,
        load,
        lock,
        made_here,
        oci,
        progress,
        prune,
        pyz,
        registry,
        seed,
        sign,
        together,
        transport,
        verify,
        view,
    )

PACKAGE = "circleci_mirror"
SHEBANG = b"#!/usr/bin/env python3\n"
MAIN = f'''import os
import sys
import zipimport


class Importer(zipimport.zipimporter):
    """Says where a module is without compiling it, as zipimport does, so that none is compiled twice."""

    def get_filename(self, fullname):
        path = os.path.join(self.archive, self.prefix + fullname.rpartition(".")[2])
        return path + (os.sep + "__init__.py" if self.is_package(fullname) else ".py")


if __name__ == "__main__":
    sys.path_hooks.insert(0, Importer)
    sys.path_importer_cache.pop(sys.path[0], None)
    from {PACKAGE}.cli import run

    raise SystemExit(run())
'''
MODULES = (
    "access",
    "artifact",
    "bundle",
    "cli",
    "delta",
    "ed25519",
    "errors",
    "fetch",
    "limits",
    "listing",
    "load",
    "lock",
    "made_here",
    "oci",
    "progress",
    "prune",
    "pyz",
    "registry",
    "seed",
    "sign",
    "together",
    "transport",
    "verify",
    "view",
)


def sources() -> list[tuple[str, bytes]]:
    """The engine's source files by name."""
    package = __name__.rpartition(".")[0]
    files = []
    for name in [package, *(f"{package}.{module}" for module in MODULES)]:
        # Found, not imported: most of them are not needed to run.
        spec = importlib.util.find_spec(name)
        loader = spec.loader if spec else None
        text = loader.get_source(name) if loader is not None and hasattr(loader, "get_source") else None
        if text is None:
            raise RuntimeError(f"the source of {name} cannot be read")
        short = "__init__" if name == package else name.rpartition(".")[2]
        files.append((f"{PACKAGE}/{short}.py", text.encode("utf-8")))
    return sorted(files)


@functools.cache
def build_pyz() -> bytes:
    """The zipapp; stored, not compressed, as compressors differ from machine to machine."""
    buffer = io.BytesIO()
    buffer.write(SHEBANG)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        for name, body in [("__main__.py", MAIN.encode("ascii")), *sources()]:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o100644 << 16
            info.create_system = 3
            archive.writestr(info, body)
    return buffer.getvalue()


def write_pyz(path: Path) -> None:
    """Write the zipapp, executable, replacing an older one at once."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(build_pyz())
    temporary.chmod(0o755)
    os.replace(temporary, path)
