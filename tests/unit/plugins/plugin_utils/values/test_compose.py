# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values import compose_data
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values.model import dotted, parse_path
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values.overlay import leaves
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values.rules import image_path
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.values.secret_plan import secrets_in_values
from ansible_collections.onprem.circleci_server.tests.unit.plugins.plugin_utils.values.sites import (
    CERTIFICATE,
    FULL,
    KEY,
    OLD,
    PLATFORMS,
    site,
)


def at(values: Any, key: str) -> Any:
    for part in parse_path(key):
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values


def values(release: str, platform: str = "generic", **changes: Any) -> dict[str, Any]:
    result = compose_data(site(release, platform, **changes))
    assert result["errors"] == []
    found: dict[str, Any] = result["values"]
    return found


def errors(release: str = "4.10.0", platform: str = "generic", **changes: Any) -> str:
    return "\n".join(compose_data(site(release, platform, **changes))["errors"])


def warnings(release: str = "4.10.0", platform: str = "generic", **changes: Any) -> str:
    return "\n".join(compose_data(site(release, platform, **changes))["warnings"])


# -- the traps of the vendor's guide, one test each ----------------------------------------------------------------


@pytest.mark.parametrize("release", [*OLD[3:], *FULL])
def test_trap_docker_provisioner_stays_on(release: str) -> None:
    assert at(values(release), "docker_provisioner.enabled") is True


@pytest.mark.parametrize("release", [*OLD, *FULL])
def test_trap_third_party_images_are_moved(release: str) -> None:
    found = values(release)
    prefix = "registry.example.com:5000/"
    assert at(found, "kong.image.repository") == f"{prefix}library/kong"
    assert at(found, "soketi.image.repository") == f"{prefix}soketi/soketi"
    nginx = "nginxinc/nginx-unprivileged" if release in FULL else "library/nginx"
    assert at(found, "nginx.image.repository") == prefix + nginx
    for name in ("mongodb", "postgresql", "rabbitmq", "redis"):
        assert at(found, f"{name}.image.registry") == "registry.example.com:5000"
    telegraf = at(found, "telegraf.image.repo")
    assert telegraf == (None if release == "4.10.0" else f"{prefix}library/telegraf")
    assert at(found, "nomad.server.image.repository") == (f"{prefix}hashicorp/nomad" if release in FULL[1:] else None)


def test_collector_image_follows_the_release() -> None:
    key = "opentelemetry-collector.image.repository"
    assert str(at(values("4.9.5"), key)).endswith("otel/opentelemetry-collector-k8s")
    assert str(at(values("4.10.0"), key)).endswith("otel/opentelemetry-collector-contrib")
    assert at(values("4.8.12"), key) is None


@pytest.mark.parametrize(("release", "form"), [("4.6.6", [{"name": "regcred"}]), ("4.7.15", ["regcred"])])
def test_trap_form_of_pull_secrets_changes_at_4_7(release: str, form: Any) -> None:
    assert at(values(release), "global.imagePullSecrets") == form


@pytest.mark.parametrize("platform", ["azure", "digitalocean", "rancher", "generic"])
def test_trap_machine_executors_are_off_where_they_cannot_work(platform: str) -> None:
    assert at(values("4.10.0", platform), "machine_provisioner.enabled") is False
    assert at(values("4.2.7"), "vm_service.enabled") is False
    assert "machine executors need EKS or GKE" in errors(platform=platform, machine_provisioner={"providers": {"ec2": {}}})


def test_machine_executors_on_eks_follow_the_providers() -> None:
    found = values("4.10.0", "eks")
    assert at(found, "machine_provisioner.enabled") is True
    assert str(at(found, "machine_provisioner.agent_base_url")).endswith("/machine-provisioner")
    assert at(values("4.6.6", "eks"), "machine_provisioner.machine_agent_base_url")
    assert at(values("4.10.0", "gke"), "machine_provisioner.enabled") is False


@pytest.mark.parametrize("release", [*OLD[1:], *FULL])
def test_trap_agent_urls_have_the_slash_where_the_steps_want_it(release: str) -> None:
    found = values(release)
    assert at(found, "distributor.agent_base_url") == "https://store.example.com:7070/circleci-agents/"
    if release in FULL or release > "4.3":
        assert at(found, "docker_provisioner.agent_base_url").endswith("circleci-agents/docker-provisioner")


@pytest.mark.parametrize(("release", "there"), [("4.4.7", False), ("4.5.5", True), ("4.7.15", True), ("4.8.12", False)])
def test_launch_agent_url_only_where_the_release_reads_it(release: str, there: bool) -> None:
    found = values(release)
    assert (at(found, "runner_admin.external.launch_agent_base_url") is not None) is there
    assert (at(found, "distributor.launch_agent_base_url") is not None) is (release < "4.8")


@pytest.mark.parametrize(("release", "there"), [("4.7.15", False), ("4.8.12", True), ("4.10.0", True)])
def test_trap_reaper_is_pulled_from_the_site(release: str, there: bool) -> None:
    assert at(values(release), "docker_provisioner.reaperContainerRepository") == ("registry.example.com:5000" if there else None)


def test_trap_build_agent_has_no_tag() -> None:
    assert at(values("4.10.0"), "nomad.buildAgentImage") == "registry.example.com:5000/circleci/picard"


def test_trap_lets_encrypt_is_refused_in_an_air_gap() -> None:
    assert "Let's Encrypt cannot be reached" in errors(tls={"mode": "acme"})
    assert "ACM works on EKS only" in errors(tls={"mode": "acm"})


def test_trap_private_load_balancers_only_on_eks_and_gke() -> None:
    assert at(values("4.10.0", "eks"), "nginx.private_load_balancers") is True
    azure = values("4.10.0", "azure")
    assert at(azure, "nginx.private_load_balancers") is None
    assert azure["nginx"]["annotations"]["service.beta.kubernetes.io/azure-load-balancer-internal"] == "true"
    assert "has no effect on platform rancher" in warnings(platform="rancher", load_balancer={"internal": True})


def test_trap_github_com_cannot_serve_an_air_gap() -> None:
    assert "needs GitHub Enterprise Server" in errors(github={"hostname": "github.com"})
    assert "needs GitHub Enterprise Server" in errors(github={})
    assert at(values("4.10.0", github={"hostname": "github.com"}, air_gap=False), "github.enterprise") is False


def test_trap_external_redis_is_refused() -> None:
    assert "external Redis" in errors(redis={"internal": False})
    assert "external Redis cannot be used" in errors(overlay={"redis": {"internal": False, "host": "r"}})


def test_trap_large_artifacts_need_a_role_of_aws() -> None:
    assert "needs a role of AWS" in errors(object_storage={"endpoint": "https://s", "bucket": "b", "presigned": False})


def test_trap_one_endpoint_for_pods_clients_and_browsers() -> None:
    found = values("4.10.0")
    assert at(found, "object_storage.s3.endpoint") == "https://store.example.com:7070"
    assert str(at(found, "distributor.agent_base_url")).startswith("https://store.example.com:7070/")
    assert "browsers must all reach it under this one name" in errors(object_storage={"endpoint": "store.example.com", "bucket": "b"})


def test_the_release_lets_only_the_sources_reach_its_load_balancer() -> None:
    balancer = {"kind": "metallb", "address": "192.0.2.10", "source_ranges": ["10.0.0.0/8", "192.0.2.0/24"]}
    for release in ("4.3.9", "4.7.15", "4.10.0"):
        assert at(values(release, load_balancer=balancer), "nginx.loadBalancerSourceRanges") == ["10.0.0.0/8", "192.0.2.0/24"]
        assert at(values(release), "nginx.loadBalancerSourceRanges") is None
    assert "circleci_load_balancer_sources (load_balancer.source_ranges) needs release 4.3 or later" in errors("4.2.7", load_balancer=balancer)


def test_trap_address_of_the_load_balancer_stands_in_the_values() -> None:
    assert at(values("4.10.0", "rancher"), "nginx.loadBalancerIp") == "192.0.2.10"
    assert values("4.10.0")["nginx"]["annotations"]["metallb.io/loadBalancerIPs"] == "192.0.2.10"
    azure = values("4.10.0", "azure")["nginx"]["annotations"]
    assert azure["service.beta.kubernetes.io/azure-load-balancer-ipv4"] == "10.0.0.10"


def test_trap_limit_of_connections_to_nomad_can_be_raised() -> None:
    nomad = {"rpc_max_conns_per_client": 400}
    assert at(values("4.10.0", nomad=nomad), "nomad.server.limits.rpc_max_conns_per_client") == "400"
    assert "needs release 4.8 or later" in errors("4.7.15", nomad=nomad)


# -- what else the facts of a site mean ----------------------------------------------------------------------------


def test_secrets_with_a_documented_secret_never_stand_in_the_values() -> None:
    for release in FULL:
        text = json.dumps(values(release))
        for key in ("clientSecret", "license", "postgresPassword", "accessKey", "secretKey", "erlangCookie", "gossip-key"):
            assert f'"{key}"' not in text


def test_tls_pair_is_base64_and_secret() -> None:
    result = compose_data(site("4.10.0", "generic"))
    assert base64.b64decode(result["values"]["tls"]["certificate"]).decode() == CERTIFICATE
    assert base64.b64decode(result["values"]["tls"]["privateKey"]).decode() == KEY
    assert "tls.privateKey" in result["secret_keys"]
    assert result["values"]["tls"]["privateKey"] in result["secret_texts"]
    assert KEY not in json.dumps(result["explanations"])
    assert next(row for row in result["explanations"] if row["key"] == "tls.privateKey")["value"] == "(secret)"


def test_nomad_certificates_stand_in_the_values_only_before_4_4_or_for_external_servers() -> None:
    assert at(values("4.2.7"), "nomad.server.rpc.mTLS.privateKey")
    assert at(values("4.4.7"), "nomad.server.rpc.mTLS") == {"enabled": True}
    external = {
        "internal": False, "server_hostname": "nomad.example.com", "mtls": {"ca": "a", "certificate": "b", "private_key": "c"},
    }
    found = values("4.8.12", nomad=external)
    assert at(found, "nomad.server") == {"internal": False, "serverHostname": "nomad.example.com", "image": {"repository": "registry.example.com:5000/hashicorp/nomad"}}
    assert at(found, "nomad.clients.mTLS.privateKey") == base64.b64encode(b"c").decode()
    assert "needs release 4.8 or later" in errors("4.7.15", nomad=external)


def test_quorum_of_nomad_servers() -> None:
    assert at(values("4.10.0", nomad={"replicas": 3}), "nomad.server.pdb.minAvailable") == 2
    assert at(values("4.10.0", nomad={"replicas": 1}), "nomad.server.pdb.enabled") is False
    assert "odd number" in errors(nomad={"replicas": 4})


def test_external_databases() -> None:
    found = values(
        "4.10.0",
        postgres={"internal": False, "host": "pg", "username": "circle", "secure_mode": True},
        mongodb={"internal": False, "hosts": "m1:27017,m2:27017", "tls": True},
        rabbitmq={"internal": False, "host": "mq", "tls": True},
    )
    assert at(found, "postgresql.secureMode") is True
    assert at(found, "mongodb.ssl") is True
    assert at(found, "rabbitmq.secure_amqp") is True
    text = errors("4.7.15", postgres={"internal": False, "secure_mode": True}, rabbitmq={"internal": False, "tls": True})
    for part in ("circleci_postgresql.host (postgres.host) is empty", "circleci_postgresql.username (postgres.username) is empty", "secure_mode) needs release 4.9", "rabbitmq.host", "(rabbitmq.tls) needs"):
        assert part in text


def test_vault_or_tink() -> None:
    assert at(values("4.10.0"), "tink.enabled") is True
    assert at(values("4.0.6"), "tink") is None
    vault = values("4.10.0", vault={"url": "https://vault.example.com"})
    assert at(vault, "vault.internal") is False
    assert at(vault, "tink") is None


def test_oidc_by_release() -> None:
    assert at(values("4.10.0", oidc={"enabled": True}), "oidc_service.json_web_keys_secret_name") == "oidc-service"
    assert at(values("4.9.5", oidc={"enabled": True}), "oidc_service.json_web_keys") == "in-secrets"
    assert "needs release 4.4" in errors("4.2.7", oidc={"enabled": True})


def test_proxy_leaves_out_the_site_itself() -> None:
    found = values("4.10.0", proxy={"http": {"host": "proxy", "username": "u", "password": "p"}}, github={"hostname": "ghe.example.com", "fingerprint": "x"})
    assert at(found, "proxy.enabled") == "1"
    for host in ("localhost", "ghe.example.com", "ci.example.com", "store.example.com", "registry.example.com"):
        assert host in found["proxy"]["no_proxy"]
    assert "must speak plain http" in errors(proxy={"http": {"host": "https://proxy"}})


def test_private_authority_of_github() -> None:
    found = values("4.10.0", github={"hostname": "ghe", "ca_certificate": CERTIFICATE})
    assert found["tls"]["certificates"] == [base64.b64encode(CERTIFICATE.encode()).decode()]
    assert at(found, "github.selfSignedCert") is True
    assert at(found, "github.unsafeDisableWebhookSSLVerification") is True
    kept = values("4.10.0", github={"hostname": "ghe", "skip_webhook_verification": False})
    assert at(kept, "github.unsafeDisableWebhookSSLVerification") is None


def test_a_registry_with_a_path() -> None:
    found = values("4.10.0", registry={"host": "registry.example.com", "org": "circleci-server"})
    assert at(found, "global.container.org") == "circleci-server"
    assert at(found, "kong.image.repository") == "registry.example.com/circleci-server/library/kong"
    assert at(found, "postgresql.image.registry") == "registry.example.com/circleci-server"


@pytest.mark.parametrize(("host", "too_short", "enough", "form"), [
    ("us-central1-docker.pkg.dev", ("", "example-project"), ("example-project/circleci", "example-project/circleci/server"), "<project>/<repository>"),
    ("registry.digitalocean.com", ("",), ("example", "example/server"), "<registry>"),
    ("registry.digitalocean.com:443", ("",), ("example",), "<registry>"),
])  # fmt: skip
def test_a_registry_that_demands_a_path(host: str, too_short: tuple[str, ...], enough: tuple[str, ...], form: str) -> None:
    for path in too_short:
        said = errors(registry={"host": host, "org": path})
        assert f"circleci_registry_path (registry.org) is {path!r}: {host} keeps all images below a path; allowed is {form}" in said
    for path in enough:
        assert at(values("4.10.0", registry={"host": host, "org": path}), "global.container.org") == path


def test_another_version_of_postgresql() -> None:
    found = values("4.10.0", postgres={"version": "14"})
    assert at(found, "postgresql.image.repository") == "server-postgres" and at(found, "postgresql.image.tag").startswith("14.")
    for release, version in (("4.10.0", ""), ("4.10.0", "12"), ("4.8.12", "12")):
        assert at(values(release, postgres={"version": version}), "postgresql.image.tag") is None


def test_versions_of_postgresql_that_a_release_does_not_know() -> None:
    assert "circleci_postgresql_version (postgres.version) is '14': release 4.8.12 knows 12. Leave it empty" in errors("4.8.12", postgres={"version": "14"})
    assert "is '16': release 4.10.0 knows 12, 14" in errors("4.10.0", postgres={"version": "16"})
    outside = errors("4.10.0", postgres={"internal": False, "host": "pg", "username": "circle", "version": "14"})
    assert "circleci_postgresql_version (postgres.version) is set, and PostgreSQL lies outside the cluster" in outside


# -- bad facts -----------------------------------------------------------------------------------------------------


def test_all_problems_come_at_once() -> None:
    result = compose_data({"release": "4.10.0", "platform": "mars", "domain": "https://CI", "regristry": {}, "nomad": {"replicas": "five"}})
    text = "\n".join(result["errors"])
    for part in ("did you mean registry?", "nomad.replicas must be a whole number", "circleci_platform (platform) is 'mars'", "circleci_domain (domain) is 'https://CI'", "(registry.host) is empty", "(object_storage.bucket) is empty", "github.hostname", "(tls.certificate) is empty"):
        assert part in text


@pytest.mark.parametrize("release", ["", "4.10", "5.0.0", "latest", "4.7.7"])
def test_unusable_releases_are_named(release: str) -> None:
    result = compose_data(site(release, "generic"))
    assert len(result["errors"]) == 1
    assert "4." in result["errors"][0]
    assert result["values"] == {}


def test_old_releases_carry_their_warning() -> None:
    assert "past the vendor's support" in warnings("4.6.6")
    assert "unreliable" in warnings("4.3.9")
    assert warnings("4.10.0") == ""
    result = compose_data({**site("4.10.0", "generic"), "platform": "openshift"})
    assert "OpenShift is known not to work" in "".join(result["warnings"])


# -- explanations and helpers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", [*OLD, *FULL])
def test_every_value_is_explained(release: str) -> None:
    result = compose_data(site(release, "generic", overlay={"frontend": {"replicas": 2}, "kong": {"image": {"tag": "x"}}}))
    explained = {row["key"] for row in result["explanations"]}

    def leaves(node: Any, path: tuple[str, ...] = ()) -> list[str]:
        if isinstance(node, dict) and node:
            return [key for name, item in node.items() for key in leaves(item, (*path, name))]
        return [dotted(path)]

    assert set(leaves(result["values"])) == explained
    for row in result["explanations"]:
        assert row["rule"]
        assert row["source"]
        assert row["certainty"]


@pytest.mark.parametrize(
    ("image", "path"),
    [
        ("kong", "library/kong"),
        ("docker.io/library/telegraf", "library/telegraf"),
        ("docker.io/bitnami/redis", "bitnami/redis"),
        ("hashicorp/nomad", "hashicorp/nomad"),
        ("quay.io/soketi/soketi", "soketi/soketi"),
        ("cciserver.azurecr.io/frontend", "frontend"),
        ("localhost:5000/x/y", "x/y"),
    ],
)
def test_image_paths(image: str, path: str) -> None:
    assert image_path(image) == path


def test_paths_of_keys() -> None:
    assert parse_path('nginx.annotations."a.b/c"') == ("nginx", "annotations", "a.b/c")
    assert parse_path("telegraf.config.outputs[0].file.files[0]") == ("telegraf", "config", "outputs", "[]", "file", "files", "[]")
    assert dotted(("nginx", "annotations", "a.b/c")) == 'nginx.annotations."a.b/c"'


# -- what is secret and stands in the values all the same ----------------------------------------------------------


def listed(release: str = "4.10.0", platform: str = "generic", **changes: Any) -> dict[str, str]:
    facts = {key: value for key, value in site(release, platform, **changes).items() if key != "tls"}
    return {row["key"]: row["why"] for row in secrets_in_values(facts, Catalog.load())}


def test_secrets_in_the_values_are_known_before_they_are_made() -> None:
    assert set(listed()) == {"tls.privateKey"}
    assert set(listed("4.2.7")) == {"tls.privateKey", "nomad.server.rpc.mTLS.privateKey"}
    mail = {"host": "mail.example.com", "user": "circleci"}
    proxy = {"http": {"host": "proxy.example.com", "username": "u"}, "https": {"host": "proxy.example.com"}}
    assert set(listed(smtp=mail, proxy=proxy)) == {"tls.privateKey", "smtp.password", "proxy.http.auth.password"}
    external = {"internal": False, "server_hostname": "nomad.example.com"}
    assert set(listed(nomad=external)) == {"tls.privateKey", "nomad.clients.mTLS.privateKey"}
    assert set(listed().values()) == {"The vendor documents no Secret for it."}


def test_secrets_of_the_overlay_are_listed_with_the_secret_that_is_documented() -> None:
    overlay = {"github": {"clientSecret": "canary"}, "object_storage": {"s3": {"accessKey": "canary"}}}
    found = listed(overlay=overlay)
    assert found["github.clientSecret"] == "The Secret github-secret is documented for it: take it out of circleci_values."
    assert "object-storage-secret" in found["object_storage.s3.accessKey"]
    assert "canary" not in json.dumps(found)


def test_every_value_with_a_secret_is_listed_and_masked_on_each_release_and_platform() -> None:
    """The composer is given texts that cannot be missed; whatever value holds one of them has to be in the list."""
    mail = {"host": "mail.example.com", "user": "circleci", "password": "canary-mail"}
    proxy = {name: {"host": "proxy.example.com", "username": "u", "password": f"canary-{name}"} for name in ("http", "https")}
    pair = {"ca": "ca", "certificate": "certificate", "private_key": "canary-nomad"}
    for release in (*FULL, *OLD):
        for platform in PLATFORMS if release in FULL else ("generic",):
            changes: dict[str, Any] = {
                "smtp": mail, "proxy": proxy, "nomad": {"mtls": pair}, "tls": {"certificate": "certificate", "private_key": "canary-tls"},
            }  # fmt: skip
            if platform == "eks":
                changes["machine_provisioner"] = {"providers": {"ec2": {"enabled": True, "accessKey": "canary-key", "secretKey": "canary-machine"}}}
            facts = site(release, platform, **changes)
            result = compose_data(facts)
            holding = {dotted(path) for path, value in leaves(result["values"]) if "canary" in _clear(value)}
            assert holding == {row["key"] for row in secrets_in_values(facts, Catalog.load())}, (release, platform)
            assert "canary" not in "".join(_clear(row["value"]) for row in result["explanations"])


def _clear(value: Any) -> str:
    text = json.dumps(value)
    try:
        return text + base64.b64decode(str(value), validate=True).decode()
    except ValueError:
        return text
