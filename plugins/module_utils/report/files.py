# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""How reports come to lie on a host."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from typing import Any


def render_json(report: Mapping[str, Any]) -> str:
    """The report with each item of a list on a line of its own: read, searched and compared line by line. Python is slow at an indent for every value."""
    parts = []
    for name, value in sorted(report.items()):
        items = [json.dumps(item, sort_keys=True) for item in value] if isinstance(value, list) else []
        text = "[\n  " + ",\n  ".join(items) + "\n ]" if items else json.dumps(value, sort_keys=True)
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def write_page(path: str, content: str) -> None:
    """Replace a file as a whole. Reports name hosts and ports, so others do not read them."""
    handle, temporary = tempfile.mkstemp(prefix=".report-", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o640)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
