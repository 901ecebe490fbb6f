# SPDX-License-Identifier: GPL-3.0-or-later
"""Object storage of Google Cloud and Azure by the module, against the strict stand-ins; tests/integration_cloud tries the whole verb, and AWS."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.modules import cloud_storage
from ansible_collections.onprem.circleci_server.tests.integration_cloud import azure, google
from ansible_collections.onprem.circleci_server.tests.integration_cloud.azure import Azure
from ansible_collections.onprem.circleci_server.tests.integration_cloud.google import Google
from ansible_collections.onprem.circleci_server.tests.integration_cloud.google_storage import OTHER_NUMBER
from ansible_collections.onprem.circleci_server.tests.integration_cloud.standin import TOKEN, Refused, running
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module

KEY = "projects/example-project/locations/us/keyRings/ring/cryptoKeys/key"


class Account:
    """The module against one stand-in."""

    def __init__(self, provider: str, standin: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.provider, self.standin, self.capsys = provider, standin, capsys

    def make(self, *, check: bool = False, **changed: Any) -> dict[str, Any]:
        options: dict[str, Any] = {
            "provider": self.provider, "site": "osaka", "owner": "ci.example.com", "region": "westeurope", "token": TOKEN, "endpoint": self.standin.url,
            "bucket": "example-data", "agent_bucket": "example-agents",
        }  # fmt: skip
        if self.provider == "gcp":
            options.update(network=google.NETWORK, store_endpoint=self.standin.url)
        else:
            options.update(network=azure.NETWORK, account="examplecircleci", sku="Standard_ZRS")
        return run_module(cloud_storage, self.capsys, check=check, **{**options, **changed})


@pytest.fixture
def on_google(capsys: pytest.CaptureFixture[str]) -> Iterator[Account]:
    with running(Google()) as made:
        yield Account("gcp", made, capsys)


@pytest.fixture
def on_azure(capsys: pytest.CaptureFixture[str]) -> Iterator[Account]:
    with running(Azure()) as made:
        yield Account("azure", made, capsys)


@pytest.fixture(params=["gcp", "azure"])
def account(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Iterator[Account]:
    with running({"gcp": Google, "azure": Azure}[request.param]()) as made:
        yield Account(request.param, made, capsys)


def test_it_is_made_once_as_check_mode_said(account: Account) -> None:
    check = account.make(check=True)
    assert check["changed"] and account.standin.writes == 0, check
    made = account.make()
    assert made["changed"] and made["changes"] == check["changes"] and made["diff"] == check["diff"], made
    written = account.standin.writes
    assert not account.make()["changed"] and not account.make(check=True)["changed"] and account.standin.writes == written


def test_another_site_is_refused_and_changes_nothing(account: Account) -> None:
    account.make()
    written = account.standin.writes
    found = account.make(owner="ci.other.example")
    assert found["failed"] and "belongs to the site 'ci.example.com'" in found["msg"], found
    assert found["msg"].count("belongs to the site") == 2 and account.standin.writes == written


def test_a_wrong_token_and_missing_rights_are_told_and_the_same_command_goes_on(account: Account) -> None:
    found = account.make(token="another canary")
    assert found["failed"] and "401" in found["msg"] and "another canary" not in found["msg"], found
    account.standin.next_writes = [Refused(403, "forbidden", "Required permission is missing")] * (2 if account.provider == "azure" else 1)
    found = account.make()
    assert found["failed"] and "Required permission is missing" in found["msg"], found
    account.standin.next_writes = []
    assert account.make()["changed"] and not account.make()["changed"]


def test_a_run_that_breaks_in_the_middle_says_what_is_done(account: Account) -> None:
    account.make(check=True)
    if account.provider == "gcp":
        account.standin.storage.prevention = True
        found = account.make()
        assert "Already done: bucket example-data; the same command goes on" in found["msg"], found
        assert "enforces public access prevention, so that agents cannot be served from it" in found["msg"]
        account.standin.storage.prevention = False
    else:
        account.standin.storage.account("examplecircleci", sku={"name": "Standard_ZRS", "tier": "Standard"}, tags={"onprem-circleci-site": "osaka"})
        account.standin.next_writes = [Refused(403, "AuthorizationFailed", "no right for containers")]
        account.standin.storage.accounts["examplecircleci"]["properties"].update(allowBlobPublicAccess=False, minimumTlsVersion="TLS1_2", supportsHttpsTrafficOnly=True)
        assert "no right for containers" in account.make()["msg"]
    assert account.make()["changed"] and not account.make()["changed"]


# --- Google -------------------------------------------------------------------------------------------------------------


def test_buckets_of_google_are_protected(on_google: Account) -> None:
    on_google.make(key=KEY, versioning=True, store_region="europe-west4")
    data, agents = (on_google.standin.storage.buckets[name] for name in ("example-data", "example-agents"))
    assert (data["location"], data["versioning"], data["encryption"], data["labels"]) == (
        "EUROPE-WEST4", {"enabled": True}, {"defaultKmsKeyName": KEY}, {"onprem-circleci-site": "osaka"})  # fmt: skip
    assert data["iamConfiguration"] == {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "enforced"}
    assert agents["iamConfiguration"] == {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "inherited"}
    opened = [binding["role"] for binding in on_google.standin.storage.policies["example-agents"]["bindings"] if "allUsers" in binding["members"]]
    assert opened == ["roles/storage.legacyObjectReader"]
    # Somebody takes the protection away.
    data["iamConfiguration"]["publicAccessPrevention"] = "inherited"
    data["labels"] = {"team": "theirs"}
    found = on_google.make(key=KEY, versioning=True)
    assert found["changes"] == ["bucket example-data: public access blocked, whatever a policy says", "bucket example-data: onprem-circleci-site is osaka",
                                "not any more: bucket example-data: public access by the policy alone"], found  # fmt: skip
    assert data["labels"] == {"team": "theirs", "onprem-circleci-site": "osaka"}
    # A key that is not asked for any more stays: what it encrypts needs it.
    assert not on_google.make(versioning=True)["changed"] and data["encryption"] == {"defaultKmsKeyName": KEY}


def test_buckets_of_others_in_google_are_refused(on_google: Account) -> None:
    on_google.standin.storage.add("example-data", OTHER_NUMBER)
    on_google.standin.storage.taken = {"example-agents"}
    kept = copy.deepcopy(on_google.standin.storage.buckets)
    found = on_google.make()
    assert found["failed"] and on_google.standin.storage.buckets == kept and on_google.standin.writes == 0
    assert "circleci_object_storage_agent_bucket: bucket example-agents on" in found["msg"] and "is there, but not ours" in found["msg"], found
    on_google.standin.storage.taken = set()
    found = on_google.make()
    assert "circleci_object_storage_bucket: bucket example-data is there, but in an account or a project of somebody else" in found["msg"], found


def test_data_of_google_that_everybody_reads_are_refused(on_google: Account) -> None:
    on_google.standin.storage.add("example-data")
    on_google.standin.storage.policies["example-data"]["bindings"].append({"role": "roles/storage.objectViewer", "members": ["allUsers"]})
    found = on_google.make()
    assert found["failed"] and "can be read by everybody" in found["msg"] and on_google.standin.writes == 0


@pytest.mark.parametrize("changed, said", [
    ({"store_region": "mars-1"}, "The specified location constraint is not valid."),
    ({"bucket": "goog-data"}, "Invalid bucket name"),
    ({"network": ""}, "projects/<project>/global/networks/<name>"),
])  # fmt: skip
def test_what_google_refuses_is_told_in_its_words(on_google: Account, changed: dict[str, Any], said: str) -> None:
    found = on_google.make(**changed)
    assert found["failed"] and said in found["msg"] and not on_google.standin.storage.buckets, found


# --- Azure --------------------------------------------------------------------------------------------------------------


def test_account_and_containers_of_azure(on_azure: Account) -> None:
    on_azure.make()
    storage = on_azure.standin.storage
    made = storage.accounts["examplecircleci"]
    assert (made["sku"]["name"], made["kind"], made["tags"]) == ("Standard_ZRS", "StorageV2", {"onprem-circleci-site": "osaka"})
    assert {name: made["properties"][name] for name in ("allowBlobPublicAccess", "minimumTlsVersion", "supportsHttpsTrafficOnly")} == {
        "allowBlobPublicAccess": False, "minimumTlsVersion": "TLS1_2", "supportsHttpsTrafficOnly": True}  # fmt: skip
    data = storage.containers["examplecircleci", "example-data"]
    assert data["properties"]["publicAccess"] == "None" and data["properties"]["metadata"] == {"onprem_circleci_site": "ci.example.com"}
    made["properties"]["allowBlobPublicAccess"] = True
    # What a gateway keeps in the metadata stays when the claim is set anew.
    data["properties"]["metadata"] = {"Acl": "eyJ9"}
    check = on_azure.make(check=True)
    found = on_azure.make()
    assert found["changes"] == check["changes"] and "storage account examplecircleci: public access blocked" in found["changes"], found
    assert data["properties"]["metadata"] == {"Acl": "eyJ9", "onprem_circleci_site": "ci.example.com"} and not made["properties"]["allowBlobPublicAccess"]
    assert not on_azure.make()["changed"]


def test_an_account_of_azure_that_is_there_is_taken_as_it_is(on_azure: Account) -> None:
    found = on_azure.make(sku="")
    assert found["failed"] and "storage account examplecircleci is not in" in found["msg"] and "circleci_cloud_storage_sku" in found["msg"]
    kept = copy.deepcopy(on_azure.standin.storage.account("examplecircleci", properties={"allowBlobPublicAccess": True}))
    assert on_azure.make(sku="", agent_bucket="")["changed"] and not on_azure.make(sku="", agent_bucket="")["changed"]
    assert on_azure.standin.storage.accounts["examplecircleci"] == kept
    assert list(on_azure.standin.storage.containers) == [("examplecircleci", "example-data")]
    # Asked to keep it, it is not ours to change.
    found = on_azure.make()
    assert found["failed"] and "was not made by this collection for this site" in found["msg"] and "public access not blocked" in found["msg"], found


def test_names_of_accounts_that_others_have_or_azure_forbids_are_told_in_check_mode_too(on_azure: Account) -> None:
    on_azure.standin.storage.taken = {"examplecircleci"}
    for check in (True, False):
        found = on_azure.make(check=check)
        assert found["failed"] and "is taken, and not in this resource group" in found["msg"] and on_azure.standin.writes == 0, found
    found = on_azure.make(account="Example_Circleci")
    assert "is not allowed" in found["msg"] and "between 3 and 24 characters" in found["msg"]


def test_what_azure_refuses_is_told_in_its_words(on_azure: Account) -> None:
    assert "LocationNotAvailableForResourceType" in on_azure.make(region="mars")["msg"]
    on_azure.standin.storage.forbidden = "Resource 'examplecircleci' was disallowed by policy."
    assert "was disallowed by policy. (RequestDisallowedByPolicy) (HTTP 403)" in on_azure.make()["msg"]
    assert "/subscriptions/<id>/resourceGroups/<name>" in on_azure.make(network="x")["msg"]
    on_azure.standin.storage.forbidden = ""
    assert "InvalidResourceName" in on_azure.make(bucket="two--hyphens")["msg"]


def test_open_containers_and_another_redundancy_are_refused(on_azure: Account) -> None:
    on_azure.standin.storage.account("examplecircleci", tags={"onprem-circleci-site": "osaka"})
    found = on_azure.make()
    assert "circleci_cloud_storage_sku: found Standard_ZRS, but storage account examplecircleci has Standard_LRS" in found["msg"]
    on_azure.standin.storage.container("examplecircleci", "example-data", publicAccess="Blob")
    found = on_azure.make(sku="Standard_LRS")
    assert "container example-data can be read by everybody" in found["msg"] and on_azure.standin.writes == 0
