# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records on the control host: versioned JSON files that are replaced as a whole, or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
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
    text = json.dumps({"format": FORMAT, **content}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True
