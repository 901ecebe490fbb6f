# SPDX-License-Identifier: GPL-3.0-or-later
"""The data agrees with itself, with the 4.0 overview, and with what the facts say about upgrades and Kubernetes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import (
    Catalog,
    Fact,
    MinorRange,
    key_path,
    parse_release,
    plain,
)
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog.generate import (
    DATA,
    INDEX_TABLES,
    TABLES,
    Sources,
    read_yaml,
)
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog.model import CERTAINTIES
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog.versions import (
    KubernetesRange,
    parse_minor,
)

ROOT = Path(__file__).resolve().parents[5]
CATALOG = Catalog.load()
LAST = CATALOG.last_patches()
MINORS = CATALOG.minors()
every_release = pytest.mark.parametrize("release", LAST)

# The service column of the 4.0 overview, as printed, and whether it says what happens on a failure.
SEED_ROWS = {
    "api-service": True,
    "audit-log-service": True,
    "branch-service": False,
    "builds-service": False,
    "circleci-mongodb": False,
    "circleci-postgres": False,
    "circleci-rabbitmq": False,
    "circleci-redis": True,
    "circleci-telegraf": False,
    "circleci-vault": False,
    "contexts-service": True,
    "cron-service": True,
    "dispatcher": True,
    "distributor-*": False,
    "domain-service": True,
    "frontend": True,
    "insights-service": False,
    "Kong": False,
    "legacy-notifier": False,
    "NGINX": False,
    "nomad-autoscaler": False,
    "nomad-server": False,
    "orb-service": False,
    "output-processor": False,
    "permissions-service": True,
    "scheduler": True,
    "socketi": False,
    "telegraf": False,
    "test-results-service": True,
    "vm-gc": True,
    "vm-scaler": True,
    "vm-service": True,
    "web-ui-*": True,
    "webhook-service": False,
    "workflows-conductor-event-consumer": True,
    "workflows-conductor-grpc": False,
}
SEED_PLATFORMS = {
    "EKS": "tested",
    "GKE": "tested",
    "Azure": "untested",
    "Digital Ocean": "untested",
    "OpenShift": "known_not_to_work",
    "Rancher": "untested",
}


def tables(release: str) -> dict[str, tuple[Any, ...]]:
    return {name: getattr(CATALOG, name)(release) for name in TABLES}


def index_tables() -> dict[str, tuple[Any, ...]]:
    return {
        "host_groups": CATALOG.host_groups(),
        "platforms": CATALOG.platforms(),
        "object_storage": CATALOG.object_storage_options(),
    }


def facts_in(value: Any) -> list[Fact[Any]]:
    if isinstance(value, Fact):
        return [value]
    if isinstance(value, tuple):
        return [fact for item in value for fact in facts_in(item)]
    return []


# -- the seed -----------------------------------------------------------------------------------------------------


def test_the_seed_has_36_rows() -> None:
    assert len(SEED_ROWS) == 36
    assert len([service for service in CATALOG.services("4.0.6") if service.in_seed]) == 36


@pytest.mark.parametrize("row", SEED_ROWS)
def test_each_seed_row_is_there(row: str) -> None:
    service = CATALOG.service("4.0.6", row)
    assert service.in_seed and service.in_overview
    assert (service.failure_impact is not None) is SEED_ROWS[row]
    assert service.description
    assert service.component or row in ("circleci-telegraf", "circleci-vault")


@pytest.mark.parametrize("name", SEED_PLATFORMS)
def test_each_seed_platform_has_its_verdict(name: str) -> None:
    platform = next(platform for platform in CATALOG.platforms() if platform.seed_name == name)
    verdict = platform.verdict("4.0")
    assert verdict.in_seed and verdict.status == SEED_PLATFORMS[name]


def test_seed_ports_come_out_of_the_rules() -> None:
    seed = CATALOG.seed_ports()
    for release in ("4.0.6", "4.1.10", "4.2.7"):
        rules = CATALOG.ports(release, group="load_balancer")
        opened = {port for rule in rules if rule.direction == "ingress" for port in rule.ports}
        assert opened == {port for row in seed["exposed_services"] for port in row["ports"]}
    assert CATALOG.port("4.0.6", "bastion-in-ssh").ports == ("22",)
    assert CATALOG.port("4.0.6", "client-in-ssh-rerun").ports == ("64535-65535",)
    assert [row["port"] for row in seed["external_ports"]] == ["80", "443", "22", "64535-65535"]


@pytest.mark.parametrize("release", [version for version in LAST if parse_release(version) >= (4, 3, 0)])
def test_later_releases_need_80_443_and_4647_only(release: str) -> None:
    rules = [
        rule
        for rule in CATALOG.ports(release, group="load_balancer")
        if rule.direction == "ingress" and rule.status == "required"
    ]
    assert {port for rule in rules for port in rule.ports} == {"80", "443", "4647"}
    printed = [rule for rule in CATALOG.ports(release) if rule.status == "obsolete_but_printed"]
    assert {port for rule in printed for port in rule.ports} == {"3000", "8585", "2376"}
    assert {rule.certainty for rule in printed} == {"disputed"}


# -- sources and certainty ----------------------------------------------------------------------------------------


@every_release
def test_every_row_has_source_and_certainty(release: str) -> None:
    for name, rows in tables(release).items():
        assert rows or name in ("retired_values_keys", "upgrade_steps"), name
        for row in rows:
            assert row.source.strip(), (name, row)
            assert row.certainty in CERTAINTIES, (name, row)


def test_every_fact_of_an_index_row_has_source_and_certainty() -> None:
    for name, cls in INDEX_TABLES.items():
        for row in index_tables()[name]:
            assert isinstance(row, cls)
            for field in vars(row).values():
                for fact in facts_in(field):
                    assert fact.source and fact.certainty in CERTAINTIES
    for platform in CATALOG.platforms():
        assert all(verdict.source and verdict.certainty in CERTAINTIES for verdict in platform.verdicts)


def test_sources_name_what_a_reader_can_open() -> None:
    forbidden = re.compile(r"/work|reference/|facts\.md|field-notes|\.ya?ml page|seed/")
    for path in sorted(DATA.rglob("*.yml")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if "source" in line:
                assert not forbidden.search(line.partition("source")[2]), f"{path.name}:{number}: {line}"


def test_disputed_facts_say_why() -> None:
    for release in LAST:
        for name, fact in CATALOG.release(release).facts().items():
            if fact.certainty == "disputed":
                assert fact.note, (release, name)


@every_release
def test_gaps_are_not_filled(release: str) -> None:
    for name, fact in CATALOG.release(release).facts().items():
        if fact.certainty == "gap":
            assert fact.value in (None, (), "none") or name == "runner_init_tag", (release, name, fact)


# -- versions -----------------------------------------------------------------------------------------------------


def walk(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [found for name, item in value.items() for found in walk(item, f"{path}.{name}")]
    if isinstance(value, list):
        return [found for number, item in enumerate(value) for found in walk(item, f"{path}[{number}]")]
    return [(path, value)]


def test_no_version_is_a_yaml_number() -> None:
    for path in sorted(DATA.rglob("*.yml")):
        for where, value in walk(read_yaml(path)):
            if isinstance(value, float):
                # The defaults of Helm values are the only numbers with a fraction; versions never are.
                assert ".default" in where, (path.name, where, value)


def test_ranges_are_valid_and_inside_the_catalog() -> None:
    for path in sorted(DATA.rglob("*.yml")):
        for where, value in walk(read_yaml(path)):
            if where.rpartition(".")[2] in ("versions", "overview_versions"):
                span = MinorRange.parse(value)
                for minor in (span.first, span.last):
                    assert minor in MINORS, (path.name, where, value)


def test_timelines_are_contiguous() -> None:
    for name, timeline in Sources().releases["facts"].items():
        spans = [MinorRange.parse(entry["versions"]) for entry in timeline]
        covered = [minor for minor in MINORS if any(minor in span for span in spans)]
        assert covered == list(MINORS), name
        firsts = [parse_minor(span.first) for span in spans]
        assert firsts == sorted(firsts), name
        for minor in MINORS:
            assert sum(minor in span for span in spans) == 1, (name, minor)


def test_platform_verdicts_cover_every_minor_once() -> None:
    for platform in CATALOG.platforms():
        for minor in MINORS:
            assert sum(minor in MinorRange.parse(verdict.versions) for verdict in platform.verdicts) == 1


# -- ports --------------------------------------------------------------------------------------------------------


@every_release
def test_each_port_rule_names_known_things(release: str) -> None:
    groups = {group.id for group in CATALOG.host_groups()}
    services = {service.name for service in CATALOG.services(release)} | set(CATALOG.infrastructure_services())
    conditions = CATALOG.port_conditions()
    ids = [rule.id for rule in CATALOG.ports(release)]
    assert len(ids) == len(set(ids))
    for rule in CATALOG.ports(release):
        assert rule.group in groups, rule
        assert rule.service in services, rule
        assert rule.peers and set(rule.peers) <= set(CATALOG.peers()), rule
        assert rule.condition is None or rule.condition in conditions, rule
        assert set(rule.protocols) <= {"tcp", "udp", "any"}, rule
        for port in rule.ports:
            if port in CATALOG.named_ports() or port == "any":
                continue
            first, _dash, last = port.partition("-")
            assert 0 < int(first) <= int(last or first) < 65536, rule


@every_release
def test_each_internal_port_names_a_known_service(release: str) -> None:
    services = {service.name for service in CATALOG.services(release)}
    for port in CATALOG.internal_ports(release):
        assert port.service in services, port
        assert port.protocol in ("tcp", "udp") and 0 < int(port.port) < 65536, port
        assert port.condition is None or port.condition in CATALOG.port_conditions(), port


def test_every_condition_and_peer_is_used() -> None:
    rules = [rule for release in LAST for rule in CATALOG.ports(release)]
    internal = [port for release in LAST for port in CATALOG.internal_ports(release)]
    used = {rule.condition for rule in rules} | {port.condition for port in internal}
    assert set(CATALOG.port_conditions()) == used - {None}
    assert {peer for rule in rules for peer in rule.peers} | {"bastion", "control_host"} >= set(CATALOG.peers())


def test_what_leaves_one_group_arrives_at_the_other() -> None:
    """For pairs of groups that this collection manages, egress and ingress tell the same story."""
    managed = {group.id for group in CATALOG.host_groups() if group.managed}
    skip = {"bastion", "control_host"}
    for release in LAST:
        rules = [rule for rule in CATALOG.ports(release) if rule.scope == "host" and rule.status == "required"]
        arriving = {
            (peer, rule.group, port)
            for rule in rules
            if rule.direction in ("ingress", "both")
            for peer in rule.peers
            for port in rule.ports
        }
        for rule in rules:
            if rule.direction != "egress" or rule.group in skip:
                continue
            for peer in set(rule.peers) & managed - skip:
                for port in rule.ports:
                    assert (rule.group, peer, port) in arriving, (release, rule.id, peer)


# -- images, values keys, secrets, files --------------------------------------------------------------------------


@every_release
def test_each_image_names_known_services_and_existing_values_keys(release: str) -> None:
    services = {service.name for service in CATALOG.services(release)}
    keys = {key.key for key in CATALOG.values_keys(release)}
    images = CATALOG.images(release)
    references = [(image.with_tag("?"), image.group) for image in images]
    assert len(references) == len(set(references))
    for image in images:
        assert set(image.services) <= services, image
        if image.values_keys is not None:
            assert image.values_keys.names() and set(image.values_keys.names()) <= keys, image
        if image.group == "chart" and image.repository.startswith("cciserver.azurecr.io/"):
            assert image.values_keys is not None, image


@every_release
def test_tags_agree_with_the_release(release: str) -> None:
    facts = CATALOG.release(release)
    tags: dict[str, set[str | None]] = {}
    for image in CATALOG.images(release, group="chart"):
        tags.setdefault(image.name, set()).add(image.tag)
    for name, fact in (
        ("kong", facts.kong),
        ("soketi", facts.soketi),
        ("nomad-autoscaler", facts.nomad_autoscaler),
        ("telegraf", facts.telegraf),
        ("nginx-unprivileged" if facts.nginx_unprivileged.value else "nginx", facts.nginx),
        ("picard", facts.build_agent),
    ):
        assert tags.get(name, {None}) == {fact.value}, (name, fact)
    assert facts.mongodb.value in tags["server-mongodb" if "server-mongodb" in tags else "mongodb"]
    assert facts.postgresql.value in tags["server-postgres" if "server-postgres" in tags else "postgresql"]
    if release != "4.0.6":  # its chart prints no tag of the Nomad image
        assert facts.nomad_server.value in tags["nomad"]


def test_4_9_and_later_have_no_invented_tags() -> None:
    for release in ("4.9.5", "4.10.0"):
        for image in CATALOG.images(release, group="chart"):
            if image.certainty in ("constructed", "gap"):
                assert image.tag is None, image


@every_release
def test_values_keys_are_well_formed(release: str) -> None:
    keys = CATALOG.values_keys(release)
    names = [key.key for key in keys]
    assert names == sorted(names) and len(names) == len(set(names))
    kinds = {"int": int, "float": (int, float), "bool": bool, "list": list, "object": dict, "string": str}
    for key in keys:
        assert key_path(key.key)
        assert key.default is None or isinstance(key.default, kinds[key.type]), key  # type: ignore[arg-type]
        assert key.meaning


def test_the_values_tables_are_complete() -> None:
    """758 documented entries: 3 unreleased ones are left out, two pairs of indexed keys became one list each."""
    sources = Sources().rows("values_keys")
    documented = {row["key"] for row in sources}
    assert len(documented) >= 753
    assert {"global.imagePullSecrets", "telegraf.config.outputs"} <= documented
    assert not {"redis.internal", "redis.host", "redis.auth.password"} & documented


def test_pull_secrets_change_their_form_with_4_7() -> None:
    assert CATALOG.values_key("4.6.6", "global.imagePullSecrets").default == [{"name": "regcred"}]
    assert CATALOG.values_key("4.7.15", "global.imagePullSecrets").default == ["regcred"]


@every_release
def test_retired_keys_are_gone_and_their_heirs_exist(release: str) -> None:
    minor = CATALOG.release(release).minor
    present = {key.key for key in CATALOG.values_keys(release)}
    ever = {key.key for version in LAST for key in CATALOG.values_keys(version)}
    for key in CATALOG.retired_values_keys(release):
        assert key.key not in present
        assert parse_minor(key.since) <= parse_minor(minor)
        assert bool(key.renamed_to) is (key.fate == "renamed"), key
        assert set(key.renamed_to) <= ever, key
        for heir in key.renamed_to:
            assert heir in {entry.key for entry in CATALOG.values_keys(CATALOG.last_patch(key.since))}, key


def test_known_renames() -> None:
    retired = {key.key: key for key in CATALOG.retired_values_keys("4.10.0")}
    assert retired["docker_provisioner.config_path"].renamed_to == ("docker_provisioner.custom_config",)
    assert retired["machine_provisioner.machine_agent_base_url"].renamed_to == ("machine_provisioner.agent_base_url",)
    assert retired["vm_service.enabled"].renamed_to == ("machine_provisioner.enabled",)
    assert retired["web_ui_insights.replicas"].fate == "removed"
    assert retired["telegraf.fullnameOverride"].fate == "removed"


@every_release
def test_each_secret_of_a_values_key_exists(release: str) -> None:
    secrets = {secret.name: secret for secret in CATALOG.secrets(release)}
    assert len(secrets) == len(CATALOG.secrets(release))
    keys = {key.key: key for key in CATALOG.values_keys(release)}
    for key in keys.values():
        if key.k8s_secret is not None:
            assert key.k8s_secret.key in {entry.name for entry in secrets[key.k8s_secret.name].keys}, key
    for secret in secrets.values():
        assert set(secret.values_keys + secret.name_values_keys) <= set(keys), secret
        assert secret.keys


def test_secrets_that_helm_must_adopt() -> None:
    adopted = {secret.name for secret in CATALOG.secrets("4.9.5") if secret.helm_metadata}
    assert {"api-token", "session-cookie", "pusher", "nomad-gossip-encryption-key", "nomad-mtls"} <= adopted
    assert len([name for name in adopted if CATALOG.secret("4.9.5", name).keys[0].name == "postgres-app-password"]) == 16
    assert set(CATALOG.helm_metadata()) == {"annotations", "labels"}


def test_fixed_lengths() -> None:
    for release in LAST:
        assert CATALOG.secret(release, "session-cookie").keys[0].length == 16
        assert CATALOG.secret(release, "nomad-gossip-encryption-key").keys[0].length == 32


@every_release
def test_agent_files_fill_the_agents_tree(release: str) -> None:
    tree = {re.sub(r"\{\w+\}", "{version}", path) for path in CATALOG.release(release).agents_tree.value}
    files = {file.object_path for file in CATALOG.files(release) if file.object_path is not None}
    if tree:
        assert files == tree
    for file in CATALOG.files(release):
        assert file.made_on_site or file.url or file.certainty == "gap", file


# -- services -----------------------------------------------------------------------------------------------------


@every_release
def test_values_prefixes_of_services_have_keys(release: str) -> None:
    paths = [key_path(key.key) for key in CATALOG.values_keys(release)]
    for service in CATALOG.services(release):
        for prefix in service.values_prefixes:
            wanted = key_path(prefix)
            assert any(path[: len(wanted)] == wanted for path in paths), (service.name, prefix)


@every_release
def test_service_names_are_unique(release: str) -> None:
    names = [name for service in CATALOG.services(release) for name in (service.name, *service.aka)]
    assert len(names) == len(set(names))


# -- releases and upgrades ----------------------------------------------------------------------------------------


def test_every_release_can_be_reached_from_every_earlier_one() -> None:
    for position, target in enumerate(LAST):
        for current in LAST[: position + 1]:
            path = CATALOG.upgrade_path(current, target)
            assert path[0] == current and path[-1] == target
            for old, new in zip(path, path[1:], strict=False):
                assert old in CATALOG.release(new).upgrade_from.value


@pytest.mark.parametrize("current", ["4.3.9", "4.4.7", "4.5.5", "4.6.6"])
def test_the_documented_path(current: str) -> None:
    assert CATALOG.upgrade_path(current, "4.10.0") == (current, "4.7.15", "4.8.12", "4.9.5", "4.10.0")


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("4.4.7", "4.7.15", "1.31"),
        ("4.5.5", "4.7.15", "1.31"),
        ("4.6.6", "4.7.15", "1.31"),
        ("4.7.15", "4.8.12", "1.33"),
        ("4.3.9", "4.7.15", None),
        ("4.8.12", "4.9.5", "1.33-1.35"),
        ("4.9.5", "4.10.0", "1.33-1.35"),
    ],
)
def test_kubernetes_overlaps(first: str, second: str, shared: str | None) -> None:
    overlap = CATALOG.kubernetes_overlap(first, second)
    assert (None if overlap is None else str(overlap)) == shared


def test_kubernetes_1_33_fits_4_7_to_4_10() -> None:
    for release in ("4.7.15", "4.8.12", "4.9.5", "4.10.0"):
        assert "v1.33.0" in CATALOG.release(release).kubernetes


@every_release
def test_older_kubernetes_ranges_are_ranges(release: str) -> None:
    for fact in CATALOG.release(release).kubernetes_older:
        KubernetesRange.parse(*fact.value.split("-"))


def test_steps_that_cannot_be_undone() -> None:
    steps = {step.id for step in CATALOG.upgrade_steps("4.10.0") if step.irreversible}
    assert {"mongodb-7.0", "postgres-14"} <= steps
    assert "mongodb-4.4" in {step.id for step in CATALOG.upgrade_steps("4.9.5") if step.irreversible}
    for release in LAST[1:]:
        phases = [step.phase for step in CATALOG.upgrade_steps(release)]
        assert phases == sorted(phases, key=("before", "during", "after").index)
        assert "helm-upgrade" in {step.id for step in CATALOG.upgrade_steps(release)}


def test_the_25_failure_modes_are_there() -> None:
    seen = {mode.number for release in LAST for mode in CATALOG.failure_modes(release) if mode.number is not None}
    assert seen == set(range(1, 26))
    for release in LAST:
        assert all(mode.check and mode.remedy for mode in CATALOG.failure_modes(release))


@every_release
def test_every_requirement_is_looked_at_or_says_why_not(release: str) -> None:
    """A finding of preflight that the catalog names is one that the code makes."""
    made = set()
    for folder in ("plugins/module_utils/preflight", "plugins/filter", "plugins/action", "plugins/modules", "plugins/plugin_utils"):
        for path in (ROOT / folder).rglob("*.py"):
            made |= set(re.findall(r'"([a-z_]+)"', path.read_text(encoding="utf-8")))
    for row in CATALOG.requirements(release):
        assert bool(row.looked_at) != bool(row.not_looked_at), row.id
        for item in row.looked_at:
            verb, _dot, finding = item.partition(".")
            assert verb in ("preflight", "secrets", "install", "verify"), item
            assert (verb == "preflight") == bool(finding) and (not finding or finding in made), item


@every_release
def test_sizing_has_two_rows(release: str) -> None:
    assert [row.users for row in CATALOG.sizing(release)] == ["<500", "500+"]
    assert CATALOG.sizing(release)[0].nodes == (3 if parse_release(release) < (4, 3, 0) else 4)


def test_platforms_name_known_object_storage() -> None:
    for platform in CATALOG.platforms():
        for option in platform.object_storage.value:
            assert CATALOG.object_storage_option(option)
    assert CATALOG.platform("openshift").installer_action.value == "refuse"


@every_release
def test_everything_is_plain_data(release: str) -> None:
    for rows in tables(release).values():
        assert isinstance(plain(rows), list)
