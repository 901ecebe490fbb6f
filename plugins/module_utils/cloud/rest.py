# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""JSON over HTTP with a bearer token, as the APIs of Google, Azure and DigitalOcean have it."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ..url_openers import token_opener
from .errors import CloudError

ATTEMPTS = 5
PATIENCE = 60
"""Seconds that a cloud may ask to wait before the next attempt; what asks for more is told to the operator."""
POLLS = 120


@dataclass(frozen=True)
class Answer:
    """What came back. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    data: dict[str, Any]


class Rest:
    """One API.

    C(token) gives a token that holds now. C(said) finds the sentence in the body of a refusal.
    C(throttled) tells a refusal that only asks to come later, beside 429.
    """

    def __init__(
        self,
        cloud: str,
        endpoint: str,
        token: Callable[[], str],
        said: Callable[[Any], str],
        throttled: Callable[[Any], bool] = lambda _body: False,
    ) -> None:
        self.cloud, self.token, self.said, self.throttled = cloud, token, said, throttled
        self.endpoint = endpoint.rstrip("/")
        if not self.endpoint.startswith(("https://", "http://127.0.0.1:")):
            raise CloudError(f"circleci_cloud_endpoint is {self.endpoint!r}; a URL that begins with https:// is needed, since the token goes there")
        self.opener = token_opener()

    def call(self, method: str, path: str, body: Any = None, *, headers: Optional[Mapping[str, str]] = None, absent: bool = False) -> Answer:
        """Ask, and ask again when the cloud wants to be asked less often. With *absent* 404 is an answer, too."""
        url = self._url(path)
        shown = urllib.parse.urlsplit(url).path
        for attempt in range(ATTEMPTS):
            status, said, text = self._once(method, url, body, headers or {})
            if status < 300:
                return Answer(status, said, self._object(text, f"{method} {shown}"))
            if status == 404 and absent:
                return Answer(status, said, {})
            refusal = self._refusal(text)
            later = status == 429 or self.throttled(refusal) or (status == 503 and method != "POST")
            sentence = f"{self.said(refusal) or 'no reason given'} (HTTP {status})"
            if not later:
                raise CloudError(f"{self.cloud} refused {method} {shown}: {sentence}")
            wait = _seconds(said, 2**attempt)
            if wait > PATIENCE:
                raise CloudError(f"{self.cloud} is asked too often and wants {wait} seconds of silence: {sentence}; run the same command again after that")
            if attempt + 1 < ATTEMPTS:
                time.sleep(wait)
        raise CloudError(f"{self.cloud} refused {method} {shown} {ATTEMPTS} times, each time to be asked later: {sentence}; run the same command again later")

    def poll(self, path: str, first: Mapping[str, str]) -> Iterator[Answer]:
        """Ask for the same until whoever reads has seen enough, as often as the cloud says; then give up with a sentence."""
        headers = first
        for _round in range(POLLS):
            time.sleep(min(_seconds(headers, 2), PATIENCE))
            answer = self.call("GET", path)
            headers = answer.headers
            yield answer
        raise CloudError(f"{self.cloud} has not finished after {POLLS} questions at {urllib.parse.urlsplit(path).path}; the same command goes on")

    def _url(self, path: str) -> str:
        """Addresses that an answer names are followed only to the same API, since the token goes with them."""
        if path.startswith("/"):
            return self.endpoint + path
        wanted, given = urllib.parse.urlsplit(self.endpoint), urllib.parse.urlsplit(path)
        if (wanted.scheme, wanted.netloc) != (given.scheme, given.netloc):
            raise CloudError(f"{self.endpoint} points to {given.scheme}://{given.netloc}, which was not named before; nothing was sent there")
        return path

    def _once(self, method: str, url: str, body: Any, more: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        headers = {**more, "Authorization": f"Bearer {self.token()}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - the scheme was checked
        try:
            with self.opener.open(request, timeout=150) as response:
                return response.status, {name.lower(): value for name, value in response.headers.items()}, response.read()
        except urllib.error.HTTPError as error:
            return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()
        except (OSError, http.client.HTTPException) as error:
            raise CloudError(f"{self.cloud} cannot be reached at {self.endpoint}: {getattr(error, 'reason', error)}") from error

    def _object(self, text: bytes, what: str) -> dict[str, Any]:
        try:
            found = json.loads(text) if text else {}
        except ValueError as error:
            raise CloudError(f"{self.endpoint} does not answer like the API of {self.cloud}: {what} gave no JSON") from error
        if not isinstance(found, dict):
            raise CloudError(f"{self.endpoint} does not answer like the API of {self.cloud}: {what} gave no object")
        return found

    @staticmethod
    def _refusal(text: bytes) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            return None


def _seconds(headers: Mapping[str, str], otherwise: int) -> int:
    """What C(Retry-After) asks for; C(ratelimit-reset) of DigitalOcean is a moment."""
    try:
        if "retry-after" in headers:
            return max(0, int(headers["retry-after"]))
        if headers.get("ratelimit-remaining") == "0" and "ratelimit-reset" in headers:
            return max(0, int(headers["ratelimit-reset"]) - int(time.time()))
    except ValueError:
        pass
    return otherwise
