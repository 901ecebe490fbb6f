# SPDX-License-Identifier: GPL-3.0-or-later
"""python3 -m sandbox.standin build OUTPUT [RELEASE ...] | chart RELEASE FOLDER | small RELEASE | list"""

from __future__ import annotations

import sys
from pathlib import Path

from ..common import SandboxError, cache_dir
from . import build, chart, images


def main(arguments: list[str]) -> int:
    match arguments:
        case ["build", output, *releases]:
            build(Path(output), cache_dir(), releases or chart.known_releases())
        case ["chart", release, folder]:
            sys.stdout.write(f"{chart.unpack(release, Path(folder))}\n")
        case ["small", release]:
            sys.stdout.write(chart.small_values_file(release))
        case ["list", *releases]:
            for ref in images.wanted(releases or chart.known_releases()):
                sys.stdout.write(f"{ref} {images.certainty(ref)} {images.kind_of(ref)}\n")
        case _:
            sys.stderr.write(f"{__doc__}\n")
            return 2
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except SandboxError as exc:
        sys.stderr.write(f"{exc}\n")
        raise SystemExit(1) from exc
