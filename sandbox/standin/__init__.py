# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in vendor: charts, images and agents of CircleCI Server, in the vendor's names and without the vendor's software."""

from __future__ import annotations

from .build import build

__all__ = ["build"]
