# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Rules of each host as a pure function of inventory, catalog and options."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from .facts import BY_HAND, DERIVED, INVENTORY_KINDS, LINK_LOCAL, OPTION_KINDS, VIRTUAL_HOSTS, PortFact
from .inventory import SiteHost, SiteInventory

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

# A host cannot be both: the second column says why.
CONTRADICTIONS = (
    ("circleci_cluster_nodes", "circleci_nomad_clients", "jobs run in Docker on a Nomad client, not beside the kubelet"),
    ("circleci_nomad_clients", "circleci_nomad_servers", "both listen on 4647 and jobs must not reach the servers' data"),
    ("circleci_cluster_nodes", "circleci_nomad_servers", "the servers run in the cluster or outside it, not both"),
    ("circleci_runners_linux", "circleci_runners_windows", "a host has one operating system"),
    ("circleci_runners_linux", "circleci_runners_macos", "a host has one operating system"),
    ("circleci_runners_macos", "circleci_runners_windows", "a host has one operating system"),
    *(
        ("circleci_connected", group, "a connected host is outside the cut-off site")
        for group in ("circleci_sites", "circleci_registry", "circleci_object_storage", "circleci_cluster_nodes",
                      "circleci_nomad_clients", "circleci_nomad_servers", "circleci_runners_linux",
                      "circleci_runners_macos", "circleci_runners_windows")
    ),
)  # fmt: skip


# State of a rule whose port the vendor still prints and nothing serves.
PRINTED = "documented, not served"
# Beginning of the state of a rule that somebody sets by hand; plan prints the text for it.
SET_BY_HAND = "by hand"
# Options that are a variable of the site by themselves.
_VARIABLES = {"load_balancer_sources": "circleci_load_balancer_sources"}
# Rules of what a proxy that ends TLS stands before.
UPSTREAM = ("lb-in-http", "lb-in-nomad-rpc", "lb-in-output-processor", "lb-in-vm-service", "node-in-lb-")


@dataclass(frozen=True)
class Problem:
    """What stands in the way of a rule: the field, what was found, what is allowed, what to do."""

    field: str
    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: found {self.found}; {self.expected}; {self.remedy}"


class PortModelError(Exception):
    """All problems of one model at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def _told(text: str) -> dict[str, str]:
    """Metadata of a field of Options; the text becomes its line in docs/how-to/firewall.md."""
    return {"text": text}


@dataclass(frozen=True)
class Options:
    """What the inventory does not say. Lists hold addresses or networks in CIDR form."""

    users: tuple[str, ...] = field(
        default=("0.0.0.0/0", "::/0"),
        metadata=_told("Where browsers and people who rerun jobs with SSH come from. The default is anywhere."),
    )
    administrators: tuple[str, ...] = field(
        default=(),
        metadata=_told("Where those come from who log in to the hosts, beside the control host. Without it SSH of the control host is left as it is."),
    )
    kubernetes: tuple[str, ...] = field(
        default=(),
        metadata=_told("Networks of nodes and of pods that leave the cluster under their own addresses, where `circleci_cluster_nodes` does not say it."),
    )
    load_balancer: tuple[str, ...] = field(default=(), metadata=_told("Addresses of `circleci-proxy`. Taken from `circleci_load_balancer_address`."))
    load_balancer_sources: tuple[str, ...] = field(
        default=(),
        metadata=_told("Networks that the release lets reach `circleci-proxy`. Taken from `circleci_load_balancer_sources`; without it all are let in."),
    )
    load_balancer_transparent: bool = field(
        default=True,
        metadata=_told("Packets meet the nodes on the ports of the Service (MetalLB, ServiceLB). Say false where a load balancer goes to node ports."),
    )
    load_balancer_listens: tuple[int, ...] | None = field(
        default=None,
        metadata=_told("Ports that the live Service lists. Only for 3000 and 8585, which the vendor prints on though nothing listens there any more."),
    )
    upstream_tls: tuple[str, ...] = field(
        default=(),
        metadata=_told(
            "Addresses of a proxy before `circleci-proxy` that ends TLS. Users and GitHub then come from there; it must pass 4647 on as it is."
        ),
    )
    registry: tuple[str, ...] = field(default=(), metadata=_told("Addresses of a registry that someone else runs."))
    registry_port: int = field(default=443, metadata=_told("Port of the registry. Taken from `circleci_registry_host`."))
    object_storage: tuple[str, ...] = field(
        default=(), metadata=_told("Addresses of an object store that someone else runs, or that the cluster gives to a gateway.")
    )
    object_storage_port: int = field(default=443, metadata=_told("Port of the object store. Taken from `circleci_object_storage_endpoint`."))
    object_storage_in_cluster: bool = field(
        default=False,
        metadata=_told("A gateway in the cluster is the object store. Taken from `circleci_object_storage_placement`."),
    )
    agents_port: int = field(
        default=0,
        metadata=_told("Port on which hosts of the object store serve the agents, 0 for none. Taken from `circleci_object_storage_agent_port`."),
    )
    vcs: tuple[str, ...] = field(default=(), metadata=_told("Addresses of GitHub Enterprise: webhooks come from there, checkouts go there."))
    dns: tuple[str, ...] = field(default=(), metadata=_told("DNS servers of the site. Jobs may ask them even where `blocked_networks` holds their addresses."))
    http_proxy: tuple[str, ...] = field(default=(), metadata=_told("Addresses of an outbound HTTP proxy."))
    http_proxy_port: int = field(default=3128, metadata=_told("Port of the HTTP proxy."))
    mail_server: tuple[str, ...] = field(default=(), metadata=_told("Addresses of the mail server."))
    smtp_port: int = field(default=25, metadata=_told("Port of the mail server."))
    vm: tuple[str, ...] = field(default=(), metadata=_told("Networks of virtual machines that run jobs (EKS and GKE only)."))
    internet: tuple[str, ...] = field(default=(), metadata=_told("Where hosts may go when `air_gap` is false."))
    vendor_downloads: tuple[str, ...] = field(default=(), metadata=_told("Addresses of the vendor's download hosts. No rule of a cut-off site uses it."))
    cloud_network: tuple[str, ...] = field(default=(), metadata=_told("Network of the cloud that the vendor's Terraform modules open Nomad's ports to."))
    blocked_networks: tuple[str, ...] = field(default=(), metadata=_told("Networks that containers of jobs must not reach."))
    external_postgres: tuple[str, ...] = field(default=(), metadata=_told("Addresses of a PostgreSQL outside the cluster."))
    external_mongodb: tuple[str, ...] = field(default=(), metadata=_told("Addresses of a MongoDB outside the cluster."))
    external_rabbitmq: tuple[str, ...] = field(default=(), metadata=_told("Addresses of a RabbitMQ outside the cluster."))
    external_vault: tuple[str, ...] = field(default=(), metadata=_told("Addresses of a Vault outside the cluster."))
    kubernetes_api_port: int = field(default=6443, metadata=_told("Port of the Kubernetes API."))
    ssh_port: int = field(default=22, metadata=_told("Port of SSH on the hosts."))
    air_gap: bool = field(default=True, metadata=_told("The site has no way out."))
    podman: bool = field(default=False, metadata=_told("Nomad clients run jobs with Podman instead of Docker."))
    vm_service: bool = field(default=False, metadata=_told("The VM service of releases before 4.3 is in use."))
    machine_executor: bool = field(default=False, metadata=_told("Jobs run in virtual machines (EKS and GKE only)."))
    presigned_urls: bool = field(default=True, metadata=_told("Browsers fetch artifacts straight from the object store."))
    runner_ssh_rerun: bool = field(default=False, metadata=_told("Runners let users rerun a job with SSH."))
    container_runner_ssh_rerun: bool = field(default=False, metadata=_told("The container runner lets users rerun a job with SSH."))
    block_metadata: bool = field(default=True, metadata=_told("Containers of jobs must not reach 169.254.0.0/16, where clouds answer with credentials."))
    node_firewall: bool = field(
        default=False,
        metadata=_told("Set rules on Kubernetes nodes too. By default they are only listed: a default drop there breaks the cluster's network."),
    )


@dataclass(frozen=True)
class Rule:
    """One rule of one host.

    ``peers`` are networks; empty together with ``any_peer`` false means that nobody of that kind is in the site.
    ``state`` is C(apply) when a packet filter on the host can carry the rule, else why it is only told.
    """

    id: str
    host: str
    group: str
    direction: str
    protocol: str
    ports: tuple[str, ...]
    peers: tuple[str, ...]
    any_peer: bool
    peer_kinds: tuple[str, ...]
    peer_hosts: tuple[str, ...]
    action: str
    published: bool
    state: str
    reason: str
    source: str
    status: str
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The rule as plain data for modules, tables and reports."""
        result = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in result.items()}


@dataclass(frozen=True)
class PortModel:
    """Rules of a whole site and what is wrong with its input."""

    release: str
    platform: str
    rules: tuple[Rule, ...]
    problems: tuple[Problem, ...]
    inventory: SiteInventory
    options: Options
    check_only: Mapping[str, str] = field(default_factory=dict)

    def for_host(self, name: str) -> tuple[Rule, ...]:
        """Rules whose host is ``name``."""
        return tuple(rule for rule in self.rules if rule.host == name)

    def check(self) -> None:
        """Raise all problems at once."""
        if self.problems:
            raise PortModelError(self.problems)


class _Collector:
    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, name: str, found: str, expected: str, remedy: str) -> None:
        problem = Problem(name, found, expected, remedy)
        if problem not in self.problems:
            self.problems.append(problem)


LIST_OPTIONS = tuple(
    item.name for item in dataclasses.fields(Options) if str(item.type).startswith("tuple[str")
)
_PORT_OPTIONS = tuple(item.name for item in dataclasses.fields(Options) if item.name.endswith("_port"))
_BOOL_OPTIONS = tuple(item.name for item in dataclasses.fields(Options) if str(item.type) == "bool")


def options_from(given: Mapping[str, Any]) -> tuple[Options, tuple[Problem, ...]]:
    """Options out of plain data; unknown names and wrong types become problems."""
    problems = _Collector()
    values: dict[str, Any] = {}
    known = {item.name for item in dataclasses.fields(Options)}
    for name, value in given.items():
        if name not in known:
            problems.add(f"circleci_ports.{name}", "an unknown name", f"known are {', '.join(sorted(known))}", "correct the name")
        elif value is None:
            continue
        elif name in _BOOL_OPTIONS:
            if not isinstance(value, bool):
                problems.add(f"circleci_ports.{name}", repr(value), "true or false is needed", "write it without quotes")
            else:
                values[name] = value
        elif name in _PORT_OPTIONS:
            # The default may be none.
            port = value if value == getattr(Options, name) else _port_number(value)
            if port is None:
                problems.add(f"circleci_ports.{name}", repr(value), "a port from 1 to 65535 is needed", "correct the number")
            else:
                values[name] = port
        elif name == "load_balancer_listens":
            ports = [_port_number(item) for item in _as_list(value)]
            if None in ports:
                problems.add(f"circleci_ports.{name}", repr(value), "a list of ports is needed", "correct the list")
            else:
                values[name] = tuple(port for port in ports if port is not None)
        else:
            values[name] = tuple(str(item) for item in _as_list(value) if str(item) != "")
    return Options(**values), tuple(problems.problems)


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, (str, int, float)):
        return [value]
    return list(value)


def _port_number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return number if 1 <= number <= 65535 else None


def parse_networks(name: str, values: Iterable[str], problems: _Collector) -> tuple[Network, ...]:
    """Networks of one list; an invalid entry, one with host bits and two that overlap are problems."""
    result: list[Network] = []
    for text in values:
        try:
            network = ipaddress.ip_network(text.strip(), strict=True)
        except ValueError:
            try:
                wide = ipaddress.ip_network(text.strip(), strict=False)
            except ValueError:
                problems.add(name, repr(text), "an IP address or a network in CIDR form is needed",
                             "write for instance 10.1.2.3, 10.1.2.0/24 or 2001:db8::/64")  # fmt: skip
                continue
            problems.add(name, repr(text), "the address part must be the first of the network", f"write {wide}")
            continue
        clash = next((other for other in result if other.version == network.version and other.overlaps(network)), None)
        if clash is not None:
            problems.add(name, f"{network} beside {clash}", "networks of one list must not overlap",
                         f"keep {clash if clash.prefixlen <= network.prefixlen else network} only")  # fmt: skip
            continue
        result.append(network)
    return tuple(result)


def parse_port(text: str) -> str | None:
    """``a`` or ``a-b`` with 1 <= a <= b <= 65535, ``any``, or None."""
    text = text.strip()
    if text == "any":
        return text
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not match:
        return None
    low = int(match.group(1))
    high = int(match.group(2) or low)
    if not 1 <= low <= high <= 65535:
        return None
    return str(low) if low == high else f"{low}-{high}"


def _conditions(options: Options, external_nomad: bool, self_managed: bool) -> dict[str, bool]:
    transparent = options.load_balancer_transparent
    return {
        "": True,
        "vm_service_enabled": options.vm_service,
        "machine_executor": options.machine_executor,
        "load_balancer_transparent": transparent,
        "load_balancer_not_transparent": not transparent,
        "load_balancer_transparent_and_internal_nomad_servers": transparent and not external_nomad,
        "load_balancer_transparent_and_vm_service_enabled": transparent and options.vm_service,
        "internal_nomad_servers": not external_nomad,
        "external_nomad_servers": external_nomad,
        "docker_runtime": not options.podman,
        "podman_runtime": options.podman,
        # Told in any case, so that a port which the vendor still prints is not missed in silence; see _state.
        "live_service_lists_port": True,
        "terraform_network": bool(options.cloud_network),
        "internet_allowed": not options.air_gap,
        "private_registry": True,
        "external_postgres": bool(options.external_postgres),
        "external_mongodb": bool(options.external_mongodb),
        "external_rabbitmq": bool(options.external_rabbitmq),
        "external_vault": bool(options.external_vault),
        "smtp": bool(options.mail_server),
        "http_proxy": bool(options.http_proxy),
        "cluster_self_managed": self_managed,
        "presigned_urls": options.presigned_urls,
        "served_agents": options.agents_port > 0,
        "gateway_in_cluster": options.object_storage_in_cluster,
        "gateway_in_cluster_presigned": options.object_storage_in_cluster and options.presigned_urls,
        "gateway_in_cluster_transparent": options.object_storage_in_cluster and transparent,
        "gateway_in_cluster_transparent_presigned": options.object_storage_in_cluster and transparent and options.presigned_urls,
        "runner_ssh_rerun": options.runner_ssh_rerun,
        "container_runner_ssh_rerun": options.container_runner_ssh_rerun,
        "connected_side": False,
    }


class _Builder:
    def __init__(
        self, inventory: SiteInventory, facts: Sequence[PortFact], release: str, platform: str, options: Options
    ) -> None:
        self.inventory = inventory
        self.facts = tuple(facts) + DERIVED
        self.release = release
        self.platform = platform
        self.options = options
        self.problems = _Collector()
        self.external_nomad = bool(inventory.members("circleci_nomad_servers"))
        self.networks: dict[str, tuple[Network, ...]] = {
            name: parse_networks(_VARIABLES.get(name, f"circleci_ports.{name}"), getattr(options, name), self.problems) for name in LIST_OPTIONS
        }
        self.networks["link_local"] = tuple(ipaddress.ip_network(value) for value in LINK_LOCAL)
        # The control host administers the others in any case; who administers the control host only the option says.
        self.control = _collapse(self._host_networks(inventory.members("circleci_sites")))

    @staticmethod
    def _host_networks(hosts: Iterable[SiteHost]) -> tuple[Network, ...]:
        return tuple(ipaddress.ip_network(address) for host in hosts for address in host.addresses)

    def build(self) -> PortModel:
        self._check_hosts()
        self_managed = bool(self.inventory.members("circleci_cluster_nodes"))
        conditions = _conditions(self.options, self.external_nomad, self_managed)
        rules: list[Rule] = []
        for fact in self.facts:
            unknown = [peer for peer in fact.peers if peer not in INVENTORY_KINDS and peer not in OPTION_KINDS]
            for what, found, known in (
                ("condition", [fact.condition] if fact.condition not in conditions else [], [*filter(None, conditions)]),
                ("peer", unknown, [*INVENTORY_KINDS, *OPTION_KINDS]),
                ("group", [fact.group] if fact.group not in {*INVENTORY_KINDS, *VIRTUAL_HOSTS} else [],
                 [*INVENTORY_KINDS, *VIRTUAL_HOSTS]),
            ):  # fmt: skip
                if found:
                    self.problems.add(f"catalog rule {fact.id}", f"{what} {', '.join(found)}",
                                      f"known are {', '.join(sorted(known))}", "teach port_model the new name")  # fmt: skip
                    break
            else:
                if conditions[fact.condition] and fact.status != "may_be_blocked":
                    rules.extend(self._rules_of(fact))
        self._check_sources(rules)
        check_only = {}
        if not self.options.node_firewall:
            check_only = {
                host.name: "a default drop on a Kubernetes node breaks its network; the release restricts with "
                "circleci_load_balancer_sources"
                for host in self.inventory.hosts
                if "circleci_cluster_nodes" in host.groups
            }
        return PortModel(
            release=self.release,
            platform=self.platform,
            rules=tuple(rules),
            problems=tuple(self.problems.problems),
            inventory=self.inventory,
            options=self.options,
            check_only=check_only,
        )

    def _check_hosts(self) -> None:
        for host in self.inventory.hosts:
            for first, second, why in CONTRADICTIONS:
                if first in host.groups and second in host.groups:
                    self.problems.add(f"host {host.name}", f"groups {first} and {second}",
                                      f"a host is in one of them, since {why}", "take it out of one")  # fmt: skip
        owner: dict[str, str] = {}
        for host in self.inventory.hosts:
            for address in host.addresses:
                if owner.setdefault(address, host.name) != host.name:
                    self.problems.add(f"host {host.name}", f"address {address} that {owner[address]} has too",
                                      "an address belongs to one host", "correct ansible_host or circleci_addresses")  # fmt: skip

    def _check_sources(self, rules: Iterable[Rule]) -> None:
        """What the release shuts out at the load balancer, though a rule lets it in. Users may be shut out: that is what it is for."""
        sources = self.networks["load_balancer_sources"]
        if not sources:
            return
        wanted = [peer for rule in rules if rule.host == VIRTUAL_HOSTS["load_balancer"] and rule.direction == "ingress" and rule.state != PRINTED
                  for peer in map(ipaddress.ip_network, rule.peers) if peer.prefixlen]  # fmt: skip
        # Beside users from anywhere they have no place in the peers of a rule.
        wanted += self.networks["vcs"]
        left = _collapse([peer for peer in wanted if not any(_within(peer, source) for source in sources)])
        if left:
            hosts = [host.name for host in self.inventory.hosts if any(_within(network, peer) for network in self._host_networks([host]) for peer in left)]
            names = f" ({', '.join(hosts)})" if hosts else ""
            self.problems.add("circleci_load_balancer_sources", f"nothing that holds {', '.join(map(str, left))}{names}",
                              "rules of the site let them reach circleci-proxy, and the release would shut them out", "add them")  # fmt: skip

    def _hosts_for(self, fact: PortFact) -> list[tuple[str, tuple[str, ...]]]:
        if fact.group in VIRTUAL_HOSTS:
            if fact.group == "vm" and not self.networks["vm"]:
                return []
            networks = self.networks["object_storage" if fact.group == "object_storage_gateway" else fact.group]
            return [(VIRTUAL_HOSTS[fact.group], tuple(str(network) for network in networks))]
        return [(host.name, host.addresses) for host in self.inventory.members(*INVENTORY_KINDS[fact.group])]

    def _ports(self, fact: PortFact) -> tuple[str, ...]:
        result = []
        for given in fact.ports:
            text = str(getattr(self.options, f"{given}_port", given))
            if fact.direction == "ingress" and fact.peers == ("administrators",) and text == "22":
                text = str(self.options.ssh_port)
            elif fact.id == "node-in-api" and text == "6443":
                text = str(self.options.kubernetes_api_port)
            port = parse_port(text)
            if port is None:
                self.problems.add(f"catalog rule {fact.id}", f"port {text!r}",
                                  "a port or a range from low to high within 1-65535 is needed",
                                  "correct the catalog's ports.yml")  # fmt: skip
                continue
            result.append(port)
        return tuple(dict.fromkeys(result))

    def _peers(self, fact: PortFact, own: str) -> tuple[tuple[Network, ...], tuple[str, ...]]:
        networks: list[Network] = []
        names: list[str] = []
        for kind in fact.peers:
            groups = INVENTORY_KINDS.get(kind)
            if groups is not None:
                for host in self.inventory.members(*groups):
                    if host.name == own:
                        continue
                    if host.problem:
                        self.problems.add(f"host {host.name}", host.problem.split("; ")[0],
                                          f"rule {fact.id} of {own} needs its address",
                                          host.problem.split("; ")[-1])  # fmt: skip
                        continue
                    names.append(host.name)
                    networks.extend(self._host_networks([host]))
            if self.networks["upstream_tls"] and fact.direction == "ingress" and fact.id.startswith(UPSTREAM):
                networks.extend(self.networks["upstream_tls"])
                # They reach the proxy and nothing behind it; the agents' traffic may still go both ways.
                if kind in ("users", "vcs"):
                    continue
            # Clusters of others have no hosts in the inventory, and pods may leave the cluster under addresses of their own.
            networks.extend(self.networks.get("kubernetes" if kind == "kubernetes_node" else kind, ()))
            if kind == "administrators" and fact.group != "bastion":
                networks.extend(self.control)
        if own in names:
            names.remove(own)
        return _collapse(networks), tuple(dict.fromkeys(names))

    def _rules_of(self, fact: PortFact) -> Iterable[Rule]:
        ports = self._ports(fact)
        if not ports:
            return
        for name, addresses in self._hosts_for(fact):
            peers, peer_hosts = self._peers(fact, name)
            families = {ipaddress.ip_network(address).version for address in addresses}
            any_peer = any(network.prefixlen == 0 for network in peers)
            reachable = [network for network in peers if not families or network.version in families]
            usable = peers
            if peers and not reachable and fact.direction == "ingress" and fact.status != "obsolete_but_printed":
                have = "IPv6" if families == {6} else "IPv4"
                self.problems.add(f"host {name}", f"only {have} addresses, the peers of rule {fact.id} have none",
                                  "host and peer need a common address family",
                                  f"give {', '.join(peer_hosts) or 'the peers'} an {have} address, or the host another")  # fmt: skip
            state = self._state(fact, name, usable)
            if state == "apply" and "kubernetes_node" in fact.peers and fact.direction == "ingress":
                self._need_kubernetes(fact.id, name)
            direction = fact.direction
            if fact.scope == "containers":
                direction = f"{direction}_from_containers"
            for part in ("ingress", "egress") if direction == "both" else (direction,):
                for protocol in fact.protocols:
                    yield Rule(
                        id=fact.id,
                        host=name,
                        group=fact.group,
                        direction=part,
                        protocol=protocol,
                        ports=ports,
                        peers=tuple(str(network) for network in usable),
                        any_peer=any_peer and fact.direction == "ingress",
                        peer_kinds=fact.peers,
                        peer_hosts=peer_hosts,
                        action="drop" if fact.action == "deny" else "accept",
                        published=fact.published,
                        state=state if part == direction else self._state(
                            dataclasses.replace(fact, direction=part), name, usable),
                        reason=fact.purpose,
                        source=fact.source,
                        status=fact.status if fact.status != "required" else fact.certainty,
                        note=fact.note,
                    )  # fmt: skip

    def _need_kubernetes(self, rule_id: str, name: str) -> None:
        if not self.inventory.members("circleci_cluster_nodes") and not self.networks["kubernetes"]:
            self.problems.add("circleci_ports.kubernetes", "nothing, and the group circleci_cluster_nodes is empty",
                              f"rule {rule_id} of {name} would shut the cluster out",
                              "name the networks that nodes and pods come from, for instance 10.20.0.0/24")  # fmt: skip

    def _state(self, fact: PortFact, name: str, peers: Sequence[Network]) -> str:
        """``apply``, or why a packet filter on the host does not carry the rule."""
        if fact.condition == "live_service_lists_port" or fact.status == "obsolete_but_printed":
            listens = self.options.load_balancer_listens or ()
            if fact.group != "load_balancer" or not any(str(port) in fact.ports for port in listens):
                return PRINTED
        if name in VIRTUAL_HOSTS.values():
            return "not a host of the inventory: for the network team"
        if fact.id == "client-containers-metadata" and not self.options.block_metadata:
            return "switched off by the option block_metadata"
        if not peers and fact.group == "bastion" and fact.direction == "ingress":
            return "left as it is: the option administrators does not say who administers the control host"
        if not peers:
            return f"nobody of the kind {', '.join(fact.peers)} is known in this site"
        if fact.scope == "containers":
            return "apply"
        if fact.direction == "egress":
            return "outgoing: hosts let it out, told to the network team"
        if "any" in fact.protocols:
            return "any protocol between Kubernetes nodes: the cluster's network owns it"
        if fact.group == "kubernetes_node" and not self.options.node_firewall:
            return "check only: traffic to a Kubernetes node does not meet a host's packet filter"
        host = self.inventory.host(name)
        filters = [text for group, text in BY_HAND.items() if host is not None and group in host.groups]
        if filters:
            return f"{SET_BY_HAND}: nothing of this collection sets {filters[0]}; plan prints what to load there, which was never run"
        return "apply"


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)


def _collapse(networks: Collection[Network]) -> tuple[Network, ...]:
    four = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
    six = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
    return (*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six))


def build_model(
    inventory: SiteInventory, facts: Iterable[PortFact], release: str, platform: str, options: Options
) -> PortModel:
    """Rules of every host of a site. Problems are collected in the result; C(check) raises them."""
    return _Builder(inventory, tuple(facts), release, platform, options).build()
