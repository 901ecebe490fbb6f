# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.cli import Chart
from ansible_collections.onprem.circleci_server.plugins.modules.chart_proof import compare_chart, why_refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "circleci-server"
    (path / "templates").mkdir(parents=True)
    (path / "Chart.yaml").write_text("name: circleci-server\nversion: 4.10.0\n")
    (path / "templates" / "a.yaml").write_text("kind: ConfigMap\n")
    return path


def chart(path: Path) -> Chart:
    return Chart(path, "circleci-server", "4.10.0", "")


def test_the_chart_that_was_compared_is_known_as_a_folder_and_as_an_archive(folder: Path, tmp_path: Path) -> None:
    digest, items = compare_chart(chart(folder), "")
    assert digest.startswith("sha256:") and not items
    archive = tmp_path / "circleci-server-4.10.0.tgz"
    with tarfile.open(archive, "w:gz") as made:
        made.add(folder, "circleci-server")
    assert compare_chart(chart(archive), digest) == (digest, [])


def test_another_chart_under_the_same_version_is_refused_with_both_digests(folder: Path) -> None:
    compared, _items = compare_chart(chart(folder), "")
    (folder / "templates" / "a.yaml").write_text("kind: Secret\n")
    digest, (item,) = compare_chart(chart(folder), compared)
    assert digest != compared
    sentence = item.sentence()
    assert digest in sentence and compared in sentence and "circleci_catalog_overlay" in sentence and "chart_check" in sentence


def test_a_chart_that_does_not_take_the_values_leads_to_the_comparison(folder: Path) -> None:
    digest, _items = compare_chart(chart(folder), "")
    assert "run the verb chart_check" in why_refused([], compared=False)
    assert "chart_check" not in why_refused([], compared=True)
    (folder / "templates" / "a.yaml").write_text("kind: Secret\n")
    _digest, items = compare_chart(chart(folder), digest)
    assert digest in why_refused(items, compared=True)
