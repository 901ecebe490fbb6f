# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""The catalog's port rules as this package reads them, and the few that only this collection needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Peers that are inventory groups, and the others, which options name. The catalog lists the same names.
INVENTORY_KINDS = {
    "bastion": ("circleci_sites",),
    "control_host": ("circleci_sites",),
    "kubernetes_node": ("circleci_cluster_nodes",),
    "nomad_client": ("circleci_nomad_clients",),
    "nomad_server": ("circleci_nomad_servers",),
    "registry": ("circleci_registry",),
    "object_storage": ("circleci_object_storage",),
    "runner": ("circleci_runners_linux", "circleci_runners_macos", "circleci_runners_windows"),
}
OPTION_KINDS = frozenset({
    "users", "administrators", "load_balancer", "vm", "dns", "vcs", "internet", "mail_server", "http_proxy",
    "external_postgres", "external_mongodb", "external_rabbitmq", "external_vault", "blocked_networks", "cloud_network",
    "vendor_downloads", "link_local",
})  # fmt: skip
# Hosts on which nothing of this collection runs: the name of their packet filter.
BY_HAND = {"circleci_runners_macos": "pf of macOS", "circleci_runners_windows": "the firewall of Windows"}
# No inventory group: these stand for something that has an address only.
VIRTUAL_HOSTS = {"load_balancer": "load-balancer", "object_storage_gateway": "object-storage-gateway", "vm": "job-vms"}
LINK_LOCAL = ("169.254.0.0/16",)


@dataclass(frozen=True)
class PortFact:
    """One rule of the vendor, or one that we derive from it; see the catalog's ports.yml."""

    id: str
    group: str
    direction: str
    scope: str
    action: str
    protocols: tuple[str, ...]
    ports: tuple[str, ...]
    peers: tuple[str, ...]
    purpose: str
    condition: str
    status: str
    source: str
    certainty: str
    note: str

    @property
    def published(self) -> bool:
        """Whether a container engine publishes the ports, so that packets are forwarded instead of delivered."""
        return self.id.startswith("client-in-ssh-rerun")


def _get(item: Any, name: str, default: Any) -> Any:
    value = item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)
    return default if value is None else value


def _texts(value: Any) -> tuple[str, ...]:
    return (str(value),) if isinstance(value, (str, int)) else tuple(str(item) for item in value)


def port_facts(items: Iterable[Any]) -> tuple[PortFact, ...]:
    """Rules of one release as the catalog gives them (objects or mappings)."""
    return tuple(
        PortFact(
            id=str(_get(item, "id", "")),
            group=str(_get(item, "group", "")),
            direction=str(_get(item, "direction", "ingress")),
            scope=str(_get(item, "scope", "host")),
            action=str(_get(item, "action", "allow")),
            protocols=_texts(_get(item, "protocols", ("tcp",))),
            ports=_texts(_get(item, "ports", ())),
            peers=_texts(_get(item, "peers", ())),
            purpose=str(_get(item, "purpose", "")),
            condition=str(_get(item, "condition", "")),
            status=str(_get(item, "status", "required")),
            source=str(_get(item, "source", "")),
            certainty=str(_get(item, "certainty", "documented")),
            note=str(_get(item, "note", "")),
        )
        for item in items
    )


# The vendor knows neither hosts that take their files from the private registry nor a control host that looks at the web UI.
DERIVED = port_facts(
    [
        {
            "id": "registry-in-hosts",
            "group": "registry",
            "ports": ["registry"],
            "peers": ["object_storage"],
            "purpose": "Files and packages that this collection puts on the hosts.",
            "condition": "private_registry",
            "source": "this collection",
            "certainty": "constructed",
        },
        {
            "id": "lb-in-control",
            "group": "load_balancer",
            "ports": ["80", "443"],
            "peers": ["control_host"],
            "purpose": "Proof that web UI and API answer.",
            "source": "this collection, other end of control-out-lb",
            "certainty": "constructed",
        },
        # The Service of a gateway in the cluster, and what of its traffic meets the nodes.
        *(
            {
                "id": f"{start}-in{end}",
                "group": group,
                "ports": ["object_storage"],
                "peers": peers,
                "purpose": f"{purpose}{more}.",
                "condition": f"gateway_in_cluster{transparent}{condition}",
                "source": "this collection, other end of what the groups ask the object store for",
                "certainty": "constructed",
            }
            for group, start, transparent, more, inside in (
                ("object_storage_gateway", "gateway", "", "", ["kubernetes_node"]),
                ("kubernetes_node", "node-gateway", "_transparent", ", when the load balancer is transparent", []),
            )
            for end, peers, condition, purpose in (
                ("", [*inside, "nomad_client", "runner", "control_host"], "", "Artifacts, caches, agents, logs, through the gateway in the cluster"),
                ("-users", ["users"], "_presigned", "Browsers fetch artifacts by presigned URLs from the gateway in the cluster"),
            )
        ),
        *(
            {
                "id": f"{group.replace('_', '-')}-{'in' if group == 'object_storage' else 'out'}-agents",
                "group": group,
                "direction": "ingress" if group == "object_storage" else "egress",
                "ports": ["agents"],
                "peers": peers,
                "purpose": "Agents that the hosts of the object store serve themselves.",
                "condition": "served_agents",
                "source": "this collection",
                "certainty": "constructed",
            }
            for group, peers in (
                ("object_storage", ["kubernetes_node", "nomad_client", "runner", "control_host"]),
                *((client, ["object_storage"]) for client in ("kubernetes_node", "nomad_client", "runner", "control_host")),
            )
        ),
    ]
)
