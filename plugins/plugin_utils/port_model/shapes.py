# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""How each rule of the catalog, whose peers are prose, is read: who the peers are and which port a placeholder means.

A rule of the catalog without a shape is refused, so that a new release cannot bring one that nobody has read.
"""

from __future__ import annotations

from dataclasses import dataclass

from .facts import PortFact

# Kinds of peers. The first line comes from inventory groups, the second from options, the third is fixed.
INVENTORY_KINDS = {
    "bastion": ("circleci_sites",),
    "kubernetes_node": ("circleci_cluster_nodes",),
    "nomad_client": ("circleci_nomad_clients",),
    "nomad_server": ("circleci_nomad_servers",),
    "registry": ("circleci_registry",),
    "object_storage": ("circleci_object_storage",),
    "runner": ("circleci_runners_linux", "circleci_runners_macos", "circleci_runners_windows"),
}
OPTION_KINDS = (
    "users",
    "administrators",
    "load_balancer",
    "vm",
    "dns",
    "github",
    "proxy",
    "smtp",
    "blocked",
    "postgres",
    "mongodb",
    "rabbitmq",
    "rabbitmq_management",
    "vault",
    "internet",
    "kubernetes_api",
)
FIXED = {"metadata": ("169.254.0.0/16",)}

HOST_GROUPS = {
    "kubernetes_node": ("circleci_cluster_nodes",),
    "nomad_client": ("circleci_nomad_clients",),
    "nomad_server_external": ("circleci_nomad_servers",),
    "bastion": ("circleci_sites",),
    "admin": ("circleci_sites",),
    "runner": ("circleci_runners_linux", "circleci_runners_macos", "circleci_runners_windows"),
    "registry": ("circleci_registry",),
    "object_storage": ("circleci_object_storage",),
}
# No inventory group: these stand for something that has an address only.
VIRTUAL_HOSTS = {"load_balancer": "load-balancer", "vm": "job-vms"}


@dataclass(frozen=True)
class Shape:
    """Peers of a rule; ``port`` names the option behind a placeholder; ``published`` marks ports that Docker publishes."""

    peers: tuple[str, ...]
    port: str = ""
    published: bool = False
    action: str = "accept"


_WEB = ("load_balancer", "registry", "github", "object_storage")
SHAPES: dict[str, Shape] = {
    "lb-in-http": Shape(("users", "github")),
    "lb-in-https": Shape(("users", "github", "runner", "nomad_client", "bastion")),
    "lb-in-nomad-rpc": Shape(("nomad_client",)),
    "lb-in-output-processor": Shape(("nomad_client",)),
    "lb-in-vm-service": Shape(("nomad_client",)),
    "lb-in-8585-stale": Shape(("nomad_client",)),
    "lb-in-3000-stale": Shape(("nomad_client",)),
    "lb-out-nodeports": Shape(("kubernetes_node",)),
    "kubernetes_node-in-ssh-admin": Shape(("administrators",), port="ssh"),
    "kubernetes_node-out-dns": Shape(("dns",)),
    "kubernetes_node-out-web": Shape(_WEB),
    "nomad_client-in-ssh-admin": Shape(("administrators",), port="ssh"),
    "nomad_client-out-dns": Shape(("dns",)),
    "nomad_client-out-web": Shape(_WEB),
    "vm-in-ssh-admin": Shape(("administrators",)),
    "vm-out-dns": Shape(("dns",)),
    "vm-out-web": Shape(_WEB),
    "nomad_client-out-vcs-ssh": Shape(("github",)),
    "vm-out-vcs-ssh": Shape(("github",)),
    "kubernetes_node-out-vcs": Shape(("github",)),
    "bastion-in-ssh": Shape(("administrators",), port="ssh"),
    "k8s-in-nodeports": Shape(("load_balancer",)),
    "k8s-in-transparent": Shape(("users", "github", "runner", "nomad_client")),
    "k8s-intra": Shape(("kubernetes_node",)),
    "k8s-out-nomad": Shape(("nomad_client",)),
    "k8s-out-vm-docker": Shape(("vm",)),
    "k8s-out-vm-ssh": Shape(("vm",)),
    "nomad-in-rpc": Shape(("kubernetes_node", "nomad_server")),
    "nomad-in-ssh-rerun": Shape(("users",), published=True),
    "nomad-in-ssh-rerun-podman": Shape(("users",), published=True),
    "nomad-in-tf-range": Shape(("kubernetes_node", "nomad_client", "nomad_server")),
    "nomad-out-rpc": Shape(("load_balancer", "nomad_server")),
    "nomad-out-output-processor": Shape(("load_balancer",)),
    "nomad-out-vm-service": Shape(("load_balancer",)),
    "nomad-out-vm-docker": Shape(("vm",)),
    "nomad-out-vm-ssh": Shape(("vm",)),
    "nomad-out-lb-https": Shape(("load_balancer",)),
    "nomad-out-registry": Shape(("registry",), port="registry"),
    "nomad-out-object-store": Shape(("object_storage",), port="object_storage"),
    "nomad-block-metadata": Shape(("metadata",), action="drop"),
    "nomad-allow-dns-containers": Shape(("dns",)),
    "nomad-block-cidrs": Shape(("blocked",), action="drop"),
    "nomad-no-peer": Shape(("nomad_client",), action="none"),
    "extnomad-in-4646": Shape(("kubernetes_node", "nomad_client", "nomad_server")),
    "extnomad-in-4647": Shape(("kubernetes_node", "nomad_client", "nomad_server")),
    "extnomad-in-4648": Shape(("kubernetes_node", "nomad_client", "nomad_server")),
    "vm-in-ssh-k8s": Shape(("kubernetes_node", "nomad_client")),
    "vm-in-docker": Shape(("kubernetes_node", "nomad_client")),
    "vm-in-docker-stale": Shape(("kubernetes_node", "nomad_client")),
    "vm-in-ssh-rerun": Shape(("users",)),
    "runner-out-https": Shape(("load_balancer",)),
    "runner-out-object-store": Shape(("object_storage",), port="object_storage"),
    "runner-out-vcs": Shape(("github",)),
    "runner-in-ssh-rerun": Shape(("users",)),
    "k8s-out-postgres": Shape(("postgres",)),
    "k8s-out-mongodb": Shape(("mongodb",)),
    "k8s-out-rabbitmq": Shape(("rabbitmq",)),
    "k8s-out-rabbitmq-mgmt": Shape(("rabbitmq_management",)),
    "k8s-out-vault": Shape(("vault",)),
    "k8s-out-smtp": Shape(("smtp",), port="smtp"),
    "proxy": Shape(("proxy",), port="proxy"),
    "kube-api": Shape(("kubernetes_api",), port="kubernetes_api"),
    "registry-push": Shape(("internet",)),
    # Derived below: the other end of an egress rule, on hosts that the vendor's tables do not have.
    "registry-in": Shape(
        ("kubernetes_node", "nomad_client", "nomad_server", "bastion", "object_storage", "runner"), port="registry"
    ),
    "object-storage-in": Shape(
        ("kubernetes_node", "nomad_client", "bastion", "runner", "users"), port="object_storage"
    ),
    "registry-in-ssh-admin": Shape(("administrators",), port="ssh"),
    "object-storage-in-ssh-admin": Shape(("administrators",), port="ssh"),
    "nomad-server-in-ssh-admin": Shape(("administrators",), port="ssh"),
    "runner-in-ssh-admin": Shape(("administrators",), port="ssh"),
    "k8s-in-kube-api": Shape(("bastion", "administrators"), port="kubernetes_api"),
}


def _derived(rule_id: str, host_group: str, port: str, purpose: str, reference: str) -> PortFact:
    return PortFact(
        id=rule_id,
        host_group=host_group,
        direction="ingress",
        protocols=("tcp",),
        ports=(port,),
        purpose=purpose,
        status="inferred",
        condition="",
        reference=reference,
        note="",
    )


DERIVED = (
    _derived("registry-in", "registry", "registry port", "Images, charts, files and packages of the site",
             "other end of nomad-out-registry; facts (b), air gap"),
    _derived("object-storage-in", "object_storage", "object store port",
             "Caches, workspaces, artifacts, agents; browsers follow presigned URLs",
             "other end of nomad-out-object-store; facts (b), air gap"),
    _derived("registry-in-ssh-admin", "registry", "22", "Administration", "as nomad_client-in-ssh-admin"),
    _derived("object-storage-in-ssh-admin", "object_storage", "22", "Administration", "as nomad_client-in-ssh-admin"),
    _derived("nomad-server-in-ssh-admin", "nomad_server_external", "22", "Administration",
             "as nomad_client-in-ssh-admin"),
    _derived("runner-in-ssh-admin", "runner", "22", "Administration", "as nomad_client-in-ssh-admin"),
    _derived("k8s-in-kube-api", "kubernetes_node", "6443", "kubectl and helm from the control host",
             "other end of kube-api"),
)  # fmt: skip
