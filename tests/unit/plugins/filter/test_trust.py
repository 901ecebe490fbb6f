# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.onprem.circleci_server.plugins.filter.trust import (
    authorities,
    certificate_files,
)


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


def test_each_certificate_is_a_file_of_its_own_and_files_of_none_go() -> None:
    first, second = (f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n" for body in ("MIIA", "MIIB"))
    there = ["/trust/site/site-2.crt", "/trust/site/site-3.crt"]
    assert certificate_files(f"# corporate\n{first}{second}", "/trust/site.crt", "/trust/site", there) == [
        {"path": "/trust/site.crt", "content": first, "state": "present"},
        {"path": "/trust/site/site-2.crt", "content": second, "state": "present"},
        {"path": "/trust/site/site-3.crt", "state": "absent"},
    ]
    assert certificate_files(first, "/trust/site.crt", "/trust/site") == [{"path": "/trust/site.crt", "content": first, "state": "present"}]
