# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.private_registry.passwords import (
    PasswordError,
    check_password,
    hash_password,
    merged_htpasswd,
)


def test_hashes_are_bcrypt_and_fit() -> None:
    first, second = hash_password("pässword"), hash_password("pässword")
    assert first.startswith("$2b$05$") and len(first) == 60 and first != second
    assert check_password("pässword", first) and not check_password("password", first)


def test_hashes_of_other_programs_are_believed() -> None:
    # made by htpasswd -nbB
    assert check_password("standin-customer-token", "$2y$05$AUWjZUJZAfDBW7tKDs8WOunz7ndtUHS5mzMG5w8tb/HWoUNEGHvD.")
    assert not check_password("x", "$apr1$abc$def") and not check_password("x", "") and not check_password("x", "$2b$nonsense")


def test_what_fits_stays_and_others_go() -> None:
    text = merged_htpasswd("", {"site": "a", "admin": "b"})
    assert [line.split(":")[0] for line in text.splitlines()] == ["admin", "site"]
    assert merged_htpasswd(text, {"site": "a", "admin": "b"}) == text
    changed = merged_htpasswd(text, {"site": "c", "admin": "b"})
    assert changed.splitlines()[0] == text.splitlines()[0] and changed.splitlines()[1] != text.splitlines()[1]
    assert "admin" not in merged_htpasswd(text, {"site": "a"})


@pytest.mark.parametrize(("user", "password", "reason"), [("site", "x" * 73, "73 bytes; allowed are 1 to 72"), ("site", "", "0 bytes"), ("a:b", "x", "without a colon"), ("", "x", "without a colon")])
def test_refusals_do_not_show_the_password(user: str, password: str, reason: str) -> None:
    with pytest.raises(PasswordError, match=reason) as caught:
        merged_htpasswd("", {user: password})
    assert "xxx" not in str(caught.value)
