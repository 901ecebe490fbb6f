# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stores that keep the Secrets of a site beside its cluster: one small interface, and what must hold for all of them.

What is kept are manifests, so that kubectl can bring them back without this collection. The file of ansible-vault has its
store on the controller, where Ansible's own library is (plugin_utils/secret_store); the others are here.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Protocol
from urllib.parse import quote

from .store import SecretsError

# Helm's record of releases and what the cluster makes itself do not outlive the objects they belong to.
_NOT_KEPT = ("helm.sh/release.v1", "kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token")
_HEAD = "# Secrets of the site {domain}, by onprem.circleci_server. Without it: ansible-vault view THIS | kubectl -n NAMESPACE create -f -"
_HEAD_DOMAIN = re.compile(r"\A# Secrets of the site (\S+),")

Manifest = dict[str, Any]
Manifests = dict[str, Manifest]


class Store(Protocol):
    """Where the Secrets of one site are kept."""

    name: str
    """For messages, such as C(file /srv/escrow.yml)."""

    def read(self) -> Optional[Manifests]:
        """All Secrets by name; None when the store holds nothing yet. SecretsError when it cannot be read."""

    def write(self, manifests: Manifests, changed: Sequence[str]) -> None:
        """Keep them all; C(changed) names those that differ from what was read."""


@dataclass
class Kept:
    """What came of keeping: names of Secrets that were (or would be) written."""

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def changed(self) -> list[str]:
        return sorted([*self.added, *self.replaced])


def manifest_of(secret: Mapping[str, Any]) -> Manifest:
    """A Secret without what belongs to one cluster only."""
    metadata = secret.get("metadata") or {}
    kept = {key: dict(metadata[key]) for key in ("labels", "annotations") if metadata.get(key)}
    kept.get("annotations", {}).pop("kubectl.kubernetes.io/last-applied-configuration", None)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": str(metadata["name"]), **kept},
        "type": secret.get("type") or "Opaque",
        "data": dict(secret.get("data") or {}),
    }


def manifests_of(objects: Mapping[str, Mapping[str, Any]]) -> Manifests:
    """Every Secret of a namespace that is worth keeping, by name."""
    return {name: manifest_of(item) for name, item in sorted(objects.items()) if item.get("type") not in _NOT_KEPT}


def dump(manifests: Manifests, domain: str) -> str:
    """The text of a file: a list as kubectl reads it."""
    items = [manifests[name] for name in sorted(manifests)]
    return f"{_HEAD.format(domain=domain)}\n{json.dumps({'apiVersion': 'v1', 'kind': 'List', 'items': items}, indent=1, sort_keys=True)}\n"


def from_document(document: Any, where: str) -> Manifests:
    """Manifests out of a parsed file, by name."""
    items = document.get("items") if isinstance(document, Mapping) else None
    if not isinstance(items, list) or not all(isinstance(item, Mapping) and (item.get("metadata") or {}).get("name") for item in items):
        raise SecretsError([f"{where} holds no list of Kubernetes Secrets: allowed is what the verb secrets or kubectl get secrets -o yaml wrote."])
    return {str(item["metadata"]["name"]): manifest_of(item) for item in items if item.get("kind") == "Secret" and item.get("type") not in _NOT_KEPT}


def check_domain(text: str, domain: str, where: str) -> None:
    """Refuse what was kept for another site. A file that kubectl wrote does not say."""
    found = _HEAD_DOMAIN.match(text)
    if found and found.group(1) != domain:
        raise SecretsError([f"{where} belongs to the site {found.group(1)}, not to {domain}: give each site a store of its own."])


def compare(have: Optional[Manifests], wanted: Manifests, once: Sequence[str] = (), replace: Sequence[str] = ()) -> Kept:
    """What a store lacks. C(once) names Secrets that data depends on: another one in the store is perhaps the only copy of the
    one that fits, so it is replaced only when C(replace) names it."""
    found = Kept()
    for name, manifest in wanted.items():
        kept = (have or {}).get(name)
        if kept is None:
            found.added.append(name)
        elif kept["data"] != manifest["data"] and name in once and name not in replace:
            found.problems.append(
                f"Secret {name} in the store is another one than in the cluster. The cluster is the truth, yet the kept one may be the only copy that "
                f"fits older data: look at both, then name {name} in circleci_secrets_replace_kept to keep the one of the cluster."
            )
        elif kept != manifest:
            found.replaced.append(name)
    return found


def keep(
    store: Store, have: Optional[Manifests], wanted: Manifests, *, once: Sequence[str] = (), replace: Sequence[str] = (), write: bool = True
) -> Kept:
    """Write what differs, read it back and compare. What the cluster has no more stays in the store."""
    found = compare(have, wanted, once, replace)
    if found.problems or not found.changed or not write:
        return found
    merged = {**(have or {}), **wanted}
    store.write(merged, found.changed)
    stored = store.read() or {}
    lost = [name for name in merged if stored.get(name) != merged[name]]
    if lost:
        raise SecretsError(
            [f"{store.name} did not keep what was written ({', '.join(sorted(lost))}): nothing may be made that only this store would hold. Choose another."]
        )
    return found


class HashicorpVault:
    """KV version 2 of HashiCorp Vault or OpenBao: one entry for each Secret, so that a thousand Nomad clients fit."""

    def __init__(self, url: str, mount: str, path: str, token: str, *, ca: str = "", namespace: str = "", timeout: float = 30.0) -> None:
        self.name = f"{url.rstrip('/')}, {mount}/{path.strip('/')}"
        self._base = f"{url.rstrip('/')}/v1/{quote(mount.strip('/'))}"
        self._path = quote(path.strip("/"))
        self._headers = {"X-Vault-Token": token, "X-Vault-Request": "true", "Content-Type": "application/json"}
        if namespace:
            self._headers["X-Vault-Namespace"] = namespace
        self._timeout = timeout
        self._versions: dict[str, int] = {}
        handlers: list[Any] = [urllib.request.ProxyHandler({})]
        if url.startswith("https:"):
            try:
                handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=ca or None)))
            except (ssl.SSLError, ValueError) as error:
                raise SecretsError([f"circleci_secrets_store_ca_certificate cannot be read ({error}): allowed is PEM of the store's authority."]) from error
        self._open = urllib.request.build_opener(*handlers).open

    def _request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._base}/{path}", data=data, headers=self._headers, method=method)  # noqa: S310 - the gate allows http(s) only
        try:
            with self._open(request, timeout=self._timeout) as answer:
                text, status = answer.read().decode(), answer.status
        except urllib.error.HTTPError as error:
            text, status = error.read().decode(errors="replace"), error.code
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise SecretsError([f"{self.name} cannot be reached ({reason}): check circleci_secrets_store_url and the network."]) from error
        try:
            answered = json.loads(text) if text else {}
        except ValueError:
            answered = {}
        answered = answered if isinstance(answered, Mapping) else {}
        if status in (200, 204, 404):
            return status, answered
        said = "; ".join(answered.get("errors") or []) or "no reason given"
        hints = {
            400: "was the entry changed meanwhile? Run the same command again",
            403: "give circleci_secrets_store_token a policy with read, list, create and update below that path",
            503: "unseal it",
        }
        raise SecretsError([f"{self.name} answered {status} ({said}): {hints.get(status, 'look into its log')}."])

    def read(self) -> Optional[Manifests]:
        status, answer = self._request("GET", f"metadata/{self._path}?list=true")
        if status == 404:
            return None
        data = answer.get("data")
        if not isinstance(data, Mapping) or not isinstance(data.get("keys"), list):
            raise SecretsError(
                [f"{self.name} answers with something else than a list of entries: check circleci_secrets_store_url and circleci_secrets_store_mount."]
            )
        names = [name for name in data["keys"] if not name.endswith("/")]
        found: Manifests = {}
        for name in names:
            status, answer = self._request("GET", f"data/{self._path}/{quote(name)}")
            data = answer.get("data") or {}
            version = (data.get("metadata") or {}).get("version")
            if version is None and status != 404:
                raise SecretsError([f"{self.name} is no KV engine of version 2: allowed is one that was made with vault secrets enable -version=2 kv."])
            if version is not None:
                self._versions[name] = int(version)
            if status == 404 or not data.get("data"):
                continue
            entry = data["data"]
            if not isinstance(entry.get("data"), Mapping):
                raise SecretsError([f"{self.name}: the entry {name} was not written by the verb secrets; choose a path of its own."])
            metadata = {key: entry[key] for key in ("labels", "annotations") if entry.get(key)}
            found[name] = manifest_of({"metadata": {"name": name, **metadata}, "type": entry.get("type"), "data": entry["data"]})
        return found or None

    def write(self, manifests: Manifests, changed: Sequence[str]) -> None:
        for name in changed:
            item = manifests[name]
            entry = {"type": item["type"], "data": item["data"], **{key: value for key, value in item["metadata"].items() if key != "name"}}
            # Check-and-set: somebody else's write between our reading and now is refused, not lost.
            body = {"data": entry, "options": {"cas": self._versions.get(name, 0)}}
            _status, answer = self._request("POST", f"data/{self._path}/{quote(name)}", body)
            version = (answer.get("data") or {}).get("version")
            if version is None:
                raise SecretsError([f"{self.name} is no KV engine of version 2: allowed is one that was made with vault secrets enable -version=2 kv."])
            self._versions[name] = int(version)


class GivenVariables:
    """What somebody else keeps and gives with each run, as credentials of AWX do. Nothing can be written there."""

    name = "circleci_secrets_given"

    def __init__(self, data: Mapping[str, Mapping[str, str]], secrets: Manifests) -> None:
        """C(data): encoded entries by Secret and key. They carry no metadata, which is taken from C(secrets)."""
        self._manifests = {name: {**secrets[name], "data": dict(entries)} for name, entries in data.items() if name in secrets}

    def read(self) -> Optional[Manifests]:
        return self._manifests or None

    def write(self, manifests: Manifests, changed: Sequence[str]) -> None:
        raise SecretsError([f"{self.name} does not hold {', '.join(changed)}: take them over into what gives it (see docs/how-to/secrets.md)."])
