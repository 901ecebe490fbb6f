# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over the port model, in a real templar where laziness matters."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.onprem.circleci_server.plugins.filter import port_rules

GROUPS = {
    "circleci_sites": ["bastion"],
    "circleci_registry": ["registry"],
    "circleci_cluster_nodes": ["node1"],
    "circleci_nomad_clients": ["nomad1"],
}
HOSTS = {name: {"ansible_host": f"10.0.0.{number}"} for number, name in enumerate(("bastion", "registry", "node1", "nomad1"), 1)}


def test_site_hosts() -> None:
    assert port_rules.site_hosts("circleci_registry", GROUPS, HOSTS, "bastion") == [
        {"name": "registry", "address": "10.0.0.2", "addresses": ["10.0.0.2"], "problem": ""}
    ]
    assert port_rules.site_hosts("circleci_runners_linux", GROUPS, HOSTS, "bastion") == []
    with pytest.raises(AnsibleFilterError, match="name of a group"):
        port_rules.site_hosts("", GROUPS, HOSTS, "bastion")
    with pytest.raises(AnsibleFilterError, match="none of the groups site_a"):
        port_rules.site_hosts("circleci_registry", {**GROUPS, "site_a": ["registry"]}, HOSTS, "bastion")


def test_networks_that_jobs_need() -> None:
    options = {"users": ["10.9.0.0/16"], "blocked_networks": ["10.8.0.0/16"], "kubernetes": ["10.42.0.0/16", "0.0.0.0/0"], "vcs": "192.0.2.9", "podmn": True}
    assert port_rules.site_networks(GROUPS, HOSTS, "nomad1", options) == [
        *({"network": f"10.0.0.{number}", "what": f"host {name}"} for number, name in enumerate(HOSTS, 1)),
        {"network": "10.42.0.0/16", "what": "circleci_ports.kubernetes"},
        {"network": "192.0.2.9", "what": "circleci_ports.vcs"},
    ]


def test_rules_raise_all_problems() -> None:
    rules = port_rules.port_rules(GROUPS, HOSTS, "registry", "4.10.0", "generic", {"registry_port": 5000})
    assert {rule["host"] for rule in rules} == {"registry"}
    with pytest.raises(AnsibleFilterError, match=r"circleci_ports.users.*circleci_ports.podmn"):
        try:
            port_rules.port_rules(GROUPS, HOSTS, "registry", "4.10.0", "generic", {"users": ["x"], "podmn": True})
        except AnsibleFilterError as error:
            raise AnsibleFilterError(" ".join(sorted(str(error).split("; "), reverse=True))) from error
    with pytest.raises(AnsibleFilterError, match=r"4\.99\.0"):
        port_rules.port_rules(GROUPS, HOSTS, "registry", "4.99.0", "generic")


def test_model_tells_problems() -> None:
    found = port_rules.port_model(GROUPS, HOSTS, "registry", "4.10.0", "generic", {"users": ["x"]})
    assert found["problems"][0]["field"] == "circleci_ports.users"
    assert found["check_only"].keys() == {"node1"}


def test_check_only() -> None:
    assert port_rules.port_check_only(GROUPS, HOSTS, "node1") is True
    assert port_rules.port_check_only(GROUPS, HOSTS, "node1", {"node_firewall": True}) is False
    assert port_rules.port_check_only(GROUPS, HOSTS, "nomad1") is False


OF_A_MODEL = ("hostvars", "inventory_hostname", "release", "platform", "options")
"""What every filter over the model takes before its own options."""


def test_every_filter_is_documented() -> None:
    folder = Path(port_rules.__file__).parent
    for name, function in port_rules.FilterModule().filters().items():
        text = yaml.safe_load((folder / f"{name}.yml").read_text())
        found = inspect.signature(inspect.unwrap(function)).parameters.values()
        arguments = [item.name for item in found if item.kind is not item.KEYWORD_ONLY][1:]  # without the catalog, which the site brings
        if next(iter(found)).name == "about":
            arguments = [*OF_A_MODEL, *arguments]
        assert text["DOCUMENTATION"]["positional"] == ", ".join(arguments)
        assert set(text["DOCUMENTATION"]["options"]) == {"_input", *arguments}


def test_hostvars_of_other_sites_stay_untemplated() -> None:
    """With real hostvars: a variable of another site that cannot be templated does no harm."""
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.template import Templar
    from ansible.vars.hostvars import HostVars
    from ansible.vars.manager import VariableManager

    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources="localhost,")
    for group in ("circleci_registry", "site_a", "site_b"):
        inventory.add_group(group)
    for name, site, address in (("here", "site_a", "10.0.0.1"), ("there", "site_b", "{{ lookup('pipe', 'exit 1') }}")):
        inventory.add_host(name, group="circleci_registry")
        inventory.add_host(name, group=site)
        inventory.get_host(name).set_variable("ansible_host", address)
    manager = VariableManager(loader=loader, inventory=inventory)
    hostvars = HostVars(inventory=inventory, variable_manager=manager, loader=loader)
    groups = {name: [host.name for host in group.get_hosts()] for name, group in inventory.groups.items()}
    Templar(loader=loader)
    assert port_rules.site_hosts("circleci_registry", groups, hostvars, "here")[0]["address"] == "10.0.0.1"
