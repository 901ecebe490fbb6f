# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.discovery.references import (
    in_text,
    says_version,
)

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("written", "says"),
    [("nginx", False), ("nginx:1", True), ("registry.example:5000/nginx", False), ("registry.example:5000/nginx:1", True), (f"nginx@{DIGEST}", True)],
)
def test_whether_a_version_is_written(written: str, says: bool) -> None:
    assert says_version(written) is says


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("redis:6379", []),
        ("12:30", []),
        ("https://cciserver.azurecr.io/frontend:1.2", []),
        ("nomad-server.circleci-server.svc:4646/v1", []),
        ("postgres://user@postgresql:5432/db", []),
        ("image = quay.io/prometheus/node-exporter:v1.3.0 # why", ["quay.io/prometheus/node-exporter:v1.3.0"]),
        ('{"image": "registry.k8s.io/pause:3.6"}', ["registry.k8s.io/pause:3.6"]),
        ("circleci/runner-init:agent-server-4.10", ["circleci/runner-init:agent-server-4.10"]),
        ("either/or:thing that is a sentence", []),
        (f"run app@{DIGEST} now", [f"app@{DIGEST}"]),
        ("use kong:3.4.2 here", ["kong:3.4.2"]),
        ("kong:8000", []),
        ("registry.example.com:5000/base/tool:2", []),
        ("registry.example.com:5000/base/tool:v2", ["registry.example.com:5000/base/tool:v2"]),
        ("/var/lib/a.b/c:d", []),
        ("s3://bucket.example/key:v1", []),
    ],
)
def test_what_looks_like_an_image_in_a_text(text: str, found: list[str]) -> None:
    assert [written for written, _rule in in_text(text, {"docker.io/library/kong"})] == found
