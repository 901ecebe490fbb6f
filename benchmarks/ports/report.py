# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTML page of 3 sites of 60 hosts: its bytes, which are gated, and how long Chromium takes to open it, which is published.

The findings come from the real port model and the real catalog, one site with trouble in it. Opening is counted until the page is loaded and drawn.

    make benchmark-ports BENCHMARK='report --runs 5'
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from ansible_collections.onprem.circleci_server.plugins.module_utils.report import build_report, render_page
from ansible_collections.onprem.circleci_server.tests.browser.chromium import Chromium, program
from ansible_collections.onprem.circleci_server.tests.browser.sample import findings

MOST_BYTES = 1_000_000


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(argv)
    if not program():
        sys.stderr.write("needs a Chromium: apt-get install chromium\n")
        return 1
    sites = [findings(name, number, trouble=number == 0) for number, name in enumerate(("osaka", "kyoto", "nara"))]
    begin = time.monotonic()
    page = render_page([build_report(site) for site in sites]).encode()
    made = time.monotonic() - begin
    seconds = []
    with tempfile.TemporaryDirectory(prefix="benchmark-report-") as folder:
        path = Path(folder) / "report.html"
        path.write_bytes(page)
        browser = Chromium()
        try:
            browser.size(1280, 900)
            for _run in range(given.runs):
                browser.open(Path("/dev/null"))
                seconds.append(browser.open(path))
        finally:
            browser.close()
    hosts, flows = (sum(len(site[key]) for site in sites) for key in ("hosts", "flows"))
    sys.stdout.write(
        f"{len(sites)} sites, {hosts} hosts, {flows} connections: {len(page)} bytes (at most {MOST_BYTES}), made in {made:.1f} s, "
        f"opened in {statistics.median(seconds):.2f} s (from {min(seconds):.2f} to {max(seconds):.2f})\n"
    )
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps({"bytes": len(page), "flows": flows, "made": made, "opened": seconds}, indent=2) + "\n", encoding="utf-8")
    if len(page) >= MOST_BYTES:
        sys.stderr.write(f"REFUSED the page has {len(page)} bytes\n")
        return 1
    return 0
