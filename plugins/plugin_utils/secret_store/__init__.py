# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The store that is a file of ansible-vault: encrypted and decrypted on the controller, by Ansible's own library.

A restore point keeps its Secrets the same way: ``AnsibleVaultFile(name, domain, secret, read_text, write_text)`` with
``manifests_of(objects)`` of ``module_utils/secrets/stores.py``, written and read back by ``keep()`` there.
"""

from __future__ import annotations

import typing as t

import yaml
from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets.store import SecretsError
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets.stores import (
    Manifests,
    check_domain,
    dump,
    from_document,
)

DEFAULT_LABEL = "default"


def choose_secret(password: str, vault_id: str, loaded: t.Iterable[tuple[str, t.Any]]) -> tuple[str, t.Any]:
    """Label and secret of a file: the password of its own, or one that ansible-playbook was given."""
    if password:
        return vault_id or DEFAULT_LABEL, VaultSecret(password.encode())
    labels = []
    for label, secret in loaded:
        if vault_id and label == vault_id:
            return label, secret
        labels.append(label)
    if vault_id:
        known = ", ".join(labels) or "none"
        raise SecretsError([f"circleci_secrets_store_vault_id is {vault_id}: allowed is a label of --vault-id, here {known}."])
    raise SecretsError(["circleci_secrets_store_password is empty: set it or circleci_secrets_store_vault_id, so that the escrow copy can be encrypted."])


class AnsibleVaultFile:
    """A :class:`Store` whose texts somebody else carries to and from the file."""

    def __init__(
        self, path: str, domain: str, secret: tuple[str, t.Any], read_text: t.Callable[[], str], write_text: t.Callable[[str], object]
    ) -> None:
        self.name = f"The file {path}"
        self._domain = domain
        self._label, _secret = secret
        self._vault = VaultLib(secrets=[secret])
        self._read_text, self._write_text = read_text, write_text

    def read(self) -> Manifests | None:
        encrypted = self._read_text().strip()
        if not encrypted:
            return None
        if not encrypted.startswith("$ANSIBLE_VAULT;"):
            raise SecretsError([f"{self.name} is not encrypted by ansible-vault: encrypt it, or name another path."])
        try:
            text = self._vault.decrypt(encrypted.encode()).decode()
        except (AnsibleError, UnicodeDecodeError) as error:
            text = "the password is another one than the file was encrypted with, or the file is damaged"
            raise SecretsError([f"{self.name} cannot be decrypted: {text}."]) from error
        check_domain(text, self._domain, self.name)
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            allowed = "what the verb secrets or kubectl get secrets -o yaml wrote"
            raise SecretsError([f"{self.name} holds no YAML once it is decrypted: allowed is {allowed}."]) from error
        return from_document(document, self.name)

    def write(self, manifests: Manifests, changed: t.Sequence[str]) -> None:
        label = None if self._label == DEFAULT_LABEL else self._label
        self._write_text(self._vault.encrypt(dump(manifests, self._domain), vault_id=label).decode())
