# SPDX-License-Identifier: GPL-3.0-or-later
"""The right to pull of Google Cloud, Azure and DigitalOcean, against the strict stand-ins; tests/integration_cloud tries the whole verb, and AWS."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.cloud import (
    endpoints,
    part_api,
    part_region,
)
from ansible_collections.onprem.circleci_server.plugins.modules import (
    cloud_registry_access,
)
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.tests.integration_cloud import azure
from ansible_collections.onprem.circleci_server.tests.integration_cloud.azure import Azure
from ansible_collections.onprem.circleci_server.tests.integration_cloud.azure_registry import ROLES
from ansible_collections.onprem.circleci_server.tests.integration_cloud.digitalocean import DigitalOcean
from ansible_collections.onprem.circleci_server.tests.integration_cloud.google import Google
from ansible_collections.onprem.circleci_server.tests.integration_cloud.standin import TOKEN, Refused, running
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module

CATALOG = Catalog.load()
NODES, OTHERS = "nodes@example-project.iam.gserviceaccount.com", "other-nodes@example-project.iam.gserviceaccount.com"
CLUSTERS = ["bd5f5959-5e1e-4205-a714-a914373942af", "50c2f44c-011d-493e-aee5-361a4a0d1844"]
READER = "roles/artifactregistry.reader"
PLATFORMS = {"gcp": "gke", "azure": "azure", "digitalocean": "digitalocean"}


class Account:
    """The module against one stand-in."""

    def __init__(self, provider: str, standin: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.provider, self.standin, self.capsys = provider, standin, capsys

    def let(self, *, check: bool = False, **changed: Any) -> dict[str, Any]:
        grants = [dict(grant) for grant in CATALOG.platform(PLATFORMS[self.provider]).registry_access.value]
        options: dict[str, Any] = {"provider": self.provider, "site": "osaka", "token": TOKEN, "endpoint": self.standin.url, "grants": grants}
        if self.provider == "gcp":
            options.update(registry_host="us-central1-docker.pkg.dev", registry=self.standin.repositories.name, nodes=[NODES, OTHERS])
        elif self.provider == "azure":
            options.update(registry_host="examplecircleci.azurecr.io", registry=self.standin.registries.registry, nodes=[self.standin.registries.cluster])
        else:
            options.update(registry_host="registry.digitalocean.com", nodes=CLUSTERS)
        return run_module(cloud_registry_access, self.capsys, check=check, **{**options, **changed})


Start = Callable[[str], Account]


@pytest.fixture
def start(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    made: dict[str, Any] = {"gcp": Google(), "azure": Azure(), "digitalocean": DigitalOcean()}
    made["digitalocean"].clusters = dict.fromkeys(CLUSTERS, False)
    with running(made["gcp"]), running(made["azure"]), running(made["digitalocean"]):
        yield lambda provider: Account(provider, made[provider], capsys)


@pytest.mark.parametrize("provider", PLATFORMS)
def test_the_right_is_given_once_as_check_mode_said(start: Start, provider: str) -> None:
    account = start(provider)
    check = account.let(check=True)
    assert check["changed"] and account.standin.writes == 0, check
    made = account.let()
    assert made["changes"] == check["changes"] and made["diff"] == check["diff"], made
    assert made["diff"]["before"] == "" and made["diff"]["after"].splitlines() == made["changes"]
    written = account.standin.writes
    assert not account.let()["changed"] and not account.let(check=True)["changed"] and account.standin.writes == written == 1


@pytest.mark.parametrize("provider", PLATFORMS)
def test_a_wrong_token_and_missing_rights_are_told_and_the_same_command_goes_on(start: Start, provider: str) -> None:
    account = start(provider)
    found = account.let(token="another canary")
    assert found["failed"] and "401" in found["msg"] and "another canary" not in found["msg"]
    account.standin.next_writes = [Refused(403, "forbidden", "Required permission is missing")]
    found = account.let()
    assert found["failed"] and not found["changed"] and "Required permission is missing" in found["msg"]
    assert account.let()["changed"] and not account.let()["changed"]
    found = account.let(nodes=["No One"])
    assert found["failed"] and "circleci_cloud_registry_nodes: found 'No One'; allowed are" in found["msg"]


def test_bindings_of_others_and_their_conditions_stay(start: Start) -> None:
    account = start("gcp")
    theirs: list[dict[str, Any]] = [
        {"role": READER, "members": ["user:someone@example.com"], "condition": {"title": "this year", "expression": 'request.time < timestamp("2027-01-01T00:00:00Z")'}},
        {"role": READER, "members": ["group:developers@example.com"]},
        {"role": "roles/artifactregistry.admin", "members": ["user:owner@example.com"]},
    ]
    account.standin.repositories.bind(*theirs)
    assert account.let()["changed"]
    wanted = copy.deepcopy(theirs)
    wanted[1]["members"] += [f"serviceAccount:{NODES}", f"serviceAccount:{OTHERS}"]
    assert account.standin.repositories.policy["bindings"] == wanted and account.standin.repositories.policy["version"] == 3


@pytest.mark.parametrize("role, members, enough", [
    ("roles/artifactregistry.writer", [f"serviceAccount:{NODES}"], True),
    (READER, ["allUsers"], True),
    (READER, [f"serviceAccount:{OTHERS}"], False),
])  # fmt: skip
def test_a_right_that_is_there_is_left_as_it_is(start: Start, role: str, members: list[str], enough: bool) -> None:
    account = start("gcp")
    account.standin.repositories.bind({"role": role, "members": members})
    found = account.let(nodes=[NODES])
    assert found["changed"] is not enough and found["diff"]["before"] == (f"{NODES} may pull from us-central1-docker.pkg.dev by {role}\n" if enough else "")


def test_a_right_with_a_condition_is_not_enough(start: Start) -> None:
    account = start("gcp")
    account.standin.repositories.bind({"role": READER, "members": [f"serviceAccount:{NODES}"], "condition": {"title": "never", "expression": "false"}})
    assert account.let(nodes=[NODES])["changed"] and len(account.standin.repositories.policy["bindings"]) == 2
    assert not account.let(nodes=[NODES])["changed"]


def test_what_somebody_changes_in_between_is_not_overwritten(start: Start) -> None:
    account = start("gcp")
    theirs = {"role": READER, "members": ["user:someone@example.com"]}
    account.standin.repositories.meanwhile = [theirs]
    found = account.let()
    assert found["failed"] and "There were concurrent policy changes" in found["msg"] and account.standin.repositories.policy["bindings"] == [theirs]
    assert account.let()["changed"] and account.standin.repositories.policy["bindings"][0]["members"][0] == "user:someone@example.com"


def test_a_repository_or_an_account_that_is_not_there_is_told(start: Start) -> None:
    account = start("gcp")
    elsewhere = account.standin.repositories.name.replace("circleci", "nothing")
    assert f"circleci_cloud_registry: {elsewhere} is not there" in account.let(registry=elsewhere)["msg"]
    found = account.let(registry=account.standin.repositories.name.replace("us-central1", "europe"))
    assert "whose address is europe-docker.pkg.dev, and circleci_registry_host is us-central1-docker.pkg.dev" in found["msg"]
    found = account.let(nodes=["gone@example-project.iam.gserviceaccount.com"])
    assert found["failed"] and "Service account gone@example-project.iam.gserviceaccount.com does not exist" in found["msg"]
    assert "bindings" not in account.standin.repositories.policy


def test_an_assignment_of_azure_bears_the_mark_and_is_of_the_role_of_the_mode(start: Start) -> None:
    account = start("azure")
    registries = account.standin.registries
    registries.assign(registries.registry, registries.principals[registries.cluster], "AcrPull")
    assert not account.let()["changed"]
    # The old role lets nobody pull there.
    registries.registries[registries.registry]["roleAssignmentMode"] = "AbacRepositoryPermissions"
    found = account.let()
    assert found["changes"] == [f"{registries.cluster} may pull from examplecircleci.azurecr.io by Container Registry Repository Reader"]
    made = registries.assignments[-1]["properties"]
    assert ROLES[made["roleDefinitionId"].rpartition("/")[2]] == "Container Registry Repository Reader"
    assert made["principalId"] == registries.principals[registries.cluster] and made["description"] == "onprem.circleci_server osaka"
    assert not account.let()["changed"]
    registries.registries[registries.registry]["roleAssignmentMode"] = "LegacyRegistryPermissions"
    assert not account.let()["changed"]


@pytest.mark.parametrize("where, role, more, enough", [
    ("group", "AcrPull", {}, True),
    ("registry", "AcrPush", {}, True),
    ("registry", "Reader", {}, False),
    ("registry", "AcrPull", {"condition": "@Resource[x] StringEquals 'y'", "conditionVersion": "2.0"}, False),
    ("below", "AcrPull", {}, False),
])  # fmt: skip
def test_a_role_holds_for_all_that_is_below_it(start: Start, where: str, role: str, more: dict[str, str], enough: bool) -> None:
    account = start("azure")
    registries = account.standin.registries
    scope = {"group": azure.NETWORK, "registry": registries.registry, "below": f"{registries.registry}/scopeMaps/one"}[where]
    registries.assign(scope, registries.principals[registries.cluster], role, **more)
    other = "44444444-4444-4444-4444-444444444444"
    registries.assign(registries.registry, other, "AcrPull")
    found = account.let(check=True)
    assert found["changed"] is not enough, found


def test_clusters_with_one_identity_need_one_assignment(start: Start) -> None:
    account = start("azure")
    registries = account.standin.registries
    second = f"{registries.cluster}-two"
    registries.principals[second] = registries.principals[registries.cluster]
    assert len(account.let(nodes=[registries.cluster, second])["changes"]) == 2 and len(registries.assignments) == 1


def test_all_that_is_wrong_on_azure_is_told_at_once(start: Start) -> None:
    account = start("azure")
    registries = account.standin.registries
    gone, old = f"{registries.cluster}-gone", f"{registries.cluster}-old"
    registries.principals[old] = ""
    found = account.let(registry_host="other.azurecr.io", nodes=[gone, old])
    for said in ("has the address examplecircleci.azurecr.io, and circleci_registry_host is other.azurecr.io", f"{gone} is not there, or may not be seen",
                 f"{old} has a service principal and no identity of its kubelets"):  # fmt: skip
        assert said in found["msg"], found
    assert "is not there, or may not be seen; name the registry" in account.let(registry=f"{registries.registry}x")["msg"]
    assert "allowed is /subscriptions/<id>" in account.let(registry="examplecircleci")["msg"]
    assert "grants: found none" in account.let(grants=[])["msg"]
    registries.registries[registries.registry]["roleAssignmentMode"] = "AbacRepositoryPermissions"
    assert "has the mode AbacRepositoryPermissions, which is not known here" in account.let(grants=[{"role": "AcrPull", "id": "1", "mode": "LegacyRegistryPermissions"}])["msg"]
    assert registries.assignments == []


def test_only_clusters_without_the_registry_of_digitalocean_are_asked_for(start: Start) -> None:
    account = start("digitalocean")
    account.standin.clusters[CLUSTERS[0]] = True
    found = account.let()
    assert found["changes"] == [f"{CLUSTERS[1]} may pull from registry.digitalocean.com by the integration of the registry"]
    unknown = CLUSTERS[0].replace("b", "c")
    assert f"there is no cluster {unknown} in the account" in account.let(nodes=[unknown])["msg"]
    account.standin.registry, account.standin.clusters = False, dict.fromkeys(CLUSTERS, False)
    assert "DigitalOcean refused POST /v2/kubernetes/registry" in account.let()["msg"]


def test_the_api_of_the_right_is_named_and_signed_for_its_partition() -> None:
    for region, api, signed in (("us-west-2", "https://iam.amazonaws.com", "us-east-1"), ("cn-north-1", "https://iam.cn-north-1.amazonaws.com.cn", "cn-north-1"),
                                ("us-gov-east-1", "https://iam.us-gov.amazonaws.com", "us-gov-west-1")):  # fmt: skip
        assert part_api("registry", "aws", region) == api and part_region("registry", region) == signed
        assert api in endpoints("aws", region, parts={"registry": ""}) and api not in endpoints("aws", region)
    assert part_api("registry", "gcp", "") == "https://artifactregistry.googleapis.com"
    assert endpoints("azure", "", token=True, parts={"registry": ""}) == ["https://management.azure.com"]
