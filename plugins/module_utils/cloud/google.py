# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Google Cloud by its REST APIs; google-auth finds the credentials."""

from __future__ import annotations

import importlib
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from .errors import CloudError
from .rest import Rest

NETWORK_FORM = "projects/<project>/global/networks/<name>"


def google_api(endpoint: str, token: Callable[[], str]) -> Rest:
    """One of Google's APIs."""
    return Rest("Google", endpoint, token, _said, _throttled)


def google_token(token: str, scope: str, allowed: list[str]) -> Callable[[], str]:
    """What gives a token that holds now: the one that is given, or those of the credentials of the host, asked for at *allowed* addresses only."""
    return (lambda: token) if token else _credentials(scope, allowed)


def finished(rest: Rest, project: str, what: str, operation: Mapping[str, Any], scope: str = "global") -> str:
    """Wait for a change of the API compute. Empty when it is made, else why not."""
    for _round in range(30):
        if operation.get("status") == "DONE":
            break
        # Answers when the operation is done, and after two minutes at the latest.
        operation = rest.call("POST", f"/compute/v1/projects/{project}/{scope}/operations/{operation.get('name')}/wait").data
    else:
        raise CloudError(f"Google has not finished {what} yet; the same command goes on")
    errors = (operation.get("error") or {}).get("errors") or []
    if errors:
        return ", ".join(f"{item.get('message', '')} ({item.get('code', '')})" for item in errors)
    return str(operation.get("httpErrorMessage") or "") if int(operation.get("httpErrorStatusCode") or 0) >= 400 else ""


def _said(body: Any) -> str:
    try:
        return str(body["error"]["message"])
    except (KeyError, TypeError):
        return ""


def _throttled(body: Any) -> bool:
    """Google also says 403 when it is asked too often."""
    try:
        return any(item.get("reason") in ("rateLimitExceeded", "userRateLimitExceeded") for item in body["error"]["errors"])
    except (KeyError, TypeError, AttributeError):
        return False


def _credentials(scope: str, allowed: list[str]) -> Callable[[], str]:
    """Tokens for the credentials of the host, as every tool of Google finds them."""
    try:
        auth: Any = importlib.import_module("google.auth")
        errors: Any = importlib.import_module("google.auth.exceptions")
        transport: Any = importlib.import_module("google.auth.transport.requests")
    except ImportError as error:
        raise CloudError(f"google-auth is missing on the control host ({error}); install what requirements/cloud.txt names, "
                         "or set circleci_cloud_token") from error  # fmt: skip
    try:
        credentials, _project = auth.default(scopes=[scope])
    except errors.DefaultCredentialsError as error:
        raise CloudError(f"Google: no credentials on the control host; set GOOGLE_APPLICATION_CREDENTIALS there to the key file of a service account, "
                         f"give its machine a service account, or set circleci_cloud_token ({error})") from error  # fmt: skip
    # Where a key file or a federation gets its tokens stands in the file; only what was named before is asked.
    uri = str(getattr(credentials, "_token_uri", "") or getattr(credentials, "_token_url", "") or "")
    hosts = [urllib.parse.urlsplit(url).hostname for url in allowed]
    if uri and urllib.parse.urlsplit(uri).hostname not in hosts:
        raise CloudError(f"the credentials of Google on the control host get their token from {uri}, which was not named before; "
                         "get a token there and set circleci_cloud_token")  # fmt: skip

    def token() -> str:
        try:
            if not credentials.valid:
                credentials.refresh(transport.Request())
        except errors.GoogleAuthError as error:
            who = getattr(credentials, "service_account_email", "") or "the credentials of the control host"
            raise CloudError(f"Google gives no token for {who}: {error}") from error
        return str(credentials.token)

    return token
