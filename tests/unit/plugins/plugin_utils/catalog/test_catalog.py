# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader: what it gives, and what it says when it is asked for something that is not there."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import (
    Catalog,
    CatalogDataError,
    KnownBadReleaseError,
    NoUpgradePathError,
    UnknownNameError,
    UnknownPlatformError,
    UnknownReleaseError,
    UnknownServiceError,
    UnknownValuesKeyError,
    plain,
)
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog.loader import FORMAT, GENERATED


@pytest.fixture(name="catalog")
def _catalog() -> Catalog:
    return Catalog.load()


def test_load_gives_the_same_catalog_twice() -> None:
    assert Catalog.load() is Catalog.load()


def test_last_patches_are_the_documented_ones(catalog: Catalog) -> None:
    assert catalog.last_patches() == (
        "4.0.6",
        "4.1.10",
        "4.2.7",
        "4.3.9",
        "4.4.7",
        "4.5.5",
        "4.6.6",
        "4.7.15",
        "4.8.12",
        "4.9.5",
        "4.10.0",
    )
    assert catalog.latest() == "4.10.0"


def test_release_facts_carry_source_and_certainty(catalog: Catalog) -> None:
    release = catalog.release("4.10.0")
    assert (release.version, release.minor, release.status) == ("4.10.0", "4.10", "last")
    assert release.kubernetes_min.value == "1.33"
    assert release.kubernetes_max.value == "1.35"
    assert release.nomad_server.value == "1.11.3"
    assert release.nomad_client.value == "1.7.7"
    assert release.kubernetes_min.source and release.kubernetes_min.certainty == "documented"
    assert len(release.facts()) > 40
    assert all(fact.source and fact.certainty for fact in release.facts().values())


def test_an_earlier_patch_has_the_data_of_its_minor(catalog: Catalog) -> None:
    release = catalog.release("4.8.5")
    assert (release.version, release.data_of, release.status) == ("4.8.5", "4.8.12", "superseded")
    assert catalog.services("4.8.5") == catalog.services("4.8.12")


def test_known_bad_release_is_refused_with_its_reason(catalog: Catalog) -> None:
    with pytest.raises(KnownBadReleaseError, match=r'"4\.7\.7" must not be used: .*broken.* Use "4\.7\.15"'):
        catalog.release("4.7.7")
    with pytest.raises(KnownBadReleaseError):
        catalog.images("4.7.7")
    assert catalog.release("4.7.7", allow_bad=True).status == "known_bad"


@pytest.mark.parametrize("written", ["4.10", "4.1", "4.7"])
def test_two_parts_get_the_special_sentence(catalog: Catalog, written: str) -> None:
    with pytest.raises(UnknownReleaseError, match=rf'"{written}": write three parts, quoted, for example "{written}\.'):
        catalog.release(written)


def test_a_number_gets_the_special_sentence(catalog: Catalog) -> None:
    with pytest.raises(UnknownReleaseError, match=r'read it as a number.*three parts, quoted, for example "4\.10\.0"'):
        catalog.release(4.10)  # type: ignore[arg-type]


def test_an_unknown_patch_lists_the_patches_of_its_minor(catalog: Catalog) -> None:
    with pytest.raises(UnknownReleaseError, match=r'"4\.9\.6".*4\.9\.0, .*4\.9\.5; use "4\.9\.5"'):
        catalog.release("4.9.6")


@pytest.mark.parametrize("written", ["5.0.0", "latest", "", "4.10.x", "04.10.0"])
def test_an_unknown_release_lists_the_known_ones(catalog: Catalog, written: str) -> None:
    with pytest.raises(UnknownReleaseError, match=r'Known: "4\.0\.6", .*"4\.10\.0"'):
        catalog.release(written)


def test_a_slip_of_a_release_gets_a_suggestion(catalog: Catalog) -> None:
    with pytest.raises(UnknownReleaseError, match=r'Did you mean "4\.10\.0"\?'):
        catalog.release("v4.10.0")


@pytest.mark.parametrize(
    ("name", "found"),
    [("NGINX", "nginx"), ("socketi", "soketi"), ("web-ui-*", "web-ui-*"), ("distributor-cleaner", "distributor-*")],
)
def test_services_are_found_by_other_names(catalog: Catalog, name: str, found: str) -> None:
    assert catalog.service("4.2.7", name).name == found


def test_unknown_service_lists_the_known_ones(catalog: Catalog) -> None:
    with pytest.raises(UnknownServiceError, match=r'"fronted" in CircleCI Server 4\.10\.0\. Did you mean "frontend"'):
        catalog.service("4.10.0", "fronted")
    with pytest.raises(UnknownServiceError, match=r"Known: .*api-service"):
        catalog.service("4.10.0", "vm-service")


@pytest.mark.parametrize(("name", "found"), [("aks", "azure"), ("doks", "digitalocean"), ("k3s", "rancher"), ("eks", "eks")])
def test_platforms_are_found_by_other_names(catalog: Catalog, name: str, found: str) -> None:
    assert catalog.platform(name).id == found


def test_unknown_platform_lists_the_known_ones(catalog: Catalog) -> None:
    with pytest.raises(UnknownPlatformError, match=r'"opensift"\. Did you mean "openshift"\? Known: eks, gke, azure'):
        catalog.platform("opensift")


def test_unknown_values_key_names_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(UnknownValuesKeyError, match=r'Did you mean "global\.domainName"'):
        catalog.values_key("4.10.0", "global.domainname")


@pytest.mark.parametrize(
    "call",
    [
        lambda catalog: catalog.port("4.10.0", "nope"),
        lambda catalog: catalog.ports("4.10.0", group="nope"),
        lambda catalog: catalog.image("4.10.0", "nope"),
        lambda catalog: catalog.file("4.10.0", "nope"),
        lambda catalog: catalog.secret("4.10.0", "nope"),
        lambda catalog: catalog.requirement("4.10.0", "nope"),
        lambda catalog: catalog.object_storage_option("nope"),
        lambda catalog: catalog.last_patch("5.0"),
    ],
)
def test_every_name_that_is_not_there_lists_what_is(catalog: Catalog, call: object) -> None:
    with pytest.raises(UnknownNameError, match=r'"(nope|5\.0)".*Known: '):
        call(catalog)  # type: ignore[operator]


def test_named_rows_are_found(catalog: Catalog) -> None:
    assert catalog.port("4.10.0", "client-in-nomad").ports == ("4647",)
    assert catalog.image("4.10.0", "kong").reference == "kong:3.4.2"
    assert catalog.secret("4.10.0", "mongodb").name == "mongodb-credentials"
    assert catalog.file("4.10.0", "nomad-client").version == "1.7.7"
    assert catalog.object_storage_option("do_spaces").id == "do_spaces_direct"


def test_an_image_without_a_tag_has_no_reference(catalog: Catalog) -> None:
    image = catalog.image("4.10.0", "api-service")
    assert image.reference is None
    assert image.with_tag("1") == "cciserver.azurecr.io/api-service:1"
    assert catalog.image("4.10.0", "kong").with_tag("1") == "kong:3.4.2"


@pytest.mark.parametrize(
    ("current", "target", "path"),
    [
        ("4.4.2", "4.10.0", ("4.4.2", "4.4.7", "4.7.15", "4.8.12", "4.9.5", "4.10.0")),
        ("4.3.9", "4.7.15", ("4.3.9", "4.7.15")),
        ("4.6.6", "4.10.0", ("4.6.6", "4.7.15", "4.8.12", "4.9.5", "4.10.0")),
        ("4.7.7", "4.8.12", ("4.7.7", "4.7.15", "4.8.12")),
        ("4.0.1", "4.3.9", ("4.0.1", "4.0.6", "4.1.10", "4.2.7", "4.3.9")),
        ("4.8.3", "4.8.12", ("4.8.3", "4.8.12")),
        ("4.10.0", "4.10.0", ("4.10.0",)),
    ],
)
def test_upgrade_paths(catalog: Catalog, current: str, target: str, path: tuple[str, ...]) -> None:
    assert catalog.upgrade_path(current, target) == path


def test_no_upgrade_backwards_and_none_to_a_bad_release(catalog: Catalog) -> None:
    with pytest.raises(NoUpgradePathError, match=r"cannot go back from 4\.10\.0 to 4\.9\.5"):
        catalog.upgrade_path("4.10.0", "4.9.5")
    with pytest.raises(KnownBadReleaseError):
        catalog.upgrade_path("4.6.6", "4.7.7")


def test_plain_gives_json(catalog: Catalog) -> None:
    data = plain(catalog.images("4.10.0"))
    assert json.loads(json.dumps(data)) == data
    assert data[0]["reference"] is None or ":" in data[0]["reference"]
    assert plain(catalog.release("4.10.0"))["kubernetes_min"]["value"] == "1.33"


def test_facts_cannot_be_changed(catalog: Catalog) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        catalog.release("4.10.0").kubernetes_min.value = "1.0"  # type: ignore[misc]


def test_missing_or_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogDataError, match=r"index\.json"):
        Catalog(tmp_path).releases()
    (tmp_path / "index.json").write_text('{"format": "other/1"}')
    with pytest.raises(CatalogDataError, match="other/1"):
        Catalog(tmp_path).releases()
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(CatalogDataError, match=r"Cannot read .*index\.json"):
        Catalog(tmp_path).releases()


def test_nothing_but_json_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    original = Path.read_bytes

    def spy(path: Path) -> bytes:
        read.append(path)
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", spy)
    catalog = Catalog(GENERATED)
    assert not read
    catalog.release("4.9.5")
    catalog.ports("4.9.5")
    assert [path.name for path in read] == ["index.json", "4.9.5.json"]


def test_no_yaml_at_run_time() -> None:
    """Parsing the sources costs a hundred times what the JSON costs, in every worker."""
    root = GENERATED.parents[3]
    code = (
        "import sys\n"
        "from plugins.plugin_utils.catalog import Catalog\n"
        "assert Catalog.load().services('4.10.0')\n"
        "assert 'yaml' not in sys.modules and 'ansible' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_format_is_written_into_every_file() -> None:
    for path in GENERATED.glob("*.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["format"] == FORMAT
