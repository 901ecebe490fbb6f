# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Real connections from one host, many at once, and what listens on it."""

from __future__ import annotations

from .certificates import CertificateError, days_left, not_after
from .contrast import with_contrast
from .flows import Flow, FlowError, parse_flows
from .listeners import Listener, listeners, unexplained
from .probe import Outcome, probe

__all__ = [
    "CertificateError",
    "Flow",
    "FlowError",
    "Listener",
    "Outcome",
    "days_left",
    "listeners",
    "not_after",
    "parse_flows",
    "probe",
    "unexplained",
    "with_contrast",
]
