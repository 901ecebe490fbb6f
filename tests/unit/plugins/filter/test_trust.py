# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.onprem.circleci_server.plugins.filter.trust import authorities


@pytest.mark.parametrize(
    ("given", "own", "both"),
    [
        ("", "", ""),
        (None, "own\n", "own\n"),
        ("", "own\n", "own\n"),
        ("corporate\n", "", "corporate\n"),
        ("corporate", "own\n", "corporate\nown\n"),
        ("corporate\nown", "own\n", "corporate\nown"),
    ],
)
def test_the_authority_of_the_site_is_trusted_beside_the_one_that_is_given(given: str | None, own: str, both: str) -> None:
    assert authorities(given, own) == both
