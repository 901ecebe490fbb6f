# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who we are at each registry: given credentials, docker's and podman's files, credential helpers; and clients that share connections."""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

from .errors import UsageError
from .limits import TokenBucket
from .oci import DOCKER_HUB
from .registry import Credential, RegistryClient
from .transport import HttpClient, HttpOptions, Patience

_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")


def _key_host(key: str) -> str:
    return (urlsplit(key).netloc if "://" in key else key.split("/")[0]).lower()


def _read_auth_file(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a docker configuration: {error}") from error
    return data if isinstance(data, dict) else {}


def default_auth_files() -> list[Path]:
    """Where docker and podman keep credentials, the first match wins."""
    files = []
    if os.environ.get("REGISTRY_AUTH_FILE"):
        files.append(Path(os.environ["REGISTRY_AUTH_FILE"]))
    if os.environ.get("XDG_RUNTIME_DIR"):
        files.append(Path(os.environ["XDG_RUNTIME_DIR"]) / "containers" / "auth.json")
    folder = os.environ.get("DOCKER_CONFIG")
    files.append((Path(folder) if folder else Path(os.path.expanduser("~")) / ".docker") / "config.json")
    return files


def _from_helper(name: str, host: str) -> Optional[Credential]:
    import subprocess  # few need it

    if not name.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"The credential helper {name!r} has a name that no program has.")
    try:
        done = subprocess.run([f"docker-credential-{name}", "get"], input=host, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"The credential helper docker-credential-{name} for {host} cannot be run: {error}") from error
    if done.returncode != 0:
        # "credentials not found" is how helpers say no; what they print may hold secrets, so it is not repeated.
        return None
    try:
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"The credential helper docker-credential-{name} gave no answer for {host} that can be read.") from None
    return Credential(identity_token=secret) if user == "<token>" else Credential(user, secret)


def credential_from_files(host: str, files: Sequence[Path]) -> Optional[Credential]:
    """What *files* know about *host*."""
    keys = _HUB_KEYS if host == DOCKER_HUB else (host,)
    for path in files:
        data = _read_auth_file(path)
        helpers = data.get("credHelpers") or {}
        for key in keys:
            if key in helpers:
                found = _from_helper(str(helpers[key]), key)
                if found:
                    return found
        auths = data.get("auths") or {}
        entry = next((auths[key] for key in keys if isinstance(auths.get(key), dict)), None)
        if entry is None:
            entry = next((value for key, value in auths.items() if isinstance(value, dict) and _key_host(key) in (item.lower() for item in keys)), None)
        if entry:
            if entry.get("identitytoken"):
                return Credential(identity_token=str(entry["identitytoken"]))
            if entry.get("auth"):
                try:
                    user, _colon, password = base64.b64decode(str(entry["auth"])).decode("utf-8").partition(":")
                except (binascii.Error, ValueError):
                    raise UsageError(f"{path}: the entry for {host} is not base64 of user:password.") from None
                return Credential(user, password.rstrip("\x00"))
            if entry.get("username"):
                return Credential(str(entry["username"]), str(entry.get("password") or ""))
        if data.get("credsStore"):
            for key in keys:
                found = _from_helper(str(data["credsStore"]), key)
                if found:
                    return found
    return None


@dataclass
class Access:
    """Credentials and transport for any number of registries; clients share connections and the rate limit."""

    credentials: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    docker_config: Optional[Path] = None
    use_docker_config: bool = True
    ca_file: Optional[str] = None
    ca_data: Optional[str] = None
    client_cert: Optional[str] = None
    client_key: Optional[str] = None
    plain_http: bool = False
    plain_http_hosts: Sequence[str] = ()
    insecure_skip_verify: bool = False
    limit_rate: Optional[int] = None
    proxies_from_environment: bool = True
    parallel: Optional[int] = None
    parallel_most: int = 16
    stall_timeout: float = 30.0
    patience: Patience = field(default_factory=Patience)
    stop: threading.Event = field(default_factory=threading.Event, repr=False)

    def __post_init__(self) -> None:
        options = HttpOptions(
            ca_file=self.ca_file,
            ca_data=self.ca_data,
            client_cert=self.client_cert,
            client_key=self.client_key,
            insecure_skip_verify=self.insecure_skip_verify,
            stall_timeout=self.stall_timeout,
            proxies_from_environment=self.proxies_from_environment,
            bucket=TokenBucket(self.limit_rate) if self.limit_rate else None,
        )
        self.http = HttpClient(options, self.stop)
        self._clients: dict[str, RegistryClient] = {}
        self._lock = threading.Lock()

    def credential(self, host: str) -> Optional[Credential]:
        """The credential for *host*, which may have a path: what was given, else what docker and podman know."""
        server = host.partition("/")[0]
        given = self.credentials.get(host) or self.credentials.get(server)
        if given:
            return Credential(*given)
        if self.docker_config is not None:
            return credential_from_files(server, [self.docker_config])
        return credential_from_files(server, default_auth_files()) if self.use_docker_config else None

    def client(self, host: str) -> RegistryClient:
        """The one client for *host*."""
        with self._lock:
            if host not in self._clients:
                self._clients[host] = RegistryClient(
                    host,
                    credential=self.credential(host),
                    plain_http=self.plain_http or host in self.plain_http_hosts,
                    http=self.http,
                    patience=self.patience,
                    parallel=self.parallel,
                    parallel_most=self.parallel_most,
                )
            return self._clients[host]

    def clients(self) -> list[RegistryClient]:
        """All clients made so far."""
        with self._lock:
            return list(self._clients.values())

    @property
    def requests(self) -> int:
        return self.http.requests

    def close(self) -> None:
        self.http.close()
