# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records on the control host: versioned JSON files that are replaced as a whole, or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FORMAT = 1


class RecordError(Exception):
    """A record that cannot be read; the sentence names the file and what to do."""


def read_record(path: Path) -> dict[str, Any]:
    """The record at *path* without its format number; empty when there is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read as a record ({error}). Restore it from a backup or remove it.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RecordError(f"{path}: has format {document.get('format') if isinstance(document, dict) else None!r}, this release reads {FORMAT}.")
    return {key: value for key, value in document.items() if key != "format"}


def write_record(path: Path, content: Mapping[str, Any]) -> bool:
    """Put *content* at *path*, readable by root only; ``False`` when it was there already."""
    text = _text(content)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    with _written_beside(path, text) as temporary:
        temporary.replace(path)
    return True


def create_record(path: Path, content: Mapping[str, Any]) -> bool:
    """Put *content* at *path* unless something is there, which then stays; ``False`` in that case."""
    with _written_beside(path, _text(content)) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:
            # Some file systems know no hard links; there it is not told apart who of two came first.
            if path.exists():
                return False
            temporary.replace(path)
        return True


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps({"format": FORMAT, **content}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@contextlib.contextmanager
def _written_beside(path: Path, text: str) -> Iterator[Path]:
    """A whole file beside *path* that has reached the disk; what is left of it goes away."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
