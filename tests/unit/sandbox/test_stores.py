# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest

from sandbox import docker, stores


@pytest.mark.parametrize("arguments, address, accounts", [
    ((), "127.0.0.1", []),
    (("192.0.2.31", {"one": "a2V5", "two": "a2V5"}), "192.0.2.31", ["--setenv=AZURITE_ACCOUNTS=one:a2V5;two:a2V5"]),
])  # fmt: skip
def test_azurite_listens_where_it_is_asked_to_and_takes_no_name_of_a_host_for_an_account(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], address: str, accounts: list[str]
) -> None:
    commands: list[list[str]] = []

    def execute(_container: str, command: list[str], **_more: Any) -> None:
        commands.append(command)

    monkeypatch.setattr(docker, "execute", execute)
    monkeypatch.setattr(stores, "there", lambda _path: True)
    stores.azurite(*arguments)
    stopped, started = commands
    assert stopped == ["systemctl", "stop", stores.AZURITE]
    assert started[started.index("--blobHost") + 1] == address and "--disableProductStyleUrl" in started
    assert [word for word in started if "ACCOUNTS" in word] == accounts
