# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""A role of a registry of Azure assigned to the identity of the kubelets of AKS, by Azure Resource Manager."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from ..cloud import MARK, CloudError
from ..cloud.azure import Arm
from .model import NODES, REGISTRY, Grant, Rights, wrong_nodes

_GROUP = r"/subscriptions/[0-9a-fA-F-]{36}/resourceGroups/[\w.()-]+/providers/"
ACR = re.compile(_GROUP + r"Microsoft\.ContainerRegistry/registries/(?P<name>[A-Za-z0-9]{5,50})", re.IGNORECASE)
REGISTRY_FORM = "/subscriptions/<id>/resourceGroups/<name>/providers/Microsoft.ContainerRegistry/registries/<name>"
NODE = re.compile(_GROUP + r"Microsoft\.ContainerService/managedClusters/[\w-]+", re.IGNORECASE)
NODE_FORM = "ids of clusters, /subscriptions/<id>/resourceGroups/<name>/providers/Microsoft.ContainerService/managedClusters/<name>"
REGISTRY_VERSION, CLUSTER_VERSION, ROLE_VERSION = "2025-11-01", "2024-09-01", "2022-04-01"
WITHOUT_MODE = "LegacyRegistryPermissions"
"""The mode of registries that tell none."""


class KubeletIdentities(Rights):
    """What C(az aks update --attach-acr) does. A right for all of the resource group or subscription of the registry counts, one with a condition not."""

    def __init__(self, site: str, registry: str, host: str, nodes: Sequence[str], grants: Sequence[Grant], region: str, token: str, endpoint: str = "") -> None:
        super().__init__(host, nodes)
        problems = [*wrong_nodes(nodes, NODE, NODE_FORM)]
        if not ACR.fullmatch(registry):
            problems.append(f"{REGISTRY}: found {registry!r}; allowed is {REGISTRY_FORM}")
        if problems:
            raise CloudError(*problems)
        self.arm = Arm(region, token, endpoint)
        self.site, self.registry, self.grants = site, registry, {grant.mode: grant for grant in grants}
        self.principals: dict[str, str] = {}

    def read(self) -> tuple[list[str], list[str]]:
        problems = []
        found = self.arm.get(self.registry, REGISTRY_VERSION)
        properties = (found or {}).get("properties") or {}
        server, mode = str(properties.get("loginServer") or ""), str(properties.get("roleAssignmentMode") or WITHOUT_MODE)
        if found is None:
            problems.append(f"{REGISTRY}: {self.registry} is not there, or may not be seen; name the registry whose address is {self.host}")
        elif server.lower() != self.host.lower():
            problems.append(f"{REGISTRY}: {self.registry} has the address {server}, and circleci_registry_host is {self.host}; name the registry that has it")
        elif mode not in self.grants:
            problems.append(f"{self.registry} has the mode {mode}, which is not known here; known are {', '.join(sorted(self.grants))}")
        for name in self.nodes:
            problems += self._principal(name)
        if not problems:
            grant = self.grants[mode]
            for name in self.nodes:
                if self._may(self.principals[name], grant):
                    self.found[name] = grant.role
                self.wanted[name] = grant.role
            self.grant = grant
        return self.lines(problems)

    def _principal(self, node: str) -> Iterator[str]:
        cluster = self.arm.get(node, CLUSTER_VERSION)
        if cluster is None:
            yield f"{NODES}: {node} is not there, or may not be seen; name the cluster of the site"
            return
        identity = ((cluster.get("properties") or {}).get("identityProfile") or {}).get("kubeletidentity") or {}
        self.principals[node] = str(identity.get("objectId") or "")
        if not self.principals[node]:
            yield (f"{NODES}: {node} has a service principal and no identity of its kubelets; give the cluster a managed identity (az aks update "
                   "--enable-managed-identity), or assign the role to that principal by hand")  # fmt: skip

    def _may(self, principal: str, grant: Grant) -> bool:
        """Whether a role holds at the registry or above it."""
        path = f"{self.registry}/providers/Microsoft.Authorization/roleAssignments"
        for item in self.arm.all(path, ROLE_VERSION, f"principalId eq '{principal}'"):
            given: dict[str, Any] = item.get("properties") or {}
            role, scope = str(given.get("roleDefinitionId")).rpartition("/")[2].lower(), str(given.get("scope") or "").lower()
            below = scope.startswith(f"{self.registry.lower()}/")
            if role in grant.enough and not below and not given.get("condition"):
                return True
        return False

    def apply(self) -> Iterator[str]:
        subscription = "/".join(self.registry.split("/")[:3])
        # Two clusters may have one identity.
        for principal in dict.fromkeys(self.principals[name] for name in self.missing):
            # The name is that of the same assignment in each run, so that a second one of it cannot come to be.
            name = uuid.uuid5(uuid.NAMESPACE_URL, f"{self.registry}|{principal}|{self.grant.id}".lower())
            properties = {
                "roleDefinitionId": f"{subscription}/providers/Microsoft.Authorization/roleDefinitions/{self.grant.id}",
                "principalId": principal,
                # Without it Azure looks for an identity that may not have arrived in its directory yet.
                "principalType": "ServicePrincipal",
                "description": f"{MARK} {self.site}",
            }
            self.arm.change("PUT", f"{self.registry}/providers/Microsoft.Authorization/roleAssignments/{name}", ROLE_VERSION, {"properties": properties})
            yield f"{self.grant.role} of {principal}"
