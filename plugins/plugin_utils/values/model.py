# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the composer is told about a site, and what it answers."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from typing import Any

Path = tuple[str, ...]

PLATFORMS = ("eks", "gke", "azure", "digitalocean", "rancher", "generic", "openshift")
OBJECT_STORAGE_GCS = ("gcs", "gcs_key", "gcs_workload_identity")


@dataclasses.dataclass
class Registry:
    """The private registry. C(org) is a path between host and image name, empty when the mirror kept the paths."""

    host: str = ""
    org: str = ""
    pull_secrets: list[str] = dataclasses.field(default_factory=lambda: ["regcred"])

    @property
    def prefix(self) -> str:
        return f"{self.host}/{self.org}" if self.org else self.host


@dataclasses.dataclass
class ObjectStorage:
    kind: str = "s3"
    endpoint: str = ""
    bucket: str = ""
    agent_bucket: str = ""
    agent_base_url: str = ""
    region: str = ""
    partition: str = ""
    irsa_role: str = ""
    workload_identity: str = ""
    presigned: bool = True
    storage_role: str = ""
    expire_after: int = 0

    @property
    def is_gcs(self) -> bool:
        return self.kind in OBJECT_STORAGE_GCS

    @property
    def static_keys(self) -> bool:
        """Whether a Secret with keys is needed (no role of the cloud stands in for it)."""
        return not (self.workload_identity if self.is_gcs else self.irsa_role)

    @property
    def agents(self) -> str:
        """Base URL of the bucket that serves the agents, without a trailing slash."""
        if self.agent_base_url:
            return self.agent_base_url.rstrip("/")
        bucket = self.agent_bucket or self.bucket
        return f"{self.endpoint.rstrip('/')}/{bucket}" if self.endpoint and bucket else ""


@dataclasses.dataclass
class GitHub:
    hostname: str = ""
    scheme: str = "https"
    fingerprint: str = ""
    ca_certificate: str = ""
    skip_webhook_verification: bool | None = None

    @property
    def enterprise(self) -> bool:
        return self.hostname not in ("", "github.com")


@dataclasses.dataclass
class LoadBalancer:
    kind: str = "provided"
    address: str = ""
    internal: bool = False
    idle_minutes: int = 0
    annotations: dict[str, str] = dataclasses.field(default_factory=dict)
    source_ranges: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Tls:
    """C(mode): values (a pair in the values), acme, acm, upstream."""

    mode: str = "values"
    certificate: str = ""
    private_key: str = ""
    issued_by_site_ca: bool = False
    site_ca: str = ""


@dataclasses.dataclass
class Postgres:
    internal: bool = True
    version: str = ""
    """Major version of the one of the chart; empty leaves what the release brings."""
    host: str = ""
    port: int = 5432
    username: str = ""
    secure_mode: bool | None = None
    existing_secret: str = "postgresql"  # noqa: S105 – the name of a Secret


@dataclasses.dataclass
class MongoDb:
    internal: bool = True
    hosts: str = ""
    tls: bool = False
    tls_insecure: bool = False
    options: str = ""
    database: str = ""
    mechanism: str = ""
    username: str = ""
    existing_secret: str = "mongodb-credentials"  # noqa: S105 – the name of a Secret


@dataclasses.dataclass
class RabbitMq:
    internal: bool = True
    host: str = ""
    port: int = 5672
    management_port: int = 15672
    tls: bool = False
    username: str = ""
    existing_secret: str = "rabbitmq-key"  # noqa: S105 – the name of a Secret


@dataclasses.dataclass
class Redis:
    internal: bool = True


@dataclasses.dataclass
class Vault:
    url: str = ""
    transit_path: str = ""


@dataclasses.dataclass
class Mtls:
    """PEM texts. Only needed where no Secret is documented: releases before 4.4, and external Nomad servers."""

    ca: str = ""
    certificate: str = ""
    private_key: str = ""


@dataclasses.dataclass
class Nomad:
    internal: bool = True
    server_hostname: str = ""
    replicas: int | None = None
    mtls_enabled: bool = True
    mtls: Mtls = dataclasses.field(default_factory=Mtls)
    rpc_max_conns_per_client: int | None = None


@dataclasses.dataclass
class ProxyEndpoint:
    host: str = ""
    port: int = 3128
    username: str = ""
    password: str = ""


@dataclasses.dataclass
class Proxy:
    http: ProxyEndpoint = dataclasses.field(default_factory=ProxyEndpoint)
    https: ProxyEndpoint = dataclasses.field(default_factory=ProxyEndpoint)
    no_proxy: list[str] = dataclasses.field(default_factory=list)
    nomad_cidrs: list[str] = dataclasses.field(default_factory=list)

    @property
    def enabled(self) -> bool:
        return bool(self.http.host or self.https.host)


@dataclasses.dataclass
class Smtp:
    host: str = ""
    port: int = 25
    user: str = ""
    password: str = ""
    tls: bool = True
    notification_user: str = ""


@dataclasses.dataclass
class Oidc:
    enabled: bool = False
    base_url: str = ""


@dataclasses.dataclass
class MachineProvisioner:
    """Machine executors. Only EKS and GKE can start virtual machines; C(providers) is the block of the values."""

    providers: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class SiteFacts:
    release: str = ""
    platform: str = ""
    domain: str = ""
    namespace: str = "circleci-server"
    release_name: str = "circleci-server"
    air_gap: bool = True
    tink: bool = True
    registry: Registry = dataclasses.field(default_factory=Registry)
    object_storage: ObjectStorage = dataclasses.field(default_factory=ObjectStorage)
    github: GitHub = dataclasses.field(default_factory=GitHub)
    load_balancer: LoadBalancer = dataclasses.field(default_factory=LoadBalancer)
    tls: Tls = dataclasses.field(default_factory=Tls)
    postgres: Postgres = dataclasses.field(default_factory=Postgres)
    mongodb: MongoDb = dataclasses.field(default_factory=MongoDb)
    rabbitmq: RabbitMq = dataclasses.field(default_factory=RabbitMq)
    redis: Redis = dataclasses.field(default_factory=Redis)
    vault: Vault = dataclasses.field(default_factory=Vault)
    nomad: Nomad = dataclasses.field(default_factory=Nomad)
    proxy: Proxy = dataclasses.field(default_factory=Proxy)
    smtp: Smtp = dataclasses.field(default_factory=Smtp)
    oidc: Oidc = dataclasses.field(default_factory=Oidc)
    machine_provisioner: MachineProvisioner = dataclasses.field(default_factory=MachineProvisioner)
    nomad_clients: list[str] = dataclasses.field(default_factory=list)
    nomad_servers: list[str] = dataclasses.field(default_factory=list)
    overlay: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def minor(self) -> tuple[int, int]:
        return parse_minor(self.release)


VARIABLES = {
    "release": "circleci_release",
    "platform": "circleci_platform",
    "domain": "circleci_domain",
    "namespace": "circleci_namespace",
    "release_name": "circleci_release_name",
    "registry.host": "circleci_registry_host",
    "registry.org": "circleci_registry_path",
    "object_storage.kind": "circleci_object_storage_kind",
    "object_storage.endpoint": "circleci_object_storage_endpoint",
    "object_storage.bucket": "circleci_object_storage_bucket",
    "object_storage.agent_bucket": "circleci_object_storage_agent_bucket",
    "object_storage.region": "circleci_object_storage_region",
    "object_storage.irsa_role": "circleci_object_storage_irsa_role",
    "object_storage.workload_identity": "circleci_object_storage_workload_identity",
    "object_storage.expire_after": "circleci_object_storage_expiry_days",
    "github.hostname": "circleci_github_hostname",
    "github.ca_certificate": "circleci_github_ca_certificate",
    "github.fingerprint": "circleci_github_fingerprint",
    "github.skip_webhook_verification": "circleci_github_skip_webhook_verification",
    "postgres.version": "circleci_postgresql_version",
    "postgres": "circleci_postgresql",
    "mongodb": "circleci_mongodb",
    "rabbitmq": "circleci_rabbitmq",
    "vault": "circleci_vault",
    "smtp": "circleci_smtp",
    "proxy": "circleci_proxy",
    "load_balancer.kind": "circleci_load_balancer",
    "load_balancer.address": "circleci_load_balancer_address",
    "load_balancer.internal": "circleci_load_balancer_internal",
    "load_balancer.idle_minutes": "circleci_load_balancer_idle_minutes",
    "load_balancer.annotations": "circleci_load_balancer_annotations",
    "load_balancer.source_ranges": "circleci_load_balancer_sources",
    "tls.certificate": "circleci_tls_certificate",
    "tls.private_key": "circleci_tls_private_key",
}
"""Site variables that become facts, as roles/site/vars/main.yml makes them; of blocks the whole block."""


def with_variable(sentence: str) -> str:
    """A sentence that begins with the name of a fact, with the site variable before it; facts of no variable stay alone."""
    fact = sentence.partition(" ")[0].rstrip(":")
    block, _dot, part = fact.partition(".")
    variable = VARIABLES.get(fact) or (f"{VARIABLES[block]}.{part}" if part and block in VARIABLES else "")
    return f"{variable} ({fact}){sentence[len(fact) :]}" if variable else sentence


def parse_minor(release: str) -> tuple[int, int]:
    """The minor of a full release; (0, 0) when the text is not one."""
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", release)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def _plain(value: Any) -> Any:
    """Plain Python data: template engines hand over subclasses of str, dict and list."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return str(value)


_BASES: dict[Any, tuple[str, tuple[type, ...]]] = {
    str: ("a text", (str,)),
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
}


def _fits(hint: Any, value: Any) -> str | None:
    """None when the value fits the type hint, else what is allowed."""
    origin = typing.get_origin(hint)
    if origin is list:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return None
        return "a list of texts"
    if origin is dict:
        return None if isinstance(value, dict) else "a mapping"
    names = []
    for option in typing.get_args(hint) or (hint,):
        if option is type(None):
            if value is None:
                return None
            continue
        name, kinds = _BASES[option]
        if isinstance(value, kinds) and not (option is int and isinstance(value, bool)):
            return None
        names.append(name)
    return " or ".join(names)


def _build(cls: type[Any], data: dict[str, Any], where: str, errors: list[str]) -> Any:
    hints = typing.get_type_hints(cls)
    result = cls()
    for key, value in data.items():
        name = f"{where}{key}"
        if key not in hints:
            close = difflib.get_close_matches(key, list(hints), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            errors.append(f"{name} is not a known fact of a site{hint} Known: {', '.join(sorted(hints))}.")
            continue
        hint_type = hints[key]
        if dataclasses.is_dataclass(hint_type):
            if isinstance(value, dict):
                setattr(result, key, _build(typing.cast("type[Any]", hint_type), value, f"{name}.", errors))
            else:
                errors.append(f"{name} must be a mapping, found {type(value).__name__}.")
            continue
        allowed = _fits(hint_type, value)
        if allowed is not None:
            errors.append(f"{name} must be {allowed}, found {type(value).__name__}.")
            continue
        setattr(result, key, value)
    return result


def site_facts(data: dict[str, Any]) -> tuple[SiteFacts, list[str]]:
    """Build the facts of a site from plain data, with every problem found."""
    errors: list[str] = []
    facts: SiteFacts = _build(SiteFacts, _plain(data), "", errors)
    return facts, errors


@dataclasses.dataclass(frozen=True)
class Setting:
    """One value, with the rule and the source that set it."""

    path: Path
    value: Any
    rule: str
    source: str
    certainty: str = "documented"
    secret: bool = False
    note: str = ""

    @property
    def key(self) -> str:
        return dotted(self.path)


@dataclasses.dataclass
class Composition:
    values: dict[str, Any]
    settings: list[Setting]
    warnings: list[str]
    errors: list[str]

    @property
    def secret_keys(self) -> list[str]:
        return sorted({setting.key for setting in self.settings if setting.secret})

    def explanations(self) -> list[dict[str, Any]]:
        """For each value which rule and which source set it. Secrets are masked."""
        return [
            {
                "key": setting.key,
                "value": "(secret)" if setting.secret else setting.value,
                "rule": setting.rule,
                "source": setting.source,
                "certainty": setting.certainty,
                "note": setting.note,
            }
            for setting in sorted(self.settings, key=lambda item: item.key)
        ]


def dotted(path: Path) -> str:
    """The written form of a path: parts with dots are quoted, list positions are joined without a dot."""
    text = ""
    for part in path:
        if part.startswith("[") and part.endswith("]"):
            text += part
            continue
        text += ("." if text else "") + (f'"{part}"' if "." in part else part)
    return text


_PART = re.compile(r'"([^"]+)"|(\[\d*\])|([^.\["]+)')


def parse_path(key: str) -> Path:
    """The path of a dotted key; list positions become the part C([])."""
    return tuple(
        match.group(1) or ("[]" if match.group(2) else match.group(3)) for match in _PART.finditer(key)
    )
