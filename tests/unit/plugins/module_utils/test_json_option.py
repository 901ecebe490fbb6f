# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that hold thousands of values: as a text, packed or not, and what is no such text."""

from __future__ import annotations

import base64
import json
import zlib

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.json_option import (
    mapping_of,
    mappings_of,
    packed,
    unpacked,
)

FLOWS = [{"name": f"flow {number}", "address": f"10.0.0.{number % 250}", "detail": "Größe", "days_left": None} for number in range(1000)]


def test_what_is_packed_comes_back_and_is_short() -> None:
    text = packed(FLOWS)
    assert unpacked(text) == unpacked(json.dumps(FLOWS)) == FLOWS
    assert len(text) < len(json.dumps(FLOWS)) / 5
    # Each of these would be more than one byte on the way to a module.
    assert not set('"\\\n') & set(text) and text.isascii()


def body(content: bytes) -> str:
    return "zlib:" + base64.b64encode(content).decode()


@pytest.mark.parametrize(
    "text",
    ["", "{half", "zlib:", "zlib:no base64!", body(b"not deflated"), body(zlib.compress(b"{half")), body(zlib.compress(b"\xff{}")), packed(FLOWS)[:-8]],
)
def test_what_is_neither_is_named(text: str) -> None:
    problems: list[str] = []
    assert mapping_of("hosts", text, problems) == {}
    assert len(problems) == 1 and problems[0].startswith("hosts is no JSON text: ")


def test_another_shape_is_named() -> None:
    problems: list[str] = []
    assert mapping_of("hosts", packed([1]), problems) == {} and mappings_of("flows", packed([1]), problems) == []
    assert [problem.rpartition("; ")[2] for problem in problems] == ["a mapping is needed", "a list of mappings is needed"]
