# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Kubernetes API as the engines here use it: one method, plain dictionaries."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Optional, Protocol
from urllib.parse import quote, urlencode

MERGE_PATCH = "application/merge-patch+json"
SITE_ANNOTATION = "onprem.circleci-server/site"
"""On a namespace: the domain of the site that it belongs to. The verb secrets sets it."""


class KubeError(Exception):
    """The API refused, or could not be reached (status 0)."""

    def __init__(self, status: int, message: str, what: str = "") -> None:
        super().__init__(f"{what + ': ' if what else ''}{message}")
        self.status = status
        self.message = message
        self.what = what

    @property
    def sentence(self) -> str:
        """What happened and what to do."""
        if self.status == 0:
            return f"the Kubernetes API cannot be reached ({self.message}): check circleci_kubeconfig and the network."
        if self.status == 401:
            return "the Kubernetes API refused the credentials in circleci_kubeconfig: renew them."
        if self.status == 403:
            return f"the user of circleci_kubeconfig lacks a right: {self.message}"
        return f"the Kubernetes API answered {self.status} to {self.what or 'a request'}: {self.message}"


class KubeApi(Protocol):
    """What the engines need. The tests have a strict stand-in for it."""

    def request(
        self,
        method: str,
        path: str,
        query: Optional[dict[str, str]] = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Any:
        """The decoded answer (a text when it is no JSON); KubeError otherwise."""


def get_or_none(api: KubeApi, path: str, query: Optional[dict[str, str]] = None) -> Any:
    """The object, or None when there is none."""
    try:
        return api.request("GET", path, query)
    except KubeError as error:
        if error.status == 404:
            return None
        raise


def owner_of(namespace: Any) -> str:
    """The domain of the site that a namespace belongs to, empty where none says so."""
    metadata = (namespace or {}).get("metadata") or {}
    return str((metadata.get("annotations") or {}).get(SITE_ANNOTATION) or "")


def core(namespace: str, kind: str, name: str = "") -> str:
    """The path of namespaced objects of the core group."""
    path = f"/api/v1/namespaces/{quote(namespace)}/{kind}"
    return f"{path}/{quote(name)}" if name else path


def split_api_version(api_version: str) -> tuple[str, str]:
    group, _slash, version = api_version.rpartition("/")
    return group, version


class KubernetesClient:
    """The real API. The kubernetes library reads kubeconfig files with their credential plugins; requests go straight over
    its connection pool, since the generated methods differ from one release of the library to the next."""

    def __init__(self, kubeconfig: str, context: Optional[str] = None, timeout: float = 60.0) -> None:
        try:
            import urllib3
            import yaml
            from kubernetes import config
        except ImportError as error:
            raise KubeError(0, f"the Python library kubernetes is missing on this host ({error}): install it") from error
        if not Path(kubeconfig).is_file():
            raise KubeError(0, f"there is no file {kubeconfig}")
        loader: Any = config
        self._http_errors: Any = (urllib3.exceptions.HTTPError, OSError)
        self._timeout: Any = urllib3.Timeout(connect=10.0, read=timeout)
        try:
            client: Any = loader.new_client_from_config(config_file=kubeconfig, context=context or None)
        except loader.ConfigException as error:
            raise KubeError(0, f"{kubeconfig}: {error}") from error
        except OSError as error:
            raise KubeError(0, f"{kubeconfig}: {error.strerror or error}") from error
        except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
            # The text of the error may show a line of the file, and with it a token.
            raise KubeError(0, f"{kubeconfig} is no kubeconfig: YAML with clusters, users and contexts is needed") from error
        self._configuration: Any = client.configuration
        self._pool: Any = client.rest_client.pool_manager

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json, */*"}
        configuration = self._configuration
        token = configuration.get_api_key_with_prefix("authorization") or configuration.get_api_key_with_prefix("BearerToken")
        if token:
            headers["Authorization"] = str(token)
        elif configuration.username:
            basic = f"{configuration.username}:{configuration.password or ''}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(basic).decode()}"
        return headers

    def request(
        self,
        method: str,
        path: str,
        query: Optional[dict[str, str]] = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Any:
        url = str(self._configuration.host).rstrip("/") + path + (f"?{urlencode(query)}" if query else "")
        headers = self._headers()
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = json.dumps(body).encode()
        try:
            answer = self._pool.request(
                method, url, body=data, headers=headers, timeout=self._timeout, retries=False, redirect=False
            )
        except self._http_errors as error:
            raise KubeError(0, str(error), f"{method} {path}") from error
        text = answer.data.decode(errors="replace")
        if answer.status >= 300:
            raise KubeError(int(answer.status), _message(text) or str(answer.reason), f"{method} {path}")
        try:
            return json.loads(text)
        except ValueError:
            return text


def _message(text: str) -> str:
    try:
        return str(json.loads(text).get("message") or "")
    except (ValueError, AttributeError):
        return text[:300]
