# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages of an operating system with all they depend on, resolved on the connected host for hosts that have no repository."""

from __future__ import annotations

from .apt import Package, index_text, resolve
from .rpm_repository import RpmSet, local_path, resolve_rpm
from .target import PackageError, Target

__all__ = ["Package", "PackageError", "RpmSet", "Target", "index_text", "local_path", "resolve", "resolve_rpm"]
