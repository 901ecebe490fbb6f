# SPDX-License-Identifier: GPL-3.0-or-later
"""Build circleci-mirror.pyz from plugins/module_utils/mirror; the same sources give the same bytes."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path

ENGINE = Path(__file__).resolve().parent.parent / "plugins" / "module_utils" / "mirror"
NAME = "onprem_mirror_build"


def main() -> int:
    """Build the file that --output names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", required=True, type=Path)
    output: Path = parser.parse_args().output
    # The engine is a package of relative imports; give it a name of its own, so that no installed collection is taken instead.
    spec = importlib.util.spec_from_file_location(NAME, ENGINE / "__init__.py", submodule_search_locations=[str(ENGINE)])
    if spec is None or spec.loader is None:
        raise SystemExit(f"{ENGINE} is not there")
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)
    importlib.import_module(f"{NAME}.pyz").write_pyz(output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
