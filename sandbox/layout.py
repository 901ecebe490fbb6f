# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and addresses of the sandbox. Everything else follows from here."""

from __future__ import annotations

from dataclasses import dataclass

LABEL = "onprem.circleci_server.sandbox"
PREFIX = "ocs-"
DOMAIN = "site.example"
CI_DOMAIN = "ci.site.example"
KUBERNETES_VERSION = "1.33.0"
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
CLUSTER_DNS = "10.96.0.10"
LOAD_BALANCER_POOL = ("10.93.0.100", "10.93.0.109")

# Credentials of the stand-in vendor registry. They protect nothing: they are here so that a login can be refused.
VENDOR_USERNAME = "standin-customer"
VENDOR_PASSWORD = "standin-customer-token"
# bcrypt of VENDOR_PASSWORD, the one form that the distribution registry accepts
VENDOR_HTPASSWD = "$2y$05$AUWjZUJZAfDBW7tKDs8WOunz7ndtUHS5mzMG5w8tb/HWoUNEGHvD."

VENDOR_REGISTRY = "cciserver.azurecr.io"
# Registry host of an image reference -> names under which clients ask for it.
REGISTRIES: dict[str, tuple[str, ...]] = {
    VENDOR_REGISTRY: (VENDOR_REGISTRY,),
    "docker.io": ("docker.io", "registry-1.docker.io", "index.docker.io"),
    "quay.io": ("quay.io",),
    "registry.k8s.io": ("registry.k8s.io",),
    "ghcr.io": ("ghcr.io",),
}
APT_HOST = "apt.internet.example"
# Hosts that serve plain files; the host names below `files/` of the stand-in content are added to these.
FILE_HOSTS = (
    "circleci-binary-releases.s3.amazonaws.com",
    "releases.hashicorp.com",
    "get.helm.sh",
    "dl.k8s.io",
    "dl.min.io",
    "github.com",
    "raw.githubusercontent.com",
    APT_HOST,
)


@dataclass(frozen=True)
class Network:
    """One docker network without a way out."""

    name: str
    bridge: str
    subnet: str
    host_address: str
    dns: str


NETWORKS: dict[str, Network] = {
    "connected": Network("ocs-connected", "ocs-connected", "10.94.0.0/24", "10.94.0.1", "10.94.0.20"),
    "site": Network("ocs-site", "ocs-site", "10.93.0.0/24", "10.93.0.1", "10.93.0.2"),
}


@dataclass(frozen=True)
class Host:
    """One container that boots systemd. `volumes` are folders that cannot lie on overlayfs."""

    name: str
    network: str
    address: str
    image: str = "host"
    volumes: tuple[str, ...] = ()
    keeps_state: bool = True

    @property
    def container(self) -> str:
        return PREFIX + self.name

    @property
    def fqdn(self) -> str:
        return f"{self.name}.{DOMAIN if self.network == 'site' else 'internet.example'}"


HOSTS: tuple[Host, ...] = (
    Host("vendor", "connected", "10.94.0.20", image="vendor", keeps_state=False),
    Host("workstation", "connected", "10.94.0.10", image="workstation"),
    Host("gateway", "site", "10.93.0.2", keeps_state=False),
    Host("bastion", "site", "10.93.0.10", image="workstation"),
    Host("registry", "site", "10.93.0.11"),
    Host("node1", "site", "10.93.0.21", image="node", volumes=("/var/lib/containerd", "/var/lib/kubelet", "/var/lib/etcd")),
    Host("store", "site", "10.93.0.31"),
    Host("nomad1", "site", "10.93.0.41", volumes=("/var/lib/docker", "/var/lib/containerd")),
    Host("nomad2", "site", "10.93.0.42", volumes=("/var/lib/docker", "/var/lib/containerd")),
)


def host(name: str) -> Host:
    """A host by name."""
    from .common import SandboxError

    for item in HOSTS:
        if item.name == name:
            return item
    raise SandboxError(f"there is no host {name!r} in the sandbox; hosts: {', '.join(item.name for item in HOSTS)}")


def site_names() -> dict[str, str]:
    """The zone of the site: what its DNS server answers."""
    names = {item.fqdn: item.address for item in HOSTS if item.network == "site"}
    return {**names, CI_DOMAIN: LOAD_BALANCER_POOL[0], f"app.{CI_DOMAIN}": LOAD_BALANCER_POOL[0]}


def internet_names(file_hosts: tuple[str, ...] = FILE_HOSTS) -> dict[str, str]:
    """The stand-in internet: what its DNS server answers on the connected side."""
    vendor = host("vendor").address
    names = {item.fqdn: item.address for item in HOSTS if item.network == "connected"}
    for aliases in REGISTRIES.values():
        names.update(dict.fromkeys(aliases, vendor))
    names.update(dict.fromkeys(file_hosts, vendor))
    return names
