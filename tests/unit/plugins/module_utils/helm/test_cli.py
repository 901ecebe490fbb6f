# SPDX-License-Identifier: GPL-3.0-or-later
"""How helm is called. The program notes its arguments and the authorities that it is told of, and brings an archive that describes itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.cli import Helm, Source

PROGRAM = """#!/bin/sh
set -eu
if [ "$1" = pull ]; then
    echo "$@" > "{notes}/arguments"
    echo "${{SSL_CERT_DIR:-}}" > "{notes}/authorities"
    folder=${{SSL_CERT_DIR##*:}}
    [ -z "$folder" ] || cp "$folder"/*.pem "{notes}/ca.pem"
    while [ $# -gt 0 ]; do [ "$1" != --destination ] || echo x > "$2/circleci-server.tgz"; shift; done
else
    echo "name: circleci-server"
    echo "version: 4.10.0"
fi
"""


@pytest.mark.parametrize("system", ["", "/srv/authorities"])
def test_an_authority_comes_beside_those_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    if system:
        monkeypatch.setenv("SSL_CERT_DIR", system)
    program = tmp_path / "helm"
    program.write_text(PROGRAM.format(notes=tmp_path), encoding="utf-8")
    program.chmod(0o755)
    source = Source("oci://registry.example.com/charts/circleci-server", "4.10.0", "user", "canary-password", "canary-authority")
    with Helm(str(program), "/kubeconfig", "circleci-server") as helm:
        assert helm.obtain(source).version == "4.10.0"
    arguments = (tmp_path / "arguments").read_text()
    # helm would trust nobody else with that option.
    assert "--ca-file" not in arguments and "canary" not in arguments
    assert (tmp_path / "authorities").read_text().startswith(f"{system or '/etc/ssl/certs:/etc/pki/tls/certs'}:/")
    assert (tmp_path / "ca.pem").read_text() == "canary-authority"
