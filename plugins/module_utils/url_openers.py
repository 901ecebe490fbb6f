# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""How URLs are opened: all trust a further authority beside the system's; those with a token follow no redirect, which would carry it to wherever it points."""

from __future__ import annotations

import ssl
import urllib.request
from typing import Any


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any) -> None:
        return None


def _https(ca_certificate: str) -> urllib.request.HTTPSHandler:
    context = ssl.create_default_context()
    if ca_certificate:
        try:
            context.load_verify_locations(cadata=ca_certificate)
        except (OSError, ValueError) as error:
            raise ValueError("the authority for the certificate of the server is not given as PEM text") from error
    return urllib.request.HTTPSHandler(context=context)


def download_opener(ca_certificate: str = "") -> urllib.request.OpenerDirector:
    """An opener for public files, with the proxy that the environment names; ValueError when *ca_certificate* is no PEM text."""
    return urllib.request.build_opener(_https(ca_certificate))


def token_opener(ca_certificate: str = "", *, proxy: bool = True) -> urllib.request.OpenerDirector:
    """An opener for requests with a token; ValueError when *ca_certificate* is no PEM text. Without *proxy* it asks directly."""
    direct = [] if proxy else [urllib.request.ProxyHandler({})]
    return urllib.request.build_opener(_NoRedirect(), _https(ca_certificate), *direct)
