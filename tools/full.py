#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make test-full`: the long suites, all of them or a share, each by its own make target."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Suite:
    """One make target with its settings."""

    name: str
    what: str
    words: tuple[str, ...]


def suites(root: Path = ROOT) -> list[Suite]:
    """All long suites, in the order in which they are shared out."""
    plain = {
        "test-mirror": "the mirror engine against real registries and a faulty network",
        "test-firewall": "the firewall engine on real nftables, iptables, ufw and firewalld, with packets",
        "test-store": "object stores of each kind, real ones on loopback",
        "test-nomad": "the probe against a real Nomad, Docker, registry and store",
        "test-postgres": "dumps and the way back on a real PostgreSQL",
        "test-databases": "what real database servers tell preflight",
        "test-upgrade": "an upgrade on the sandbox, failures on the way, and both ways back",
        "test-gateway": "a gateway of the object store in the cluster, two replicas before a MinIO",
        "test-ports": "ports on the sandbox with firewalld, ufw and nftables: foreseen, opened, proved from outside, kept, taken back",
        "test-cut": "the sandbox: its hosts, and the cut",
        "test-browser": "report and change-request document in a real Chromium",
        "test-cloud": "firewall, buckets, names, private ways and the right to pull in clouds: AWS by moto, Google Cloud, Azure and DigitalOcean by strict stand-ins",
        "test-bootstrap": "bootstrap.sh on a bare, cut-off Debian, with a real bundle",
        "test-packages": "RPM packages of the bundle, installed by dnf that knows nothing else",
        "test-runner": "the role runner with a real systemd and a stand-in for the program",
    }
    scenarios = sorted(path.parent.name for path in (root / "molecule").glob("*/molecule.yml"))
    return [
        *(Suite(name, what, (name,)) for name, what in plain.items()),
        Suite("test-gateway/azure", "the same before Azurite, an emulator of Azure Blob", ("test-gateway", "GATEWAY=--kind versitygw_azure")),
        *(Suite(f"molecule/{name}", f"scenario {name} of Molecule on a sandbox of its own", ("test-molecule", f"SCENARIO={name}")) for name in scenarios),
    ]


def share(found: Sequence[Suite], shard: str) -> list[Suite]:
    """Every m-th suite, beginning with the n-th."""
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise SystemExit(f"SHARD={shard}: write n/m, the n-th of m shares, with n from 1 to m")
    return list(found[int(match[1]) - 1 :: int(match[2])])


def pick(found: Sequence[Suite], names: Sequence[str]) -> list[Suite]:
    unknown = sorted(set(names) - {suite.name for suite in found})
    if unknown:
        raise SystemExit(f"ONLY={' '.join(unknown)}: no such suite; there are {', '.join(suite.name for suite in found)}")
    return [suite for suite in found if not names or suite.name in names]


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shard", default="1/1", metavar="n/m")
    parser.add_argument("--only", nargs="*", default=[], metavar="SUITE")
    parser.add_argument("--list", action="store_true", help="name the suites of this share and run none")
    arguments = parser.parse_args(argv)
    everything = suites(root)
    chosen = share(pick(everything, arguments.only), arguments.shard)
    for suite in everything:
        sys.stdout.write(f"{'runs     ' if suite in chosen else 'left out '} {suite.name:18} {suite.what}\n")
    if arguments.list:
        return 0
    results: dict[str, tuple[bool, float]] = {}
    for suite in chosen:
        sys.stdout.write(f"\n==> {suite.name}: {suite.what}\n")
        sys.stdout.flush()
        begin = time.monotonic()
        done = subprocess.run(["make", "--no-print-directory", "-C", str(root), *suite.words], check=False)
        results[suite.name] = (done.returncode == 0, time.monotonic() - begin)
    sys.stdout.write("\n")
    for name, (passed, seconds) in results.items():
        sys.stdout.write(f"{'passed' if passed else 'FAILED'}   {name:18} {seconds:5.0f} s\n")
    left = [suite.name for suite in everything if suite not in chosen]
    if left:
        sys.stdout.write(f"left out {', '.join(left)}\n")
    return 0 if all(passed for passed, _ in results.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
