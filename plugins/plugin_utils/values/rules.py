# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules that turn the facts of a site into values, one function per concern."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from .knowledge import KeyBook
from .model import PLATFORMS, Path, Setting, SiteFacts, parse_path
from .overlay import leaves

AIR_GAP = "vendor docs: air-gapped installation, phase 3"
PHASE_2 = "vendor docs: installation, phase 2"
PHASE_3 = "vendor docs: installation, phase 3"
TABLE = "vendor docs: installation reference, values table"
EXTERNAL = "vendor docs: configuring external services"
SCRIPTS = "CircleCI-Public/server-scripts upgrade-postgres-to-14"
PROXY = "vendor docs: installing server behind a proxy"
FIELD = "field: values that CircleCI's support runs (4.9.0)"
METALLB = "MetalLB documentation"
OURS = "our conclusion"

AGENT_SOURCE = "https://circleci-binary-releases.s3.amazonaws.com"


class ImageRow(Protocol):
    """What is asked of an image of the catalog."""

    @property
    def name(self) -> str: ...
    @property
    def repository(self) -> str: ...
    @property
    def tag(self) -> str | None: ...
    @property
    def group(self) -> str: ...
    @property
    def values_keys(self) -> Any: ...


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def image_path(repository: str) -> str:
    """The path of an image below its registry, as a mirror that keeps paths has it."""
    first, slash, rest = repository.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        path, hub = rest, first in ("docker.io", "index.docker.io", "registry-1.docker.io")
    else:
        path, hub = repository, True
    return f"library/{path}" if hub and "/" not in path else path


# Third-party images of releases whose tables do not print a key yet. The keys are those of the same subcharts in later
# releases (or of the public chart that is wrapped), so the proof before the install has the last word.
UNPRINTED_IMAGE_KEYS: dict[str, tuple[str, str]] = {
    "kong": ("repository", "kong.image.repository"),
    "nginx": ("repository", "nginx.image.repository"),
    "nginx-unprivileged": ("repository", "nginx.image.repository"),
    "soketi": ("repository", "soketi.image.repository"),
    "mongo": ("repository", "mongodb.injectBotToken.image.repository"),
    "nomad-autoscaler": ("repository", "nomad.auto_scaler.image.repository"),
    "telegraf": ("repository", "telegraf.image.repo"),
    "mongodb": ("registry", "mongodb.image.registry"),
    "server-mongodb": ("registry", "mongodb.image.registry"),
    "postgresql": ("registry", "postgresql.image.registry"),
    "server-postgres": ("registry", "postgresql.image.registry"),
    "rabbitmq": ("registry", "rabbitmq.image.registry"),
    "server-rabbitmq": ("registry", "rabbitmq.image.registry"),
    "redis": ("registry", "redis.image.registry"),
    "server-redis": ("registry", "redis.image.registry"),
}


class Draft:
    """What the rules write on."""

    def __init__(
        self,
        facts: SiteFacts,
        book: KeyBook,
        images: Iterable[ImageRow],
        balancer: Mapping[str, Any] | None = None,
        registry_paths: Mapping[str, str] | None = None,
    ) -> None:
        self.facts = facts
        self.book = book
        self.images = list(images)
        self.balancer = dict(balancer or {})
        """What the catalog says of load balancers of the platform."""
        self.registry_paths = dict(registry_paths or {})
        """Paths that registries demand, by a pattern of the host."""
        self.minor = facts.minor
        self.settings: dict[Path, Setting] = {}
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def put(
        self,
        key: str | Path,
        value: Any,
        rule: str,
        source: str,
        *,
        certainty: str = "documented",
        secret: bool = False,
        note: str = "",
    ) -> None:
        path = parse_path(key) if isinstance(key, str) else key
        self.settings[path] = Setting(path, value, rule, source, certainty, secret, note)

    def need(self, value: Any, name: str, what: str) -> bool:
        """Whether a fact is there; an error when it is not."""
        if value:
            return True
        self.errors.append(f"{name} is empty: {what}.")
        return False

    def since(self, major: int, minor: int) -> bool:
        return self.minor >= (major, minor)


def site(draft: Draft) -> None:
    facts = draft.facts
    if draft.need(facts.domain, "domain", "the name under which users open the server, such as ci.example.com"):
        if not re.fullmatch(r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9-]{2,}", facts.domain):
            draft.errors.append(
                f"domain is {facts.domain!r}: allowed is a lower-case host name with a dot, without scheme, port or slash."
            )
        draft.put("global.domainName", facts.domain, "site.domain", AIR_GAP)
    if facts.platform not in PLATFORMS:
        draft.errors.append(f"platform is {facts.platform!r}: allowed are {', '.join(PLATFORMS)}.")
    if facts.platform == "openshift":
        draft.warnings.append("The vendor states that OpenShift is known not to work; the values are composed all the same.")


def registry(draft: Draft) -> None:
    facts = draft.facts.registry
    if draft.need(facts.host, "registry.host", "the private registry as host[:port]"):
        if "://" in facts.host or "/" in facts.host:
            draft.errors.append(f"registry.host is {facts.host!r}: allowed is host[:port] without scheme and path.")
        for pattern, form in draft.registry_paths.items():
            if re.fullmatch(pattern, facts.host.partition(":")[0]) and len([part for part in facts.org.split("/") if part]) < form.count("/") + 1:
                draft.errors.append(f"registry.org is {facts.org!r}: {facts.host} keeps all images below a path; allowed is {form}, and more below it.")
        draft.put("global.container.registry", facts.host, "registry.own_images", AIR_GAP)
        draft.put(
            "global.container.org",
            facts.org,
            "registry.own_images",
            AIR_GAP,
            certainty="disputed",
            note="The prose says circleci, the table says empty; it must match how the images were pushed.",
        )
    if draft.since(4, 7):
        secrets: list[Any] = list(facts.pull_secrets)
    else:
        secrets = [{"name": name} for name in facts.pull_secrets]
    draft.put(
        "global.imagePullSecrets", secrets, "registry.pull_secrets", TABLE, note="A list of texts since 4.7, of mappings before."
    )
    if facts.pull_secrets and facts.pull_secrets != ["regcred"]:
        for key in ("postgresql.image.pullSecrets", "rabbitmq.image.pullSecrets"):
            if draft.book.lists(parse_path(f"{key}[0]")):
                draft.put(key, list(facts.pull_secrets), "registry.pull_secrets", TABLE)


def images(draft: Draft) -> None:
    """Move every image that the two global keys do not reach."""
    prefix = draft.facts.registry.prefix
    if not draft.facts.registry.host:
        return
    guessed: set[str] = set()
    for image in draft.images:
        if image.group != "chart":
            continue
        keys = image.values_keys
        registry_key = keys.registry if keys else None
        repository_key = keys.repository if keys else None
        certainty, note = (keys.certainty, keys.note or "") if keys else ("inferred", "")
        if registry_key == "global.container.registry":
            continue
        if not registry_key and not repository_key:
            kind, key = UNPRINTED_IMAGE_KEYS.get(image.name.rpartition("/")[2], ("", ""))
            if not key:
                continue
            registry_key, repository_key = (key, None) if kind == "registry" else (None, key)
            note = "No key is printed for this release; this is the one of later releases or of the wrapped chart."
            guessed.add(key)
        if registry_key:
            draft.put(registry_key, prefix, "images.relocate", TABLE, certainty=certainty, note=note)
        elif repository_key:
            where = f"{prefix}/{image_path(image.repository)}"
            draft.put(repository_key, where, "images.relocate", TABLE, certainty=certainty, note=note)
    if guessed:
        draft.warnings.append(
            f"Release {draft.facts.release} documents no key for the images moved by {', '.join(sorted(guessed))}; "
            "the keys are inferred. The proof before the install tells whether the chart honours them."
        )
    draft.put("nomad.buildAgentImage", f"{prefix}/circleci/picard", "images.build_agent", AIR_GAP, note="Without a tag.")
    if draft.since(4, 8):
        draft.put(
            "docker_provisioner.reaperContainerRepository",
            prefix,
            "images.reaper",
            TABLE,
            certainty="inferred",
            note="Clients pull pause:3.6 from here.",
        )


def object_storage(draft: Draft) -> None:
    facts = draft.facts.object_storage
    if draft.need(facts.bucket, "object_storage.bucket", "name the bucket of artifacts and caches"):
        draft.put("object_storage.bucketName", facts.bucket, "object_storage", AIR_GAP)
    if facts.expire_after:
        draft.put("object_storage.expireAfter", facts.expire_after, "object_storage", AIR_GAP)
    if facts.is_gcs:
        draft.put("object_storage.gcs.enabled", True, "object_storage.gcs", PHASE_2)
        if facts.workload_identity:
            draft.put("object_storage.gcs.workloadIdentity", facts.workload_identity, "object_storage.gcs", PHASE_2)
        return
    draft.put("object_storage.s3.enabled", True, "object_storage.s3", AIR_GAP)
    if draft.need(facts.endpoint, "object_storage.endpoint", "the URL of the store, such as https://store.example.com:7070"):
        if not re.match(r"https?://[^/\s]+", facts.endpoint):
            draft.errors.append(
                f"object_storage.endpoint is {facts.endpoint!r}: allowed is a URL with scheme. Pods, Nomad clients and "
                "browsers must all reach it under this one name."
            )
        draft.put("object_storage.s3.endpoint", facts.endpoint.rstrip("/"), "object_storage.s3", AIR_GAP)
    if facts.region and draft.since(4, 3):
        draft.put("object_storage.s3.region", facts.region, "object_storage.s3", TABLE)
    elif facts.region not in ("", "us-east-1"):
        draft.warnings.append(
            f"object_storage.region {facts.region} is not used: release {draft.facts.release} documents no key for it."
        )
    if facts.partition:
        if draft.since(4, 7):
            draft.put("object_storage.s3.partition", facts.partition, "object_storage.s3", TABLE)
        else:
            draft.errors.append("object_storage.partition needs release 4.7 or later: take it out.")
    if facts.irsa_role:
        draft.put("object_storage.s3.irsaRole", facts.irsa_role, "object_storage.role", PHASE_2)
    if not facts.presigned:
        if not draft.since(4, 3):
            draft.errors.append("object_storage.presigned false needs release 4.3 or later: set it to true.")
        elif draft.need(facts.storage_role, "object_storage.storage_role", "presigned false needs a role of AWS to assume"):
            draft.put("object_storage.s3.presigned", False, "object_storage.presigned", TABLE)
            draft.put("object_storage.s3.storageRole", facts.storage_role, "object_storage.presigned", TABLE)


def agents(draft: Draft) -> None:
    facts = draft.facts
    base = facts.object_storage.agents
    if not base:
        if facts.air_gap:
            draft.errors.append(
                "object_storage.agent_bucket (with an endpoint) or object_storage.agent_base_url is empty: jobs fetch their "
                "agents from there, and the vendor's public bucket cannot be reached."
            )
        return
    if draft.since(4, 1):
        draft.put(
            "distributor.agent_base_url", f"{base}/", "agents.build_agent", AIR_GAP, note="With a slash at the end, as the steps say."
        )
    else:
        draft.warnings.append(
            "Release 4.0 documents no key for the place of the build agent: without the internet its jobs cannot fetch it."
        )
    if draft.since(4, 1) and not draft.since(4, 8):
        draft.put(
            "distributor.launch_agent_base_url",
            f"{base}/",
            "agents.launch_agent",
            AIR_GAP,
            certainty="documented" if not draft.since(4, 3) else "disputed",
            note="The guide sets it to 4.7, the table lists it to 4.2; unknown keys are tolerated.",
        )
    if draft.since(4, 3):
        draft.put(
            "docker_provisioner.enabled",
            True,
            "agents.docker_provisioner",
            TABLE,
            note="The air-gap example turns it off, and then every Docker job stays queued.",
        )
        draft.put("docker_provisioner.agent_base_url", f"{base}/docker-provisioner", "agents.docker_provisioner", AIR_GAP)
        draft.put(
            "docker_provisioner.plugin_repository_url",
            base,
            "agents.plugins",
            TABLE,
            certainty="gap",
            note="Must be hosted by the site; no page lists the paths below it.",
        )
    if draft.since(4, 5) and not draft.since(4, 8):
        draft.put("runner_admin.external.launch_agent_base_url", base, "agents.launch_agent", AIR_GAP)


def machines(draft: Draft) -> None:
    """Virtual machines can be started on EKS and GKE only; elsewhere the provisioner's pods crash."""
    facts = draft.facts
    block = "machine_provisioner" if draft.since(4, 3) else "vm_service"
    providers = facts.machine_provisioner.providers
    overlaid = facts.overlay.get(block)
    asked = bool(providers) or (isinstance(overlaid, dict) and bool(overlaid.get("providers")))
    able = facts.platform in ("eks", "gke")
    if providers and not able:
        draft.errors.append(
            f"machine_provisioner.providers is set on platform {facts.platform}: machine executors need EKS or GKE. Take it out "
            "and use machine runners."
        )
    on = able and asked
    note = "No machine executor on this platform: use machine runners."
    if able:
        note = "" if on else "No provider is described, and without one its pods crash."
    draft.put(f"{block}.enabled", on, "machines.provisioner", AIR_GAP, note=note)
    if not on:
        return
    for path, value in leaves(providers, (block, "providers")) if providers else ():
        draft.put(path, value, "machines.provisioner", TABLE, secret=draft.book.is_secret(path))
    base = facts.object_storage.agents
    if base and draft.since(4, 3):
        key = "agent_base_url" if draft.since(4, 7) else "machine_agent_base_url"
        draft.put(f"machine_provisioner.{key}", f"{base}/machine-provisioner", "machines.agent", AIR_GAP)
        draft.put(
            "machine_provisioner.plugin_repository_url", base, "agents.plugins", TABLE, certainty="gap",
            note="Must be hosted by the site; no page lists the paths below it.",
        )


def vcs(draft: Draft) -> None:
    facts = draft.facts.github
    if not facts.enterprise:
        if draft.facts.air_gap:
            draft.errors.append(
                f"github.hostname is {facts.hostname or 'empty'!r}: a cut-off site needs GitHub Enterprise Server, GitHub.com "
                "cannot serve it. Give the host name of the GitHub Enterprise Server."
            )
        else:
            draft.put("github.enterprise", False, "vcs", PHASE_2)
        return
    if "://" in facts.hostname or "/" in facts.hostname:
        draft.errors.append(f"github.hostname is {facts.hostname!r}: allowed is a host name without scheme and path.")
    draft.put("github.enterprise", True, "vcs", AIR_GAP)
    draft.put("github.hostname", facts.hostname, "vcs", AIR_GAP)
    if facts.scheme not in ("http", "https"):
        draft.errors.append(f"github.scheme is {facts.scheme!r}: allowed are http and https.")
    draft.put("github.scheme", facts.scheme, "vcs", TABLE)
    if facts.fingerprint:
        draft.put("github.fingerprint", facts.fingerprint, "vcs.fingerprint", PROXY)
    if facts.ca_certificate:
        draft.put(
            "github.selfSignedCert", True, "vcs.private_ca", AIR_GAP, certainty="disputed",
            note="In the air-gap pages to 4.10, in the values table of 4.0 only.",
        )
        if draft.since(4, 1):
            draft.put("tls.certificates", [b64(facts.ca_certificate)], "vcs.private_ca", AIR_GAP, note="Reaches GitHub Enterprise only.")
    skip = facts.skip_webhook_verification
    if skip is None:
        skip = bool(facts.ca_certificate) or draft.facts.tls.issued_by_site_ca
    if skip:
        draft.put(
            "github.unsafeDisableWebhookSSLVerification", True, "vcs.webhooks", AIR_GAP,
            note="GitHub Enterprise does not check the certificate of this server when it delivers webhooks. Make it trust the "
            "site's CA and set circleci_github_skip_webhook_verification to false to have it check.",
        )


def secrets(draft: Draft) -> None:
    """Point at Secrets that were made beforehand; nothing that has a documented Secret goes into the values."""
    facts = draft.facts
    if draft.since(4, 1) and facts.tink and not facts.vault.url:
        draft.put("tink.enabled", True, "secrets.tink", PHASE_2, note="Tink wins over Vault, which is then not deployed.")
    elif facts.vault.url:
        draft.put("vault.internal", False, "secrets.vault", EXTERNAL)
        draft.put("vault.url", facts.vault.url, "secrets.vault", EXTERNAL)
        if facts.vault.transit_path:
            draft.put("vault.transitPath", facts.vault.transit_path, "secrets.vault", EXTERNAL)
    if facts.oidc.enabled:
        _oidc(draft)


def _oidc(draft: Draft) -> None:
    if not draft.since(4, 4):
        draft.errors.append("oidc.enabled needs release 4.4 or later: set it to false.")
        return
    draft.put("oidc_service.isEnabled", True, "oidc", TABLE)
    if draft.since(4, 10):
        draft.put("oidc_service.json_web_keys_secret_name", "oidc-service", "oidc", TABLE)
    else:
        draft.put(
            "oidc_service.json_web_keys", "in-secrets", "oidc", FIELD, certainty="inferred",
            note="A placeholder that satisfies the template; the key set lies in the Secret oidc-service.",
        )
    if draft.facts.oidc.base_url:
        if draft.since(4, 9):
            draft.put("oidc_service.base_url", draft.facts.oidc.base_url, "oidc", TABLE)
        else:
            draft.errors.append("oidc.base_url needs release 4.9 or later: take it out.")


def databases(draft: Draft) -> None:
    _postgres(draft)
    _mongodb(draft)
    _rabbitmq(draft)
    if not draft.facts.redis.internal:
        draft.errors.append(
            "redis.internal is false: no release of CircleCI Server can use an external Redis. Set it to true."
        )


def _postgres(draft: Draft) -> None:
    facts = draft.facts.postgres
    draft.put("postgresql.auth.existingSecret", facts.existing_secret, "postgres.secret", PHASE_2)
    if facts.internal:
        _postgres_version(draft, facts.version)
        return
    if facts.version:
        draft.errors.append("postgres.version is set, and PostgreSQL lies outside the cluster: its owner chooses its version. Leave it empty.")
    draft.put("postgresql.internal", False, "postgres.external", EXTERNAL)
    if draft.need(facts.host, "postgres.host", "the external PostgreSQL"):
        draft.put("postgresql.postgresqlHost", facts.host, "postgres.external", EXTERNAL)
    draft.put("postgresql.postgresqlPort", facts.port, "postgres.external", EXTERNAL)
    if draft.need(facts.username, "postgres.username", "the role that owns the databases of the external PostgreSQL"):
        draft.put("postgresql.auth.username", facts.username, "postgres.external", EXTERNAL)
    if facts.secure_mode is not None:
        if draft.since(4, 9):
            draft.put("postgresql.secureMode", facts.secure_mode, "postgres.external", TABLE)
        else:
            draft.errors.append("postgres.secure_mode needs release 4.9 or later: take it out.")


def _postgres_version(draft: Draft, version: str) -> None:
    """The image of another major version than the one that the release brings."""
    if not version:
        return
    named = [image for image in draft.images if image.name.endswith("server-postgres") and image.tag]
    chosen = next((image for image in named if (image.tag or "").startswith(f"{version}.")), None)
    if chosen is None:
        known = ", ".join(sorted({(image.tag or "").partition(".")[0] for image in named})) or "no choice"
        draft.errors.append(f"postgres.version is {version!r}: release {draft.facts.release} knows {known}. Leave it empty for its own.")
    elif chosen.group == "database_upgrade":
        draft.put("postgresql.image.repository", image_path(chosen.repository), "postgres.version", SCRIPTS)
        draft.put("postgresql.image.tag", chosen.tag, "postgres.version", SCRIPTS)


def _mongodb(draft: Draft) -> None:
    facts = draft.facts.mongodb
    draft.put("mongodb.auth.existingSecret", facts.existing_secret, "mongodb.secret", PHASE_2)
    if facts.internal:
        return
    draft.put("mongodb.internal", False, "mongodb.external", EXTERNAL)
    if draft.need(facts.hosts, "mongodb.hosts", "the external MongoDB as host:port, several with commas"):
        draft.put("mongodb.hosts", facts.hosts, "mongodb.external", EXTERNAL)
    draft.put("mongodb.ssl", facts.tls, "mongodb.external", EXTERNAL)
    if facts.tls_insecure:
        draft.put("mongodb.tlsInsecure", True, "mongodb.external", EXTERNAL)
    for key, value in (
        ("mongodb.options", facts.options),
        ("mongodb.auth.database", facts.database),
        ("mongodb.auth.mechanism", facts.mechanism),
        ("mongodb.auth.username", facts.username),
    ):
        if value:
            draft.put(key, value, "mongodb.external", EXTERNAL)


def _rabbitmq(draft: Draft) -> None:
    facts = draft.facts.rabbitmq
    for key in ("existingPasswordSecret", "existingErlangSecret"):
        draft.put(f"rabbitmq.auth.{key}", facts.existing_secret, "rabbitmq.secret", PHASE_2)
    if facts.internal:
        return
    if not draft.since(4, 3):
        draft.errors.append("rabbitmq.internal is false: an external RabbitMQ needs release 4.3 or later. Take the block out.")
        return
    draft.put("rabbitmq.internal", False, "rabbitmq.external", EXTERNAL)
    if draft.need(facts.host, "rabbitmq.host", "the external RabbitMQ"):
        draft.put("rabbitmq.host", facts.host, "rabbitmq.external", EXTERNAL)
    draft.put("rabbitmq.port", facts.port, "rabbitmq.external", EXTERNAL)
    draft.put("rabbitmq.management_gui_port", facts.management_port, "rabbitmq.external", EXTERNAL)
    if facts.username:
        draft.put("rabbitmq.auth.username", facts.username, "rabbitmq.external", EXTERNAL)
    if facts.tls:
        if draft.since(4, 8):
            draft.put("rabbitmq.secure_amqp", True, "rabbitmq.external", TABLE)
        else:
            draft.errors.append("rabbitmq.tls needs release 4.8 or later: set it to false.")


def nomad(draft: Draft) -> None:
    facts = draft.facts.nomad
    if not facts.internal:
        _external_nomad(draft)
        return
    replicas = facts.replicas
    if replicas is not None:
        if replicas < 1 or replicas > 7 or replicas % 2 == 0:
            draft.errors.append(f"nomad.replicas is {replicas}: allowed are 1, 3, 5 and 7, a quorum needs an odd number.")
        draft.put("nomad.server.replicas", replicas, "nomad.replicas", TABLE)
        if draft.since(4, 1):
            if replicas == 1:
                draft.put("nomad.server.pdb.enabled", False, "nomad.replicas", TABLE, note="One server can never be drained otherwise.")
            elif replicas >= 3:
                draft.put("nomad.server.pdb.minAvailable", replicas // 2 + 1, "nomad.replicas", TABLE, note="The quorum.")
    draft.put("nomad.server.gossip.encryption.enabled", True, "nomad.gossip", TABLE)
    draft.put("nomad.server.rpc.mTLS.enabled", facts.mtls_enabled, "nomad.mtls", PHASE_3)
    if not facts.mtls_enabled:
        draft.warnings.append("nomad.mtls_enabled is false: anyone who reaches port 4647 can join the cluster as a client.")
    elif not draft.since(4, 4):
        _mtls_values(draft, "nomad.server.rpc.mTLS", "the server pair; a Secret of your own is documented from 4.4 on")
    if facts.rpc_max_conns_per_client is not None:
        if draft.since(4, 8):
            draft.put(
                "nomad.server.limits.rpc_max_conns_per_client", str(facts.rpc_max_conns_per_client), "nomad.limits", TABLE,
                note="100 connections per address is the default; clients behind one address share it.",
            )
        else:
            draft.errors.append("nomad.rpc_max_conns_per_client needs release 4.8 or later: take it out.")


def _mtls_values(draft: Draft, prefix: str, what: str) -> None:
    pair = draft.facts.nomad.mtls
    for key, text, name, secret in (
        ("CACertificate", pair.ca, "ca", False),
        ("certificate", pair.certificate, "certificate", False),
        ("privateKey", pair.private_key, "private_key", True),
    ):
        if draft.need(text, f"nomad.mtls.{name}", what):
            draft.put(f"{prefix}.{key}", b64(text), "nomad.mtls", PHASE_3, secret=secret)


def _external_nomad(draft: Draft) -> None:
    facts = draft.facts.nomad
    if not draft.since(4, 8):
        draft.errors.append("nomad.internal false needs release 4.8 or later: set it to true.")
        return
    draft.put("nomad.server.internal", False, "nomad.external", PHASE_3)
    if draft.need(facts.server_hostname, "nomad.server_hostname", "the name of the external Nomad servers"):
        draft.put("nomad.server.serverHostname", facts.server_hostname, "nomad.external", PHASE_3)
    if facts.replicas is not None:
        draft.errors.append("nomad.replicas is set and the Nomad servers are external: take it out.")
    if facts.mtls_enabled:
        _mtls_values(draft, "nomad.clients.mTLS", "external servers want the client pair in the values")


def load_balancer(draft: Draft) -> None:
    """Annotations are those of the catalog; what a platform has none for is said."""
    facts, known = draft.facts, draft.balancer
    lb = facts.load_balancer
    annotations: dict[str, str] = {}
    own_key_works = facts.platform in ("eks", "gke")
    metallb = lb.kind == "metallb"
    if lb.internal and own_key_works:
        draft.put("nginx.private_load_balancers", True, "load_balancer.internal", PHASE_2)
    elif lb.internal and not metallb and known.get("internal_annotation"):
        annotations.update(known["internal_annotation"])
    elif lb.internal and not metallb:
        draft.warnings.append(
            f"load_balancer.internal has no effect on platform {facts.platform}: nginx.private_load_balancers is for EKS and GKE."
        )
    if metallb:
        if lb.address:
            annotations[(known.get("metallb") or {}).get("address_annotation", "metallb.io/loadBalancerIPs")] = lb.address
    elif facts.platform == "digitalocean":
        annotations[known["name_annotation"]] = facts.domain.replace(".", "-")
        if lb.address:
            draft.warnings.append(
                "load_balancer.address is not used: DigitalOcean gives its load balancers an address that cannot be chosen."
            )
    elif facts.platform == "eks":
        if lb.address:
            draft.warnings.append(
                "load_balancer.address is not used on EKS: give the ids of Elastic IPs by the annotation "
                f"{known['fixed_address_annotation']}."
            )
    elif lb.address and known.get("fixed_address_annotation"):
        annotations[known["fixed_address_annotation"]] = lb.address
    elif lb.address:
        draft.put("nginx.loadBalancerIp", lb.address, "load_balancer.address", TABLE)
    _idle_time(draft, annotations)
    annotations.update(lb.annotations)
    for name, text in sorted(annotations.items()):
        own = name in lb.annotations
        source = "site facts" if own else METALLB if "metallb" in name else f"documentation of the platform {facts.platform}"
        draft.put(("nginx", "annotations", name), text, "load_balancer.annotations", source)
    if lb.source_ranges:
        if draft.since(4, 3):
            draft.put("nginx.loadBalancerSourceRanges", list(lb.source_ranges), "load_balancer.source_ranges", TABLE)
        else:
            draft.errors.append("load_balancer.source_ranges needs release 4.3 or later: take it out.")


def _idle_time(draft: Draft, annotations: dict[str, str]) -> None:
    minutes, known = draft.facts.load_balancer.idle_minutes, draft.balancer
    low, high = int(known.get("idle_timeout_default_minutes") or 0), int(known.get("idle_timeout_max_minutes") or 0)
    if not minutes:
        if low and draft.facts.load_balancer.kind != "metallb":
            draft.warnings.append(
                f"load_balancer.idle_minutes is 0: the load balancer drops connections after {low} quiet minutes, and those of Nomad clients and logs are "
                f"quiet for longer. Allowed are {low} to {high}."
            )
    elif not known.get("idle_timeout_annotation") or draft.facts.load_balancer.kind == "metallb":
        draft.errors.append(
            f"load_balancer.idle_minutes is {minutes}: no annotation is known for it with {draft.facts.load_balancer.kind} on platform "
            f"{draft.facts.platform}. Set it to 0, and the time where the load balancer is made."
        )
    elif not low <= minutes <= high:
        draft.errors.append(f"load_balancer.idle_minutes is {minutes}: platform {draft.facts.platform} allows {low} to {high}.")
    else:
        annotations[known["idle_timeout_annotation"]] = str(minutes)


def tls(draft: Draft) -> None:
    facts = draft.facts
    mode = facts.tls.mode
    if mode == "values":
        ok = draft.need(facts.tls.certificate, "tls.certificate", "the chain for the domain and app.<domain>, as PEM")
        ok = draft.need(facts.tls.private_key, "tls.private_key", "the key of the certificate, as PEM") and ok
        if ok:
            draft.put("tls.certificate", b64(facts.tls.certificate), "tls", AIR_GAP, note="Base64 of the whole chain.")
            draft.put(
                "tls.privateKey", b64(facts.tls.private_key), "tls", AIR_GAP, secret=True,
                note="No Secret is documented for it: it has to stand in the values.",
            )
        return
    if mode == "acme":
        if facts.air_gap:
            draft.errors.append("tls.mode is acme: Let's Encrypt cannot be reached from a cut-off site. Allowed: values, upstream.")
        draft.put("kong.acme.enabled", True, "tls.acme", PHASE_2)
        return
    if mode == "acm":
        if facts.platform != "eks":
            draft.errors.append(f"tls.mode is acm on platform {facts.platform}: ACM works on EKS only. Allowed: values, upstream.")
        draft.put("nginx.aws_acm.enabled", True, "tls.acm", PHASE_2)
        arn = "service.beta.kubernetes.io/aws-load-balancer-ssl-cert"
        if arn not in facts.load_balancer.annotations:
            draft.errors.append(f"load_balancer.annotations lacks {arn}: tls.mode acm needs the ARN of the certificate.")
        return
    if mode != "upstream":
        draft.errors.append(f"tls.mode is {mode!r}: allowed are values, acme, acm, upstream.")


def proxy(draft: Draft) -> None:
    facts = draft.facts.proxy
    if not facts.enabled:
        return
    draft.put("proxy.enabled", "1", "proxy", PROXY, certainty="disputed", note="The table says a boolean, the guide the text 1.")
    for name, endpoint in (("http", facts.http), ("https", facts.https)):
        if not endpoint.host:
            continue
        if "://" in endpoint.host:
            draft.errors.append(
                f"proxy.{name}.host is {endpoint.host!r}: allowed is a host name. The proxy itself must speak plain http, "
                "services on the JVM take nothing else."
            )
        draft.put(f"proxy.{name}.host", endpoint.host, "proxy", PROXY)
        draft.put(f"proxy.{name}.port", endpoint.port, "proxy", PROXY)
        if endpoint.username:
            draft.put(f"proxy.{name}.auth.enabled", "1", "proxy", PROXY)
            draft.put(f"proxy.{name}.auth.username", endpoint.username, "proxy", PROXY)
            draft.put(
                f"proxy.{name}.auth.password", endpoint.password, "proxy", PROXY, secret=True,
                note="No Secret is documented for it: it has to stand in the values.",
            )
    around = ["localhost", "127.0.0.1", draft.facts.github.hostname, draft.facts.domain, f"app.{draft.facts.domain}"]
    store = re.match(r"https?://([^/:]+)", draft.facts.object_storage.endpoint)
    if store:
        around.append(store.group(1))
    around.append(draft.facts.registry.host.partition(":")[0])
    around += [*facts.nomad_cidrs, *facts.no_proxy]
    draft.put("proxy.no_proxy", list(dict.fromkeys(item for item in around if item)), "proxy", PROXY)
    if draft.facts.github.enterprise and not draft.facts.github.fingerprint:
        draft.warnings.append(
            "github.fingerprint is empty: behind a proxy ssh-keyscan cannot reach GitHub Enterprise, give its host key."
        )


def mail(draft: Draft) -> None:
    facts = draft.facts.smtp
    if not facts.host:
        return
    draft.put("smtp.host", facts.host, "mail", TABLE)
    draft.put("smtp.port", facts.port, "mail", TABLE)
    draft.put("smtp.tls", facts.tls, "mail", TABLE)
    if facts.notification_user:
        draft.put("smtp.notificationUser", facts.notification_user, "mail", TABLE)
    if facts.user:
        draft.put("smtp.user", facts.user, "mail", TABLE)
        draft.put(
            "smtp.password", facts.password, "mail", TABLE, secret=True,
            note="No Secret is documented for it: it has to stand in the values.",
        )


RULES: tuple[Callable[[Draft], None], ...] = (
    site, registry, images, object_storage, agents, machines, vcs, secrets, databases, nomad, load_balancer, tls, proxy, mail,
)
