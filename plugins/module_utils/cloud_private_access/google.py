# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Private Google access of subnetworks, by the REST API compute v1. It bears no mark, so that it is switched on and never off."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from ..cloud import CloudError, endpoints
from ..cloud.google import finished, google_api, google_token

SCOPE = "https://www.googleapis.com/auth/compute"
SUBNET = re.compile(r"projects/(?P<project>[a-z0-9.:-]+)/(?P<scope>regions/[a-z0-9-]+)/subnetworks/(?P<name>[a-z0-9-]+)")
FORM = "projects/<project>/regions/<region>/subnetworks/<name>"


class PrivateGoogleAccess:
    """It lets machines without an address of their own reach the APIs of Google, Cloud Storage among them."""

    def __init__(self, subnets: Sequence[str], token: str, endpoint: str = "") -> None:
        wrong = [name for name in subnets if not SUBNET.fullmatch(name)]
        if wrong:
            raise CloudError(f"circleci_cloud_storage_private_access: found {', '.join(map(repr, wrong))}; Google needs subnetworks as {FORM}")
        allowed = endpoints("gcp", "", endpoint)
        self.rest = google_api(allowed[0], google_token(token, SCOPE, allowed))
        self.subnets = list(dict.fromkeys(subnets))
        self.closed: list[str] = []

    def read(self) -> tuple[list[str], list[str]]:
        found: dict[str, dict[str, Any]] = {name: self.rest.call("GET", f"/compute/v1/{name}").data for name in self.subnets}
        self.closed = [name for name, data in found.items() if not data.get("privateIpGoogleAccess")]
        return [self._line(name) for name in self.subnets if name not in self.closed], [self._line(name) for name in self.subnets]

    def apply(self) -> Iterator[str]:
        for name in self.closed:
            match = SUBNET.fullmatch(name)
            path = f"/compute/v1/{name}/setPrivateIpGoogleAccess"
            operation = self.rest.call("POST", f"{path}?requestId={uuid.uuid4()}", {"privateIpGoogleAccess": True}).data
            said = finished(self.rest, match["project"] if match else "", f"POST {path}", operation, match["scope"] if match else "")
            if said:
                raise CloudError(f"Google refused POST {path}: {said}")
            yield name

    @staticmethod
    def _line(name: str) -> str:
        return f"{name}: private Google access"
