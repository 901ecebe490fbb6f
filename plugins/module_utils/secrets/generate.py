# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""New secrets, made offline with the operating system's random numbers."""

from __future__ import annotations

import base64
import json
import secrets
import string

ALPHANUMERIC = string.ascii_letters + string.digits
TINK_TYPE = "type.googleapis.com/google.crypto.tink.XChaCha20Poly1305Key"


def alphanumeric(length: int) -> str:
    """Letters and digits only: many of these end up in connection URIs."""
    return "".join(secrets.choice(ALPHANUMERIC) for _index in range(length))


def _web_safe(size: int) -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(size)).rstrip(b"=").decode()


def _meta(name: str, purpose: str, kind: str) -> str:
    return (
        f'{{"name" "{name}", "purpose" "{purpose}", "type" "{kind}", '
        '"versions" [{"versionNumber" 1, "status" "PRIMARY", "exportable" false}], "encrypted" false}'
    )


def signing_keyset() -> str:
    """The EDN form that the vendor's server-keysets tool prints. Our own; not tried against a running server."""
    key = f'{{"size" 256, "hmacKeyString" "{_web_safe(32)}"}}'
    return f'{{:meta {_meta("signing", "SIGN_AND_VERIFY", "HMAC_SHA1")}, :keys {{1 {key}}}}}'


def encryption_keyset() -> str:
    """As signing_keyset, for encryption."""
    hmac = f'{{"size" 256, "hmacKeyString" "{_web_safe(32)}"}}'
    key = f'{{"mode" "CBC", "size" 128, "aesKeyString" "{_web_safe(16)}", "hmacKey" {hmac}}}'
    return f'{{:meta {_meta("encryption", "DECRYPT_AND_ENCRYPT", "AES")}, :keys {{1 {key}}}}}'


def tink_keyset() -> str:
    """A Tink keyset with one XChaCha20-Poly1305 key, in Tink's JSON form."""
    key_id = secrets.randbelow(2**32 - 1) + 1
    value = base64.b64encode(b"\x1a\x20" + secrets.token_bytes(32)).decode()
    key = {
        "keyData": {"typeUrl": TINK_TYPE, "value": value, "keyMaterialType": "SYMMETRIC"},
        "status": "ENABLED",
        "keyId": key_id,
        "outputPrefixType": "TINK",
    }
    return json.dumps({"primaryKeyId": key_id, "key": [key]})


def docker_config(host: str, username: str, password: str) -> str:
    """The contents of a pull Secret."""
    auth = base64.b64encode(f"{username}:{password}".encode()).decode()
    entry = {"username": username, "password": password, "auth": auth}
    return json.dumps({"auths": {host: entry}}, sort_keys=True, separators=(",", ":"))
