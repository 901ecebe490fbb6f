# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Kubernetes API as the engines here use it: one method, plain dictionaries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional, Protocol
from urllib.parse import quote

MERGE_PATCH = "application/merge-patch+json"


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
        ...


def get_or_none(api: KubeApi, path: str, query: Optional[dict[str, str]] = None) -> Any:
    """The object, or None when there is none."""
    try:
        return api.request("GET", path, query)
    except KubeError as error:
        if error.status == 404:
            return None
        raise


def core(namespace: str, kind: str, name: str = "") -> str:
    """The path of namespaced objects of the core group."""
    path = f"/api/v1/namespaces/{quote(namespace)}/{kind}"
    return f"{path}/{quote(name)}" if name else path


def split_api_version(api_version: str) -> tuple[str, str]:
    group, _slash, version = api_version.rpartition("/")
    return group, version


class KubernetesClient:
    """The real API, through the kubernetes library (which knows kubeconfig files and their credential plugins)."""

    def __init__(self, kubeconfig: str, context: Optional[str] = None, timeout: float = 60.0) -> None:
        try:
            import kubernetes.client.rest
            from kubernetes import config
        except ImportError as error:
            raise KubeError(0, f"the Python library kubernetes is missing on this host ({error}): install it") from error
        if not Path(kubeconfig).is_file():
            raise KubeError(0, f"there is no file {kubeconfig}")
        rest: Any = kubernetes.client.rest
        self._api_exception: Any = rest.ApiException
        loader: Any = config
        self._timeout = timeout
        try:
            self._client: Any = loader.new_client_from_config(config_file=kubeconfig, context=context or None)
        except loader.ConfigException as error:
            raise KubeError(0, f"{kubeconfig}: {error}") from error
        # The library retries three times on its own, which turns "unreachable" into minutes.
        self._client.rest_client.pool_manager.connection_pool_kw["retries"] = False

    def request(
        self,
        method: str,
        path: str,
        query: Optional[dict[str, str]] = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Any:
        headers = {"Accept": "application/json, */*", "Content-Type": content_type}
        try:
            answer = self._client.call_api(
                path,
                method,
                query_params=sorted((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=self._timeout,
            )
        except self._api_exception as error:
            text = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or "")
            raise KubeError(int(error.status or 0), _message(text) or str(error.reason), f"{method} {path}") from error
        except Exception as error:
            # urllib3, ssl and socket each raise their own.
            if error.__class__.__module__.partition(".")[0] in ("urllib3", "ssl", "socket", "builtins", "http"):
                raise KubeError(0, str(error), f"{method} {path}") from error
            raise
        text = answer.data.decode(errors="replace")
        try:
            return json.loads(text)
        except ValueError:
            return text


def _message(text: str) -> str:
    try:
        return str(json.loads(text).get("message") or "")
    except (ValueError, AttributeError):
        return text[:300]
