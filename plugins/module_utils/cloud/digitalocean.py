# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""DigitalOcean by its REST API: community.digitalocean is no longer kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from .addresses import endpoints
from .errors import CloudError
from .rest import Rest


class DigitalOceanApi(Rest):
    """The API with the token of the site."""

    def __init__(self, token: str, endpoint: str = "") -> None:
        secret = token or os.environ.get("DIGITALOCEAN_TOKEN", "")
        if not secret:
            raise CloudError("DigitalOcean: no token; set circleci_cloud_token, or DIGITALOCEAN_TOKEN in the environment of the run")
        super().__init__("DigitalOcean", endpoints("digitalocean", "", endpoint)[0], lambda: secret, _said)

    def all(self, path: str, kind: str) -> Iterator[dict[str, Any]]:
        """Every thing of a kind, page by page."""
        page = 1
        while True:
            found = self.call("GET", f"{path}?page={page}&per_page=100").data
            yield from found.get(kind) or []
            if not ((found.get("links") or {}).get("pages") or {}).get("next"):
                return
            page += 1


def _said(body: Any) -> str:
    """The API has two forms of refusal: C(message), and for tags C(error) with its causes."""
    if not isinstance(body, dict):
        return ""
    return str(body.get("message") or "; ".join([str(body.get("error") or ""), *map(str, body.get("root_causes") or [])]).strip("; "))
