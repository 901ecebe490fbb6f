# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which Secrets a site needs, in the form its release wants. The plan holds no secret; a module carries it out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import Any

from ..catalog import Catalog
from .compose import compose
from .model import SiteFacts, site_facts
from .rules import image_path

PLAN_FORMAT = "onprem.circleci_server/secret-plan/1"
SITE_CA = "onprem-circleci-site-ca"
NOMAD_CA = "onprem-circleci-nomad-ca"
DOMAIN_TLS = "onprem-circleci-domain-tls"
REGISTRY_TLS = "onprem-circleci-registry-tls"
OBJECT_STORAGE_TLS = "onprem-circleci-object-storage-tls"
NOMAD_CLIENT = "onprem-circleci-nomad-client-"
# The pair by which the cluster speaks to Nomad servers outside it. No host has this name.
NOMAD_CLUSTER = f"{NOMAD_CLIENT}cluster"
_LABELS = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
NOMAD_SERVER = "onprem-circleci-nomad-server-"
NOMAD_DAYS = 3650
MAX_NOMAD_SERVERS = 7
APP_PASSWORD = "postgres-app-password"  # noqa: S105 – the name of a key
APP_PASSWORD_LENGTH = 32


def _key(name: str, **rest: Any) -> dict[str, Any]:
    return {"name": name, **rest}


def _password(name: str, length: int, **rest: Any) -> dict[str, Any]:
    return _key(name, length=length, form="uri_safe", **rest)


def _tls_keys(*, authority_optional: bool = True) -> list[dict[str, Any]]:
    return [_key("tls.crt"), _key("tls.key"), _key("ca.crt", optional=authority_optional)]


def _vendor_keys(encoding: str) -> list[dict[str, Any]]:
    return [_key(name, encoding=encoding) for name in ("ca.pem", "cert.pem", "key.pem")]


def is_address(text: str) -> bool:
    """Whether a host is written as an IP address."""
    return all(part.isdigit() for part in text.split(".")) or ":" in text


def host_of(address: str) -> str:
    """The host of a URL or of host[:port]."""
    rest = address.partition("://")[2] or address
    rest = rest.partition("/")[0]
    if rest.startswith("["):
        return rest[1:].partition("]")[0]
    return rest.partition(":")[0] if rest.count(":") == 1 else rest


def _names(hosts: list[str]) -> dict[str, list[str]]:
    unique = list(dict.fromkeys(host for host in hosts if host))
    return {
        "dns": [host for host in unique if not is_address(host)],
        "ips": [host for host in unique if is_address(host)],
    }


def _certificate(name: str, purpose: str, hosts: list[str], given: str) -> dict[str, Any]:
    return {
        "name": name,
        "maker": "certificate",
        "type": "kubernetes.io/tls",
        "authority": SITE_CA,
        "common_name": next((host for host in hosts if host), "")[:64],
        **_names(hosts),
        "input": given,
        "keys": _tls_keys(),
        "purpose": purpose,
    }


def nomad_names(host: str, role: str, address: str = "") -> dict[str, list[str]]:
    """Names that Nomad and the vendor's module ask for. The vendor's nomad-server-*.global is no legal wildcard for
    strict readers, so every server is named instead."""
    names = [f"{role}.global.nomad", "localhost", "nomad-server", host]
    if role == "server":
        names += [f"nomad-server-{index}.global" for index in range(MAX_NOMAD_SERVERS)]
    return _names([*names, "127.0.0.1", address])


def _authorities(facts: SiteFacts, own_certificates: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if own_certificates:
        found.append(
            {
                "name": SITE_CA,
                "maker": "authority",
                "type": "Opaque",
                "common_name": f"CircleCI Server site CA {facts.domain}"[:64],
                "input": "site_ca",
                "keys": [_key("ca.crt"), _key("ca.key")],
                "purpose": "issues the certificates of the site's own names",
            }
        )
    if facts.nomad.mtls_enabled:
        found.append(
            {
                "name": NOMAD_CA,
                "maker": "authority",
                "type": "Opaque",
                "common_name": "Nomad CircleCI CA",
                "input": "nomad_ca",
                "keys": [_key("ca.crt"), _key("ca.key")],
                "bound_to_data": False,
                "purpose": "issues the certificates of Nomad servers and clients",
            }
        )
    return found


def _nomad(facts: SiteFacts) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if facts.nomad.internal:
        found.append(
            {
                "name": "nomad-gossip-encryption-key",
                "maker": "alphanumeric",
                "adopt": True,
                "keys": [_key("gossip-key", length=32, exact=True, form="alphanumeric")],
                "purpose": "encrypts what Nomad servers tell each other",
            }
        )
    if not facts.nomad.mtls_enabled:
        return found
    common = {"maker": "nomad_certificate", "authority": NOMAD_CA, "form": "vendor", "organization": "nomad:client", "days": NOMAD_DAYS}
    if facts.nomad.internal:
        found.append(
            {
                **common,
                "name": "nomad-mtls",
                "adopt": True,
                "usage": "nomad_server",
                "common_name": "nomad-server",
                **nomad_names("nomad-server", "server"),
                "keys": _vendor_keys("base64"),
                "purpose": "server pair of Nomad; clients are checked against its authority",
            }
        )
    else:
        for host in facts.nomad_servers:
            found.append(
                {
                    **common,
                    "name": f"{NOMAD_SERVER}{_dns(host)}",
                    "usage": "nomad_server",
                    "common_name": host[:64],
                    **_add(nomad_names(host, "server"), facts.nomad.server_hostname),
                    "keys": _vendor_keys("plain"),
                    "purpose": f"pair of the Nomad server {host}",
                }
            )
    clients = {nomad_client_secret(host): host for host in facts.nomad_clients}
    if not facts.nomad.internal:
        clients[NOMAD_CLUSTER] = "cluster"
    for name, host in clients.items():
        found.append(
            {
                **common,
                "name": name,
                "usage": "nomad_client",
                "common_name": host[:64],
                **nomad_names(host, "client"),
                "keys": _vendor_keys("plain"),
                "purpose": f"pair of the Nomad client {host}",
            }
        )
    return found


def _add(names: dict[str, list[str]], host: str) -> dict[str, list[str]]:
    if host and host not in names["dns"]:
        names["dns"].append(host)
    return names


def nomad_client_secret(host: str) -> str:
    """Name of the Secret with the pair of one Nomad client."""
    return f"{NOMAD_CLIENT}{_dns(host, ('cluster',))}"


def _dns(host: str, taken: Collection[str] = ()) -> str:
    """A host name as a part of the name of a Kubernetes object. One that cannot stand there as it is gets a digest, so that no two become the same."""
    if _LABELS.fullmatch(host) and host not in taken:
        return host
    plain = re.sub("[^a-z0-9]+", "-", host.lower()).strip("-")
    return f"{plain}-{hashlib.sha256(host.encode()).hexdigest()[:8]}".lstrip("-")


def _databases(facts: SiteFacts) -> list[dict[str, Any]]:
    postgres, mongodb, rabbitmq = facts.postgres, facts.mongodb, facts.rabbitmq
    return [
        {
            "name": postgres.existing_secret,
            "maker": "alphanumeric",
            "bound_to_data": True,
            # The vendor's scripts find it by this label.
            "labels": {"app.kubernetes.io/name": "postgresql"},
            "keys": [
                _password("postgres-password", 32, input="postgres_password", must_be_given=not postgres.internal),
                _password("password", 32, input="postgres_password", same_as="postgres-password", optional=True),
            ],
            "purpose": "superuser of PostgreSQL",
        },
        {
            "name": mongodb.existing_secret,
            "maker": "alphanumeric",
            "bound_to_data": True,
            "keys": [
                _password("mongodb-root-password", 32, input="mongodb_root_password", must_be_given=not mongodb.internal),
                _password("mongodb-password", 20, input="mongodb_password", must_be_given=not mongodb.internal),
            ],
            "purpose": "users of MongoDB",
        },
        {
            "name": rabbitmq.existing_secret,
            "maker": "alphanumeric",
            "bound_to_data": True,
            "keys": [
                _password("rabbitmq-password", 32, input="rabbitmq_password", must_be_given=not rabbitmq.internal),
                _password("rabbitmq-erlang-cookie", 32, input="rabbitmq_erlang_cookie"),
            ],
            "purpose": "user and cookie of RabbitMQ",
        },
    ]


def _keysets_tool(facts: SiteFacts, catalog: Catalog) -> dict[str, str]:
    """Where the private registry has the vendor's program for keysets, if it was mirrored."""
    image = next(image for image in catalog.images(facts.release) if image.role == "keysets")
    org = f"{facts.registry.org}/" if facts.registry.org else ""
    return {
        "registry": facts.registry.host,
        "repository": f"{org}{image_path(image.repository)}",
        "tag": image.tag or "latest",
        "pull_secret": next(iter(facts.registry.pull_secrets), ""),
    }


def _product(facts: SiteFacts, catalog: Catalog) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": "license",
            "maker": "input",
            # The chart reads base64 of the licence, so the Secret's data holds it encoded twice.
            "keys": [_key("license", input="license", option="circleci_license", encoding="base64")],
            "purpose": "licence of CircleCI Server",
        },
        {
            "name": "signing-keys",
            "maker": "keysets",
            "bound_to_data": True,
            "keys": [
                _key("signing-key", form="signing_keyset", input="keyset_signing"),
                _key("encryption-key", form="encryption_keyset", input="keyset_encryption"),
            ],
            "tool": _keysets_tool(facts, catalog),
            "purpose": "keysets that protect artifacts and job history; keep an escrow copy",
        },
        {
            "name": "api-token",
            "maker": "alphanumeric",
            "adopt": True,
            "keys": [_password("api-token", 48)],
            "purpose": "token that services use among each other",
        },
        {
            "name": "session-cookie",
            "maker": "alphanumeric",
            "adopt": True,
            "keys": [_key("session-cookie-key", length=16, exact=True, form="uri_safe")],
            "purpose": "encrypts session cookies",
        },
        {
            "name": "pusher",
            "maker": "alphanumeric",
            "adopt": True,
            "keys": [_password("secret", 48)],
            "purpose": "signs live updates of the user interface",
        },
    ]
    if facts.minor >= (4, 1) and facts.tink and not facts.vault.url:
        found.append(
            {
                "name": "tink",
                "maker": "keysets",
                "bound_to_data": True,
                "keys": [_key("keyset", form="tink_keyset", input="tink_keyset")],
                "purpose": "encrypts contexts; without it they must be made again, keep an escrow copy",
            }
        )
    if facts.vault.url:
        found.append(
            {
                "name": "vault",
                "maker": "input",
                "keys": [_key("token", input="vault_token", option="circleci_secrets_vault_token")],
                "purpose": "token of the external Vault",
            }
        )
    if facts.oidc.enabled:
        found.append(
            {
                "name": "oidc-service",
                "maker": "keysets",
                "keys": [_key("json-web-keys", form="json_web_keys", input="json_web_keys", encoding="base64")],
                "purpose": "signs OIDC tokens of jobs",
            }
        )
    return found


def _operator(facts: SiteFacts) -> list[dict[str, Any]]:
    github_keys = [
        _key("clientId", input="github_client_id", option="circleci_github_client_id"),
        _key("clientSecret", input="github_client_secret", option="circleci_github_client_secret"),
    ]
    if facts.github.enterprise:
        github_keys.append(_key("defaultToken", input="github_default_token", option="circleci_github_default_token"))
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "maker": "docker_config",
            "type": "kubernetes.io/dockerconfigjson",
            "registry": facts.registry.host,
            "inputs": ["registry_username", "registry_password"],
            "keys": [_key(".dockerconfigjson")],
            "purpose": "login to the private registry",
        }
        for name in facts.registry.pull_secrets[:1]
    ]
    found.append({"name": "github-secret", "maker": "input", "keys": github_keys, "purpose": "OAuth application of GitHub"})
    store = facts.object_storage
    if store.static_keys and store.is_gcs:
        keys = [
            _key(
                "gcs_sa.json", input="object_storage_gcs_service_account", form="json",
                option="circleci_object_storage_service_account",
            )
        ]
    else:
        keys = [
            _key("s3AccessKey", input="object_storage_access_key", option="circleci_object_storage_access_key"),
            _key("s3SecretKey", input="object_storage_secret_key", option="circleci_object_storage_secret_key"),
        ]
    if store.static_keys:
        found.append({"name": "object-storage-secret", "maker": "input", "keys": keys, "purpose": "keys of the object store"})
    return found


def _tls(facts: SiteFacts, own_registry: bool, own_object_storage: bool, extra: dict[str, list[str]]) -> list[dict[str, Any]]:
    found = []
    if facts.tls.mode == "values":
        hosts = [facts.domain, f"app.{facts.domain}", *extra.get("domain", [])]
        found.append(_certificate(DOMAIN_TLS, f"web certificate of {facts.domain}", hosts, "tls"))
    if own_registry:
        hosts = [host_of(facts.registry.host), *extra.get("registry", [])]
        found.append(_certificate(REGISTRY_TLS, "certificate of the private registry", hosts, "registry_tls"))
    if own_object_storage:
        hosts = [host_of(facts.object_storage.endpoint), *extra.get("object_storage", [])]
        found.append(_certificate(OBJECT_STORAGE_TLS, "certificate of the object store", hosts, "object_storage_tls"))
    return found


def _first_minors(catalog: Catalog) -> dict[str, str]:
    """Since when the product has each Secret: data of an older release cannot need it."""
    first: dict[str, str] = {}
    for minor in catalog.minors():
        for spec in catalog.secrets(catalog.last_patch(minor)):
            first.setdefault(spec.name, minor)
    return first


def secret_plan(
    facts: SiteFacts,
    catalog: Catalog,
    *,
    own_registry: bool = False,
    own_object_storage: bool = False,
    extra_names: dict[str, list[str]] | None = None,
) -> dict[str, Any]:
    """The Secrets of a site, authorities first, since the certificates after them need them."""
    certificates = _tls(facts, own_registry, own_object_storage, extra_names or {})
    items = _authorities(facts, bool(certificates))
    items += _operator(facts) + _product(facts, catalog) + _databases(facts)
    # One Secret with one password per service: the chart would make them at random, and databases and Secrets drift
    # apart when it renders again without the cluster.
    since = _first_minors(catalog)
    items += [
        {
            "name": spec.name,
            "maker": "alphanumeric",
            "adopt": True,
            "bound_to_data": True,
            "since": since[spec.name],
            "labels": {"app.kubernetes.io/instance": facts.release_name},
            "keys": [_password(key.name, APP_PASSWORD_LENGTH) for key in spec.keys],
            "purpose": f"database password of {spec.name}",
        }
        for spec in catalog.secrets(facts.release)
        if [key.name for key in spec.keys] == [APP_PASSWORD]
    ]
    items += _nomad(facts) + certificates
    roles = {spec.name: spec.database_role for spec in catalog.secrets(facts.release) if spec.database_role}
    return {
        "format": PLAN_FORMAT,
        "release": facts.release,
        "secrets": items,
        # An external PostgreSQL is its owner's.
        "database_roles": roles if facts.postgres.internal else {},
        "superuser": {"secret": facts.postgres.existing_secret, "key": "postgres-password"},
    }


def add_secrets(site: dict[str, Any], secrets: dict[str, dict[str, str]], passwords: dict[str, str]) -> dict[str, Any]:
    """The facts of a site with what has no documented Secret and must stand in the values.

    C(secrets) holds decoded texts by Secret and key, C(passwords) those of mail server and proxies.
    """
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in site.items()}

    def block(name: str) -> dict[str, Any]:
        found: dict[str, Any] = result.setdefault(name, {})
        return found

    pair = secrets.get(DOMAIN_TLS) or {}
    if pair.get("tls.crt"):
        block("tls").update(
            certificate=pair["tls.crt"], private_key=pair.get("tls.key", ""), issued_by_site_ca=bool(pair.get("ca.crt"))
        )
    nomad = block("nomad")
    mtls = secrets.get("nomad-mtls") if nomad.get("internal", True) else secrets.get(NOMAD_CLUSTER)
    if mtls:
        nomad["mtls"] = {
            "ca": mtls.get("ca.pem", ""), "certificate": mtls.get("cert.pem", ""), "private_key": mtls.get("key.pem", ""),
        }
    if passwords.get("smtp"):
        block("smtp")["password"] = passwords["smtp"]
    for name in ("http", "https"):
        if passwords.get(f"proxy_{name}"):
            proxy = block("proxy")
            proxy[name] = {**(proxy.get(name) or {}), "password": passwords[f"proxy_{name}"]}
    return result


def foreseen(site: dict[str, Any]) -> dict[str, Any]:
    """The facts as add_secrets will give them, with names in place of texts: what will stand where is known before there are secrets."""
    domain, nomad = f"Secret {DOMAIN_TLS}", "Secret nomad-mtls"
    pair = {"ca.pem": nomad, "cert.pem": nomad, "key.pem": nomad}
    names = {name: f"variable circleci_release_{name}_password" for name in ("smtp", "proxy_http", "proxy_https")}
    proxy = site.get("proxy") or {}
    return add_secrets(
        site,
        {DOMAIN_TLS: {"tls.crt": domain, "tls.key": domain, "ca.crt": domain}, "nomad-mtls": pair, NOMAD_CLUSTER: pair},
        {name: text for name, text in names.items() if name == "smtp" or proxy.get(name.removeprefix("proxy_"))},
    )


def secrets_in_values(site: dict[str, Any], catalog: Catalog) -> list[dict[str, str]]:
    """Each value that carries something secret, with the rule that sets it and what the vendor documents for it. No secret is read."""
    facts, _problems = site_facts(foreseen(site))
    composition = compose(facts, catalog)
    if not composition.values:
        return []
    documented = {key: spec.name for spec in catalog.secrets(facts.release) if spec.made_by != "chart" for key in spec.values_keys}
    rows = []
    for setting in composition.settings:
        if not setting.secret:
            continue
        secret = documented.get(setting.key)
        why = f"The Secret {secret} is documented for it: take it out of circleci_values." if secret else "The vendor documents no Secret for it."
        rows.append({"key": setting.key, "rule": setting.rule, "source": setting.source, "why": why})
    return rows
