# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Options of type json, for what holds thousands of values: Ansible handles each value of a list or mapping by itself, and of a text nothing."""

from __future__ import annotations

import json
from typing import Any


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
        return json.loads(text)
    except ValueError as error:
        problems.append(f"{name} is no JSON text: {error}")
        return None
