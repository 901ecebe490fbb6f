# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The shapes of the catalog's facts. Each carries where it comes from and how sure it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from .versions import KubernetesRange

# documented: printed by the vendor, or read in the vendor's or a user's public files (source says which).
# constructed: put together by us from documented parts. inferred: our conclusion. disputed: sources contradict
# each other and the value is our choice. gap: the documentation is silent (the value is null or a placeholder).
# observed: read in the chart that the source names, by the verb chart_check; only overlays have it.
Certainty = Literal["documented", "constructed", "inferred", "disputed", "gap", "observed"]
CERTAINTIES: tuple[Certainty, ...] = ("documented", "constructed", "inferred", "disputed", "gap", "observed")

T = TypeVar("T")


@dataclass(frozen=True)
class Fact(Generic[T]):
    """One value with its source."""

    value: T
    source: str
    certainty: Certainty
    note: str | None = None


@dataclass(frozen=True)
class Patch:
    """One patch release of a minor."""

    version: str
    status: Literal["last", "superseded", "known_bad"]
    source: str
    certainty: Certainty
    reason: str | None = None


@dataclass(frozen=True)
class Release:
    """What the vendor decided for one release. Facts hold for the whole minor unless their note says otherwise."""

    version: str
    minor: str
    data_of: str
    status: Literal["last", "superseded", "known_bad"]
    status_reason: str | None
    patches: tuple[Patch, ...]
    composition: Literal["full", "data_only", "unreliable"]
    released: Fact[str]
    support_end: Fact[str]
    kubernetes_min: Fact[str]
    kubernetes_max: Fact[str]
    kubernetes_older: tuple[Fact[str], ...]
    upgrade_from: Fact[tuple[str, ...]]
    chart: Fact[str]
    air_gap_guide: Fact[bool]
    image_list: Fact[str]
    agents_tree: Fact[tuple[str, ...]]
    build_agent: Fact[str | None]
    docker_agent: Fact[str | None]
    machine_agent: Fact[str | None]
    nomad_server: Fact[str]
    nomad_server_replicas: Fact[int]
    nomad_server_external: Fact[bool]
    nomad_client: Fact[str]
    nomad_client_package: Fact[str]
    nomad_mtls_own_secret: Fact[bool]
    docker: Fact[str]
    docker_gcp: Fact[str]
    docker_max_major: Fact[str | None]
    podman: Fact[bool]
    client_os: Fact[str]
    cgroup: Fact[str]
    mongodb: Fact[str]
    mongodb_required_before: Fact[str | None]
    postgresql: Fact[str]
    postgresql_alternative: Fact[str | None]
    rabbitmq: Fact[str]
    redis: Fact[str]
    vault: Fact[str | None]
    tink: Fact[bool]
    kong: Fact[str | None]
    nginx: Fact[str | None]
    nginx_unprivileged: Fact[bool]
    soketi: Fact[str | None]
    nomad_autoscaler: Fact[str | None]
    telegraf: Fact[str | None]
    otel_collector: Fact[str | None]
    image_pull_secrets_form: Fact[str]
    machine_service: Fact[str]
    launch_agent: Fact[str | None]
    machine_runner: Fact[bool]
    container_runner: Fact[bool]
    runner_init_tag: Fact[str | None]
    cli: Fact[str | None]
    helm_min: Fact[str]
    helm_diff_min: Fact[str]
    kubectl_min: Fact[str]
    terraform_min: Fact[str]
    terraform_tag: Fact[str]

    @property
    def kubernetes(self) -> KubernetesRange:
        return KubernetesRange.parse(self.kubernetes_min.value, self.kubernetes_max.value)

    def facts(self) -> dict[str, Fact[Any]]:
        """Every single-valued fact by name."""
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Fact)
        }


@dataclass(frozen=True)
class Workload:
    """A Kubernetes workload of a service."""

    name: str
    kind: Literal["deployment", "statefulset", "job", "unknown"]
    certainty: Certainty
    containers: tuple[str, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class Service:
    """One row of the vendor's overview, or one service that only its values tables and image lists show."""

    name: str
    aka: tuple[str, ...]
    component: str | None
    description: str
    failure_impact: str | None
    first: str
    last: str
    in_seed: bool
    in_overview: bool
    workloads: tuple[Workload, ...]
    values_prefixes: tuple[str, ...]
    layer: str | None
    optional: bool
    needs: str | None
    source: str
    certainty: Certainty
    note: str | None = None


@dataclass(frozen=True)
class HostGroup:
    """A group of hosts as the port tables mean it, and where the inventory keeps it."""

    id: str
    name: str
    inventory_groups: tuple[str, ...]
    managed: bool
    source: str
    certainty: Certainty
    note: str | None = None


@dataclass(frozen=True)
class PortRule:
    """One line of traffic, seen from one host group."""

    id: str
    group: str
    direction: Literal["ingress", "egress", "both"]
    scope: Literal["host", "containers"]
    action: Literal["allow", "deny"]
    protocols: tuple[str, ...]
    ports: tuple[str, ...]
    peers: tuple[str, ...]
    service: str
    purpose: str
    condition: str | None
    status: Literal["required", "optional", "obsolete_but_printed", "may_be_blocked"]
    source: str
    certainty: Certainty
    note: str | None = None


@dataclass(frozen=True)
class InternalPort:
    """A port between pods; nothing on a host's firewall."""

    service: str
    kubernetes_service: str
    port: str
    protocol: str
    name: str | None
    purpose: str
    condition: str | None
    source: str
    certainty: Certainty
    note: str | None = None


@dataclass(frozen=True)
class ImageValuesKeys:
    """The values keys that move an image to another registry; all exist in the same release."""

    registry: str | None
    org: str | None
    repository: str | None
    tag: str | None
    certainty: Certainty
    note: str | None = None

    def names(self) -> tuple[str, ...]:
        return tuple(key for key in (self.registry, self.org, self.repository, self.tag) if key is not None)


@dataclass(frozen=True)
class Image:
    """One image of a release. ``tag`` is null where the vendor prints none: read it from the chart."""

    name: str
    repository: str
    tag: str | None
    owner: Literal["circleci", "third_party"]
    group: Literal["chart", "nomad_client", "runner", "database_upgrade", "reality_check", "tool", "backup"]
    pulled_by: Literal["cluster", "nomad_client", "runner", "control_host"]
    role: str
    services: tuple[str, ...]
    condition: str | None
    values_keys: ImageValuesKeys | None
    source: str
    certainty: Certainty
    note: str | None = None

    @property
    def reference(self) -> str | None:
        """The full reference, or None when no tag is documented."""
        return None if self.tag is None else f"{self.repository}:{self.tag}"

    def with_tag(self, tag: str) -> str:
        """The reference with the documented tag, or with this one when there is none."""
        return f"{self.repository}:{self.tag if self.tag is not None else tag}"


@dataclass(frozen=True)
class SecretReference:
    """A key of a Kubernetes Secret."""

    name: str
    key: str


@dataclass(frozen=True)
class ValuesKey:
    """One documented Helm values key as it stands in one release."""

    key: str
    type: Literal["string", "int", "float", "bool", "list", "object", "any"]
    default: Any
    meaning: str
    secret: bool = False
    required: str | None = None
    k8s_secret: SecretReference | None = None
    air_gap: str | None = None
    tags: tuple[str, ...] = ()
    source: str = ""
    certainty: Certainty = "documented"
    note: str | None = None


@dataclass(frozen=True)
class RetiredValuesKey:
    """A key of an earlier release that this one no longer documents."""

    key: str
    fate: Literal["renamed", "removed", "unlisted"]
    since: str
    renamed_to: tuple[str, ...]
    source: str
    certainty: Certainty
    note: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What the vendor says of a platform in some releases."""

    versions: str
    status: Literal["tested", "untested", "known_not_to_work", "not_listed"]
    note: str | None
    in_seed: bool
    source: str
    certainty: Certainty


@dataclass(frozen=True)
class Platform:
    """A Kubernetes platform: the vendor's verdict and what an installer has to know."""

    id: str
    name: str
    aliases: tuple[str, ...]
    seed_name: str | None
    verdicts: tuple[Verdict, ...]
    installer_action: Fact[str]
    installer_rights: Fact[str]
    """Administrator of the C(namespace), or of the whole C(cluster)."""
    detect: Fact[tuple[str, ...]]
    object_storage: Fact[tuple[str, ...]]
    presigned_optional: Fact[bool]
    load_balancer: Fact[Mapping[str, Any]]
    storage_class: Fact[Mapping[str, Any]]
    registry_trust: Fact[tuple[str, ...]]
    registry_access: Fact[tuple[Mapping[str, Any], ...]]
    """Roles of the cloud that let nodes pull from its own registry, in its words; one for each mode that the registry may have."""
    registry_path: Fact[Mapping[str, str]]
    """The path that a registry of this cloud keeps all images below, such as C(<project>/<repository>), by a pattern of its host."""
    firewall_backends: Fact[tuple[str, ...]]
    machine_provisioner: Fact[bool]
    nomad_autoscaler: Fact[bool]
    private_load_balancers: Fact[bool]
    runner_needed: Fact[bool]
    blockers: tuple[Fact[str], ...]
    warnings: tuple[Fact[str], ...]
    variants: Mapping[str, Any]

    def verdict(self, minor: str) -> Verdict:
        """The verdict for a minor such as ``4.10``."""
        from .versions import MinorRange

        for verdict in self.verdicts:
            if minor in MinorRange.parse(verdict.versions):
                return verdict
        raise KeyError(minor)


@dataclass(frozen=True)
class ObjectStorageOption:
    """A way to give the product an S3 (or GCS) store."""

    id: str
    aliases: tuple[str, ...]
    kind: Literal["gateway", "server", "service"]
    backends: tuple[str, ...]
    version: str | None
    licence: str | None
    maintained: bool | None
    presigned: bool | None
    multipart: bool | None
    versioning: bool | None
    lifecycle: bool | None
    cors: Literal["bucket", "server"] | None
    sts: bool | None
    bucket_policy: bool | None
    anonymous_prefix: bool | None
    anonymous_bucket: bool | None
    port: int | None
    health_path: str | None
    environment: tuple[str, ...]
    security: tuple[str, ...]
    advice: str
    source: str
    certainty: Certainty
    note: str | None = None


@dataclass(frozen=True)
class FileSpec:
    """A file that has to be carried into a site."""

    name: str
    kind: Literal["agent", "nomad", "kubernetes_tool", "chart", "runner", "support", "script", "gateway"]
    version: str | None
    version_from: str | None
    url: str
    checksum_url: str | None
    checksum_kind: str | None
    object_path: str | None
    made_on_site: bool
    compressed_in_transit: bool
    platforms: tuple[str, ...]
    used_by: str
    condition: str | None
    source: str
    certainty: Certainty
    note: str | None = None


@dataclass(frozen=True)
class SecretKey:
    """One key of a Secret's data."""

    name: str
    required: bool
    length: int | None
    alphabet: str | None
    form: str | None
    note: str | None = None


@dataclass(frozen=True)
class SecretSpec:
    """A Kubernetes Secret that the product reads."""

    name: str
    aliases: tuple[str, ...]
    name_is_free: bool
    type: str
    keys: tuple[SecretKey, ...]
    made_by: Literal["operator", "chart", "either"]
    helm_metadata: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    values_keys: tuple[str, ...]
    name_values_keys: tuple[str, ...]
    condition: str | None
    source: str
    certainty: Certainty
    note: str | None = None
    database_role: str | None = None


@dataclass(frozen=True)
class Requirement:
    """Something a site must or should have."""

    id: str
    subject: str
    value: str
    level: Literal["required", "advised"]
    waivable: bool
    check: str | None
    looked_at: tuple[str, ...]
    """Verbs, each with its finding where it is one of preflight: C(preflight.cluster_size)."""
    not_looked_at: str | None
    source: str
    certainty: Certainty
    note: str | None = None


@dataclass(frozen=True)
class Sizing:
    """One row of the vendor's sizing table."""

    users: str
    nodes: int
    cpu: int
    memory_gb: int
    nic_gbps: int
    source: str
    certainty: Certainty
    note: str | None = None

    def suits(self, daily_users: int) -> bool:
        """Whether the row is for so many people: C(<500) for fewer, C(500+) for as many and more."""
        if self.users.startswith("<"):
            return daily_users < int(self.users[1:])
        return daily_users >= int(self.users.rstrip("+"))


@dataclass(frozen=True)
class ExternalDatabase:
    """What a database outside the cluster must be. Versions are compared to as many parts as they have here."""

    product: str
    lowest: str | None
    highest: str | None
    tls: str | None
    extensions: Mapping[str, str]
    refused_hosts: Mapping[str, str]
    source: str
    certainty: Certainty
    note: str | None = None


@dataclass(frozen=True)
class FailureMode:
    """A way this product is known to fail, and how to see it."""

    id: str
    number: int | None
    title: str
    symptom: str
    check: str
    remedy: str
    stage: Literal["preflight", "bundle", "install", "running", "upgrade", "none"]
    condition: str | None
    source: str
    certainty: Certainty
    note: str | None = None


@dataclass(frozen=True)
class UpgradeStep:
    """A step of the upgrade to a minor."""

    id: str
    to: str
    order: int
    phase: Literal["before", "during", "after"]
    title: str
    action: str
    irreversible: bool
    downtime: bool
    condition: str | None
    done_by: Literal["collection", "operator"]
    source: str
    certainty: Certainty
    note: str | None = None


@dataclass(frozen=True)
class NomadLayout:
    """Where one of the vendor's three descriptions puts a Nomad client's files."""

    flavour: Literal["air_gap_page", "terraform_aws", "terraform_gcp"]
    config: str
    ca: str
    certificate: str
    key: str
    raw_exec: str
    join: str
    log_level: str
    source: str
    certainty: Certainty
    note: str | None = None


def plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings as plain dictionaries and lists, for Jinja and JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        result = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, Image):
            result["reference"] = value.reference
        return result
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
