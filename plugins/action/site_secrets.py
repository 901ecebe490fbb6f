# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decrypts and encrypts the escrow copy around the module of the same name, which never sees its password."""

from __future__ import annotations

import hashlib
import json
import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets.files import (
    lasting_problem,
    read_text,
    write_text,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets.store import SecretsError
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets.stores import keep
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.secret_store import AnsibleVaultFile, choose_secret

_FILE = "onprem.circleci_server.secret_store_file"


class ActionModule(ActionBase):
    """Run the module on the control host with what the escrow copy holds, then bring the copy up to date."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        self._variables = task_vars or {}
        arguments = dict(self._task.args)
        store = dict(arguments.get("store") or {})
        if store.get("kind") != "ansible_vault" or arguments.get("state") == "absent":
            return self._finish(self._execute_module(module_args=arguments, task_vars=task_vars))
        looks = arguments.get("state") == "verified"
        kept = None
        try:
            file = self._file(store, str(arguments.get("domain")))
            kept = file.read()
            arguments["kept"] = json.dumps(kept) if kept else ""
        except SecretsError as error:
            if not looks:
                return {"failed": True, "changed": False, "msg": "\n".join(error.problems), "problems": error.problems}
            arguments["kept_problem"] = str(error)
        arguments["store"] = {**store, "password": ""}
        result = self._execute_module(module_args=arguments, task_vars=task_vars)
        contents, digest = result.pop("contents", ""), result.pop("contents_digest", "")
        if result.get("failed") or not contents:
            return self._finish(result)
        if hashlib.sha256(contents.encode()).hexdigest() != digest:
            text = "The escrow copy was not written: a secret that was given is so short that Ansible masks it inside others. Choose a longer one."
            return {**self._finish(result), "failed": True, "msg": text}
        try:
            keep(file, kept, json.loads(contents))
        except SecretsError as error:
            text = f"The Secrets are in the cluster, the escrow copy is not: {error}"
            return {**self._finish(result), "failed": True, "msg": text, "problems": error.problems}
        return self._finish(result)

    def _finish(self, result: dict[str, t.Any]) -> dict[str, t.Any]:
        result.pop("contents", None)
        result.pop("contents_digest", None)
        result.pop("invocation", None)
        return result

    def _file(self, store: dict[str, t.Any], domain: str) -> AnsibleVaultFile:
        path = str(store.get("path") or "")
        if not path.startswith("/"):
            raise SecretsError([f"circleci_secrets_store_path is {path!r}: circleci_secrets_store ansible_vault needs a full path."])
        secret = choose_secret(str(store.get("password") or ""), str(store.get("vault_id") or ""), self._loaded_secrets())
        if store.get("location", "control_host") == "controller":
            self._refuse(lasting_problem(path))
            return AnsibleVaultFile(path, domain, secret, lambda: self._local(path), lambda text: self._local(path, text))
        self._refuse(str(self._remote({"path": path})["will_not_last"]))

        def write(text: str) -> None:
            self._remote({"path": path, "content": text})

        return AnsibleVaultFile(path, domain, secret, lambda: str(self._remote({"path": path})["text"]), write)

    def _loaded_secrets(self) -> list[tuple[str, t.Any]]:
        vault = getattr(self._loader, "_vault", None)
        return list(getattr(vault, "secrets", None) or [])

    @staticmethod
    def _refuse(problem: str) -> None:
        if problem:
            raise SecretsError([f"circleci_secrets_store_path: {problem}. Choose a path that outlives the run, on the control host or in a store of its own."])

    @staticmethod
    def _local(path: str, text: str | None = None) -> str:
        try:
            if text is not None:
                write_text(path, text)
            return read_text(path)
        except (OSError, UnicodeDecodeError) as error:
            raise SecretsError([f"{path} on the controller cannot be read or written: {error}"]) from error

    def _remote(self, arguments: dict[str, t.Any]) -> dict[str, t.Any]:
        result: dict[str, t.Any] = self._execute_module(module_name=_FILE, module_args=arguments, task_vars=self._variables)
        if result.get("failed"):
            raise SecretsError([str(result.get("msg"))])
        return result
