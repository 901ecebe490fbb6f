# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils import arguments as site_arguments


class FakeCatalog:
    def check_release(self, version: object) -> None:
        if version != "4.10.0":
            raise ValueError(f"unknown release {version!r}; known are 4.9.5, 4.10.0")

    def check_platform(self, platform: object) -> None:
        if platform not in ("eks", "generic"):
            raise ValueError(f"unknown platform {platform!r}; known are eks, generic")

    def check_block(self, name: str, value: Mapping[str, object]) -> list[str]:
        return [f"{name}: {key} is not known" for key in value if key != "host"]

    def check_overlay(self, path: str) -> None:
        if path != "/good.json":
            raise ValueError(f"{path} cannot be read")


ARGUMENTS = site_arguments.load_arguments()
COMPLETE = {
    "circleci_release": "4.10.0",
    "circleci_platform": "generic",
    "circleci_domain": "ci.example.com",
    "circleci_registry_host": "registry.example.com:5000",
    "circleci_load_balancer": "metallb",
    "circleci_storage_class": "provided",
    "circleci_object_storage_kind": "s3",
    "circleci_object_storage_endpoint": "https://store.example.com",
    "circleci_github_hostname": "ghe.example.com",
}


def problems(verb: str = "plan", unknown: tuple[str, ...] = (), **changes: object) -> list[str]:
    values = {name: value for name, value in {**COMPLETE, **changes}.items() if value is not None}
    found = site_arguments.check(
        verb,
        values,
        names_in_inventory=[*values, *unknown],
        arguments=ARGUMENTS,
        role_options={"circleci_registry_storage_dir"},
        catalog=FakeCatalog(),
    )
    return [str(problem) for problem in found]


def pem(kind: str, body: str = "MIIB") -> str:
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n"


@pytest.mark.parametrize("text", ["", "# ours\n" + pem("CERTIFICATE"), pem("CERTIFICATE") + pem("CERTIFICATE")])
def test_certificates_are_taken(text: str) -> None:
    assert problems("preflight", circleci_ca_certificate=text) == []


@pytest.mark.parametrize("text", ["/etc/ssl/ca.pem", pem("PRIVATE KEY", "canary"), pem("CERTIFICATE", "no base64!"), pem("CERTIFICATE", "AAAA")])
def test_what_is_no_certificate_is_refused_and_not_shown(text: str) -> None:
    (line,) = problems("preflight", circleci_ca_certificate=text)
    assert line.startswith("circleci_ca_certificate: found a value that is not shown") and "PEM" in line and "canary" not in line


def test_complete_site_has_no_problem() -> None:
    assert problems() == []


def test_all_problems_come_together() -> None:
    found = problems(circleci_release="4.99.0", circleci_platform="windows", circleci_domain=None, circleci_load_balancer="f5")
    assert [line.split(":")[0] for line in found] == ["circleci_release", "circleci_platform", "circleci_domain", "circleci_load_balancer"]
    assert "4.10.0" in found[0] and "eks, generic" in found[1] and "not set" in found[2] and "metallb, provided" in found[3]


def test_release_without_quotes_is_explained() -> None:
    (line,) = problems(circleci_release=4.10)
    assert '"4.10.0"' in line and "quotes" in line


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("circleci_release_name", "c" * 54),
        ("circleci_state_dir", "/"),
        ("circleci_state_dir", ""),
        ("circleci_state_dir", "state"),
        ("circleci_state_dir", "/srv/.."),
        ("circleci_domain", "https://ci.example.com"),
        ("circleci_domain", "ci"),
        ("circleci_registry_host", "https://registry.example.com"),
        ("circleci_registry_host", "registry.example.com:99999"),
        ("circleci_registry_host", "registry.example.com/path"),
        ("circleci_registry_path", "/circleci"),
        ("circleci_registry_path", "example-project/"),
        ("circleci_registry_path", "Example/circleci"),
        ("circleci_object_storage_endpoint", "store.example.com"),
        ("circleci_object_storage_endpoint", "https://user:pass@store.example.com"),
        ("circleci_object_storage_bucket", "Data_Bucket"),
        ("circleci_namespace", "Circle CI"),
        ("circleci_load_balancer_address", "10.0.0.256"),
        ("circleci_values", ["not", "a", "mapping"]),
        ("circleci_bundle_allow_unsigned", "maybe"),
        ("circleci_gates_passed", ["coffee"]),
        ("circleci_waivers", [{"name": "four_nodes"}]),
        ("circleci_object_storage_expiry_days", -1),
        ("circleci_object_storage_agent_port", 80),
        ("circleci_object_storage_agent_port", 65536),
        ("circleci_object_storage_expiry_days", 40000),
        ("circleci_object_storage_origins", ["https://app.ci.example.com/path"]),
        ("circleci_object_storage_origins", ["*"]),
    ],
)
def test_wrong_meaning_is_refused_with_name_and_value(name: str, wrong: Any) -> None:
    found = problems(**{name: wrong})
    assert len(found) == 1 and found[0].startswith(name + ":")


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("circleci_orbs", ["circleci/node@5.2"], "found 'circleci/node@5.2'; allowed is an exact version namespace/orb@major.minor.patch"),
        ("circleci_orbs", ["circleci/node@volatile"], "circleci/node@volatile"),
        ("circleci_orbs", ["node@1.0.0"], "node@1.0.0"),
        ("circleci_orbs", "circleci/node@5.2.0", "a list"),
        ("circleci_bundle_optional_files", {"circleci-cli": 1.2}, "circleci_bundle_optional_files.circleci-cli: found 1.2"),
        ("circleci_bundle_optional_files", ["support-bundle"], "a mapping"),
    ],
)
def test_what_a_bundle_is_to_hold_is_refused_where_it_is_not_exact(name: str, wrong: Any, said: str) -> None:
    (line,) = [text for text in problems("bundle", **{name: wrong}) if text.startswith(name)]
    assert said in line, line


def test_a_registry_may_keep_everything_below_a_path() -> None:
    assert problems(circleci_registry_path="example-project/circleci_server.images") == []
    (line,) = problems(circleci_registry_host="us-central1-docker.pkg.dev/example-project/circleci")
    assert "a path is circleci_registry_path" in line


def test_exact_orbs_and_versions_are_taken() -> None:
    given: dict[str, Any] = {"circleci_orbs": ["circleci/node@5.2.0", "a-b/c_d@0.0.1"], "circleci_bundle_optional_files": {"support-bundle": ""}}
    assert not [text for text in problems("bundle", **given) if "orbs" in text or "optional" in text]


def test_keys_of_s3_are_not_needed_by_a_store_of_google() -> None:
    missing = ("circleci_object_storage_access_key", "circleci_object_storage_secret_key")
    of_s3 = " ".join(problems("secrets"))
    of_google = " ".join(problems("secrets", circleci_object_storage_kind="gcs_key"))
    assert all(f"{name}: not set" in of_s3 and name not in of_google for name in missing)


def test_unknown_name_is_refused_with_the_nearest_known_one() -> None:
    (line,) = problems(unknown=("circleci_registery_host",))
    assert "circleci_registery_host" in line and "Did you mean circleci_registry_host?" in line


def test_role_options_are_known() -> None:
    assert problems(unknown=("circleci_registry_storage_dir",)) == []


def test_value_of_a_secret_is_never_repeated() -> None:
    found = problems("secrets", circleci_license=["canary-7f3a"], circleci_github_client_secret=12.5)
    assert not any("canary-7f3a" in line or "12.5" in line for line in found)
    assert any(line.startswith("circleci_license:") for line in found)


def test_part_size_has_a_floor() -> None:
    found = site_arguments.check(
        "bundle",
        {"circleci_bundle_part_size": 10},
        names_in_inventory=[],
        arguments=ARGUMENTS,
        role_options=set(),
        catalog=FakeCatalog(),
    )
    assert any(problem.name == "circleci_bundle_part_size" for problem in found)


def test_an_overlay_of_the_catalog_must_be_one_that_can_be_read() -> None:
    assert problems(circleci_catalog_overlay="/good.json") == []
    assert problems(circleci_catalog_overlay="") == []
    assert problems(circleci_postgresql={"host": "db", "hots": "x"}) == ["circleci_postgresql: hots is not known."]
    assert problems(circleci_catalog_overlay="/other.json") == ["circleci_catalog_overlay: /other.json cannot be read."]
