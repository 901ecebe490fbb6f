# SPDX-License-Identifier: GPL-3.0-or-later
"""Private ways to the object storage of Google Cloud and Azure, against the strict stand-ins; tests/integration_cloud tries the whole verb, and AWS."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.modules import (
    cloud_private_access,
)
from ansible_collections.onprem.circleci_server.tests.integration_cloud import azure
from ansible_collections.onprem.circleci_server.tests.integration_cloud.azure import Azure
from ansible_collections.onprem.circleci_server.tests.integration_cloud.google import Google
from ansible_collections.onprem.circleci_server.tests.integration_cloud.standin import TOKEN, Refused, running
from ansible_collections.onprem.circleci_server.tests.unit.helpers.modules import run_module

VNET = f"{azure.NETWORK}/providers/Microsoft.Network/virtualNetworks/example"
SUBNET = f"{VNET}/subnets/nodes"
SUBNETS = [f"projects/example-project/regions/us-central1/subnetworks/{name}" for name in ("nodes", "clients")]


class Account:
    """The module against one stand-in."""

    def __init__(self, provider: str, standin: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.provider, self.standin, self.capsys = provider, standin, capsys

    def lead(self, *, check: bool = False, **changed: Any) -> dict[str, Any]:
        options: dict[str, Any] = {"provider": self.provider, "site": "osaka", "region": "westeurope", "token": TOKEN, "endpoint": self.standin.url}
        if self.provider == "gcp":
            options.update(from_network=SUBNETS)
        else:
            options.update(network=azure.NETWORK, account="examplecircleci", from_network=[SUBNET], zone=self.standin.private.zone)
        return run_module(cloud_private_access, self.capsys, check=check, **{**options, **changed})


@pytest.fixture(params=["gcp", "azure"])
def account(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    made: Any = {"gcp": Google, "azure": Azure}[request.param]()
    if request.param == "azure":
        made.storage.account("examplecircleci")
    with running(made):
        yield Account(request.param, made, capsys)


@pytest.fixture
def on_azure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with running(Azure()) as made:
        made.storage.account("examplecircleci")  # type: ignore[attr-defined]
        yield Account("azure", made, capsys)


def test_the_way_is_made_once_as_check_mode_said(account: Account) -> None:
    check = account.lead(check=True)
    assert check["changed"] and account.standin.writes == 0, check
    made = account.lead()
    assert made["changes"] == check["changes"] and made["diff"] == check["diff"], made
    written = account.standin.writes
    assert not account.lead()["changed"] and not account.lead(check=True)["changed"] and account.standin.writes == written


def test_a_wrong_token_and_missing_rights_are_told_and_the_same_command_goes_on(account: Account) -> None:
    found = account.lead(token="another canary")
    assert found["failed"] and "401" in found["msg"] and "another canary" not in found["msg"]
    account.standin.next_writes = [Refused(403, "forbidden", "Required permission is missing")]
    found = account.lead()
    assert found["failed"] and "Required permission is missing" in found["msg"]
    assert account.lead()["changed"] and not account.lead()["changed"]
    found = account.lead(from_network=["nowhere"])
    assert found["failed"] and "circleci_cloud_storage_private_access: found 'nowhere'" in found["msg"]


def test_subnetworks_of_google_are_opened_and_never_closed(capsys: pytest.CaptureFixture[str]) -> None:
    with running(Google()) as made:
        account = Account("gcp", made, capsys)
        assert account.lead()["changes"] == [f"{SUBNETS[0]}: private Google access"] and made.subnets == {"nodes": True, "clients": True}  # type: ignore[attr-defined]
        assert not account.lead(from_network=SUBNETS[:1])["changed"]
        made.subnets["nodes"], made.fail_operation = False, "QUOTA_EXCEEDED"  # type: ignore[attr-defined]
        assert "QUOTA_EXCEEDED" in account.lead()["msg"]
        found = account.lead(from_network=[SUBNETS[0].replace("nodes", "other")])
        assert found["failed"] and "was not found" in found["msg"]


def test_endpoint_zone_and_link_of_azure(on_azure: Account) -> None:
    on_azure.lead()
    things = on_azure.standin.private.things
    endpoint = things[f"{azure.NETWORK}/providers/Microsoft.Network/privateEndpoints/circleci-osaka-blob"]
    (connection,) = endpoint["properties"]["privateLinkServiceConnections"]
    assert (endpoint["tags"], endpoint["properties"]["subnet"], connection["properties"]["groupIds"]) == ({"onprem-circleci-site": "osaka"}, {"id": SUBNET}, ["blob"])
    assert [path.rpartition("/")[2] for path in things] == ["circleci-osaka-blob", "privatelink.blob.core.windows.net", "circleci-osaka", "circleci"]
    # A zone and a link of others are taken as they are.
    for path in [path for path in things if "/privateDnsZones/" in path]:
        del things[path]
    on_azure.standin.private.add("privateDnsZones", on_azure.standin.private.zone, location="global")
    link = f"{on_azure.standin.private.zone}/virtualNetworkLinks/theirs"
    on_azure.standin.private.add("privateDnsZones/virtualNetworkLinks", link, location="global", properties={"virtualNetwork": {"id": VNET.upper()}})
    kept = copy.deepcopy(things)
    assert not on_azure.lead()["changed"] and things == kept


def test_the_endpoint_alone(on_azure: Account) -> None:
    assert on_azure.lead(zone="")["changed"] and len(on_azure.standin.private.things) == 1
    assert "privatelink.blob.core.windows.net" in on_azure.lead(zone="example.com")["msg"]


def test_endpoints_of_others_and_those_that_lead_elsewhere_are_refused(on_azure: Account) -> None:
    path = f"{azure.NETWORK}/providers/Microsoft.Network/privateEndpoints/circleci-osaka-blob"
    on_azure.standin.private.add("privateEndpoints", path, location="westeurope", tags={}, properties={"subnet": {"id": SUBNET}})
    found = on_azure.lead()
    assert found["failed"] and "lacks the mark" in found["msg"] and on_azure.standin.writes == 0
    del on_azure.standin.private.things[path]
    on_azure.lead()
    found = on_azure.lead(from_network=[SUBNET.replace("nodes", "other")])
    assert found["failed"] and "Azure cannot move it: remove it, and the next run makes it anew" in found["msg"]
    assert "Azure needs the id of one subnet" in on_azure.lead(from_network=[SUBNET, SUBNET])["msg"]


def test_an_endpoint_that_waits_for_its_owner_and_an_account_that_is_not_there_are_told(on_azure: Account) -> None:
    on_azure.standin.private.status = "Pending"
    on_azure.lead()
    found = on_azure.lead()
    assert not found["changed"] and "is Pending: whoever owns examplecircleci has to approve it" in found["notes"][0]
    on_azure.standin.private.things.clear()
    on_azure.standin.storage.accounts.clear()
    assert "InvalidResourceReference" in on_azure.lead()["msg"]


def test_digitalocean_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_module(cloud_private_access, capsys, provider="digitalocean", site="osaka", from_network=["x"])
    assert found["failed"] and "DigitalOcean has no private way to Spaces" in found["msg"]
