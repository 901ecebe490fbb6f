# SPDX-License-Identifier: GPL-3.0-or-later
"""`server-keysets generate signing|encryption -a stdout`: the documented form with random keys."""

from __future__ import annotations

import base64
import os
import sys

from . import base


def _key(size: int) -> str:
    return base64.urlsafe_b64encode(os.urandom(size)).rstrip(b"=").decode()


def generate(kind: str) -> str:
    if kind not in ("signing", "encryption"):
        raise base.Refusal(f"generate {kind!r}: signing or encryption")
    purpose, what = ("SIGN_AND_VERIFY", "HMAC_SHA1") if kind == "signing" else ("DECRYPT_AND_ENCRYPT", "AES")
    meta = (
        f'{{"name" "{kind}", "purpose" "{purpose}", "type" "{what}", '
        '"versions" [{"versionNumber" 1, "status" "PRIMARY", "exportable" false}], "encrypted" false}'
    )
    hmac_key = f'{{"size" 256, "hmacKeyString" "{_key(32)}"}}'
    key = hmac_key if kind == "signing" else f'{{"mode" "CBC", "size" 128, "aesKeyString" "{_key(16)}", "hmacKey" {hmac_key}}}'
    return f"{{:meta {meta}, :keys {{1 {key}}}}}"


def run(arguments: list[str]) -> int:
    if arguments[:1] != ["generate"] or len(arguments) < 2 or arguments[2:] not in ([], ["-a", "stdout"]):
        raise base.Refusal("usage: generate signing|encryption -a stdout")
    sys.stdout.write(generate(arguments[1]) + "\n")
    return 0
