# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.onprem.circleci_server.plugins.module_utils.discovery.references import (
    Reference,
    ReferenceError,
    in_text,
)

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("kong:3.4.2", "docker.io/library/kong:3.4.2"),
        ("hashicorp/nomad:1.11.3", "docker.io/hashicorp/nomad:1.11.3"),
        ("docker.io/library/nginx:1.29.2", "docker.io/library/nginx:1.29.2"),
        ("docker.io/nginx", "docker.io/library/nginx"),
        ("index.docker.io/circleci/picard:1", "docker.io/circleci/picard:1"),
        ("quay.io/soketi/soketi:1.6-16-distroless", "quay.io/soketi/soketi:1.6-16-distroless"),
        ("registry.example.com:5000/a/b:c", "registry.example.com:5000/a/b:c"),
        ("localhost/thing:1", "localhost/thing:1"),
        (f"cciserver.azurecr.io/frontend@{DIGEST}", f"cciserver.azurecr.io/frontend@{DIGEST}"),
        (f"cciserver.azurecr.io/frontend:1@{DIGEST}", f"cciserver.azurecr.io/frontend:1@{DIGEST}"),
    ],
)
def test_one_full_spelling(written: str, full: str) -> None:
    assert str(Reference.parse(written)) == full


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("a/b:c d", "no tag"),
        ("library/Nginx:1", "upper-case"),
        ("quay.io/Foo/bar:1", "upper-case"),
        ("a//b:1", "no repository name"),
        ("", "no repository name"),
        ("nginx@sha256:abc", "64 hexadecimal"),
        ("nginx:" + "x" * 129, "no tag"),
        ("-bad.example/x:1", "registry host"),
    ],
)
def test_refuses(written: str, reason: str) -> None:
    with pytest.raises(ReferenceError, match=reason):
        Reference.parse(written)


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
