# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
"""What was seen in a chart, laid over the catalog of its release and of no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog, CatalogOverlayError, plain
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.site_catalog import site_catalog

RELEASE = "4.10.0"
SOURCE = "chart circleci-server-4.10.0, sha256:ab"
KEY = {"key": "frontend.brand_new", "type": "int", "default": 3, "meaning": "Seen in the chart.", "source": SOURCE, "certainty": "observed"}


def document(**changes: Any) -> dict[str, Any]:
    return {
        "format": "onprem.circleci_server/catalog-overlay/1",
        "release": RELEASE,
        "chart": {"name": "circleci-server", "version": RELEASE, "digest": "sha256:ab", "stand_in": False},
        "sections": {},
        **changes,
    }


def written(folder: Path, **changes: Any) -> str:
    path = folder / "overlay.json"
    path.write_text(json.dumps(document(**changes)), encoding="utf-8")
    return str(path)


def test_rows_join_replace_and_leave(tmp_path: Path) -> None:
    known = plain(Catalog.load().values_key(RELEASE, "frontend.replicas"))
    keys = {"set": [KEY, {**known, "default": 7, "certainty": "observed"}], "remove": ["kong.replicas"]}
    catalog = Catalog.load(overlay=written(tmp_path, sections={"values_keys": keys}))
    names = [entry.key for entry in catalog.values_keys(RELEASE)]
    assert "frontend.brand_new" in names and "kong.replicas" not in names
    assert names == sorted(names)
    assert catalog.values_key(RELEASE, "frontend.replicas").default == 7
    assert catalog.values_key(RELEASE, "frontend.brand_new").source == SOURCE
    assert len(names) == len(Catalog.load().values_keys(RELEASE))
    # What the chart says nothing about stays, and so does every other release.
    assert catalog.secrets(RELEASE) == Catalog.load().secrets(RELEASE)
    assert catalog.values_keys("4.9.5") == Catalog.load().values_keys("4.9.5")


def test_plain_catalog_is_not_touched(tmp_path: Path) -> None:
    before = Catalog.load().values_keys(RELEASE)
    Catalog.load(overlay=written(tmp_path, sections={"values_keys": {"set": [KEY]}})).values_keys(RELEASE)
    assert Catalog.load().values_keys(RELEASE) is before


def test_file_that_changes_is_read_again(tmp_path: Path) -> None:
    assert len(Catalog.load(overlay=written(tmp_path)).values_keys(RELEASE)) == len(Catalog.load().values_keys(RELEASE))
    again = Catalog.load(overlay=written(tmp_path, sections={"values_keys": {"set": [KEY]}}))
    assert again.values_key(RELEASE, "frontend.brand_new").default == 3
    assert Catalog.load(overlay=str(tmp_path / "overlay.json")) is again


@pytest.mark.parametrize(
    ("changes", "compared", "detail"),
    [
        ({}, True, "Compared with circleci-server-4.10.0, sha256:ab."),
        ({"release": "4.9.5"}, False, "was made for release 4.9.5"),
        ({"chart": {"name": "circleci-server", "version": RELEASE, "digest": "d", "stand_in": True}}, False, "compared with a stand-in only"),
    ],
)
def test_reports_are_told_what_the_catalog_was_compared_with(tmp_path: Path, changes: dict[str, Any], compared: bool, detail: str) -> None:
    found = Catalog.load(overlay=written(tmp_path, **changes)).comparison(RELEASE)
    assert found["compared"] is compared
    assert detail in found["detail"]
    # Of another release it says nothing about the chart at hand.
    assert found["digest"] == ("" if "release" in changes else found["chart"].rpartition(", ")[2])
    assert Catalog.load().comparison(RELEASE)["compared"] is False


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format": "other/2"}, "its format is 'other/2'"),
        ({"chart": "x"}, "release, chart and sections are needed"),
        ({"sections": {"ports": {"set": []}}}, "ports is no section of an overlay; known: values_keys"),
        ({"sections": {"values_keys": {"set": [{**KEY, "type": "number"}]}}}, "values_keys frontend.brand_new.type: 'number' is none of string"),
        ({"sections": {"values_keys": {"set": [{**KEY, "colour": "red"}]}}}, "unknown field colour"),
    ],
)
def test_what_is_no_overlay_is_refused_with_the_place(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(CatalogOverlayError) as caught:
        Catalog.load(overlay=written(tmp_path, **changes))
    assert expected in str(caught.value)
    assert "Make it again with the verb chart_check." in str(caught.value)


def test_filters_ask_for_the_catalog_of_their_site(tmp_path: Path) -> None:
    assert site_catalog({}) is Catalog.load()
    assert site_catalog({"circleci_catalog_overlay": ""}) is Catalog.load()
    assert site_catalog({"circleci_catalog_overlay": written(tmp_path)}).comparison(RELEASE)["compared"]
