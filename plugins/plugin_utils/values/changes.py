# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keys of the values that were renamed or taken away, and keys people write wrongly.

Only what the vendor's pages or upgrade scripts state is listed: a key that merely misses in one release's table is
no error, since those tables have gaps (requests of CPU and memory are in the 4.9 table only, for instance).
"""

from __future__ import annotations

import dataclasses

from .model import Path, parse_path

Minor = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Change:
    """From C(since) on the key (and all below it) is gone; C(successor) took its place, or C(advice) says what to do."""

    key: str
    since: Minor
    successor: str = ""
    advice: str = ""
    source: str = "vendor's upgrade pages"

    @property
    def path(self) -> Path:
        return parse_path(self.key)

    def sentence(self) -> str:
        gone = f"is gone since {self.since[0]}.{self.since[1]}" if self.since != (0, 0) else "never was a key of the chart"
        todo = f"write {self.successor} instead" if self.successor else "take it out"
        return f"{gone}: {todo}{'; ' + self.advice if self.advice else ''}."


@dataclasses.dataclass(frozen=True)
class Retired:
    """A key of earlier releases, as the catalog has it."""

    path: Path
    fate: str
    since: str
    renamed_to: tuple[str, ...]
    source: str
    note: str

    def sentence(self) -> str:
        if self.renamed_to:
            return f"was renamed in {self.since}: write {' and '.join(self.renamed_to)} instead."
        return f"is gone since {self.since}: take it out.{' ' + self.note if self.note else ''}"


_MAIN = "web_ui"
_KOTS = "vendor's script that moves 3.x releases to 4.0"

CHANGES: tuple[Change, ...] = (
    # 3.x names, still found in files that were carried along
    Change("published", (4, 0), source=_KOTS),
    Change("domainName", (4, 0), "global.domainName", source=_KOTS),
    Change("license", (4, 0), "global.license", "or the Secret license", source=_KOTS),
    Change("kong.annotations", (4, 0), "nginx.annotations", source=_KOTS),
    Change("kong.aws_acm", (4, 0), "nginx.aws_acm", source=_KOTS),
    Change("postgresql.postgresqlUsername", (4, 0), "postgresql.auth.username", source=_KOTS),
    Change("postgresql.postgresqlPassword", (4, 0), "postgresql.auth.postgresPassword", source=_KOTS),
    Change("nomad.server.rpc.advertise", (4, 0), source=_KOTS),
    Change("minio", (4, 0), "object_storage", "the object store is outside the chart", source=_KOTS),
    # 4.2
    Change("postgresql.persistence", (4, 2), "postgresql.primary.persistence"),
    # 4.3
    Change("vm_service", (4, 3), "machine_provisioner", "tags become a map, the zone of GCP a list"),
    Change("vm_gc", (4, 3), advice="machine-provisioner cleans up by itself"),
    Change("vm_scaler", (4, 3), "machine_provisioner.demandFudgeFactor"),
    Change("internal_zone", (4, 3)),
    Change("dispatcher", (4, 3), "distributor_dispatcher"),
    Change("output_processor", (4, 3), "output"),
    Change("test_results_service", (4, 3)),
    Change("prometheus", (4, 3), advice="the chart no longer brings Prometheus"),
    # 4.5
    Change("global.loginPageBanner", (4, 5)),
    # 4.7
    Change("machine_provisioner.machine_agent_base_url", (4, 7), "machine_provisioner.agent_base_url"),
    Change("web_ui_404", (4, 7), _MAIN),
    # 4.8
    Change("docker_provisioner.config_path", (4, 8), "docker_provisioner.custom_config"),
    Change("machine_provisioner.config_path", (4, 8), "machine_provisioner.custom_config"),
    Change("telegraf.config.custom_config_file", (4, 8), "telegraf.custom_config"),
    Change("runner_admin.external.launch_agent_base_url", (4, 8), advice="launch-agent is unsupported, use machine runner 3"),
    Change("distributor.launch_agent_base_url", (4, 8), advice="launch-agent is unsupported, use machine runner 3"),
    Change("mongodb.injectBotToken", (4, 8)),
    Change("schedulerer", (4, 8)),
    Change("nomad.clusterDomain", (4, 8)),
    Change("web_ui_insights", (4, 8), _MAIN),
    Change("web_ui_onboarding", (4, 8), _MAIN),
    Change("web_ui_org_settings", (4, 8), _MAIN),
    Change("web_ui_project_settings", (4, 8), _MAIN),
    Change("web_ui_runners", (4, 8), _MAIN),
    Change("web_ui_user_settings", (4, 8), _MAIN),
    # 4.9
    Change("global.tracing", (4, 9), "global.otel"),
    Change("feature_flags_api", (4, 9)),
    Change("web_ui_authentication", (4, 9), _MAIN),
    # 4.10
    Change("telegraf", (4, 10), "opentelemetry-collector", "the collector takes StatsD on 8125/udp"),
    Change("audit_log_service", (4, 10), "notifications.audit_log_batcher and notifications.audit_log_enricher"),
    # slips of the vendor's own pages
    Change("tls.imports", (0, 0), "tls.import", source="vendor's page on private certificates, prose against table"),
)

# Only on a branch of the vendor's documentation that was never released.
UNRELEASED: tuple[Path, ...] = tuple(
    parse_path(f"redis.{name}")
    for name in ("internal", "host", "port", "readerHost", "readerPort", "ssl", "sslSkipVerify", "auth")
)

# Keys that real files hold and that the vendor's tables leave out: neither error nor warning.
FIELD_KEYS: dict[str, tuple[Minor, Minor]] = {
    "github.selfSignedCert": ((4, 0), (4, 10)),
    "telegraf.config.outputs": ((4, 0), (4, 9)),
    "telegraf.resources": ((4, 0), (4, 9)),
    "telegraf.service.ports": ((4, 0), (4, 9)),
    "telegraf.image": ((4, 0), (4, 9)),
    "vm_service.providers.ec2.region": ((4, 0), (4, 2)),
    "vm_service.providers.ec2.securityGroupId": ((4, 0), (4, 2)),
    "vm_service.providers.ec2.irsaRole": ((4, 0), (4, 2)),
    "opentelemetry-collector.config": ((4, 9), (4, 10)),
    "distributor.launch_agent_base_url": ((4, 1), (4, 7)),
}


def change_of(path: Path, minor: Minor) -> Change | None:
    """The change that took a key away at or before a release."""
    for change in CHANGES:
        if change.since <= minor and path[: len(change.path)] == change.path:
            return change
    return None
