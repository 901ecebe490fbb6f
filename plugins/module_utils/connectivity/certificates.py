# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""When a certificate ends: the little of X.509 that the standard library does not tell about one that it does not trust."""

from __future__ import annotations

import base64
import binascii
import datetime
import re
from typing import Optional


class CertificateError(ValueError):
    """The bytes are no certificate."""


def _item(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start of the content and its end, of the element at a position."""
    try:
        tag, length = data[at], data[at + 1]
        start = at + 2
        if length & 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4:
                raise CertificateError("a length that no certificate has")
            length = int.from_bytes(data[start : start + count], "big")
            start += count
    except IndexError as error:
        raise CertificateError("the certificate ends early") from error
    if start + length > len(data):
        raise CertificateError("the certificate ends early")
    return tag, start, start + length


def _time(tag: int, text: bytes) -> datetime.datetime:
    try:
        digits = text.decode("ascii").rstrip("Z")
        if tag == 0x17:
            digits = ("20" if int(digits[:2]) < 50 else "19") + digits
        return datetime.datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=datetime.timezone.utc)
    except ValueError as error:
        raise CertificateError(f"{text!r} is no time") from error


def not_after(der: bytes) -> datetime.datetime:
    """End of validity of a certificate in DER form."""
    _tag, at, _end = _item(der, 0)
    tag, at, _end = _item(der, at)
    if tag != 0x30:
        raise CertificateError("no certificate")
    tag, _start, end = _item(der, at)
    # version is optional; then serial number, signature algorithm, issuer, validity
    for _skip in range(4 if tag == 0xA0 else 3):
        at = _item(der, at)[2]
    tag, start, _end = _item(der, at)
    if tag != 0x30:
        raise CertificateError("no validity")
    first = _item(der, start)
    tag, begin, end = _item(der, first[2])
    if tag not in (0x17, 0x18):
        raise CertificateError("no end of validity")
    return _time(tag, der[begin:end])


def pem_blocks(text: str) -> list[bytes]:
    """All certificates of a PEM text in DER form."""
    result = []
    for body in re.findall(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", text, re.DOTALL):
        try:
            result.append(base64.b64decode("".join(body.split()), validate=True))
        except (binascii.Error, ValueError) as error:
            raise CertificateError("a PEM block is not base64") from error
    return result


def days_left(end: datetime.datetime, now: Optional[datetime.datetime] = None) -> int:
    """Whole days until then, negative when it is over."""
    moment = now or datetime.datetime.now(datetime.timezone.utc)
    return (end - moment).days
