# SPDX-License-Identifier: GPL-3.0-or-later
"""The generated files are those of the sources, and bad sources are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog, CatalogDataError, generate
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog.docs import pages, span
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog.loader import GENERATED

REMEDY = "run: python -m plugins.plugin_utils.catalog.generate"


def test_generated_files_are_up_to_date() -> None:
    assert generate.drift(GENERATED, generate.outputs(), "*.json") == [], REMEDY


def test_reference_pages_are_up_to_date() -> None:
    if not generate.DOCS.is_dir():
        pytest.skip("no docs beside this copy")
    assert generate.drift(generate.DOCS, pages(Catalog.load()), "catalog-*.md") == [], REMEDY


def test_the_output_is_the_same_twice() -> None:
    assert generate.outputs() == generate.outputs()


def test_write_makes_drift_vanish_and_removes_leftovers(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{}")
    wanted = {"a.json": "1\n"}
    assert generate.drift(tmp_path, wanted, "*.json") == ["a.json", "old.json"]
    generate.write(tmp_path, wanted, "*.json")
    assert generate.drift(tmp_path, wanted, "*.json") == []
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_check_names_what_is_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    late = tmp_path / "generated"
    shutil.copytree(GENERATED, late)
    (late / "4.9.5.json").unlink()
    monkeypatch.setattr(generate, "GENERATED", late)
    monkeypatch.setattr(generate, "pages", lambda _catalog: {})
    monkeypatch.setattr(generate, "DOCS", tmp_path / "docs")
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().out == "out of date: generated/4.9.5.json\n"
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


@pytest.fixture(name="data")
def _data(tmp_path: Path) -> Path:
    copy = tmp_path / "data"
    shutil.copytree(generate.DATA, copy)
    return copy


def edit(old: str, new: str, name: str) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        path = data / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit('value: "1.22"', "value: 1.22", "releases.yml"), r"releases\.yml:\d+: 1\.22 must be quoted"),
        (edit("certainty: documented}", "certainty: sure}", "releases.yml"), "certainty 'sure' is unknown"),
        (edit("versions: 4.0-4.2, value:", "versions: 4.0-4.1, value:", "releases.yml"), "0 entries hold for 4.2"),
        (edit("    direction: ingress\n", "    direction: inwards\n", "ports.yml"), "'inwards' is none of ingress"),
        (edit("    purpose:", "    porpose:", "ports.yml"), "unknown field porpose"),
        (edit("    failure_impact:", "    failure_impacts:", "services.yml"), "unknown field failure_impacts"),
        (edit("    description: GraphQL", "    description: [GraphQL]\n    x:", "services.yml"), "unknown field x"),
        (edit("  - repository: cciserver.azurecr.io/api-gateway\n", "  - repository: other\n", "images.yml"), "is not in the catalogue"),
        (edit("    source: ", "    source: ''\n    #", "files.yml"), "source is empty"),
    ],
)
def test_bad_sources_are_refused(data: Path, change: Callable[[Path], None], message: str) -> None:
    change(data)
    with pytest.raises(CatalogDataError, match=message):
        generate.outputs(data)


def test_a_fault_in_the_sources_ends_with_two(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit('value: "1.22"', "value: 1.22", "releases.yml")(data)
    monkeypatch.setattr(generate.outputs, "__defaults__", (data,))
    assert generate.main(["--check"]) == 2
    assert "must be quoted" in capsys.readouterr().err


def test_spans_of_minors() -> None:
    minors = ("4.0", "4.1", "4.2", "4.3")
    assert span(minors, ["4.0", "4.1", "4.3"]) == "4.0-4.1, 4.3"
    assert span(minors, []) == ""
