# SPDX-License-Identifier: GPL-3.0-or-later
"""Image names as people write them."""

from __future__ import annotations

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.errors import UsageError
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.lock import Lock
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.oci import Reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("nginx", "docker.io", "library/nginx", "latest", None),
        ("index.docker.io/nginx:1", "docker.io", "library/nginx", "1", None),
        ("team/app:1.0", "docker.io", "team/app", "1.0", None),
        ("localhost/app", "localhost", "app", "latest", None),
        ("registry.example:5000/app", "registry.example:5000", "app", "latest", None),
        ("registry.example:5000/a/b/c:v1", "registry.example:5000", "a/b/c", "v1", None),
        (f"registry.example:5000/app@{DIGEST}", "registry.example:5000", "app", None, DIGEST),
        (f"quay.io/team/app:1.0@{DIGEST}", "quay.io", "team/app", "1.0", DIGEST),
        ("quay.io/team/app:Release-1.0_A", "quay.io", "team/app", "Release-1.0_A", None),
        ("REGISTRY.Example:5000/app:1", "registry.example:5000", "app", "1", None),
        ("10.0.0.7:5000/app:1", "10.0.0.7:5000", "app", "1", None),
    ],
)
def test_names(text: str, registry: str, repository: str, tag: str | None, digest: str | None) -> None:
    assert Reference.parse(text) == Reference(registry, repository, tag, digest)
    assert Reference.parse(Reference.parse(text).name) == Reference(registry, repository, tag, digest)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("quay.io/Team/App:1", "Team/App"),
        ("MyApp", "MyApp"),
        ("quay.io/app:", "is not a tag"),
        ("quay.io/app:.1", "is not a tag"),
        ("quay.io/app:1:2", "is not a tag"),
        ("quay.io/app@sha256:abc", "64 digits"),
        (f"quay.io/app@{DIGEST.upper()}", "64 digits"),
        (f"quay.io/app@sha512:{'a' * 128}", "64 digits"),
        ("quay.io/../../etc:1", "quay.io"),
        ("quay.io:port/app", "host:port"),
        ("https://quay.io/app:1", "https"),
        ("quay.io/a b", "a b"),
        ("", ""),
    ],
)
def test_wrong_names_are_told_with_what_was_found(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        Reference.parse(text)
    assert said in str(error.value)


def test_all_wrong_names_of_a_list_are_told_at_once() -> None:
    lock = {"format": "onprem.circleci_server/lock/1", "refs": [{"ref": "quay.io/App:1"}, {"ref": "quay.io/fine:1"}, {"ref": "quay.io/app@sha256:1"}]}
    with pytest.raises(UsageError) as error:
        Lock.from_data(lock)
    assert "quay.io/App" in str(error.value) and "quay.io/app@sha256:1" in str(error.value)


def test_tag_and_digest_must_agree_with_the_lock() -> None:
    other = "sha256:" + "f" * 64
    with pytest.raises(UsageError, match="pinned to"):
        Lock.from_data({"format": "onprem.circleci_server/lock/1", "refs": [{"ref": f"quay.io/app@{DIGEST}", "digest": other}]})
