# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""What a site looks like: JSON for machines, one page for people, a screen for the terminal."""

from __future__ import annotations

from .files import render_json, write_page
from .model import FORMAT, ReportError, build_report, read_report, same_content
from .page import render_page
from .plan_document import PlanError, render_plan
from .prometheus import render_prometheus
from .terminal import render_summary

__all__ = [
    "FORMAT",
    "PlanError",
    "ReportError",
    "build_report",
    "read_report",
    "render_json",
    "render_page",
    "render_plan",
    "render_prometheus",
    "render_summary",
    "same_content",
    "write_page",
]
