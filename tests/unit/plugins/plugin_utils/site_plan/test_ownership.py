# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of ownership against what the tasks of the roles write, name by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.onprem.circleci_server.plugins.module_utils.firewall import base, engine
from ansible_collections.onprem.circleci_server.plugins.module_utils.oci_file import record_path
from ansible_collections.onprem.circleci_server.plugins.module_utils.private_registry.service import (
    PACKAGE,
    UNIT,
    Registry,
    Wanted,
)
from ansible_collections.onprem.circleci_server.plugins.module_utils.site_folder import MARK
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.object_storage import MANAGED, service
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.runner import service as runner_service
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.site_plan.ownership import (
    OwnershipError,
    filled,
    load_ownership,
    reference,
)

ROOT = Path(__file__).resolve().parents[5]
ROLES = sorted(path.parents[1].name for path in ROOT.glob("roles/*/tasks/main.yml"))
FACTS = {
    "bundle_dir": "/srv/bundle",
    "escrow": "/srv/escrow.yml",
    "load_balancer_address": "192.0.2.100",
    "namespace": "circleci",
    "plan_dir": "/state/plan",
    "rancher": "rke2",
    "registry": "registry.example.com:5000",
    "release": "4.10.0",
    "release_name": "circleci",
    "state_dir": "/state",
}
ACCESS = {"registry": FACTS["registry"], "username": "u", "password": "p", "ca_certificate": ""}
STORE = {
    "access_key": "k", "secret_key": "s", "port": 7070, "region": "r", "tls": True, "data_dir": "/var/lib/onprem-circleci/object-storage", "policies": "b-gateway",
    "versioning": True, "backend_account": "a", "backend_key": "k", "backend_endpoint": "https://e.example.com", "backend_region": "r",
}  # fmt: skip
RUNNER = {
    "url": "https://ci.example.com", "token": "t", "name": "r", "mode": "continuous", "max_run_time": "5h", "idle_timeout": "", "command_prefix": [], "log_level": "info",
    "working_directory": "/var/lib/circleci-runner/workdir", "cleanup_working_directory": True, "cache_task_agent": False, "ssh_advertise_address": "", "http_proxy": "",
    "use_home_ssh_dir_for_checkout_keys": False, "https_proxy": "", "no_proxy": [],
}  # fmt: skip
SHARED = {"/etc/onprem-circleci", "/state/records"}
"""Folders in which several roles have one of their own."""
# What the playbooks hand to the roles, as far as it decides about names; each variant of a role for itself.
INPUTS: dict[str, list[dict[str, Any]]] = {
    "bundle": [{"circleci_bundle_output": "/srv/bundle"}],
    "chart_check": [{"circleci_chart_check_release": "4.10.0"}],
    "gates": [{"circleci_gates_record": "/state/records/gates.json"}],
    "mirror": [{"circleci_mirror_state_dir": "/state"}],
    "nomad_client": [
        {
            "circleci_nomad_client_registry": ACCESS,
            "__circleci_nomad_client_binary": {"changed": False},
            "circleci_nomad_client_name": "nomad1",
            "circleci_nomad_client_address": "192.0.2.41",
            "circleci_nomad_client_servers": ["ci.example.com:4647"],
            "circleci_nomad_client_pause_image": "pause:3.6",
            "circleci_nomad_client_gc_image": "circleci/docker-gc:2.0",
        }
    ],
    "site": [{"circleci_domain": "ci.example.com", "circleci_site": "site", "circleci_state_dir": "/state"}],
    "secrets": [{"circleci_secrets_store": "ansible_vault", "circleci_secrets_store_path": "/srv/escrow.yml"}],
    "object_storage": [
        {"__circleci_object_storage_service": service(kind, STORE), "circleci_object_storage_certificate": "PEM", "circleci_object_storage_agent_port": 7071}
        for kind in MANAGED
    ],
    "plan": [{"circleci_plan_path": "/state/plan"}],
    "registry": [{"circleci_registry_feed": {"bundle_id": "b", "archive": "/var/lib/onprem-circleci/feed/registry.tar"}, "__circleci_registry_feed": {"bundle_id": "b", "archive": "/var/lib/onprem-circleci/feed/registry.tar"}}],
    "release": [
        {
            "circleci_release_records_dir": "/state/records",
            "circleci_release_explanations_file": "/state/records/values.explained.json",
        }
    ],
    "report": [{"circleci_report_path": "/state/reports"}],
    "restart": [{"circleci_restart_records_dir": "/state/records"}],
    "restore_point": [{"circleci_restore_point_records_dir": "/state/records", "circleci_restore_point_path": "/state/restore-points"}],
    "upgrade": [{"circleci_upgrade_records_dir": "/state/records"}],
    "verify": [{"circleci_verify_records_dir": "/state/records"}],
    "runner": [
        {
            "circleci_runner_registry": ACCESS,
            "circleci_runner_version": "3.1.11",
            "circleci_runner_resource_class": "acme/linux",
            "circleci_runner_token": "t0ken",
            "__circleci_runner_service": runner_service(RUNNER),
            "__circleci_runner_problems": [],
        }
    ],
    "trust": [
        {
            "circleci_trust_registry_host": FACTS["registry"],
            "circleci_trust_ca_certificate": "PEM",
            "circleci_trust_engines": ["containerd", "docker", "rancher"],
            "__circleci_trust_system_files": [{"path": "/usr/local/share/ca-certificates/onprem-circleci-site.crt"}],
            "__circleci_trust_node": {"unit": "rke2-server", "distribution": "rke2", "registries": "", "registries_file": "/etc/rancher/rke2/registries.yaml"},
        }
    ],
}
# Modules that leave nothing on a host but what is counted elsewhere.
WRITE_NOTHING = {
    # They talk to the API of the cloud and leave nothing on the host.
    "onprem.circleci_server.cloud_dns", "onprem.circleci_server.cloud_firewall", "onprem.circleci_server.cloud_private_access",
    "onprem.circleci_server.cloud_registry_access", "onprem.circleci_server.cloud_registry_template", "onprem.circleci_server.cloud_storage",
    # update-ca-certificates, which writes what others own.
    "ansible.builtin.command",
    "ansible.builtin.debug", "ansible.builtin.fail", "ansible.builtin.file", "ansible.builtin.find", "ansible.builtin.import_tasks",
    "ansible.builtin.include_tasks", "ansible.builtin.meta",
    "ansible.builtin.set_fact", "ansible.builtin.stat", "ansible.builtin.systemd_service", "ansible.builtin.wait_for_connection",
    "kubernetes.core.k8s_info",
    *(f"onprem.circleci_server.{name}" for name in (
        "bundle_verify", "chart_facts", "chart_proof", "check_arguments", "cluster_addon", "connectivity", "database_roles", "host_preflight",
        "image_pull_proof", "installed_release", "nomad_client_status", "nomad_registration", "rancher_node", "registry_coverage", "service_health",
        "orb_registry", "object_storage_agents", "object_storage_buckets", "object_storage_health", "object_storage_probe", "site_preflight", "site_secret_values",
        "runner_instances", "runner_status", "site_verdict",
    )),
}  # fmt: skip


def _host_units(given: Mapping[str, Any]) -> Iterator[str]:
    yield from (item["path"] for item in given.get("directories", []))
    yield from (item["path"].removeprefix("/etc/systemd/system/") for item in given.get("files", []) if item.get("state") != "absent")
    yield from (item["name"] for item in given.get("users", []))
    yield from (item["marker"] for item in [given.get("drain")] if item)
    yield from (item["name"] if "." in item["name"] else f"{item['name']}.service" for item in given.get("units", []))


def _firewall(given: Mapping[str, Any]) -> Iterator[str]:
    yield from (base.FOLDER, engine.STATE, base.UNIT)
    assert Path(base.UNIT_FILE).name == base.UNIT and base.LOAD.startswith(base.FOLDER)
    assert all(path.startswith(engine.STATE) for path in (engine.RECORD, engine.PENDING, engine.REVERTED, engine.REVERT, engine.BACKUP))


def _private_registry(given: Mapping[str, Any]) -> Iterator[str]:
    registry = Registry(Wanted(storage_dir=Path(given["storage_dir"]), certificate="", users={"u": "p"}))
    yield from (str(file.path) for file in registry._files() if file.path != registry.unit_path)
    yield from (UNIT, PACKAGE, str(registry.masked_path), str(registry.wanted.storage_dir))


def _escrow(given: Mapping[str, Any]) -> Iterator[str]:
    yield from (store["path"] for store in given.values() if store["kind"] == "ansible_vault")


def _folders(given: Mapping[str, Any]) -> Iterator[str]:
    yield from (str(Path(value).parent) for value in given.values())


def _site_folder(given: Mapping[str, Any]) -> Iterator[str]:
    yield f"{given['path']}/{MARK}"


def _oci_file(given: Mapping[str, Any]) -> Iterator[str]:
    yield given["dest"]
    if given.get("member"):
        yield str(record_path(Path("/var/lib/onprem-circleci"), Path(given["dest"])))


def _values(given: Mapping[str, Any]) -> Iterator[str]:
    for value in given.values():
        yield from [value] if isinstance(value, str) else value


# Module to the options that decide about names, and what follows from them.
WRITERS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Iterator[str]]]] = {
    "onprem.circleci_server.host_units": (("directories", "files", "units", "users", "drain"), _host_units),
    "onprem.circleci_server.host_packages": (("names",), _values),
    "onprem.circleci_server.site_secrets": (("store",), _escrow),
    "onprem.circleci_server.oci_file": (("dest", "member"), _oci_file),
    "onprem.circleci_server.agent_files": (("folder",), _values),
    "onprem.circleci_server.firewall": ((), _firewall),
    "onprem.circleci_server.private_registry": (("storage_dir",), _private_registry),
    "onprem.circleci_server.bundle_extract": (("dest",), _folders),
    "onprem.circleci_server.bundle_plan": (("lock",), _folders),
    "onprem.circleci_server.bundle_fetch": (("output",), _values),
    "onprem.circleci_server.bundle_load": (("state_dir", "receipt"), _values),
    "onprem.circleci_server.helm_release": (("state_file", "progress_file"), _values),
    "onprem.circleci_server.mongodb_upgrade": (("progress_file",), _values),
    "onprem.circleci_server.postgresql_upgrade": (("progress_file",), _values),
    "onprem.circleci_server.release_layers": (("progress_file",), _values),
    "onprem.circleci_server.restore_point": (("path", "progress_file"), _values),
    # Its state file is that of helm_release: whoever rolls out last writes it.
    "onprem.circleci_server.way_back": (("path", "progress_file"), _values),
    "onprem.circleci_server.infrastructure_probe": (("lock_file", "progress_file"), _values),
    "onprem.circleci_server.human_gate": (("record",), _values),
    "onprem.circleci_server.site_folder": (("path",), _site_folder),
    "onprem.circleci_server.site_report": (("path",), _values),
    "onprem.circleci_server.sites_page": (("path",), _values),
    "onprem.circleci_server.site_plan": (("path",), _values),
    "ansible.builtin.copy": (("dest",), _values),
    "ansible.builtin.template": (("dest",), _values),
    "ansible.builtin.fetch": (("dest",), _folders),
}


def tasks_of(role: str) -> Iterator[Mapping[str, Any]]:
    loader = DataLoader()
    for path in sorted((ROOT / "roles" / role / "tasks").glob("*.yml")):
        if path.name == "absent.yml":
            continue
        queue = list(loader.load_from_file(str(path), trusted_as_template=True) or [])
        while queue:
            task = queue.pop(0)
            queue += [*task.get("block", []), *task.get("rescue", []), *task.get("always", [])]
            yield task


def without_contents(value: Any) -> Any:
    """The option without contents of files: they say nothing about names and want variables that say nothing about them either."""
    if isinstance(value, str):
        return trust_as_template(re.sub(r"lookup\('ansible\.builtin\.(template|file)', [^)]*\)", "''", value))
    if isinstance(value, list):
        return [without_contents(item) for item in value]
    if isinstance(value, dict):
        return {name: without_contents(item) for name, item in value.items() if name not in ("content", "secret_content") or "lookup" in item}
    return value


def written_by(role: str) -> set[str]:
    """Names that the tasks of a role write in one or the other of its variants."""
    return {name for inputs in INPUTS.get(role, [{}]) for name in written_with(role, inputs)}


def written_with(role: str, inputs: Mapping[str, Any]) -> set[str]:
    """Names that the tasks of a role write, with its own defaults."""
    loader = DataLoader()
    variables: dict[str, Any] = {"ansible_search_path": [str(ROOT / "roles" / role)]}
    for part in ("defaults", "vars"):
        path = ROOT / "roles" / role / part / "main.yml"
        if path.exists():
            variables.update(without_contents(loader.load_from_file(str(path), trusted_as_template=True) or {}))
    variables.update(inputs)
    templar = Templar(loader=loader, variables=variables)
    found: set[str] = set()
    for task in tasks_of(role):
        modules = [name for name in task if "." in name]
        assert modules or "block" in task, f"role {role}: {task.get('name')}: name the module with its collection"
        for module in modules:
            assert module in WRITERS or module in WRITE_NOTHING, f"teach WRITERS or WRITE_NOTHING of this test what {module} leaves on a host"
            if module in WRITERS:
                options, names = WRITERS[module]
                given = {name: templar.template(without_contents(task[module][name])) for name in options if name in task[module]}
                found.update(names(given))
    return found


@pytest.mark.parametrize("role", ROLES)
def test_table_names_what_the_role_writes(role: str) -> None:
    things = {filled(thing.name, FACTS): thing for thing in load_ownership().hosts if thing.role == role}
    folders = [name for name, thing in things.items() if thing.kind == "folder"]
    # What lies in a folder of the role need not be in the table.
    written = {name for name in written_by(role) if name in things or not any(name.startswith(f"{folder}/") for folder in folders)}
    assert written - SHARED == set(things)


def test_every_role_of_the_table_exists() -> None:
    table = load_ownership()
    assert {thing.role for thing in table.hosts} | {thing.role for thing in table.cluster} <= set(ROLES)


def test_objects_of_add_ons_are_those_of_the_role_cluster() -> None:
    settings = DataLoader().load_from_file(str(ROOT / "roles/cluster/vars/main.yml"))["__circleci_cluster_settings"]
    wanted = {(item["kind"], item["metadata"]["name"], item["metadata"]["namespace"]) for items in settings.values() for item in items}
    table = {(item.kind, item.name, item.namespace) for item in load_ownership().cluster}
    assert wanted <= table


def test_wrong_tables_are_refused_with_every_reason(tmp_path: Path) -> None:
    path = tmp_path / "ownership.yml"
    path.write_text(
        "hosts:\n"
        "  - {role: a, hosts: [g], kind: file, name: /x, why: w}\n"
        "  - {role: b, hosts: [g], kind: file, name: /x, why: w}\n"
        "  - {role: a, hosts: [g], kind: disk, name: '{nobody}', when: rain, why: w}\n"
        "cluster: []\n",
        encoding="utf-8",
    )
    with pytest.raises(OwnershipError) as caught:
        load_ownership(path)
    for expected in ("/x on g belongs to a and to b", "unknown kind disk", "unknown condition rain", "unknown fact 'nobody'"):
        assert expected in str(caught.value)


def test_reference_page_has_every_row() -> None:
    table = load_ownership()
    page = reference(table)
    names = [thing.name for thing in table.hosts] + [thing.name for thing in table.cluster]
    assert [name for name in names if f"| `{name}` |" not in page] == []
