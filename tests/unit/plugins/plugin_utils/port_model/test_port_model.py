# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules out of inventory, catalog and options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.catalog import Catalog
from ansible_collections.onprem.circleci_server.plugins.plugin_utils.port_model import (
    PortModel,
    PortModelError,
    SiteInventoryError,
    build_model,
    by_hand,
    explain,
    flows_of,
    options_from,
    port_facts,
    render_native,
    rule_table,
    site_inventory,
    site_members,
)

GROUPS = {
    "circleci_sites": ["bastion"],
    "circleci_registry": ["registry"],
    "circleci_object_storage": ["store"],
    "circleci_cluster_nodes": ["node1"],
    "circleci_nomad_clients": ["nomad1", "nomad2"],
}
HOSTS = {
    "bastion": {"ansible_host": "10.93.0.10"},
    "registry": {"ansible_host": "10.93.0.11"},
    "store": {"ansible_host": "10.93.0.31"},
    "node1": {"ansible_host": "10.93.0.21"},
    "nomad1": {"ansible_host": "10.93.0.41"},
    "nomad2": {"ansible_host": "10.93.0.42"},
}
OPTIONS: dict[str, Any] = {"load_balancer": ["10.93.0.100"], "registry_port": 5000}


class Poison(Mapping[str, Any]):
    """Variables of a host that nobody may read."""

    def __getitem__(self, key: str) -> Any:
        raise AssertionError(f"variable {key} of a host of another site was read")

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("the variables of a host of another site were listed")

    def __len__(self) -> int:
        raise AssertionError("the variables of a host of another site were counted")


def model(
    release: str = "4.10.0",
    groups: dict[str, list[str]] | None = None,
    hosts: Mapping[str, Any] | None = None,
    me: str = "nomad1",
    **options: Any,
) -> PortModel:
    inventory = site_inventory(groups or GROUPS, hosts or HOSTS, me)
    parsed, problems = options_from({**OPTIONS, **options})
    assert not problems
    return build_model(inventory, port_facts(Catalog.load().ports(release)), release, "generic", parsed)


def opened(built: PortModel, host: str) -> set[str]:
    return {port for rule in built.for_host(host) if rule.direction == "ingress" and rule.state == "apply" for port in rule.ports}


def served(built: PortModel) -> set[str]:
    return {
        port
        for rule in built.for_host("load-balancer")
        if rule.direction == "ingress" and rule.state != "documented, not served"
        for port in rule.ports
    }


@pytest.mark.parametrize("release", ["4.0.6", "4.1.10", "4.2.7"])
def test_the_seeds_ports_come_out_for_the_old_releases(release: str) -> None:
    built = model(release, vm_service=True, administrators=["192.0.2.0/24"])
    assert not built.problems
    assert served(built) == {"80", "443", "4647", "8585", "3000"}
    assert opened(built, "bastion") == {"22"}
    assert "64535-65535" in opened(built, "nomad1")
    assert all("64535-65535" not in opened(built, host) for host in HOSTS if not host.startswith("nomad"))


@pytest.mark.parametrize("release", ["4.3.9", "4.7.15", "4.10.0"])
def test_newer_releases_serve_less_and_say_what_is_only_printed(release: str) -> None:
    built = model(release, vm_service=True)
    assert served(built) == {"80", "443", "4647"}
    printed = {port for rule in built.for_host("load-balancer") if rule.state == "documented, not served" for port in rule.ports}
    assert printed == {"8585", "3000"}


def test_what_the_live_service_lists_is_served() -> None:
    assert served(model(load_balancer_listens=[80, 443, 4647, 8585])) == {"80", "443", "4647", "8585"}


def test_peers_are_addresses_of_the_inventory() -> None:
    rules = {rule.id: rule for rule in model().for_host("nomad1")}
    assert rules["client-in-nomad"].peers == ("10.93.0.21/32",)
    assert rules["client-in-ssh-admin"].peers == ("10.93.0.10/32",)
    assert rules["client-in-ssh-rerun"].any_peer and rules["client-in-ssh-rerun"].published
    assert all(rule.source and rule.reason and rule.status for rule in rules.values())


def test_agents_that_hosts_of_the_store_serve_have_a_port_of_their_own() -> None:
    assert "7071" in opened(model(agents_port=7071, object_storage_port=7070), "store") and "0" not in opened(model(), "store")
    rules = {rule.id: rule for rule in model(agents_port=7071).for_host("nomad1")}
    assert rules["nomad-client-out-agents"].ports == ("7071",) and rules["nomad-client-out-agents"].peers == ("10.93.0.31/32",)
    flows = {(flow["to"], flow["port"]): flow["expect"] for flow in flows_of(model(agents_port=7071), "nomad1")}
    assert flows[("store", 7071)] == "open"


def test_gateway_in_the_cluster_has_an_address_that_all_its_clients_reach() -> None:
    groups = {**GROUPS, "circleci_object_storage": []}
    built = model(groups=groups, object_storage=["10.93.0.101"], object_storage_port=7070, object_storage_in_cluster=True)
    rules = {rule.id: rule for rule in built.for_host("object-storage-gateway")}
    assert set(rules) == {"gateway-in", "gateway-in-users"} and rules["gateway-in-users"].any_peer
    assert rules["gateway-in"].peers == ("10.93.0.10/32", "10.93.0.21/32", "10.93.0.41/32", "10.93.0.42/32")
    assert rules["gateway-in"].ports == ("7070",) and rules["gateway-in"].peer_hosts == ("node1", "nomad1", "nomad2", "bastion")
    for host in ("nomad1", "bastion", "node1"):
        flows = {(flow["address"], flow["port"]): flow["expect"] for flow in flows_of(built, host)}
        assert flows[("10.93.0.101", 7070)] == "open", host
        assert not [port for address, port in flows if address == "10.93.0.21" and port == 7070]
    # Nodes let the traffic of the Service in where the load balancer is transparent, and clients let it out.
    node = {rule.id: rule for rule in built.for_host("node1")}
    assert node["node-gateway-in"].ports == ("7070",) and "node-gateway-in-users" in node
    out = next(rule for rule in built.for_host("nomad1") if rule.direction == "egress" and rule.peer_kinds == ("object_storage",))
    assert out.peers == ("10.93.0.101/32",)
    behind = model(groups=groups, object_storage=["10.93.0.101"], object_storage_in_cluster=True, load_balancer_transparent=False)
    assert not [rule.id for rule in behind.for_host("node1") if rule.id.startswith("node-gateway")]
    assert not model().for_host("object-storage-gateway")


def test_podman_widens_the_range() -> None:
    assert "32768-65535" in opened(model(podman=True), "nomad1")
    assert "64535-65535" not in opened(model(podman=True), "nomad1")


def test_external_nomad_servers() -> None:
    groups = {**GROUPS, "circleci_nomad_servers": ["server1", "server2"]}
    hosts = {**HOSTS, "server1": {"ansible_host": "10.93.0.51"}, "server2": {"ansible_host": "10.93.0.52"}}
    built = model(groups=groups, hosts=hosts)
    assert opened(built, "server1") == {"22", "4646", "4647", "4648"}
    assert {rule.protocol for rule in built.for_host("server1") if rule.ports == ("4648",)} == {"tcp", "udp"}
    assert "4647" not in served(built)
    peers = next(rule.peers for rule in built.for_host("nomad1") if rule.id == "client-in-nomad-external")
    assert peers == ("10.93.0.51/32", "10.93.0.52/32")


def test_udp_between_nomad_servers_is_tried_from_both_sides() -> None:
    groups = {**GROUPS, "circleci_nomad_servers": ["server1", "server2"]}
    hosts = {**HOSTS, "server1": {"ansible_host": "10.93.0.51"}, "server2": {"ansible_host": "10.93.0.52"}}
    built = model(groups=groups, hosts=hosts)
    every = [flow for host in hosts for flow in flows_of(built, host) if flow["protocol"] == "udp"]
    asked = {(flow["from"], flow["to"]): (flow["expect"], flow["port"], flow["datagram"]) for flow in every}
    assert asked[("server2", "server1")] == asked[("server1", "server2")] == ("reachable", 4648, "serf")
    strangers = {place: flow for place, flow in asked.items() if flow[0] == "closed"}
    # As many as over TCP, and nobody whom a rule lets in.
    assert len(strangers) == 4 and not {source for source, _target in strangers} & {"server1", "server2"}
    assert flows_of(built, "server2", closed_per_rule=0) == [flow for flow in flows_of(built, "server2") if flow["expect"] != "closed"]


def test_kubernetes_nodes_are_only_looked_at() -> None:
    assert opened(model(), "node1") == set()
    assert "node1" in model().check_only
    assert "6443" in opened(model(node_firewall=True), "node1")


def test_runner_reruns_and_terraform_range_are_options() -> None:
    groups = {**GROUPS, "circleci_runners_linux": ["runner1"]}
    hosts = {**HOSTS, "runner1": {"ansible_host": "10.93.0.61"}}
    assert opened(model(groups=groups, hosts=hosts), "runner1") == {"22"}
    assert "54782" in opened(model(groups=groups, hosts=hosts, runner_ssh_rerun=True), "runner1")
    assert "4646-4648" in opened(model(cloud_network=["10.93.0.0/16"]), "nomad1")


def peers(built: PortModel, host: str, rule_id: str) -> tuple[str, ...]:
    return next((rule.peers for rule in built.for_host(host) if rule.id == rule_id), ())


def test_webhooks_of_github_enterprise_come_in_and_checkouts_go_out() -> None:
    built = model(users=["10.20.0.0/16"], vcs=["10.1.5.10"])
    assert peers(built, "load-balancer", "lb-in-https") == ("10.1.5.10/32", "10.20.0.0/16")
    assert any("10.1.5.10/32" in rule.peers for rule in built.for_host("nomad1") if rule.direction == "egress")


@pytest.mark.parametrize(("transparent", "there", "gone"), [(True, "node-in-lb-web", "node-in-nodeports"), (False, "node-in-nodeports", "node-in-lb-web")])
def test_a_load_balancer_meets_the_nodes_on_its_own_ports_or_on_node_ports(transparent: bool, there: str, gone: str) -> None:
    built = model(load_balancer_transparent=transparent, node_firewall=True)
    found = {rule.id: rule for rule in built.for_host("node1")}
    assert there in found and gone not in found
    assert ("30000-32767" in opened(built, "node1")) is not transparent


def test_a_proxy_is_told_to_the_network_team() -> None:
    going = [rule for rule in model(http_proxy=["10.1.0.80"], http_proxy_port=8080).rules if rule.peers == ("10.1.0.80/32",)]
    assert going and all(rule.direction == "egress" and rule.ports == ("8080",) and rule.state.startswith("outgoing") for rule in going)
    assert not [rule for rule in model().rules if "http_proxy" in rule.peer_kinds]


def test_with_tls_that_ends_upstream_users_come_from_there_and_nomad_goes_through() -> None:
    built = model(upstream_tls=["10.1.0.7"], users=["10.20.0.0/16"], vcs=["10.1.5.10"])
    assert peers(built, "load-balancer", "lb-in-https") == peers(built, "load-balancer", "lb-in-http") == ("10.1.0.7/32",)
    assert peers(built, "load-balancer", "lb-in-nomad-rpc") == ("10.1.0.7/32", "10.93.0.41/32", "10.93.0.42/32")
    assert peers(built, "nomad1", "client-in-ssh-rerun") == ("10.20.0.0/16",), "a rerun with SSH does not go through it"
    old = model("4.2.7", upstream_tls=["10.1.0.7"], vm_service=True)
    assert "10.1.0.7/32" in peers(old, "load-balancer", "lb-in-vm-service") and "10.1.0.7/32" in peers(old, "load-balancer", "lb-in-output-processor")


@pytest.mark.parametrize(("form", "name", "group"), [("pf", "macos.pf.conf", "circleci_runners_macos"), ("powershell", "windows.ps1", "circleci_runners_windows")])
def test_runners_on_macos_and_windows_have_texts_to_load(form: str, name: str, group: str) -> None:
    """Golden texts; never run."""
    hosts = {**HOSTS, "runner1": {"ansible_host": "10.93.0.61"}}
    built = model(groups={**GROUPS, group: ["runner1"]}, hosts=hosts, runner_ssh_rerun=True, container_runner_ssh_rerun=True, users=["10.20.0.0/16", "2001:db8::/64"],
                  administrators=["10.1.0.0/24"])  # fmt: skip
    golden = Path(__file__).parent / "golden" / name
    assert render_native(built.for_host("runner1"), form) == golden.read_bytes().decode()
    with pytest.raises(ValueError, match="known are pf, powershell"):
        render_native([], "netsh")


@pytest.mark.parametrize(("group", "name"), [("circleci_runners_macos", "pf of macOS"), ("circleci_runners_windows", "the firewall of Windows")])
def test_nothing_of_this_collection_sets_the_filters_of_macos_and_windows(group: str, name: str) -> None:
    hosts = {**HOSTS, "runner1": {"ansible_host": "10.93.0.61"}}
    built = model(groups={**GROUPS, group: ["runner1"]}, hosts=hosts, runner_ssh_rerun=True)
    incoming = [rule for rule in built.for_host("runner1") if rule.direction == "ingress"]
    assert {rule.id for rule in incoming} == {"runner-in-ssh-rerun", "runner-in-ssh-admin"}
    assert all(rule.state.startswith(f"by hand: nothing of this collection sets {name}") and rule.state.endswith("never run") for rule in incoming)
    assert any("by hand" in text for text in explain(built, host="runner1", port=54782))
    rows = by_hand(built)
    assert {(row["host"], row["filter"], row["evidence"]) for row in rows} == {("runner1", name, "never run")}
    assert any("54782" in row["line"] for row in rows)
    # What nobody promised is not tried: only what is let in.
    assert {flow["expect"] for source in hosts for flow in flows_of(built, source) if flow["to"] == "runner1"} <= {"open", "reachable"}


def test_a_runner_on_macos_that_takes_no_connections_has_nothing_to_open() -> None:
    hosts = {"runner1": {"ansible_host": "10.93.0.61"}}
    built = model(groups={"circleci_runners_macos": ["runner1"]}, hosts=hosts)
    assert {rule.direction for rule in built.for_host("runner1") if rule.state.startswith("by hand")} == set()
    (row,) = by_hand(built)
    assert row == {"host": "runner1", "filter": "pf of macOS", "evidence": "never run", "line": "nothing to open: no rule lets anything in"}
    assert by_hand(model()) == []


def test_names_ports_and_blocked_networks() -> None:
    built = model(blocked_networks=["10.0.0.0/8"], dns=["10.93.0.2"], ssh_port=2222)
    assert "2222" in opened(built, "nomad1") and "22" not in opened(built, "nomad1")
    drops = [rule for rule in built.for_host("nomad1") if rule.action == "drop"]
    assert {peer for rule in drops for peer in rule.peers} == {"169.254.0.0/16", "10.0.0.0/8"}
    assert {rule.direction for rule in drops} == {"egress_from_containers"}


@pytest.mark.parametrize("release", Catalog.load().last_patches())
def test_every_rule_of_every_release_is_understood(release: str) -> None:
    assert model(release).problems == ()


# Bad input


def messages(built: PortModel) -> str:
    with pytest.raises(PortModelError) as caught:
        built.check()
    return str(caught.value)


def test_overlapping_and_invalid_networks_are_all_named() -> None:
    text = messages(model(users=["10.0.0.0/8", "10.1.0.0/16"], administrators=["10.0.0.1/8"], vcs=["github.example"]))
    assert "circleci_ports.users: found 10.1.0.0/16 beside 10.0.0.0/8; networks of one list must not overlap; keep 10.0.0.0/8 only" in text
    assert "circleci_ports.administrators: found '10.0.0.1/8'" in text and "write 10.0.0.0/8" in text
    assert "circleci_ports.vcs: found 'github.example'" in text


def test_a_host_in_contradictory_groups() -> None:
    groups = {**GROUPS, "circleci_nomad_clients": ["nomad1", "node1"]}
    assert "host node1: found groups circleci_cluster_nodes and circleci_nomad_clients" in messages(model(groups=groups))
    groups = {**GROUPS, "circleci_connected": ["registry"]}
    assert "groups circleci_connected and circleci_registry" in messages(model(groups=groups))


def test_a_peer_without_an_address() -> None:
    text = messages(model(hosts={**HOSTS, "node1": {"ansible_host": "node1.site.example"}}))
    assert "host node1: found no address that other hosts reach: found node1.site.example" in text
    assert "set circleci_addresses: [<IP address>] for the host" in text
    text = messages(model(hosts={**HOSTS, "bastion": {"ansible_connection": "local"}}, me="bastion"))
    assert "host bastion: found no address" in text


def test_sources_of_the_load_balancer_that_shut_out_hosts_of_the_site() -> None:
    assert not model(load_balancer_sources=["10.93.0.0/24", "10.20.0.0/16"]).problems, "users may be shut out, which is what it is for"
    text = messages(model(load_balancer_sources=["10.20.0.0/16"], vcs=["10.1.5.10"]))
    assert "circleci_load_balancer_sources: found nothing that holds 10.1.5.10/32, 10.93.0.10/32, 10.93.0.41/32, 10.93.0.42/32 (bastion, nomad1, nomad2); rules" in text
    text = messages(model(load_balancer_sources=["10.93.0.0/24"], users=["10.20.0.0/16"]))
    assert "found nothing that holds 10.20.0.0/16; rules" in text, "users that somebody named are meant"
    assert "circleci_load_balancer_sources: found '10.0.0.1/8'" in messages(model(load_balancer_sources=["10.0.0.1/8"]))
    six = {name: {"ansible_host": f"fd00::{number}"} for number, name in enumerate(HOSTS, 1)}
    assert "fd00::5/128" in messages(model(hosts=six, load_balancer=["fd00::100"], load_balancer_sources=["10.93.0.0/24"]))


def test_two_hosts_with_one_address() -> None:
    assert "address 10.93.0.41 that nomad1 has too" in messages(model(hosts={**HOSTS, "nomad2": HOSTS["nomad1"]}))


def test_a_host_with_ipv6_only() -> None:
    six = {name: {"ansible_host": f"fd00::{number}"} for number, name in enumerate(HOSTS, 1)}
    built = model(hosts=six, load_balancer=["fd00::100"])
    assert not built.problems
    rule = next(rule for rule in built.for_host("nomad1") if rule.id == "client-in-nomad")
    assert rule.peers == ("fd00::4/128",)
    text = messages(model(hosts={**HOSTS, "nomad1": {"ansible_host": "fd00::41"}}))
    assert "host nomad1: found only IPv6 addresses, the peers of rule client-in-nomad have none" in text
    both = {**HOSTS, "node1": {"circleci_addresses": ["10.93.0.21", "fd00::21"]}, "nomad1": {"ansible_host": "fd00::41"},
            "bastion": {"circleci_addresses": ["10.93.0.10", "fd00::10"]}}  # fmt: skip
    assert not model(hosts=both).problems


def test_a_cluster_of_others_must_be_named() -> None:
    groups = {name: hosts for name, hosts in GROUPS.items() if name != "circleci_cluster_nodes"}
    assert "circleci_ports.kubernetes: found nothing, and the group circleci_cluster_nodes is empty" in messages(model(groups=groups))
    assert not model(groups=groups, kubernetes=["10.20.0.0/16"]).problems


def test_options_are_checked() -> None:
    _options, problems = options_from(
        {"administators": [], "podman": "yes", "registry_port": 70000, "load_balancer_listens": ["http"]}
    )
    assert [problem.field for problem in problems] == [
        "circleci_ports.administators", "circleci_ports.podman", "circleci_ports.registry_port", "circleci_ports.load_balancer_listens",
    ]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), [
    ({"ports": ("65535-64535",)}, "port '65535-64535'"),
    ({"condition": "full_moon"}, "condition full_moon"),
    ({"peers": ("martians",)}, "peer martians"),
    ({"group": "mainframe"}, "group mainframe"),
])  # fmt: skip
def test_what_the_catalog_brings_new_is_refused(change: dict[str, Any], text: str) -> None:
    rule = {"id": "new", "group": "registry", "ports": ("1",), "peers": ("users",), "condition": "", **change}
    built = build_model(site_inventory(GROUPS, HOSTS, "nomad1"), port_facts([rule]), "4.10.0", "generic", options_from({})[0])
    assert f"catalog rule new: found {text}" in messages(built)


# Sites


TWO = {
    **{group: [*members, *(f"osaka-{name}" for name in members)] for group, members in GROUPS.items()},
    "site_tokyo": list(HOSTS),
    "site_osaka": [f"osaka-{name}" for name in HOSTS],
}


def test_other_sites_are_never_read() -> None:
    hosts = {**HOSTS, **{f"osaka-{name}": Poison() for name in HOSTS}}
    inventory = site_inventory(TWO, hosts, "nomad1")
    assert inventory.site == "tokyo"
    assert {host.name for host in inventory.hosts} == set(HOSTS)
    assert not model(groups=TWO, hosts=hosts).problems
    assert site_members(TWO, "circleci_nomad_clients", "nomad1") == ["nomad1", "nomad2"]
    assert site_members(TWO, "circleci_nomad_clients", "osaka-store") == ["osaka-nomad1", "osaka-nomad2"]
    assert site_members(TWO, "circleci_unknown", "nomad1") == []


def test_a_host_without_or_with_two_sites() -> None:
    with pytest.raises(SiteInventoryError, match=r"host stray is in none of the groups site_osaka, site_tokyo"):
        site_members(TWO, "circleci_sites", "stray")
    with pytest.raises(SiteInventoryError, match=r"host nomad1 is in 2 sites \(site_osaka, site_tokyo\)"):
        site_members({**TWO, "site_osaka": ["nomad1"]}, "circleci_sites", "nomad1")


def test_one_site_needs_no_site_group() -> None:
    assert site_members(GROUPS, "circleci_nomad_clients", "bastion") == ["nomad1", "nomad2"]


# Reading it


def test_explain() -> None:
    lines = explain(model(), "nomad1", 4647)
    assert any("tcp 4647 that comes in from 10.93.0.21 is let through" in line and "client-in-nomad" in line for line in lines)
    assert any("documented, not served" in line for line in explain(model(), port=8585))


def test_table() -> None:
    rows = rule_table(model())
    assert {row["host"] for row in rows} == {*HOSTS, "load-balancer"}
    assert rule_table(model(), "markdown").count("\n") == len(rows) + 2
    assert rule_table(model(), "csv").splitlines()[0].startswith("host,direction,protocol")
    with pytest.raises(ValueError, match="known are rows, markdown and csv"):
        rule_table(model(), "xml")


def test_each_name_of_a_certificate_is_a_connection_of_its_own() -> None:
    names: dict[str, Any] = {"lb-in-https-agents": ["ci.example", "app.ci.example"], "registry-in": "registry.example"}
    flows = flows_of(model(), "nomad1", names=names)
    asked = [(flow["to"], flow["server_name"]) for flow in flows if "server_name" in flow]
    assert asked == [("load-balancer", "ci.example"), ("load-balancer", "app.ci.example"), ("registry", "registry.example")]
    assert len({flow["name"] for flow in flows}) == len(flows)
    assert len(flows) == len(flows_of(model(), "nomad1")) + 1


def test_flows_prove_open_and_closed() -> None:
    built = model()
    mine = {(flow["to"], flow["port"]): flow["expect"] for flow in flows_of(built, "nomad1")}
    assert mine[("load-balancer", 4647)] == "open" and mine[("load-balancer", 443)] == "tls"
    assert mine[("registry", 5000)] == "tls"
    others = {(flow["to"], flow["port"]): flow["expect"] for flow in flows_of(built, "registry")}
    assert others[("nomad1", 4647)] == "closed"
    every = [flow for host in HOSTS for flow in flows_of(built, host)]
    assert not [flow for flow in every if flow["from"] == flow["to"]]
    grants = {(flow["from"], flow["to"], flow["port"]) for flow in every if flow["expect"] != "closed"}
    assert not [flow for flow in every if flow["expect"] == "closed" and (flow["from"], flow["to"], flow["port"]) in grants]
