# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
"""What a store does for the Secrets of a site: bring back, take over, make before there is a cluster."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets.store import Keeper, PreparedSecrets, Site
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets.stores import Manifests, manifests_of
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.helm.fake_kube import FakeKube
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.secrets.test_store import (
    DOMAIN,
    INPUTS,
    NS,
    data,
    keeper,
    plan,
    shrink,
    states,
)

PREFIX = f"/api/v1/namespaces/{NS}/secrets/"


def secrets_of(objects: dict[str, Any]) -> Manifests:
    return manifests_of({path.rpartition("/")[2]: item for path, item in objects.items() if path.startswith(PREFIX)})


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    patch = pytest.MonkeyPatch()
    shrink(patch)
    fake = FakeKube()
    assert not keeper(fake).present().errors
    patch.undo()
    return fake.objects


@pytest.fixture
def api(made: dict[str, Any]) -> FakeKube:
    fake = FakeKube()
    fake.objects = copy.deepcopy(made)
    return fake


@pytest.fixture
def kept(made: dict[str, Any]) -> Manifests:
    return copy.deepcopy(secrets_of(made))


def test_lost_keyset_comes_back_from_the_store_although_data_is_there(api: FakeKube, kept: Manifests) -> None:
    before = api.objects.pop(f"{PREFIX}signing-keys")
    api.put(f"/api/v1/namespaces/{NS}/persistentvolumeclaims/datadir-mongodb-0", {})
    looked = keeper(api, write=False, kept=kept).present()
    assert states(looked)["signing-keys"] == "restored" and api.writes() == []
    report = keeper(api, kept=kept).present()
    assert not report.errors and states(report)["signing-keys"] == "restored"
    assert [entry for entry in api.writes() if entry[0] == "POST"] == [("POST", f"/api/v1/namespaces/{NS}/secrets")]
    assert api.objects[f"{PREFIX}signing-keys"]["data"] == before["data"]
    assert not keeper(api, kept=kept).present().changed


def test_what_the_cluster_has_is_the_truth(api: FakeKube, kept: Manifests) -> None:
    kept["session-cookie"]["data"] = {"session-cookie-key": "QUFBQUFBQUFBQUFBQUFBQQ=="}
    assert not keeper(api, kept=kept).present().changed
    assert data(api, "session-cookie", "session-cookie-key") != "A" * 16


def test_an_empty_cluster_is_filled_from_the_store_with_all_metadata(api: FakeKube, kept: Manifests) -> None:
    fresh = FakeKube()
    report = keeper(fresh, kept=kept).present()
    assert not report.errors
    assert set(states(report).values()) == {"restored"}
    assert secrets_of(fresh.objects) == secrets_of(api.objects)


def test_wrong_copies_are_refused_and_nothing_is_written(api: FakeKube, kept: Manifests) -> None:
    del api.objects[f"{PREFIX}tink"], api.objects[f"{PREFIX}session-cookie"]
    kept["tink"]["data"] = {"keyset": "e30="}
    kept["session-cookie"]["data"] = {"session-cookie-key": "eA=="}
    report = keeper(api, kept=kept).present()
    text = "\n".join(report.errors)
    assert "Secret tink cannot be brought back from the store" in text and "exactly 16 characters, has 1" in text
    assert api.writes() == []


def test_a_changed_input_wins_over_the_copy(api: FakeKube, kept: Manifests) -> None:
    del api.objects[f"{PREFIX}license"]
    report = keeper(api, kept=kept, inputs={**INPUTS, "license": "new-licence"}).present()
    assert not report.errors and data(api, "license", "license", 2) == "new-licence"


def test_named_as_of_no_use_it_is_made_anew_although_the_store_has_it(api: FakeKube, kept: Manifests) -> None:
    old = api.objects.pop(f"{PREFIX}tink")
    report = keeper(api, kept=kept, regenerate_lost=["tink"]).present()
    assert states(report)["tink"] == "created" and api.objects[f"{PREFIX}tink"]["data"] != old["data"]


def test_lost_passwords_that_the_chart_made_for_unknown_services_come_back(api: FakeKube, kept: Manifests) -> None:
    kept["new-service"] = {**kept["policy-service"], "metadata": {"name": "new-service"}}
    report = keeper(api, kept=kept).present()
    assert states(report)["new-service"] == "restored"
    annotations = api.objects[f"{PREFIX}new-service"]["metadata"]["annotations"]
    assert annotations["meta.helm.sh/release-name"] == "circleci-server"


def test_prepared_without_a_cluster_and_imported_later(kept: Manifests) -> None:
    prepared = PreparedSecrets(Site(NS, "circleci-server", DOMAIN), {})
    report = Keeper(prepared, plan(), INPUTS, write=True).present()
    assert not report.errors and set(states(report).values()) == {"created"}
    manifests = manifests_of(prepared.objects)
    again = PreparedSecrets(Site(NS, "circleci-server", DOMAIN), manifests)
    assert not Keeper(again, plan(), INPUTS, write=True).present().changed
    assert manifests_of(again.objects) == manifests
    cluster = FakeKube()
    imported = keeper(cluster, kept=manifests).present()
    assert not imported.errors and set(states(imported).values()) == {"restored"}
    assert secrets_of(cluster.objects) == manifests
    assert not keeper(cluster, kept=manifests).present().changed


def test_an_existing_site_is_taken_over(api: FakeKube) -> None:
    given = {
        "api-token": {"api-token": "t" * 48},
        "session-cookie": {"session-cookie-key": "c" * 16},
        "policy-service": {"postgres-app-password": "of-the-old-site"},
        "nomad-mtls": {key: data(api, "nomad-mtls", key, 2) for key in ("ca.pem", "cert.pem", "key.pem")},
    }
    fresh = FakeKube()
    report = keeper(fresh, given=given).present()
    assert not report.errors
    assert {name for name, state in states(report).items() if state == "restored"} == set(given)
    assert data(fresh, "policy-service", "postgres-app-password") == "of-the-old-site"
    # Encoded as the release wants it, and with what Helm needs to adopt it.
    assert data(fresh, "nomad-mtls", "cert.pem", 2) == given["nomad-mtls"]["cert.pem"]
    assert fresh.objects[f"{PREFIX}api-token"]["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
    assert not keeper(fresh, given=given).present().changed


def test_secrets_of_a_site_that_runs_are_adopted_as_they_are(api: FakeKube) -> None:
    """Those that its operator made by the vendor's guide have no metadata of ours or of Helm."""
    for name in ("api-token", "pusher", "nomad-mtls", "policy-service", "postgresql", "signing-keys"):
        item = api.objects[f"{PREFIX}{name}"]
        item["metadata"] = {"name": name}
    before = secrets_of(api.objects)
    report = keeper(api).present()
    assert not report.errors
    updated = {name for name, state in states(report).items() if state == "updated"}
    assert updated == {"api-token", "pusher", "nomad-mtls", "policy-service"}
    assert {name: item["data"] for name, item in secrets_of(api.objects).items()} == {name: item["data"] for name, item in before.items()}


def test_mistyped_names_to_take_over_are_refused(api: FakeKube) -> None:
    report = keeper(api, given={"apitoken": {"api-token": "x"}, "pusher": {"sekret": "x"}}).present()
    assert "names the Secret apitoken: allowed are " in report.errors[0]
    assert "circleci_secrets_given.pusher has the key sekret: allowed are secret" in report.errors[1]
    assert "'x'" not in str(report.errors)
    short = keeper(FakeKube(), given={"session-cookie": {"session-cookie-key": "short"}}).present()
    assert any("circleci_secrets_given" in text and "exactly 16 characters" in text for text in short.errors)
