# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether agents can be loaded as jobs load them: from their address, without a login, whole, and with the sums that lie beside them."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ..s3.objects import checksum_problems
from ..url_openers import token_opener

_PIECE = 1 << 20
_TEXT = 1 << 16
_GZIP = b"\x1f\x8b"


class NotLoaded(Exception):
    """Why an object was not loaded."""


Load = Callable[[str], Any]


def look_at_agents(url: str, trees: Sequence[Mapping[str, Any]], ca_certificate: str = "") -> list[str]:
    """What is wrong, one sentence for each object. *trees* are those of the filter C(agent_trees)."""
    if not url:
        return []
    try:
        opener = token_opener(ca_certificate, proxy=False)
    except ValueError as error:
        return [f"{url} was not asked: {error}"]

    def load(key: str) -> Any:
        try:
            return opener.open(urllib.request.Request(f"{url}/{key}"), timeout=15)  # noqa: S310 - the gate lets http and https through only
        except urllib.error.HTTPError as error:
            raise NotLoaded(f"{key}: the store answers {error.code}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise NotLoaded(f"{key}: {getattr(error, 'reason', error)}") from error

    found: list[str] = []
    for tree in trees:
        found += _tree(load, tree)
    return found


def _text(load: Load, key: str) -> str:
    try:
        with load(key) as answer:
            content = bytes(answer.read(_TEXT))
    except (OSError, http.client.HTTPException) as error:
        raise NotLoaded(f"{key}: {error}") from error
    if content.startswith(_GZIP):
        raise NotLoaded(f"{key}: still gzip-encoded")
    return content.decode("utf-8", errors="replace")


def _digest(load: Load, key: str) -> str:
    total = hashlib.sha256()
    try:
        with load(key) as answer:
            first = True
            while piece := answer.read(_PIECE):
                if first and piece.startswith(_GZIP):
                    raise NotLoaded(f"{key}: still gzip-encoded")
                first = False
                total.update(piece)
    except (OSError, http.client.HTTPException) as error:
        raise NotLoaded(f"{key}: {error}") from error
    return total.hexdigest()


def _tree(load: Load, tree: Mapping[str, Any]) -> list[str]:
    """One kind of agent: the file that names its version, and what lies below that version."""
    version = ""
    if tree["release"]:
        try:
            version = _text(load, str(tree["release"])).strip()
        except NotLoaded as error:
            return [] if tree["optional"] else [str(error)]
        if not version or len(version.split()) != 1:
            return [f"{tree['release']}: {version[:40]!r} is no version"]
    found: list[str] = []
    sums: dict[str, str] = {}
    digests: dict[str, str] = {}
    for pattern in tree["objects"]:
        key = str(pattern).format(version=version)
        try:
            if key.endswith(".txt"):
                sums[key] = _text(load, key)
            else:
                digests[key] = _digest(load, key)
        except NotLoaded as error:
            found.append(str(error))
    return found + checksum_problems({key: text for key, text in sums.items() if key.endswith("/checksums.txt")}, digests)
