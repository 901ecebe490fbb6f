# SPDX-License-Identifier: GPL-3.0-or-later
"""python3 -m sandbox.standin build OUTPUT [RELEASE ...] | chart RELEASE FOLDER | small RELEASE | list"""

from __future__ import annotations

import sys
from pathlib import Path

from ..common import SandboxError, cache_dir
from . import build, chart, images


def main(arguments: list[str]) -> int:
    order, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if order == "build" and rest:
        build(Path(rest[0]), cache_dir(), rest[1:] or chart.known_releases())
    elif order == "chart" and len(rest) == 2:
        sys.stdout.write(f"{chart.unpack(rest[0], Path(rest[1]))}\n")
    elif order == "small" and len(rest) == 1:
        sys.stdout.write(chart.small_values_file(rest[0]))
    elif order == "list":
        for ref in images.wanted(rest or chart.known_releases()):
            sys.stdout.write(f"{ref} {images.certainty(ref)} {images.kind_of(ref)}\n")
    else:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except SandboxError as exc:
        sys.stderr.write(f"{exc}\n")
        raise SystemExit(1) from exc
