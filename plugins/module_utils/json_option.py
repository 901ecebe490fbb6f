# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Options of type json, for what holds thousands of values: Ansible handles each value of a list or mapping by itself, and of a text nothing.

A text of megabytes costs seconds all the same: each quote in it is three bytes on its way to a module, Python reads them as source from a pipe, and
both journal and result repeat the option. So what one module of ours says to another is packed, to a thirtieth of its length.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

# No JSON text begins like this.
_PACKED = "zlib:"


def packed(value: Any) -> str:
    """JSON text of a value, deflated and in base64; what reads an option of type json, reads this as well."""
    return _PACKED + base64.b64encode(zlib.compress(json.dumps(value).encode("utf-8"), 1)).decode("ascii")


def unpacked(text: str) -> Any:
    """The value of a JSON text, packed or not; ValueError when it is neither."""
    if text.startswith(_PACKED):
        try:
            text = zlib.decompress(base64.b64decode(text[len(_PACKED) :], validate=True)).decode("utf-8")
        except zlib.error as error:
            raise ValueError(str(error)) from error
    return json.loads(text)


def mapping_of(name: str, text: str, problems: list[str]) -> dict[str, Any]:
    """The mapping of an option; what is wrong goes to *problems*."""
    found = _read(name, text, problems)
    if isinstance(found, dict):
        return found
    if found is not None:
        problems.append(f"{name} is {text[:60]}; a mapping is needed")
    return {}


def mappings_of(name: str, text: str, problems: list[str]) -> list[dict[str, Any]]:
    """The list of mappings of an option; what is wrong goes to *problems*."""
    found = _read(name, text, problems)
    if isinstance(found, list) and all(isinstance(item, dict) for item in found):
        return found
    if found is not None:
        problems.append(f"{name} is {text[:60]}; a list of mappings is needed")
    return []


def _read(name: str, text: str, problems: list[str]) -> Any:
    try:
        return unpacked(text)
    except ValueError as error:
        problems.append(f"{name} is no JSON text: {error}")
        return None
