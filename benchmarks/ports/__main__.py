# SPDX-License-Identifier: GPL-3.0-or-later
"""Picks one of the benchmarks of ports: rules, verify, report."""

from __future__ import annotations

import importlib
import sys

NAMES = ("rules", "verify", "report")


def main(argv: list[str]) -> int:
    if argv[:1] == [] or argv[0] not in NAMES:
        sys.stderr.write(f"Name one of {', '.join(NAMES)}, then its options.\n")
        return 2
    module = importlib.import_module(f".{argv[0]}", __package__)
    code: int = module.main(argv[1:])
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
