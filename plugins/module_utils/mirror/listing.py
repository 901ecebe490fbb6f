# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle holds, name by name, for people who must agree to it."""

from __future__ import annotations

from typing import Any, Optional

from .bundle import Bundle, BundleRef
from .errors import Again, MirrorError


def listing(bundle: Bundle) -> list[dict[str, Any]]:
    """Each name with the bytes that it adds to those before it, so that the sizes make up the whole. None is a size that a missing part hides."""
    counted: set[str] = set()
    return [
        {
            "kind": ref.kind,
            "target": ref.target,
            "source": ref.name.partition("/")[0] if ref.kind in ("image", "chart") else "",
            "bytes": _added(bundle, ref.digest, counted),
            "why": _why(ref),
        }
        for ref in bundle.refs
    ]


def _why(ref: BundleRef) -> str:
    first = ref.why[0] if ref.why else {}
    return ": ".join(str(first[key]) for key in ("file", "rule") if first.get(key))


def _added(bundle: Bundle, digest: str, counted: set[str]) -> Optional[int]:
    if digest in counted or not bundle.has(digest):
        return 0
    counted.add(digest)
    try:
        manifest = bundle.read_manifest(digest)
    except (Again, MirrorError):
        return None
    total = bundle.sizes[digest]
    for descriptor in manifest.blobs():
        if descriptor.digest not in counted:
            counted.add(descriptor.digest)
            # A delta names blobs that an earlier bundle brought.
            total += bundle.sizes.get(descriptor.digest, 0)
    for child in manifest.children():
        more = _added(bundle, child.digest, counted)
        if more is None:
            return None
        total += more
    return total
