# SPDX-License-Identifier: GPL-3.0-or-later
"""Licence headers, links, forbidden words, and the list of what travels in the tarball."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {".git", ".ansible", ".mypy_cache", ".ruff_cache", "__pycache__", "generated", "golden", "output", "build"}


def files(*suffixes: str) -> list[Path]:
    return sorted(
        path
        for path in ROOT.rglob("*")
        if path.is_file() and path.suffix in suffixes and not SKIPPED & set(path.relative_to(ROOT).parts)
    )


def test_every_source_file_names_its_licence() -> None:
    missing = [
        str(path.relative_to(ROOT))
        for path in files(".py", ".yml", ".sh")
        if path.name != "changelog.yaml" and "SPDX-License-Identifier" not in path.read_text(encoding="utf-8")[:700] and path.stat().st_size
    ]
    assert missing == []


LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", files(".md"), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_documentation_lead_somewhere(page: Path) -> None:
    broken = []
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in LINK.findall(text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        if not other.exists():
            broken.append(target)
        elif anchor and other.suffix == ".md":
            headings = re.findall(r"^#+\s+(.*)$", other.read_text(encoding="utf-8"), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
            if anchor not in anchors:
                broken.append(target)
    assert broken == []


def test_no_version_in_data_is_a_float() -> None:
    wrong = []

    def walk(value: object, where: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if isinstance(key, float) or (isinstance(item, float) and "version" in str(key)):
                    wrong.append(f"{where}: {key}: {item}")
                walk(item, where)
        elif isinstance(value, list):
            for item in value:
                walk(item, where)

    for path in [*ROOT.glob("plugins/plugin_utils/catalog/data/*.yml"), ROOT / "arguments.yml"]:
        walk(yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), path.name)
    assert wrong == []


def test_playbooks_are_never_run_on_localhost_and_have_their_arguments() -> None:
    for path in sorted(ROOT.glob("playbooks/*.yml")):
        if path.name.endswith(".meta.yml"):
            continue
        plays = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert path.with_suffix("").with_suffix(".meta.yml").exists(), path
        for play in plays:
            assert "localhost" not in str(play.get("hosts")), f"{path.name}: {play['name']}"
            assert play.get("gather_facts") is False, f"{path.name}: {play['name']} must gather what it needs itself"
