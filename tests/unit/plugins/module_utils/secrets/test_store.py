# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
from __future__ import annotations

import base64
import copy
import json
import re
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.helm.kube import KubeError
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets import generate, pki
from ansible_collections.onprem.circleci_server.plugins.module_utils.secrets.store import (
    Keeper,
    Report,
    SecretsError,
    SecretStore,
    Site,
    read_values,
)
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values.model import site_facts
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values.secret_plan import (
    NOMAD_CLUSTER,
    nomad_client_secret,
    secret_plan,
)
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.helm.fake_kube import FakeKube
from ansible_collections.onprem.circleci_server.tests.unit.plugins.module_utils.helm.test_lifecycle import (
    release as helm_release,
)

NS = "circleci-server"
DOMAIN = "ci.site.example"
INPUTS = {
    "license": "the-licence",
    "registry_username": "mirror",
    "registry_password": "registry-secret",
    "github_client_id": "id",
    "github_client_secret": "oauth-secret",
    "github_default_token": "ghe-token",
    "object_storage_access_key": "AK",
    "object_storage_secret_key": "SK",
}
FACTS: dict[str, Any] = {
    "release": "4.10.0",
    "platform": "generic",
    "domain": DOMAIN,
    "registry": {"host": "registry.site.example:5000"},
    "object_storage": {"endpoint": "https://store.site.example:7070", "bucket": "circleci-data"},
    "github": {"hostname": "github.site.example"},
    "nomad_clients": ["nomad1", "nomad2.site.example"],
}


REAL_AUTHORITY, REAL_ISSUE = pki.new_authority, pki.issue


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Real RSA, but small: the sizes have a test of their own."""
    patch.setattr(pki, "new_authority", lambda name: REAL_AUTHORITY(name, bits=1024))
    patch.setattr(pki, "issue", lambda ca, subject: REAL_ISSUE(ca, subject, bits=1024))


@pytest.fixture(autouse=True)
def small_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


def plan(**changes: Any) -> dict[str, Any]:
    facts, errors = site_facts({**FACTS, **changes})
    assert not errors
    return secret_plan(facts, Catalog.load(), own_registry=True, own_object_storage=True)


def keeper(api: FakeKube, the_plan: dict[str, Any] | None = None, write: bool = True, **rest: Any) -> Keeper:
    inputs = rest.pop("inputs", INPUTS)
    store = SecretStore(api, Site(NS, "circleci-server", DOMAIN))
    return Keeper(store, the_plan or plan(), inputs, write=write, **rest)


def data(api: FakeKube, name: str, key: str, times: int = 1) -> str:
    raw: Any = api.objects[f"/api/v1/namespaces/{NS}/secrets/{name}"]["data"][key]
    for _count in range(times):
        raw = base64.b64decode(raw, validate=True)
    return str(raw.decode())


def states(report: Report) -> dict[str, str]:
    return {entry["name"]: entry["state"] for entry in report.secrets}


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """The objects of a site whose Secrets were made once (making them costs a second)."""
    patch = pytest.MonkeyPatch()
    shrink(patch)
    api = FakeKube()
    report = keeper(api).present()
    patch.undo()
    assert not report.errors, report.errors
    return api.objects


@pytest.fixture
def api(made: dict[str, Any]) -> FakeKube:
    fake = FakeKube()
    fake.objects = copy.deepcopy(made)
    return fake


def test_everything_is_made_in_the_form_the_release_wants(api: FakeKube) -> None:
    assert data(api, "license", "license", 2) == "the-licence"
    assert re.fullmatch(r"[A-Za-z0-9]{16}", data(api, "session-cookie", "session-cookie-key"))
    assert re.fullmatch(r"[A-Za-z0-9]{32}", data(api, "nomad-gossip-encryption-key", "gossip-key"))
    assert len(data(api, "api-token", "api-token")) == 48
    assert len(data(api, "mongodb-credentials", "mongodb-password")) == 20
    assert data(api, "postgresql", "password") == data(api, "postgresql", "postgres-password")
    assert "BEGIN CERTIFICATE" in data(api, "nomad-mtls", "ca.pem", 2)
    assert "RSA PRIVATE KEY" in data(api, "nomad-mtls", "key.pem", 2)
    assert "SIGN_AND_VERIFY" in data(api, "signing-keys", "signing-key")
    tink = json.loads(data(api, "tink", "keyset"))
    assert len(base64.b64decode(tink["key"][0]["keyData"]["value"])) == 34
    login = json.loads(data(api, "regcred", ".dockerconfigjson"))["auths"]["registry.site.example:5000"]
    assert base64.b64decode(login["auth"]) == b"mirror:registry-secret"
    passwords = [name for name, item in api.objects.items() if "postgres-app-password" in (item.get("data") or {})]
    assert len(passwords) == 16


def test_metadata_lets_helm_adopt_what_it_would_make_itself(api: FakeKube) -> None:
    adopted = {"api-token", "session-cookie", "pusher", "nomad-gossip-encryption-key", "nomad-mtls", "policy-service"}
    for path, item in api.objects.items():
        name = path.rpartition("/")[2]
        if "/secrets/" not in path:
            continue
        metadata = item["metadata"]
        assert metadata["annotations"]["helm.sh/resource-policy"] == "keep", name
        managed = metadata["labels"]["app.kubernetes.io/managed-by"]
        if name in adopted:
            assert managed == "Helm"
            assert metadata["annotations"]["meta.helm.sh/release-name"] == "circleci-server"
            assert metadata["annotations"]["meta.helm.sh/release-namespace"] == NS
        elif name in ("license", "signing-keys", "postgresql", "tink", "github-secret", "regcred"):
            assert managed == "onprem.circleci_server"
    assert api.objects[f"/api/v1/namespaces/{NS}/secrets/postgresql"]["metadata"]["labels"]["app.kubernetes.io/name"] == "postgresql"


def test_second_run_changes_nothing_and_writes_nothing(api: FakeKube) -> None:
    report = keeper(api).present()
    assert not report.errors
    assert not report.changed
    assert set(states(report).values()) == {"present"}
    assert api.writes() == []


def test_verified_needs_no_input(api: FakeKube) -> None:
    report = keeper(api, inputs={}, write=False).verified()
    assert not report.errors
    assert api.writes() == []


def test_check_mode_on_an_empty_cluster_names_all_and_writes_nothing() -> None:
    api = FakeKube()
    report = keeper(api, write=False).present()
    assert report.changed
    assert report.namespace_created
    assert set(states(report).values()) == {"created"}
    assert api.writes() == []


def test_install_refuses_and_lists_what_is_missing(api: FakeKube) -> None:
    for name in ("tink", "license"):
        del api.objects[f"/api/v1/namespaces/{NS}/secrets/{name}"]
    report = keeper(api, write=False).verified()
    assert states(report)["tink"] == "missing"
    assert len(report.errors) == 1
    assert "license, tink" in report.errors[0]
    assert "verb secrets" in report.errors[0]


def test_missing_inputs_are_reported_together() -> None:
    report = keeper(FakeKube(), inputs={}).present()
    text = "\n".join(report.errors)
    for name in ("circleci_license", "circleci_registry_password", "circleci_github_client_secret", "circleci_object_storage_secret_key"):
        assert name in text
    assert not report.changed


def test_operator_input_is_followed_and_nothing_else_changes(api: FakeKube) -> None:
    cookie = data(api, "session-cookie", "session-cookie-key")
    report = keeper(api, inputs={**INPUTS, "registry_password": "new-one", "license": "new-licence"}).present()
    changed = {name for name, state in states(report).items() if state == "updated"}
    assert changed == {"regcred", "license"}
    assert data(api, "license", "license", 2) == "new-licence"
    assert data(api, "session-cookie", "session-cookie-key") == cookie
    stale = keeper(api, write=False).verified()
    assert any("regcred" in text and "verb secrets" in text for text in stale.errors)


def test_other_registries_in_the_pull_secret_stay(api: FakeKube) -> None:
    text = json.dumps({"auths": {"hub.example": {"auth": "eA=="}, "registry.site.example:5000": {"auth": "b2xk"}}})
    api.secret(NS, "regcred", {".dockerconfigjson": text})
    keeper(api).present()
    hosts = json.loads(data(api, "regcred", ".dockerconfigjson"))["auths"]
    assert set(hosts) == {"hub.example", "registry.site.example:5000"}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("session-cookie", {"session-cookie-key": "short"}, "exactly 16 characters, has 5"),
        ("nomad-gossip-encryption-key", {"gossip-key": "x" * 33}, "exactly 32 characters, has 33"),
        ("nomad-gossip-encryption-key", {"gossip-key": "_" * 32}, "letters and digits only"),
        ("signing-keys", {"signing-key": "x", "encryption-key": "y"}, "no keyset"),
        ("tink", {"keyset": "{}"}, "no Tink keyset"),
        ("regcred", {".dockerconfigjson": '{"auths": {"other": {}}}'}, "is for other, not for registry.site.example:5000"),
        ("mongodb-credentials", {"mongodb-password": "x"}, "the key mongodb-root-password is missing"),
    ],
)
def test_wrong_secrets_are_named_and_left_alone(api: FakeKube, name: str, content: dict[str, str], sentence: str) -> None:
    adopt = {
        "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"meta.helm.sh/release-name": "circleci-server"},
    }
    api.secret(NS, name, content, **adopt)
    report = keeper(api, inputs={**INPUTS, "registry_username": "", "registry_password": ""}).present()
    assert any(name in text and sentence in text for text in report.errors), report.errors
    assert api.writes() == []


def test_all_problems_come_at_once(api: FakeKube) -> None:
    api.secret(NS, "session-cookie", {"session-cookie-key": "short"})
    api.secret(NS, "tink", {"keyset": "{}"})
    report = keeper(api, inputs={**INPUTS}).present()
    assert len(report.errors) == 2


def test_short_vendor_example_of_tink_is_refused(api: FakeKube) -> None:
    keyset = json.loads(generate.tink_keyset())
    keyset["key"][0]["keyData"]["value"] = base64.b64encode(b"\x1a\x20" + b"x" * 31).decode()
    api.secret(NS, "tink", {"keyset": json.dumps(keyset)})
    assert any("cut short" in text for text in keeper(api).present().errors)


def test_lost_keyset_with_data_is_refused_until_it_is_named(api: FakeKube) -> None:
    del api.objects[f"/api/v1/namespaces/{NS}/secrets/signing-keys"]
    api.put(f"/api/v1/namespaces/{NS}/persistentvolumeclaims/datadir-mongodb-0", {})
    report = keeper(api).present()
    assert any("signing-keys" in text and "escrow" in text for text in report.errors)
    assert api.writes() == []
    again = keeper(api, regenerate_lost=["signing-keys"]).present()
    assert states(again)["signing-keys"] == "created"


@pytest.mark.parametrize(
    ("installed", "chart", "made_anew"),
    [("4.8.12", "circleci-server", True), ("4.9.3", "circleci-server", False), ("", "", False), ("1.0.0", "somebody-elses", False)],
    ids=["older", "has-it", "unknown", "foreign"],
)
def test_password_of_a_service_that_is_new_in_the_next_release_is_no_lost_one(api: FakeKube, installed: str, chart: str, made_anew: bool) -> None:
    name = "lock-job-provider-internalapi"
    del api.objects[f"/api/v1/namespaces/{NS}/secrets/{name}"]
    api.put(f"/api/v1/namespaces/{NS}/persistentvolumeclaims/data-postgresql-0", {"metadata": {"name": "data-postgresql-0"}})
    if installed:
        helm_release(api, 1, installed, chart=chart)
    report = keeper(api, plan(release="4.9.5")).present()
    if made_anew:
        assert (report.errors, states(report)[name]) == ([], "created")
        del api.objects[f"/api/v1/namespaces/{NS}/secrets/domain-service"]
        report, name = keeper(api, plan(release="4.9.5")).present(), "domain-service"
    assert any(f"Secret {name} is missing, yet data" in text for text in report.errors)


def test_without_metadata_a_secret_of_the_operator_gets_it(api: FakeKube) -> None:
    api.secret(NS, "session-cookie", {"session-cookie-key": "A" * 16})
    report = keeper(api).present()
    assert states(report)["session-cookie"] == "updated"
    assert data(api, "session-cookie", "session-cookie-key") == "A" * 16
    metadata = api.objects[f"/api/v1/namespaces/{NS}/secrets/session-cookie"]["metadata"]
    assert metadata["annotations"]["meta.helm.sh/release-name"] == "circleci-server"


def test_secret_of_another_release_is_refused(api: FakeKube) -> None:
    api.secret(
        NS, "session-cookie", {"session-cookie-key": "A" * 16}, annotations={"meta.helm.sh/release-name": "other"}
    )
    assert any("belongs to the Helm release other" in text for text in keeper(api).present().errors)


def test_namespace_of_another_site_is_refused() -> None:
    api = FakeKube()
    api.put(f"/api/v1/namespaces/{NS}", {"metadata": {"name": NS, "annotations": {"onprem.circleci-server/site": "ci.osaka.example"}}})
    report = keeper(api).present()
    assert "belongs to the site ci.osaka.example" in report.errors[0]
    assert api.writes() == []


def test_namespace_admin_rights_are_enough_when_the_namespace_is_there() -> None:
    api = FakeKube(NS)
    api.forbidden.add(("GET", "namespaces"))
    assert not keeper(api).present().errors


def test_no_right_to_make_secrets_is_a_clear_error() -> None:
    api = FakeKube(NS)
    api.forbidden.add(("POST", "secrets"))
    with pytest.raises(KubeError) as caught:
        keeper(api).present()
    assert "lacks a right" in caught.value.sentence


def test_store_that_forgets_is_refused() -> None:
    api = FakeKube(NS)

    def forget(method: str, path: str) -> Any:
        if method == "GET" and "/secrets/" in path:
            return {"metadata": {"name": path.rpartition("/")[2]}, "data": {}}
        return None

    api.hooks.append(forget)
    with pytest.raises(SecretsError, match="did not keep what was written"):
        keeper(api).present()


def test_interrupted_run_goes_on(made: dict[str, Any]) -> None:
    api = FakeKube(NS)
    api.forbidden.add(("POST", "secrets"))
    with pytest.raises(KubeError):
        keeper(api).present()
    api.forbidden.clear()
    api.objects.update({path: item for path, item in list(made.items())[:12] if "/secrets/" in path})
    report = keeper(api).present()
    assert not report.errors
    assert "created" in states(report).values()
    assert not keeper(api).present().changed


# -- certificates -------------------------------------------------------------------------------------------------


def test_certificates_fit_names_and_authorities(api: FakeKube) -> None:
    domain = pki.Pair(data(api, "onprem-circleci-domain-tls", "tls.crt"), data(api, "onprem-circleci-domain-tls", "tls.key"))
    ca = data(api, "onprem-circleci-site-ca", "ca.crt")
    assert pki.check_pair(domain, [DOMAIN, f"app.{DOMAIN}"], (), ca).errors == []
    server = pki.Pair(data(api, "nomad-mtls", "cert.pem", 2), data(api, "nomad-mtls", "key.pem", 2))
    names = ["server.global.nomad", "localhost", "nomad-server", *(f"nomad-server-{index}.global" for index in range(7))]
    nomad_ca = data(api, "onprem-circleci-nomad-ca", "ca.crt")
    assert pki.check_pair(server, names, ["127.0.0.1"], nomad_ca).errors == []
    client = pki.Pair(
        data(api, "onprem-circleci-nomad-client-nomad1", "cert.pem"), data(api, "onprem-circleci-nomad-client-nomad1", "key.pem")
    )
    assert pki.check_pair(client, ["client.global.nomad", "nomad1"], ["127.0.0.1"], nomad_ca).errors == []
    assert "*" not in "".join(pki._alternative_names(pki._load(server.certificate))[0])


def test_given_pair_is_checked_before_it_is_stored(api: FakeKube) -> None:
    ca = pki.new_authority("corporate")
    lacking = pki.issue(ca, pki.Subject(DOMAIN, dns=(DOMAIN,)))
    report = keeper(api, inputs={**INPUTS, "tls_certificate": lacking.certificate, "tls_private_key": lacking.key}).present()
    assert any(f"lacks app.{DOMAIN}" in text for text in report.errors)
    wildcard = pki.issue(ca, pki.Subject(DOMAIN, dns=(DOMAIN, f"*.{DOMAIN}")))
    crossed = keeper(api, inputs={**INPUTS, "tls_certificate": wildcard.certificate, "tls_private_key": lacking.key}).present()
    assert any("key does not belong" in text for text in crossed.errors)
    chain = wildcard.certificate + ca.certificate
    good = keeper(api, inputs={**INPUTS, "tls_certificate": chain, "tls_private_key": wildcard.key}).present()
    assert not good.errors
    assert states(good)["onprem-circleci-domain-tls"] == "updated"
    again = keeper(api, inputs={**INPUTS, "tls_certificate": chain, "tls_private_key": wildcard.key}).present()
    assert not again.errors
    assert not again.changed


def test_expired_certificate_is_named_and_can_be_renewed(api: FakeKube) -> None:
    ca = pki.Pair(data(api, "onprem-circleci-site-ca", "ca.crt"), data(api, "onprem-circleci-site-ca", "ca.key"))
    old = pki.issue(ca, pki.Subject(DOMAIN, dns=(DOMAIN, f"app.{DOMAIN}"), days=-0))
    api.secret(NS, "onprem-circleci-domain-tls", {"tls.crt": old.certificate, "tls.key": old.key, "ca.crt": ca.certificate})
    report = keeper(api).present()
    assert any("expired" in text and "circleci_secrets_renew" in text for text in report.errors), report.errors
    renewed = keeper(api, renew=["onprem-circleci-domain-tls"]).present()
    assert states(renewed)["onprem-circleci-domain-tls"] == "updated"
    assert not keeper(api).present().errors


def test_certificate_that_soon_expires_is_a_notice(api: FakeKube) -> None:
    ca = pki.Pair(data(api, "onprem-circleci-site-ca", "ca.crt"), data(api, "onprem-circleci-site-ca", "ca.key"))
    soon = pki.issue(ca, pki.Subject(DOMAIN, dns=(DOMAIN, f"app.{DOMAIN}"), days=10))
    api.secret(NS, "onprem-circleci-domain-tls", {"tls.crt": soon.certificate, "tls.key": soon.key, "ca.crt": ca.certificate})
    report = keeper(api).present()
    assert not report.errors
    assert any("expires on" in text for text in report.warnings)


def test_unknown_name_to_renew_is_refused(api: FakeKube) -> None:
    assert any("renew names 'tls'" in text for text in keeper(api, renew=["tls"]).present().errors)


def test_clients_whose_names_look_alike_have_a_secret_each() -> None:
    hosts = ["a-b", "a_b", "A-b", "a__b", "ä-b", "_", "cluster"]
    names = [nomad_client_secret(host) for host in hosts]
    assert names[0] == "onprem-circleci-nomad-client-a-b", "a name that may stand there stands there as it is"
    assert len({*names, NOMAD_CLUSTER}) == len(hosts) + 1
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name) for name in names), names
    planned = plan(nomad_clients=hosts, nomad={"internal": False}, nomad_servers=["s_1", "s-1"])["secrets"]
    found = [secret["name"] for secret in planned if secret["name"].startswith("onprem-circleci-nomad-")]
    assert {*names, NOMAD_CLUSTER} <= set(found) and len(found) == len(set(found))


def test_new_client_gets_a_pair_from_the_same_authority(api: FakeKube) -> None:
    report = keeper(api, plan(nomad_clients=["nomad1", "nomad2.site.example", "nomad3"])).present()
    assert [name for name, state in states(report).items() if state == "created"] == ["onprem-circleci-nomad-client-nomad3"]
    assert data(api, "onprem-circleci-nomad-client-nomad3", "ca.pem") == data(api, "onprem-circleci-nomad-ca", "ca.crt")


def test_site_authority_can_be_given(api: FakeKube) -> None:
    fresh = FakeKube()
    ca = pki.new_authority("corporate")
    inputs = {**INPUTS, "site_ca_certificate": ca.certificate, "site_ca_private_key": ca.key}
    assert not keeper(fresh, inputs=inputs).present().errors
    domain = pki.Pair(data(fresh, "onprem-circleci-domain-tls", "tls.crt"), data(fresh, "onprem-circleci-domain-tls", "tls.key"))
    assert pki.check_pair(domain, [DOMAIN], (), ca.certificate).errors == []
    alone = keeper(FakeKube(), inputs={**INPUTS, "site_ca_certificate": ca.certificate}).present()
    assert any(": circleci_secrets_site_ca_private_key is empty" in text for text in alone.errors)


def test_variables_are_named_as_the_operator_knows_them() -> None:
    assert any("circleci_license is empty" in text for text in keeper(FakeKube(), inputs={**INPUTS, "license": ""}).present().errors)
    wrong = keeper(FakeKube(), inputs={**INPUTS, "keyset_signing": "no keyset"}).present()
    assert any("circleci_secrets_keyset_signing is no keyset" in text for text in wrong.errors)
    outside = plan(postgres={"internal": False, "host": "db.site.example"})
    assert any("circleci_secrets_postgres_password is empty" in text for text in keeper(FakeKube(), outside).present().errors)


def test_no_secret_in_the_report(api: FakeKube) -> None:
    report = keeper(FakeKube()).present()
    text = json.dumps([report.secrets, report.warnings, report.errors])
    for value in ("the-licence", "registry-secret", "oauth-secret", "ghe-token", "SK", "PRIVATE"):
        assert value not in text


def test_read_values_decodes_and_names_what_is_missing(api: FakeKube) -> None:
    wanted: list[dict[str, Any]] = [
        {"name": "onprem-circleci-nomad-client-nomad1", "keys": []},
        {"name": "license", "keys": ["license"], "encoding": "base64"},
        {"name": "gone", "keys": [], "optional": True},
    ]
    values, problems = read_values(api, NS, wanted)
    assert problems == []
    assert values["license"] == {"license": "the-licence"}
    assert set(values["onprem-circleci-nomad-client-nomad1"]) == {"ca.pem", "cert.pem", "key.pem"}
    _values, problems = read_values(api, NS, [{"name": "absent"}, {"name": "license", "keys": ["nope"]}])
    assert len(problems) == 2
