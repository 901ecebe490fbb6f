# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Azure by the REST API of Azure Resource Manager; azure-identity finds the credentials."""

from __future__ import annotations

import importlib
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional

from .addresses import AZURE_LOGINS, endpoints
from .errors import CloudError
from .rest import Answer, Rest

GROUP = re.compile(r"/subscriptions/[0-9a-fA-F-]{36}/resourceGroups/[\w.()-]+")
GROUP_FORM = "/subscriptions/<id>/resourceGroups/<name>"
ENDS = ("Succeeded", "Failed", "Canceled")


def versioned(path: str, version: str) -> str:
    return f"{urllib.parse.quote(path)}?api-version={version}"


class Arm:
    """Resources by their ids. Each kind of them has an API version of its own."""

    def __init__(self, region: str, token: str, endpoint: str = "") -> None:
        allowed = endpoints("azure", region, endpoint)
        self.rest = Rest("Azure", allowed[0], (lambda: token) if token else _credentials(allowed), _said)

    def get(self, path: str, version: str) -> Optional[dict[str, Any]]:
        """A resource; None when it is not there."""
        answer = self.rest.call("GET", versioned(path, version), absent=True)
        return None if answer.status == 404 else answer.data

    def all(self, path: str, version: str, only: str = "") -> Iterator[dict[str, Any]]:
        """Every resource of a kind, or those that the filter *only* lets through."""
        where = versioned(path, version) + (f"&$filter={urllib.parse.quote(only)}" if only else "")
        while where:
            data = self.rest.call("GET", where).data
            yield from data.get("value") or []
            where = str(data.get("nextLink") or "")

    def ask(self, path: str, version: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A question that Azure takes as POST; it changes nothing."""
        return self.rest.call("POST", versioned(path, version), body).data

    def change(self, method: str, path: str, version: str, body: Any = None, headers: Optional[Mapping[str, str]] = None) -> dict[str, Any]:
        """Ask for a change, wait until it is made, and give what was answered last."""
        answer = self.rest.call(method, versioned(path, version), body, headers=headers)
        monitor, location = answer.headers.get("azure-asyncoperation", ""), answer.headers.get("location", "")
        state, said = _state(answer), answer.data
        if monitor:
            where, state = monitor, "InProgress"
        elif answer.status == 202 and location:
            where, state = location, "InProgress"
        else:
            where = versioned(path, version)
        if state not in ENDS:
            for now in self.rest.poll(where, answer.headers):
                # The monitor tells a state of its own, the location that of the thing, and nothing at all while it is at work.
                state = str(now.data.get("status", "")) if monitor else "InProgress" if now.status == 202 else _state(now)
                said = now.data
                if state in ENDS:
                    break
        if state != "Succeeded":
            raise CloudError(f"Azure ended {method} {path} as {state}: {_said(said) or 'no reason given'}")
        return said


def _state(answer: Answer) -> str:
    """Without a state the thing is done."""
    return str((answer.data.get("properties") or {}).get("provisioningState") or "Succeeded")


def _said(body: Any) -> str:
    """The sentence, and those of the details below it."""
    try:
        error = body["error"]
        parts = [error, *(error.get("details") or [])]
        return "; ".join(f"{part.get('message', '')} ({part.get('code', '')})" for part in parts)
    except (KeyError, TypeError, AttributeError):
        return ""


def _credentials(allowed: list[str]) -> Callable[[], str]:
    """Tokens for the credentials of the host, as every tool of Azure finds them."""
    try:
        identity: Any = importlib.import_module("azure.identity")
        errors: Any = importlib.import_module("azure.core.exceptions")
    except ImportError as error:
        raise CloudError(f"azure-identity is missing on the control host ({error}); install what requirements/cloud.txt names, "
                         "or set circleci_cloud_token") from error  # fmt: skip
    authority = os.environ.get("AZURE_AUTHORITY_HOST") or allowed[1]
    hosts = [urllib.parse.urlsplit(url).hostname for url in allowed]
    if urllib.parse.urlsplit(authority if "://" in authority else f"https://{authority}").hostname not in hosts:
        raise CloudError(f"AZURE_AUTHORITY_HOST on the control host is {authority}, which was not named before; "
                         "get a token there and set circleci_cloud_token")  # fmt: skip
    # Without the discovery that would ask login.microsoftonline.com whatever the authority is.
    credential = identity.DefaultAzureCredential(authority=authority, disable_instance_discovery=True)
    audience = allowed[0] if allowed[0] in AZURE_LOGINS else endpoints("azure", "")[0]

    def token() -> str:
        try:
            return str(credential.get_token(f"{audience}/.default").token)
        except errors.ClientAuthenticationError as error:
            said = " ".join(str(error.message).split())
            raise CloudError(f"Azure gives no token for the credentials of the control host; give its machine a managed identity, set AZURE_TENANT_ID, "
                             f"AZURE_CLIENT_ID and AZURE_CLIENT_SECRET there, or set circleci_cloud_token ({said[:600]})") from error  # fmt: skip

    return token
