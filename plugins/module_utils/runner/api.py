# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one call of the vendor's runner API that is documented and that this collection needs: which runners of a resource class a server has heard.

``GET /api/v3/runner?resource-class=``, with a personal token in the header ``Circle-Token``.
"""

from __future__ import annotations

import datetime
import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ..url_openers import token_opener

PATH = "/api/v3/runner"
ONLINE_SECONDS = 120
"""A runner that was heard within this time is online; the vendor's command line draws the line there."""
_LIMIT = 8 << 20
_FRACTION = re.compile(r"\.(\d{1,6})\d*")


class RunnerApiError(Exception):
    """One sentence for the operator."""


class Unauthorized(RunnerApiError):
    """The server wants another token."""


@dataclass(frozen=True)
class Instance:
    """A runner that the server has heard within the last 12 hours."""

    name: str
    version: str
    last_connected: str

    def silent_seconds(self, now: datetime.datetime) -> Optional[float]:
        """Seconds since it was last heard; None when the server does not say."""
        # Python before 3.11 reads neither Z nor nanoseconds.
        text = _FRACTION.sub(lambda match: f".{match[1]:0<6}", self.last_connected.replace("Z", "+00:00"))
        try:
            return (now - datetime.datetime.fromisoformat(text)).total_seconds()
        except (TypeError, ValueError):
            return None

    def online(self, now: datetime.datetime) -> bool:
        silent = self.silent_seconds(now)
        return silent is not None and silent <= ONLINE_SECONDS


class RunnerApi:
    """The runner API of one server."""

    def __init__(self, server: str, token: str, ca_certificate: str = "") -> None:
        self.url = server.rstrip("/") + PATH
        self._token = token
        try:
            # The server is inside the site: no proxy stands between.
            self._opener = token_opener(ca_certificate, proxy=False)
        except ValueError as error:
            raise RunnerApiError(str(error)) from error

    def instances(self, resource_class: str) -> list[Instance]:
        """Runners of a resource class."""
        answer = self._get(f"{self.url}?{urllib.parse.urlencode({'resource-class': resource_class})}")
        items = answer.get("items") if isinstance(answer, Mapping) else None
        if not isinstance(items, list) or not all(isinstance(item, Mapping) and isinstance(item.get("name"), str) for item in items):
            raise RunnerApiError(f"{self.url} answers with something else than a list of runners")
        return [Instance(item["name"], str(item.get("version") or ""), str(item.get("last_connected") or "")) for item in items]

    def _get(self, url: str) -> Any:
        request = urllib.request.Request(url, headers={"Circle-Token": self._token, "Accept": "application/json"})  # noqa: S310 - the gate demands https
        try:
            with self._opener.open(request, timeout=30) as answer:
                return json.loads(answer.read(_LIMIT))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (401, 403):
                raise Unauthorized(f"{self.url} refuses the token (status {error.code})") from error
            raise RunnerApiError(f"{self.url} answers with status {error.code}") from error
        except ValueError as error:
            raise RunnerApiError(f"{self.url} answers with something else than JSON; is this the address of CircleCI?") from error
        except (OSError, http.client.HTTPException) as error:
            raise RunnerApiError(f"{self.url} cannot be reached: {getattr(error, 'reason', error)}") from error
