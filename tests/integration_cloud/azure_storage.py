# SPDX-License-Identifier: GPL-3.0-or-later
"""A STAND-IN for storage accounts and their containers of Azure Resource Manager, after the vendor's OpenAPI document."""

from __future__ import annotations

import re
import uuid
from typing import Any

from .standin import Answer, Refused, Schema

API_VERSION = "2023-01-01"
LOCATIONS = ("westeurope", "northeurope", "eastus")


class Storage:
    """Accounts of one resource group, and names of accounts that others have.

    Beside the schema, from the vendor's pages: rules for names, one account of a name in all of Azure, containers that cannot be open where the account
    forbids it, and an account that is made later.
    """

    def __init__(self, schema: Schema, group: str) -> None:
        self.schema = schema
        self.subscription = group.partition("/resourceGroups/")[0]
        self.root = f"{group}/providers/Microsoft.Storage/storageAccounts"
        self.operations_path = f"{self.subscription}/providers/Microsoft.Storage/locations/westeurope/asyncoperations"
        self.accounts: dict[str, dict[str, Any]] = {}
        self.containers: dict[tuple[str, str], dict[str, Any]] = {}
        self.pending: dict[str, tuple[int, str, dict[str, Any]]] = {}
        self.taken: set[str] = set()
        """Names that others have."""
        self.forbidden = ""
        """What a policy of the subscription says instead of making an account."""

    def account(self, name: str, **more: Any) -> dict[str, Any]:
        """An account that somebody made."""
        properties = {"provisioningState": "Succeeded", "creationTime": "2026-05-24T13:25:33.4863236Z", "primaryLocation": "westeurope", "statusOfPrimary": "available",
                      "primaryEndpoints": {"blob": f"https://{name}.blob.core.windows.net/"}, **more.pop("properties", {})}  # fmt: skip
        base = {"id": f"{self.root}/{name}", "name": name, "type": "Microsoft.Storage/storageAccounts", "location": "westeurope", "kind": "StorageV2",
                "sku": {"name": "Standard_LRS", "tier": "Standard"}, "tags": {}}  # fmt: skip
        self.accounts[name] = {**base, **more, "properties": properties}
        return self.accounts[name]

    def container(self, account: str, name: str, **properties: Any) -> dict[str, Any]:
        """A container that somebody made."""
        where = f"{self.root}/{account}/blobServices/default/containers/{name}"
        self.containers[account, name] = {
            "id": where, "name": name, "type": "Microsoft.Storage/storageAccounts/blobServices/containers", "etag": f'"{uuid.uuid4()}"',
            "properties": {"publicAccess": "None", "hasImmutabilityPolicy": False, "hasLegalHold": False, **properties},
        }  # fmt: skip
        return self.containers[account, name]

    def serve(self, method: str, path: str, query: dict[str, str], body: Any, url: str) -> Answer | None:
        """None for what is not of this service."""
        if (method, path) == ("POST", f"{self.subscription}/providers/Microsoft.Storage/checkNameAvailability"):
            return 200, self._available(self._sent("nameQuestion", body)), {}
        if path.startswith(f"{self.operations_path}/"):
            return self._operation(path.rpartition("/")[2])
        match = re.fullmatch(re.escape(self.root) + r"/([^/]+)(?:/blobServices/default/containers/([^/]+))?", path)
        if not match:
            return None
        account, container = match.groups()
        if container:
            return self._container(method, account, container, body)
        if method == "PUT":
            return self._make(account, self._sent("account", body), url)
        if account not in self.accounts:
            raise Refused(404, "ResourceNotFound", f"The Resource 'Microsoft.Storage/storageAccounts/{account}' was not found.")
        found = self.accounts[account]
        if method == "PATCH":
            change = self._sent("account", body)
            if set(change) - {"properties", "tags", "sku"}:
                raise Refused(400, "InvalidRequestPropertyName", f"{sorted(change)} cannot be changed")
            found["properties"].update(change.get("properties", {}))
            found.update({name: change[name] for name in ("tags",) if name in change})
        elif method != "GET":
            raise Refused(405, "MethodNotAllowed", "no such method")
        return 200, self.schema.answer("account", found), {}

    def _sent(self, definition: str, body: Any) -> Any:
        if wrong := self.schema.wrong(definition, body, sent=True):
            raise Refused(400, "InvalidRequestContent", "; ".join(wrong))
        return body

    def _available(self, question: dict[str, str]) -> Any:
        name = question["name"]
        if not re.fullmatch(r"[a-z0-9]{3,24}", name):
            text = f"{name} is not a valid storage account name. Storage account name must be between 3 and 24 characters in length and use numbers and lower-case letters only."
            return self.schema.answer("nameAnswer", {"nameAvailable": False, "reason": "AccountNameInvalid", "message": text})
        if name in self.taken | set(self.accounts):
            text = f"The storage account named {name} is already taken."
            return self.schema.answer("nameAnswer", {"nameAvailable": False, "reason": "AlreadyExists", "message": text})
        return self.schema.answer("nameAnswer", {"nameAvailable": True})

    def _make(self, name: str, body: dict[str, Any], url: str) -> Answer:
        if name in self.taken:
            raise Refused(409, "StorageAccountAlreadyTaken", f"The storage account named {name} is already taken.")
        if not re.fullmatch(r"[a-z0-9]{3,24}", name):
            raise Refused(400, "AccountNameInvalid", f"{name} is not a valid storage account name.")
        if self.forbidden:
            raise Refused(403, "RequestDisallowedByPolicy", self.forbidden)
        if missing := {"sku", "kind", "location"} - set(body):
            raise Refused(400, "InvalidRequestContent", f"{sorted(missing)} are needed")
        if body["location"] not in LOCATIONS:
            raise Refused(400, "LocationNotAvailableForResourceType", f"The provided location '{body['location']}' is not available for resource type 'Microsoft.Storage/storageAccounts'.")
        operation = str(uuid.uuid4())
        self.pending[operation] = 0, name, body
        where = f"{url}{self.operations_path}/{operation}?monitor=true&api-version={API_VERSION}"
        return 202, None, {"Location": where, "Retry-After": "0"}

    def _operation(self, operation: str) -> Answer:
        asked, name, body = self.pending[operation]
        self.pending[operation] = asked + 1, name, body
        if not asked:
            return 202, None, {"Retry-After": "0"}
        if name not in self.accounts:
            self.account(name, **{**body, "sku": {**body["sku"], "tier": "Standard"}})
        return 200, self.schema.answer("account", self.accounts[name]), {}

    def _container(self, method: str, account: str, name: str, body: Any) -> Answer:
        if account not in self.accounts:
            raise Refused(404, "ParentResourceNotFound", f"Failed to perform '{method}' on resource(s) of type 'storageAccounts/blobServices/containers', because the parent resource was not found.")
        found = self.containers.get((account, name))
        if method == "GET" and found:
            return 200, self.schema.answer("container", found), {}
        if method not in ("PUT", "PATCH") or (method == "PATCH" and not found):
            raise Refused(404, "ContainerNotFound", "The specified container does not exist.")
        if not re.fullmatch(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", name):
            raise Refused(400, "InvalidResourceName", "The specified resource name contains invalid characters.")
        wish = self._sent("container", body)["properties"]
        if wish.get("publicAccess", "None") != "None" and not self.accounts[account]["properties"].get("allowBlobPublicAccess", True):
            raise Refused(409, "PublicAccessNotPermitted", "Public access is not permitted on this storage account.")
        status = 200 if found else 201
        # What is not named of metadata is gone; the access stays.
        found = found or self.container(account, name)
        found["properties"].update(wish)
        return status, self.schema.answer("container", found), {}
