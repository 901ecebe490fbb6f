# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bcrypt, the one form of password that the distribution registry accepts, by the C library of the host."""

from __future__ import annotations

import base64
import ctypes
import ctypes.util
import hmac
import os
from collections.abc import Mapping

COST = 5
"""As htpasswd -B has it. The registry checks the hash anew for each request, so that a higher cost is paid a thousand times a load."""
_STANDARD = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BCRYPT = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
LONGEST = 72


class PasswordError(Exception):
    """One sentence for the operator; never holds the password."""


def _crypt(password: str, setting: str) -> str:
    # The module crypt left Python with 3.13; the library behind it stays.
    for name in (ctypes.util.find_library("crypt"), "libcrypt.so.1", "libcrypt.so.2"):
        if name is None:
            continue
        try:
            function = ctypes.CDLL(name).crypt
        except (OSError, AttributeError):
            continue
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        result = function(password.encode(), setting.encode())
        if result and not result.startswith(b"*"):
            return str(result.decode("ascii"))
    raise PasswordError("libcrypt of this host cannot make bcrypt hashes, which the registry needs; install libxcrypt (package libcrypt1 or libxcrypt)")


def hash_password(password: str) -> str:
    """A new bcrypt hash."""
    raw = password.encode()
    if not raw or len(raw) > LONGEST or b"\0" in raw:
        raise PasswordError(f"circleci_registry_password has {len(raw)} bytes; allowed are 1 to {LONGEST}, which is all that bcrypt reads")
    salt = base64.b64encode(os.urandom(16)).rstrip(b"=").translate(bytes.maketrans(_STANDARD, _BCRYPT)).decode()
    # The last character of the salt carries two bits only; libcrypt refuses others.
    salt = salt[:21] + _BCRYPT.decode()[_BCRYPT.index(salt[21].encode()) & 0x30]
    return _crypt(password, f"$2b${COST:02d}${salt}")


def check_password(password: str, hashed: str) -> bool:
    """Whether a hash belongs to a password."""
    if not hashed.startswith(("$2a$", "$2b$", "$2y$")):
        return False
    try:
        return hmac.compare_digest(_crypt(password, hashed), hashed)
    except PasswordError:
        return False


def merged_htpasswd(current: str, users: Mapping[str, str]) -> str:
    """The file with exactly these users. A hash that still fits is kept, so that nothing changes when nothing has."""
    there = dict(line.split(":", 1) for line in current.splitlines() if ":" in line)
    lines = []
    for name in sorted(users):
        if not name or ":" in name or any(ord(letter) < 33 for letter in name):
            raise PasswordError(f"circleci_registry_username is {name!r}; allowed are printable characters without a colon or spaces")
        known = there.get(name, "")
        lines.append(f"{name}:{known if known and check_password(users[name], known) else hash_password(users[name])}\n")
    return "".join(lines)
