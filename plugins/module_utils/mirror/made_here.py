# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles that this user made on this machine, and therefore trusts."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .oci import digest_of


def _folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base) / "onprem-circleci-mirror" / "made"


def note_made_here(raw: bytes) -> None:
    """Remember that this user made this bundle on this machine."""
    with contextlib.suppress(OSError):
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / digest_of(raw)[7:]).touch(mode=0o600)


def was_made_here(raw: bytes) -> bool:
    """Whether this user made this bundle on this machine."""
    return (_folder() / digest_of(raw)[7:]).is_file()


__all__ = ["note_made_here", "was_made_here"]
