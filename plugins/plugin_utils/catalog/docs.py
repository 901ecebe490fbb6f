# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations
from .loader import Catalog
def pages(catalog: Catalog) -> dict[str, str]:
    return {}
