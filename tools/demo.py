# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: install CircleCI Server into the cut-off site of the sandbox, and show what came out."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sandbox import layout, verbs  # noqa: E402 - the path is set above

STEPS = (
    ("bundle", "fetching images, chart, agents and packages on the connected side", "about a minute"),
    ("carry", "carrying the bundle across the gap", "seconds"),
    ("secrets", "making the secrets of the site", "about 10 s"),
    ("install", "installing CircleCI Server and proving that a job runs", "about 4 minutes the first time, half a minute after that"),
)
REPORT = ROOT / "build" / "demo" / "report.html"


def _sandbox(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "sandbox", *arguments], cwd=ROOT, check=False)
    if done.returncode != 0:
        raise SystemExit(done.returncode)


def _run(step: str) -> int:
    if step == "carry":
        _sandbox("carry", "/srv/bundle", "/srv/bundle")
        return 0
    return verbs.show(step, extra={"circleci_gates_passed": verbs.ANSWERED_GATES})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tarball", required=True, help="the built collection")
    arguments = parser.parse_args()
    begin = time.monotonic()
    _sandbox("up")
    _sandbox("install-collection", arguments.tarball)
    for host in ("workstation", "bastion"):
        verbs.prepare(host)
    for number, (step, what, usual) in enumerate(STEPS, 1):
        started = time.monotonic()
        sys.stdout.write(f"\n==> step {number} of {len(STEPS)}: {what} (usually {usual})\n")
        sys.stdout.flush()
        code = _run(step)
        if code != 0:
            sys.stdout.write(f"\n{step} ended with {code}; the message above says what to do. The same command goes on: make demo\n")
            return code
        sys.stdout.write(f"==> {step} took {time.monotonic() - started:.0f} s\n")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_bytes(verbs.read("bastion", "/var/lib/onprem-circleci/reports/report.html"))
    sys.stdout.write(
        f"""
Done after {time.monotonic() - begin:.0f} s. This is a whole site, cut off from the internet; CircleCI's own programs are labelled stand-ins.

Look:
  {REPORT.as_uri()}
  https://{layout.LOAD_BALANCER_POOL[0]}/   the stand-in web page, with a certificate of the site's own authority ({layout.CI_DOMAIN} on the site)

Next:
  python3 -m sandbox exec bastion -- bash       the site's control host; the inventory is in {verbs.INVENTORY}
  python3 -m sandbox tripwire                   what the site tried to send outside: nothing
  make demo                                     the same again: nothing changes
  make test                                     every gate, and the chain on a fresh sandbox
  make sandbox-down                             take it away
"""
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
