# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup gives plain data, and the catalog's own sentences when it cannot."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from ansible import constants
from ansible.errors import AnsibleError
from ansible_collections.onprem.circleci_server.plugins.lookup import catalog as plugin
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog, CatalogError

CATALOG = Catalog.load()


def ask(term: str, release: Any = None, name: str | None = None) -> Any:
    return plugin.answer(CATALOG, term, release, name)


@pytest.mark.parametrize("term", plugin._TABLES)
def test_every_table_gives_rows(term: str) -> None:
    rows = ask(term, "4.10.0")
    assert isinstance(rows, list) and rows
    assert json.loads(json.dumps(rows)) == rows
    assert all(row["source"] and row["certainty"] for row in rows)


def test_words_without_a_release() -> None:
    assert ask("releases")[-1] == "4.10.0"
    assert {row["id"] for row in ask("platforms")} >= {"eks", "openshift"}
    assert ask("platform", name="aks")["id"] == "azure"
    assert ask("object_storage", name="seaweedfs")["port"] == 8333


def test_single_answers() -> None:
    assert ask("release", "4.10.0")["kubernetes_min"]["value"] == "1.33"
    assert ask("service", "4.10.0", "NGINX")["name"] == "nginx"
    assert ask("values_keys", "4.10.0", "global.domainName")["type"] == "string"
    assert ask("requirements", "4.10.0", "cgroup_v1")["subject"] == "nomad_client"


@pytest.mark.parametrize(
    ("term", "release", "name", "message"),
    [
        ("port", "4.10.0", None, 'Unknown term "port". Did you mean "ports"'),
        ("ports", None, None, 'needs the option release, for example release="4.10.0"'),
        ("service", "4.10.0", None, "needs the option name"),
        ("platform", None, None, "needs the option name"),
        ("ports", "4.10", None, "write three parts, quoted"),
        ("ports", 4.1, None, "as a number"),
        ("release", "4.7.7", None, "must not be used"),
        ("values_keys", "4.10.0", "global.domain", r"Unknown name in values_keys"),
        ("platform", None, "gce", "Unknown platform"),
    ],
)
def test_refusals(term: str, release: Any, name: str | None, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        ask(term, release, name)


def test_documentation_names_every_word() -> None:
    documentation = yaml.safe_load(plugin.DOCUMENTATION)
    text = " ".join(documentation["options"]["_terms"]["description"])
    for word in plugin._WORDS:
        assert f"V({word})" in text


@pytest.fixture(name="lookup")
def _lookup() -> plugin.LookupModule:
    name = "onprem.circleci_server.catalog"
    options = yaml.safe_load(plugin.DOCUMENTATION)["options"]
    constants.config.initialize_plugin_configuration_definitions("lookup", name, options)
    lookup = plugin.LookupModule()
    lookup._load_name = name
    return lookup


def test_run_as_ansible_does(lookup: plugin.LookupModule) -> None:
    assert lookup.run(["releases"], {})[0][0] == "4.0.0"
    first, second = lookup.run(["service", "release"], {}, release="4.10.0", name="frontend")
    assert (first["name"], second["minor"]) == ("frontend", "4.10")
    with pytest.raises(AnsibleError, match="write three parts"):
        lookup.run(["ports"], {}, release="4.10")
    with pytest.raises(AnsibleError, match="as a number"):
        lookup.run(["ports"], {}, release=4.10)
