# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.transport import _environment_proxy

PROXY = "http://proxy.example.com:3128"


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("", "registry.example.com", False),
        (".example.com", "registry.example.com", True),
        ("registry.example.com:5000", "registry.example.com", True),
        ("registry.example.com:443", "registry.example.com", False),
        ("10.0.0.0/8, 192.168.0.0/16", "10.1.2.3", True),
        ("10.0.0.1/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "registry.example.com", False),
        ("2001:db8::/32", "2001:db8::5", True),
        ("*", "registry.example.com", True),
    ],
)
def test_no_proxy_is_read_as_go_reads_it(monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, direct: bool) -> None:
    for name in ("no_proxy", "NO_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", PROXY)
    monkeypatch.setenv("no_proxy", no_proxy)
    assert _environment_proxy("https", host, 5000) == (None if direct else PROXY)
