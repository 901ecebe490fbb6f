# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that compare the catalog with a real chart, and say whether that was done."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ..plugin_utils.catalog import Catalog, CatalogError
from ..plugin_utils.chart_check import compare_chart, markdown, proved, sample_request
from ..plugin_utils.site_catalog import PLAIN, with_catalog


def chart_request(release: str, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """See chart_request.yml."""
    try:
        # The plain catalog: what was seen in an earlier chart has no say here.
        return sample_request(Catalog.load(), release, values)
    except CatalogError as error:
        raise AnsibleFilterError(f"chart_request: {error}") from error


def chart_comparison(
    chart: Mapping[str, Any], release: str, values: Mapping[str, Any] | None = None, proof: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """See chart_comparison.yml."""
    try:
        comparison = compare_chart(Catalog.load(), release, chart, values)
    except CatalogError as error:
        raise AnsibleFilterError(f"chart_comparison: {error}") from error
    left = proved(comparison.left, *((proof["outside"], proof["problems"]) if proof else ((), ())))
    report = {
        "release": release,
        "chart": comparison.chart,
        "counts": comparison.counts(),
        "left": left,
        "differences": [dataclasses.asdict(row) for row in comparison.differences],
    }
    return {
        **report,
        "values": comparison.values,
        "overlay": json.dumps(comparison.overlay, indent=1, sort_keys=True) + "\n",
        "report": json.dumps(report, indent=1, sort_keys=True) + "\n",
        "markdown": markdown(comparison, left),
    }


def catalog_comparison(release: str, *, catalog: Catalog = PLAIN) -> dict[str, Any]:
    """See catalog_comparison.yml."""
    found: dict[str, Any] = catalog.comparison(release)
    return found


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"chart_request": chart_request, "chart_comparison": chart_comparison, "catalog_comparison": with_catalog(catalog_comparison)}
