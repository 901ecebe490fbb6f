# SPDX-License-Identifier: GPL-3.0-or-later
"""The zipapp holds the whole engine, the same bytes each time, and reads no more of itself than a command needs."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import ansible_collections.onprem.circleci_server.plugins.module_utils.mirror as package
import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.mirror.pyz import MODULES, build_pyz, write_pyz

FOLDER = Path(str(package.__file__)).parent


def test_all_modules_are_in_it_and_named_for_ansiballz() -> None:
    there = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
    assert list(MODULES) == there
    # AnsiballZ packs what it reads as an import.
    imports = [node for node in ast.walk(ast.parse((FOLDER / "pyz.py").read_text())) if isinstance(node, ast.ImportFrom) and node.level == 1 and not node.module]
    assert [name.name for node in imports for name in node.names] == there
    names = zipfile.ZipFile(io.BytesIO(build_pyz())).namelist()
    assert sorted(names) == sorted(["__main__.py", "circleci_mirror/__init__.py", *(f"circleci_mirror/{name}.py" for name in there)])
    first = build_pyz()
    # A fetch wants it twice, and makes it once.
    assert build_pyz() is first
    build_pyz.cache_clear()
    assert build_pyz() is not first and build_pyz() == first


@pytest.mark.parametrize(
    ("arguments", "without"),
    [
        (["fetch", "--refs", "empty", "--output", "bundle"], {"delta", "load", "sign", "verify", "view", "seed", "prune"}),
        (["load", "nothing", "--registry", "127.0.0.1:1"], {"fetch", "verify", "view", "seed", "prune"}),
        (["list", "nothing"], {"fetch", "load", "sign", "verify", "view", "seed", "prune"}),
    ],
)
def test_a_command_reads_only_what_it_needs(arguments: list[str], without: set[str], tmp_path: Path) -> None:
    write_pyz(tmp_path / "m.pyz")
    (tmp_path / "empty").write_text("")
    watch = (
        f"import sys; sys.path.insert(0, 'm.pyz')\nfrom circleci_mirror import cli\nassert cli.run({arguments!r}) == 2\n"
        "print(' '.join(name.rpartition('.')[2] for name in sys.modules if name.startswith('circleci_mirror.')))"
    )
    done = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert not without & set(done.stdout.splitlines()[-1].split())


def test_each_module_is_compiled_once(tmp_path: Path) -> None:
    write_pyz(tmp_path / "m.pyz")
    (tmp_path / "empty").write_text("")
    watch = (
        "import builtins, runpy, sys\n"
        "compiled, real = [], builtins.compile\n"
        "def counting(source, filename, *rest, **named):\n"
        "    compiled.append(filename)\n"
        "    return real(source, filename, *rest, **named)\n"
        "builtins.compile = counting\n"
        "sys.argv = ['m.pyz', 'fetch', '--refs', 'empty', '--output', 'bundle']\n"
        "try:\n"
        "    runpy.run_path('m.pyz', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 2\n"
        "print('\\n'.join(compiled))\n"
    )
    done = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True, check=True, cwd=tmp_path)
    ours = [name for name in done.stdout.splitlines() if "circleci_mirror" in name]
    assert any(name.endswith("fetch.py") for name in ours)
    assert len(ours) == len(set(ours))
