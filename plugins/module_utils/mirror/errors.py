# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong, each with a sentence for people and an exit code for scripts."""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_TRUST = 3
EXIT_REGISTRY = 4
EXIT_SPACE = 5
EXIT_BASE = 6
EXIT_AGAIN = 75


class MirrorError(Exception):
    """Base of all errors of the engine."""

    exit_code = EXIT_FAILED


class UsageError(MirrorError):
    """An option or an input file is wrong."""

    exit_code = EXIT_USAGE


class TrustError(MirrorError):
    """A signature is absent or wrong."""

    exit_code = EXIT_TRUST


class BundleError(MirrorError):
    """A bundle is not whole, not ours, or says something impossible."""

    exit_code = EXIT_TRUST


class SpaceError(MirrorError):
    """The disk is too small."""

    exit_code = EXIT_SPACE


class BaseMissing(MirrorError):
    """The far side lacks content that a delta builds on."""

    exit_code = EXIT_BASE


class Again(MirrorError):
    """Stopped half-way with everything kept; the same command goes on."""

    exit_code = EXIT_AGAIN


class Stopped(Again):
    """Stopped by a signal."""


class RegistryError(MirrorError):
    """A registry said no."""

    exit_code = EXIT_REGISTRY

    def __init__(self, message: str, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class DigestMismatch(RegistryError):
    """The content that came is not the content that was asked for."""


class NetworkError(Again):
    """The connection broke, stalled or was refused, more often than patience lasts."""


class Broken(Exception):
    """One connection broke (reset, stall, short body); the caller decides whether to go on. Never leaves the engine."""
