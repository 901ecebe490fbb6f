# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The catalog against a real chart: every difference, and an overlay that makes the catalog say what the chart says."""

from __future__ import annotations

from .compare import Comparison, Difference, compare_chart
from .request import REGISTRY, sample_request
from .text import markdown, proved

__all__ = ["REGISTRY", "Comparison", "Difference", "compare_chart", "markdown", "proved", "sample_request"]
