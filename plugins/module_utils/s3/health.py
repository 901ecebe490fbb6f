# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a store answers from what lies behind it, and not only on its port."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Optional

from .client import S3Client, S3Error


def look(client: S3Client, bucket: str) -> bool:
    """Whether the bucket is there. Either answer needs the disk or the store behind; an error is raised."""
    return client.bucket_exists(bucket)


def wait_until_healthy(
    client: S3Client,
    bucket: str,
    seconds: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """:func:`look` until it answers. Only what time can heal is waited for: no connection yet, or an error of the server itself."""
    end = clock() + seconds
    last: Optional[S3Error] = None
    while last is None or clock() < end:
        try:
            return look(client, bucket)
        except S3Error as error:
            client.close()
            if 0 < error.status < 500:
                raise
            last = error
        sleep(0.5)
    raise last
