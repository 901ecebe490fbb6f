# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.parsing.vault import VaultSecret
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets.store import SecretsError
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets.stores import Manifests, keep, manifests_of
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.secret_store import AnsibleVaultFile, choose_secret

SECRETS: Manifests = manifests_of({"tink": {"metadata": {"name": "tink"}, "data": {"keyset": "c2VjcmV0"}}})


class Text:
    def __init__(self, text: str = "") -> None:
        self.text, self.writes = text, 0

    def write(self, text: str) -> None:
        self.text = text
        self.writes += 1


def file(text: Text, password: str = "pw", domain: str = "ci.example.com", vault_id: str = "") -> AnsibleVaultFile:
    return AnsibleVaultFile("/srv/escrow.yml", domain, choose_secret(password, vault_id, []), lambda: text.text, text.write)


def test_kept_and_read_back_encrypted() -> None:
    text = Text()
    assert file(text).read() is None
    assert keep(file(text), None, SECRETS).added == ["tink"]
    assert text.text.startswith("$ANSIBLE_VAULT;1.1;AES256\n") and "c2VjcmV0" not in text.text
    assert file(text).read() == SECRETS
    keep(file(text), SECRETS, SECRETS)
    assert text.writes == 1


def test_ansible_vault_and_kubectl_can_do_without_us(tmp_path: Path) -> None:
    text = Text()
    keep(file(text), None, SECRETS)
    (tmp_path / "escrow.yml").write_text(text.text, encoding="utf-8")
    (tmp_path / "pw").write_text("pw\n", encoding="utf-8")
    program = Path(sys.executable).with_name("ansible-vault")
    shown = subprocess.run([program, "view", "--vault-password-file", tmp_path / "pw", tmp_path / "escrow.yml"], check=True, capture_output=True, text=True)
    listed = yaml.safe_load(shown.stdout)
    assert listed["kind"] == "List" and [item["kind"] for item in listed["items"]] == ["Secret"]


def test_a_file_that_kubectl_wrote_is_read() -> None:
    text = Text()
    mine = file(text)
    item = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tink", "namespace": "circleci-server", "uid": "u"}, "type": "Opaque", "data": {"keyset": "c2VjcmV0"}}
    text.text = mine._vault.encrypt(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [item]})).decode()
    assert file(text).read() == SECRETS


def test_why_a_file_cannot_be_used() -> None:
    text = Text()
    keep(file(text), None, SECRETS)
    for other, sentence in (
        (file(text, password="other"), "password is another one"),
        (file(text, domain="ci.osaka.example"), "belongs to the site ci.example.com"),
        (file(Text(text.text[:-40])), "damaged"),
        (file(Text("clear: text")), "not encrypted"),
    ):
        with pytest.raises(SecretsError, match=sentence):
            other.read()
    wrong = Text(file(Text())._vault.encrypt("a: b").decode())
    with pytest.raises(SecretsError, match="no list of Kubernetes Secrets"):
        file(wrong).read()


def test_file_that_forgets_is_refused() -> None:
    text = Text()
    deaf = AnsibleVaultFile("/srv/escrow.yml", "ci.example.com", choose_secret("pw", "", []), lambda: text.text, lambda _text: None)
    with pytest.raises(SecretsError, match="did not keep what was written"):
        keep(deaf, None, SECRETS)


def test_secret_of_a_file() -> None:
    loaded = [("default", VaultSecret(b"daily")), ("escrow", VaultSecret(b"apart"))]
    assert choose_secret("", "escrow", loaded) == loaded[1]
    text = Text()
    labelled = AnsibleVaultFile("/srv/escrow.yml", "ci.example.com", loaded[1], lambda: text.text, text.write)
    keep(labelled, None, SECRETS)
    assert text.text.startswith("$ANSIBLE_VAULT;1.2;AES256;escrow\n")
    with pytest.raises(SecretsError, match="here default, escrow"):
        choose_secret("", "escorw", loaded)
    with pytest.raises(SecretsError, match="circleci_secrets_store_password is empty"):
        choose_secret("", "", loaded)
