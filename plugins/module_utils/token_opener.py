# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""How requests with a token are opened: they follow no redirect, which would carry the token to wherever it points."""

from __future__ import annotations

import ssl
import urllib.request
from typing import Any


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any) -> None:
        return None


def token_opener(ca_certificate: str = "", *, proxy: bool = True) -> urllib.request.OpenerDirector:
    """An opener that trusts *ca_certificate* (PEM) beside the system's authorities; ValueError when that is no PEM text. Without *proxy* it asks directly."""
    context = ssl.create_default_context()
    if ca_certificate:
        try:
            context.load_verify_locations(cadata=ca_certificate)
        except (OSError, ValueError) as error:
            raise ValueError("the authority for the certificate of the server is not given as PEM text") from error
    direct = [] if proxy else [urllib.request.ProxyHandler({})]
    return urllib.request.build_opener(_NoRedirect(), urllib.request.HTTPSHandler(context=context), *direct)
