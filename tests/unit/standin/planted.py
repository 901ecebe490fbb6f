# SPDX-License-Identifier: GPL-3.0-or-later
"""Differences planted into the stand-in chart on purpose, as the vendor's may have them: a folder of the chart is changed in place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path.name} has no {old}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def values_of(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "values.yaml"
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(tree)
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")


def schema_of(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "values.schema.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    change(tree["properties"])
    path.write_text(json.dumps(tree), encoding="utf-8")


def image_key_renamed(folder: Path) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["kong"]["image"]["name"] = tree["kong"]["image"].pop("repository")

    def in_schema(tree: dict[str, Any]) -> None:
        keys = tree["kong"]["properties"]["image"]["properties"]
        keys["name"] = keys.pop("repository")

    values_of(folder, change)
    schema_of(folder, in_schema)
    edit(folder / "templates/_helpers.tpl", "$image.repository | default (index . 2)", "coalesce $image.repository $image.name (index . 2)")
    # The helper is shared, so that the old name must be refused for kong.
    edit(folder / "templates/_helpers.tpl", "{{- $repository := coalesce", '{{- if eq (index . 1) "kong" }}{{ $_ := unset $image "repository" }}{{ end -}}\n{{- $repository := coalesce')


def bucket_key_renamed(folder: Path) -> None:
    def rename(tree: dict[str, Any]) -> None:
        tree["object_storage"]["bucket"] = tree["object_storage"].pop("bucketName", None)

    values_of(folder, rename)

    def in_schema(tree: dict[str, Any]) -> None:
        keys = tree["object_storage"]["properties"]
        keys["bucket"] = keys.pop("bucketName")

    schema_of(folder, in_schema)
    edit(folder / "templates/_helpers.tpl", "$store.bucketName", "$store.bucket")


def workload_renamed(folder: Path, name: str, new: str) -> None:
    """A Deployment with its labels and Service under another name; its values keep theirs."""
    edit(folder / f"standin/workloads/{name}.yaml", f"name: {name}\n", f"name: {new}\n")


def not_called_a_stand_in(folder: Path) -> None:
    """A stand-in does not count as the vendor's chart, and says that it is one."""
    edit(folder / "Chart.yaml", "onprem.circleci_server/stand-in", "example.com/none")
