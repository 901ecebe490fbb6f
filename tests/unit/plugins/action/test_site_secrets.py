# SPDX-License-Identifier: GPL-3.0-or-later
"""The role secrets with the real ansible-playbook: escrow copy, way back, and no secret anywhere on the way.

The Kubernetes API is the strict stand-in of the unit tests, over HTTP.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import (
    KubeError,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets import pki
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.helm.fake_kube import (
    FakeKube,
)

ROOT = Path(__file__).parents[6]
NS = "circleci-server"
PREFIX = f"/api/v1/namespaces/{NS}/secrets/"
# Real RSA, but small, so that the test is short: authorities can be given.
AUTHORITY = pki.new_authority("of the test", bits=2048)
CANARIES = {
    "circleci_secrets_license": "canary-licence-4711",
    "circleci_secrets_registry_password": "canary-registry-4711",
    "circleci_secrets_github_client_secret": "canary-oauth-4711",
    "circleci_secrets_github_default_token": "canary-token-4711",
    "circleci_secrets_object_storage_secret_key": "canary-store-4711",
    "circleci_secrets_store_password": "canary-escrow-4711",
}
VARIABLES: dict[str, Any] = {
    **CANARIES,
    **{f"circleci_secrets_{name}_ca_certificate": AUTHORITY.certificate for name in ("site", "nomad")},
    **{f"circleci_secrets_{name}_ca_private_key": AUTHORITY.key for name in ("site", "nomad")},
    "circleci_secrets_registry_username": "mirror",
    "circleci_secrets_github_client_id": "id",
    "circleci_secrets_object_storage_access_key": "AK",
    "circleci_secrets_store": "ansible_vault",
    "circleci_secrets_site": {
        "release": "4.10.0",
        "platform": "generic",
        "domain": "ci.site.example",
        "namespace": NS,
        "release_name": "circleci-server",
        "registry": {"host": "registry.site.example:5000"},
        "object_storage": {"endpoint": "https://store.site.example", "bucket": "circleci-data"},
        "github": {"hostname": "github.site.example"},
    },
}
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"ansible.builtin.include_role": {"name": "onprem.circleci_server.secrets"}},
            {"ansible.builtin.copy": {"dest": "{{ result_file }}", "content": "{{ __circleci_secrets_result | to_json }}", "mode": "0600"}, "check_mode": False},
        ],
    }
]


@contextlib.contextmanager
def serving(api: FakeKube) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            try:
                status, answer = 200, api.request(self.command, url.path, dict(parse_qsl(url.query)), body, self.headers.get("Content-Type") or "")
            except KubeError as error:
                status, answer = error.status, {"message": error.message}
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer

        def log_message(self, *_rest: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class Site:
    """One site and its control host, which is this machine."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.escrow = home / "state" / "escrow.yml"
        users = [{"name": "u", "user": {"token": "t"}}]
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": users}
        config["clusters"] = [{"name": "c", "cluster": {"server": url}}]
        config["contexts"] = [{"name": "c", "context": {"cluster": "c", "user": "u"}}]
        (home / "kubeconfig").write_text(yaml.safe_dump(config), encoding="utf-8")
        (home / "play.yml").write_text(yaml.safe_dump(PLAY), encoding="utf-8")

    def run(self, *options: str, **changes: Any) -> tuple[int, str, dict[str, Any]]:
        result = self.home / "result.json"
        result.unlink(missing_ok=True)
        variables = {**VARIABLES, "circleci_secrets_kubeconfig": str(self.home / "kubeconfig"), "result_file": str(result)}
        variables.update({"circleci_secrets_store_path": str(self.escrow), "ansible_python_interpreter": sys.executable, **changes})
        (self.home / "variables.json").write_text(json.dumps(variables), encoding="utf-8")
        program = Path(sys.executable).with_name("ansible-playbook")
        command: list[str | Path] = [program, "-i", "site1,", "-c", "local", self.home / "play.yml", "-e", f"@{self.home / 'variables.json'}", "--diff", "-vvv", *options]
        settings = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT.parents[2]), "ANSIBLE_HOME": str(self.home / "ansible"), "ANSIBLE_LOCALHOST_WARNING": "false"}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self.home, env={**os.environ, **settings, "NO_COLOR": "1"}
        )
        (self.home / "variables.json").unlink()
        output = done.stdout + done.stderr
        for canary in CANARIES.values():
            assert canary not in output
        assert "PRIVATE KEY" not in output and "hmacKeyString" not in output
        return done.returncode, output, json.loads(result.read_text()) if result.exists() else {}


def changed(output: str) -> int:
    """Changes of the role; the test's own copy of the result is none of them."""
    found = re.findall(r"^(changed|ok|fatal|failed): \[site1\]", output.split("TASK [ansible.builtin.copy]")[0], re.M)
    return found.count("changed")


@pytest.fixture
def api() -> FakeKube:
    return FakeKube()


@pytest.fixture
def site(tmp_path: Path, api: FakeKube) -> Iterator[Site]:
    with serving(api) as url:
        yield Site(tmp_path, url)


def test_escrow_copy_from_first_run_to_the_way_back(site: Site, api: FakeKube) -> None:
    code, output, first = site.run()
    assert code == 0 and changed(output) == 1, output[-3000:]
    assert "signing-keys" in first["kept"]["added"]
    assert site.escrow.stat().st_mode & 0o777 == 0o600
    kept = site.escrow.read_text(encoding="utf-8")
    assert kept.startswith("$ANSIBLE_VAULT;1.1;AES256")
    assert "escrow copy: in " in output, "the difference names the copy"

    code, output, second = site.run()
    assert code == 0 and changed(output) == 0 and second["kept"] == {}
    assert site.escrow.read_text(encoding="utf-8") == kept

    # Lost, with data that needs it: it comes back.
    lost = api.objects.pop(f"{PREFIX}signing-keys")
    api.put(f"/api/v1/namespaces/{NS}/persistentvolumeclaims/datadir-mongodb-0", {})
    code, output, looked = site.run("--check")
    assert code == 0 and changed(output) == 1 and f"{PREFIX}signing-keys" not in api.objects
    code, output, back = site.run()
    assert code == 0 and back["secrets"] == looked["secrets"]
    assert {item["name"]: item["state"] for item in back["secrets"]}["signing-keys"] == "restored"
    assert api.objects[f"{PREFIX}signing-keys"]["data"] == lost["data"]
    assert site.escrow.read_text(encoding="utf-8") == kept


def test_made_before_there_is_a_cluster(site: Site, api: FakeKube) -> None:
    where: dict[str, Any] = {"circleci_secrets_store_location": "controller"}
    api.down = True
    code, output, _result = site.run(circleci_secrets_state="prepared", circleci_secrets_kubeconfig="", **where)
    assert code == 0 and changed(output) == 1 and api.requests == [], output[-3000:]
    kept = site.escrow.read_text(encoding="utf-8")
    api.down = False
    code, output, imported = site.run(**where)
    assert code == 0 and {item["state"] for item in imported["secrets"]} == {"restored"}
    assert site.escrow.read_text(encoding="utf-8") == kept


def test_what_goes_with_the_run_is_refused_before_anything_is_made(site: Site, api: FakeKube) -> None:
    memory: dict[str, Any] = {"circleci_secrets_store_path": "/dev/shm/escrow.yml"}
    code, output, _result = site.run(**memory)
    assert code == 2 and "lies in memory (tmpfs at /dev/shm)" in output and api.requests == []
