# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""The report as metrics for the text file collector of a Prometheus node exporter."""

from __future__ import annotations

import calendar
import time
from collections.abc import Mapping
from typing import Any

PREFIX = "onprem_circleci"


def _label(text: Any) -> str:
    return str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def _number(value: float) -> str:
    """Whole numbers in full: a size loses nothing."""
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def render_prometheus(report: Mapping[str, Any]) -> str:
    """One family after the other, with help and type."""
    site = _label(report["site"])
    lines: list[str] = []

    def family(name: str, text: str, samples: list[tuple[dict[str, Any], float]]) -> None:
        lines.append(f"# HELP {PREFIX}_{name} {text}")
        lines.append(f"# TYPE {PREFIX}_{name} gauge")
        for labels, value in samples:
            inner = ",".join([f'site="{site}"', *(f'{key}="{_label(item)}"' for key, item in labels.items())])
            lines.append(f"{PREFIX}_{name}{{{inner}}} {_number(value)}")

    try:
        stamp = calendar.timegm(time.strptime(str(report["generated"]), "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        stamp = 0
    lines.append(f"# HELP {PREFIX}_report_timestamp_seconds When the report was made.")
    lines.append(f"# TYPE {PREFIX}_report_timestamp_seconds gauge")
    lines.append(f'{PREFIX}_report_timestamp_seconds{{site="{site}"}} {stamp}')
    family("up", "1 when nothing needs attention now.", [({"release": report.get("release", "")}, report["summary"]["state"] != "failed")])
    family("service_healthy", "1 when all workloads of the service are ready.",
           [({"service": item["name"]}, item.get("state") == "healthy") for item in report["services"]
            if item.get("state") not in ("not installed", "unknown")])  # fmt: skip
    family("service_restarts", "Restarts of the pods of a service.",
           [({"service": item["name"]}, sum(int(work.get("restarts") or 0) for work in item.get("workloads") or []))
            for item in report["services"] if item.get("workloads")])  # fmt: skip
    family("connections", "Connections by verdict.", [({"verdict": name}, count) for name, count in report["summary"]["flows"].items()])
    family("evidence", "1 for the state of each level of proof.",
           [({"level": item["level"], "state": item["state"]}, 1) for item in report["evidence"]])  # fmt: skip
    family("warnings", "Warnings by urgency.", [({"urgency": name}, count) for name, count in report["summary"]["warnings"].items()])
    family("certificate_days_left", "Days until a certificate ends.",
           [({"name": item["name"]}, item["days_left"]) for item in report["certificates"] if item.get("days_left") is not None])  # fmt: skip
    family("storage_used_bytes", "Bytes in use of a disk or volume.",
           [({"name": item["name"]}, item["used_bytes"]) for item in report["storage"] if item.get("used_bytes") is not None])  # fmt: skip
    family("storage_capacity_bytes", "Size of a disk or volume.",
           [({"name": item["name"]}, item["capacity_bytes"]) for item in report["storage"] if item.get("capacity_bytes") is not None])  # fmt: skip
    family("queue_waiting", "What waits in a queue.", [({"queue": item["name"]}, item["waiting"]) for item in report.get("queues") or []])
    licence = report.get("licence") or {}
    if licence.get("days_left") is not None:
        family("licence_days_left", "Days until the licence ends.", [({}, licence["days_left"])])
    family("waivers", "Requirements that the site knowingly does not meet.", [({}, len(report["waivers"]))])
    return "\n".join(lines) + "\n"
