# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import KubeError, KubernetesClient

CANARY = "canary-token"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        f"users: [{{user: {{token: {CANARY}".encode(),
        b"- 1\n",
        b"text",
        b"apiVersion: v1\nkind: Config\nclusters: 3\n",
        b"\xff\xfe\x00",
        None,
    ],
)
def test_what_is_no_kubeconfig_is_a_sentence_that_shows_nothing_of_it(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KubeError) as refused:
        KubernetesClient(str(path))
    assert refused.value.status == 0 and str(path) in refused.value.sentence and "circleci_kubeconfig" in refused.value.sentence
    assert CANARY not in str(refused.value)
