# SPDX-License-Identifier: GPL-3.0-or-later
"""Licence headers, links, and what roles and playbooks may say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {".git", ".ansible", ".mypy_cache", ".ruff_cache", "__pycache__", "generated", "golden", "output", "build"}
# Forms that have no comments, prose, and what tools write.
WITHOUT_HEADER = {".md", ".json", ".svg", ".png", ".txt", ".in", ".lock", ".pyc"}
WITHOUT_HEADER_BY_NAME = {".gitignore", "LICENSE", "changelog.yaml"}


def files(*suffixes: str, under: str = "") -> list[Path]:
    """Files of the tree, all of them without *suffixes*."""
    return sorted(
        path
        for path in (ROOT / under).rglob("*")
        if path.is_file() and (not suffixes or path.suffix in suffixes) and not SKIPPED & set(path.relative_to(ROOT).parts)
    )


def test_every_source_file_names_its_licence() -> None:
    missing = [
        str(path.relative_to(ROOT))
        for path in files()
        if path.suffix not in WITHOUT_HEADER
        and path.name not in WITHOUT_HEADER_BY_NAME
        and path.stat().st_size
        and "SPDX-License-Identifier: GPL-3.0-or-later" not in path.read_text(encoding="utf-8")[:700]
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


def test_pages_that_are_named_without_a_link_are_there() -> None:
    missing = {
        f"{path.relative_to(ROOT)}: {page}"
        for path in files(".md", ".py", ".yml", ".yaml", ".j2", ".sh")
        for page in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text(encoding="utf-8"))
        if not (ROOT / page).is_file()
    }
    assert missing == set()


# What the lint rules of the house refuse in tasks, wherever it stands: in defaults, variables, templates and plays.
OTHER_HOSTS = re.compile(
    r"\b(groups|hostvars)\s*(\[|\.get\()"
    r"|^\s*-?\s*hosts:\s*['\"]?(localhost|127\.0\.0\.1)\b"
    r"|^\s*-?\s*delegate_to:\s*['\"]?(localhost|127\.0\.0\.1)\b"
    r"|^\s*-?\s*(run_once|local_action|connection)\s*:",
    re.MULTILINE,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x: \"{{ groups['a'] }}\"", True),
        ("x: \"{{ hostvars[host].y }}\"", True),
        ("x: \"{{ groups.get('a') }}\"", True),
        ("- hosts: localhost", True),
        ("  delegate_to: 'localhost'", True),
        ("  run_once: true", True),
        ("  connection: local", True),
        ("  local_action: ping", True),
        ("x: \"{{ 'a' | onprem.circleci_server.site_hosts(groups, hostvars, inventory_hostname) }}\"", False),
        ("- hosts: circleci_sites", False),
        ('  delegate_to: "{{ item }}"', False),
        ("# connections: run_once", False),
    ],
)
def test_the_pattern_finds_what_reads_other_hosts(text: str, found: bool) -> None:
    assert bool(OTHER_HOSTS.search(text)) is found


def test_roles_and_playbooks_stay_on_the_hosts_of_their_site() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {match.group(0).strip()}"
        for folder in ("roles", "playbooks")
        for path in files(".yml", ".j2", under=folder)
        for match in OTHER_HOSTS.finditer(path.read_text(encoding="utf-8"))
    ]
    assert wrong == []


def versions_of_the_vendor(value: object) -> set[str]:
    """All full versions in a part of the catalog: of the product, its images, Nomad, databases."""
    if isinstance(value, dict):
        return {version for item in value.values() for version in versions_of_the_vendor(item)}
    if isinstance(value, list):
        return {version for item in value for version in versions_of_the_vendor(item)}
    return {value} if isinstance(value, str) and re.fullmatch(r"v?\d+\.\d+\.\d+([.-][\w.-]+)?", value) else set()


def test_no_version_of_the_vendor_stands_in_a_role() -> None:
    catalog = [json.loads(path.read_text(encoding="utf-8")) for path in ROOT.glob("plugins/plugin_utils/catalog/generated/4.*.json")]
    known = versions_of_the_vendor(catalog)
    assert len(known) > 100
    release = re.compile(r"(?<![\w.])4\.(?:10|\d)(?:\.\d+)?(?![\w.]*\d)")
    version = re.compile(r"(?<![\w.])v?\d+\.\d+\.\d+(?:[.-][\w.-]*\w)?")
    wrong = []
    for path in files(under="roles"):
        text = path.read_text(encoding="utf-8")
        found = {*release.findall(text), *(known & set(version.findall(text)))}
        wrong += [f"{path.relative_to(ROOT)}: {number}" for number in sorted(found)]
    assert wrong == []


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


PLAYBOOKS = [path for path in sorted(ROOT.glob("playbooks/*.yml")) if not path.name.endswith(".meta.yml")]


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.name)
def test_a_verb_has_its_arguments_and_gathers_what_it_needs_itself(playbook: Path) -> None:
    assert playbook.with_suffix(".meta.yml").is_file()
    for play in yaml.safe_load(playbook.read_text(encoding="utf-8")):
        assert play.get("gather_facts") is False, play["name"]


def test_arguments_belong_to_a_verb() -> None:
    assert [path.name for path in ROOT.glob("playbooks/*.meta.yml") if not path.with_name(path.name.replace(".meta", "")).is_file()] == []
