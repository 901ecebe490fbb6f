# SPDX-License-Identifier: GPL-3.0-or-later
"""A STAND-IN for registries, clusters of AKS and role assignments of Azure Resource Manager, after the vendor's OpenAPI documents."""

from __future__ import annotations

import re
import uuid
from typing import Any
from urllib.parse import quote

from .standin import Answer, Refused, Schema

VERSIONS = {"registry": "2025-11-01", "cluster": "2024-09-01", "roleAssignments": "2022-04-01"}
ROLES = {
    "7f951dda-4ed3-4680-a7ca-43fe172d538d": "AcrPull",
    "8311e382-0749-4cb8-b61a-304f252e45ec": "AcrPush",
    "b93aa761-3e63-49ed-ac28-beffa264f7ac": "Container Registry Repository Reader",
    "acdd72a7-3385-48ef-bd42-f606fba81ae7": "Reader",
}
ASSIGNMENTS = "/providers/Microsoft.Authorization/roleAssignments"


class Registries:
    """Of one resource group.

    Beside the schema, from the vendor's pages: names of assignments are GUIDs; a principal and a role have to be there; the same assignment is not made twice
    under two names, and one that is there is not changed. It does not look into what a role lets do.
    """

    def __init__(self, schema: Schema, group: str) -> None:
        self.schema, self.group = schema, group
        self.subscription = group.partition("/resourceGroups/")[0]
        self.registry = f"{group}/providers/Microsoft.ContainerRegistry/registries/examplecircleci"
        self.cluster = f"{group}/providers/Microsoft.ContainerService/managedClusters/example"
        self.registries = {self.registry: {"loginServer": "examplecircleci.azurecr.io", "roleAssignmentMode": "LegacyRegistryPermissions"}}
        self.principals = {self.cluster: "33333333-3333-3333-3333-333333333333"}
        """Identity of the kubelets of each cluster; an empty one is of a cluster with a service principal."""
        self.assignments: list[dict[str, Any]] = []

    def assign(self, scope: str, principal: str, role: str, **more: Any) -> dict[str, Any]:
        """What somebody else did."""
        number = next(name for name, known in ROLES.items() if known == role)
        definition = f"{self.subscription}/providers/Microsoft.Authorization/roleDefinitions/{number}"
        return self._add(scope, str(uuid.uuid4()), {"roleDefinitionId": definition, "principalId": principal, "principalType": "ServicePrincipal", **more})

    def _add(self, scope: str, name: str, properties: dict[str, Any]) -> dict[str, Any]:
        item = {
            "id": f"{scope}{ASSIGNMENTS}/{name}", "name": name, "type": "Microsoft.Authorization/roleAssignments",
            "properties": {"condition": None, "conditionVersion": None, "createdOn": "2026-05-23T21:24:00Z", **properties, "scope": scope},
        }  # fmt: skip
        self.assignments.append(item)
        return item

    def serve(self, method: str, path: str, query: dict[str, str], version: str, body: Any, url: str) -> Answer | None:
        """None for what is not of this service."""
        scope, found, name = path.partition(ASSIGNMENTS)
        kind = "roleAssignments" if found else "registry" if "/Microsoft.ContainerRegistry/" in path else "cluster" if "/Microsoft.ContainerService/" in path else ""
        if not kind:
            return None
        if version != VERSIONS[kind]:
            raise Refused(400, "InvalidApiVersionParameter", f"The api-version '{version}' is invalid.")
        if found:
            return self._assignments(method, scope, name.strip("/"), query, body, url)
        if method != "GET" or path not in {**self.registries, **self.principals}:
            raise Refused(404, "ResourceNotFound", f"The Resource '{path}' was not found.")
        thing: dict[str, Any] = {"id": path, "name": path.rpartition("/")[2], "location": "westeurope"}
        if kind == "registry":
            thing.update(sku={"name": "Premium"}, properties={"provisioningState": "Succeeded", **self.registries[path]})
        else:
            principal = self.principals[path]
            profile = {"kubeletidentity": {"resourceId": f"{path}-agentpool", "clientId": str(uuid.uuid4()), "objectId": principal}}
            of_old = {"servicePrincipalProfile": {"clientId": str(uuid.uuid4())}}
            thing.update(properties={"provisioningState": "Succeeded", **({"identityProfile": profile} if principal else of_old)})
        return 200, self.schema.answer(kind, thing), {}

    def _assignments(self, method: str, scope: str, name: str, query: dict[str, str], body: Any, url: str) -> Answer:
        if scope not in self.registries:
            raise Refused(404, "ResourceNotFound", f"The Resource '{scope}' was not found.")
        if (method, name) == ("GET", ""):
            return 200, self._list(scope, query, url), {}
        if method != "PUT" or query:
            raise Refused(405, "MethodNotAllowed", "no such method")
        try:
            uuid.UUID(name)
        except ValueError as error:
            raise Refused(400, "InvalidRoleAssignmentId", f"The role assignment ID '{name}' is not valid. The role assignment ID must be a GUID.") from error
        if wrong := self.schema.wrong("roleAssignment", body, sent=True):
            raise Refused(400, "InvalidRequestContent", "; ".join(wrong))
        return 201, self.schema.answer("roleAssignment", self._add(scope, name, self._checked(scope, name, body["properties"]))), {}

    def _checked(self, scope: str, name: str, wish: dict[str, Any]) -> dict[str, Any]:
        principal, role = wish["principalId"], wish["roleDefinitionId"].rpartition("/")[2]
        if role not in ROLES or not wish["roleDefinitionId"].startswith(f"{self.subscription}/providers/Microsoft.Authorization/roleDefinitions/"):
            raise Refused(404, "RoleDefinitionDoesNotExist", f"The specified role definition with ID '{role}' does not exist.")
        if principal not in self.principals.values():
            raise Refused(400, "PrincipalNotFound", f"Principal {principal} does not exist in the directory. Check that you have the correct principal ID.")
        if wish.get("principalType", "User") != "ServicePrincipal":
            raise Refused(400, "UnmatchedPrincipalType", f"The PrincipalId '{principal}' has type 'ServicePrincipal', which is different from specified PrinciaplType.")
        for item in self.assignments:
            there = item["properties"]
            if item["name"] == name:
                raise Refused(400, "RoleAssignmentUpdateNotPermitted", "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.")
            if (there["scope"], there["principalId"], there["roleDefinitionId"].rpartition("/")[2]) == (scope, principal, role):
                raise Refused(409, "RoleAssignmentExists", f"The role assignment already exists. The ID of the existing role assignment is {item['name']}.")
        return wish

    def _list(self, scope: str, query: dict[str, str], url: str) -> Any:
        """At, above and below the scope, one by one."""
        begin = int(query.pop("$skipToken", "0"))
        match = re.fullmatch(r"principalId eq '([0-9a-f-]{36})'", query.get("$filter", ""))
        if set(query) - {"$filter"} or (query and not match):
            raise Refused(400, "BadRequestFormat", f"The filter is not supported: {query}")
        related = [item for item in self.assignments if scope.startswith(item["properties"]["scope"]) or item["properties"]["scope"].startswith(scope)]
        found = [item for item in related if not match or item["properties"]["principalId"] == match[1]]
        answer: dict[str, Any] = {"value": found[begin : begin + 1]}
        if begin + 1 < len(found):
            rest = "&".join(f"{key}={quote(value)}" for key, value in {"api-version": VERSIONS["roleAssignments"], **query, "$skipToken": str(begin + 1)}.items())
            answer["nextLink"] = f"{url}{scope}{ASSIGNMENTS}?{rest}"
        return self.schema.answer("roleAssignmentList", answer)
