# SPDX-License-Identifier: GPL-3.0-or-later
"""A STAND-IN for network security groups of Azure Resource Manager, after the vendor's OpenAPI document, and for the services that give tokens."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from . import azure_storage
from .azure_dns import Dns
from .azure_private import Private
from .azure_registry import Registries
from .azure_storage import Storage
from .standin import Answer, Refused, StandIn

SUBSCRIPTION, RESOURCES = "00000000-0000-0000-0000-000000000000", "example-circleci"
NETWORK = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCES}"
GROUPS = f"{NETWORK}/providers/Microsoft.Network/networkSecurityGroups"
OPERATIONS = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Network/locations/westeurope/operations"
API_VERSION = "2023-09-01"
SERVICE_TAGS = ("*", "VirtualNetwork", "AzureLoadBalancer", "Internet")
TENANT, CLIENT, SECRET = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222", "canary of the client secret"
AUDIENCE = "https://management.azure.com"
CODES = {400: "InvalidRequestFormat", 401: "InvalidAuthenticationToken", 403: "AuthorizationFailed", 404: "ResourceNotFound", 429: "TooManyRequests"}


class Azure(StandIn):
    """Network security groups of one resource group.

    Beside the schema, from the vendor's pages: priorities from 100 to 4096, each once in a direction; names of 80 characters; one operation at a
    time. A change takes effect when its operation has succeeded, which the second question tells.
    """

    def __init__(self) -> None:
        super().__init__("azure")
        self.groups: dict[str, dict[str, Any]] = {}
        self.operations: dict[str, Any] = {}
        self.storage = Storage(self.schema, NETWORK)
        self.dns = Dns(self.schema, NETWORK)
        self.private = Private(self.schema, NETWORK, self.storage.accounts)
        self.registries = Registries(self.schema, NETWORK)
        self.page = 1
        self.tells = "monitor"
        """Where an operation can be watched: C(monitor), or C(resource) and, once that is gone, its location."""
        self.identity_header = "canary of the identity header"

    # --- tokens ---------------------------------------------------------------------------------------------------------

    def public(self, method: str, path: str, text: bytes, headers: Message[str, str]) -> Answer | None:
        parts, query = urlsplit(path), dict(parse_qsl(urlsplit(path).query))
        if parts.path == "/msi/token":
            if headers.get("X-IDENTITY-HEADER") != self.identity_header or query.get("resource") != AUDIENCE:
                return 400, {"statusCode": 400, "message": "No managed identity"}, {}
            return 200, {"access_token": self._new(), "expires_on": "4102444800", "resource": AUDIENCE, "token_type": "Bearer"}, {}
        tenant = f"https://{headers.get('Host')}/{TENANT}"
        if parts.path == f"/{TENANT}/v2.0/.well-known/openid-configuration":
            return 200, {"issuer": f"{tenant}/v2.0", "authorization_endpoint": f"{tenant}/oauth2/v2.0/authorize", "token_endpoint": f"{tenant}/oauth2/v2.0/token"}, {}
        if (method, parts.path) == ("POST", f"/{TENANT}/oauth2/v2.0/token"):
            form = dict(parse_qsl(text.decode()))
            wanted = {"client_id": CLIENT, "client_secret": SECRET, "grant_type": "client_credentials", "scope": f"{AUDIENCE}/.default"}
            if {name: form.get(name) for name in wanted} != wanted:
                return 401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}, {}
            return 200, {"access_token": self._new(), "expires_in": 3599, "token_type": "Bearer"}, {}
        return None

    def _new(self) -> str:
        token = f"eyJ.{uuid.uuid4()}"
        self.tokens.add(token)
        return token

    # --- groups ---------------------------------------------------------------------------------------------------------

    def refusal(self, refused: Refused) -> Any:
        code = refused.code if refused.code[:1].isupper() else CODES.get(refused.status, "InternalServerError")
        return self.schema.answer("cloudError", {"error": {"code": code, "message": refused.message, "details": []}})

    def serve(self, method: str, path: str, query: dict[str, str], body: Any, headers: Message[str, str]) -> Answer:
        version = query.pop("api-version", "")
        if "/providers/Microsoft.Storage/" in path and version == azure_storage.API_VERSION:
            answer = self.storage.serve(method, path, query, body, self.url)
            if answer:
                return answer
        answer = self.registries.serve(method, path, query, version, body, self.url) or self.private.serve(method, path, version, body)
        answer = answer or self.dns.serve(method, path, query, version, body, headers, self.url)
        if answer:
            return answer
        if version != API_VERSION or "/providers/Microsoft.Network/" not in path:
            raise Refused(400, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests.")
        if path.startswith(f"{OPERATIONS}/"):
            return self._operation(path.rpartition("/")[2])
        match = re.fullmatch(re.escape(GROUPS) + r"(?:/([\w.-]{1,80})(?:/securityRules/([\w.-]{1,80}))?)?", path)
        if not match:
            raise Refused(404, "ResourceGroupNotFound", f"Resource group of {path} could not be found.")
        name, rule = match.groups()
        if (method, name) == ("GET", None):
            return 200, self._list(query), {}
        if method == "GET" and name in self.groups:
            return 200, self._get(path, name, rule), {"Retry-After": "0"}
        if any(not operation["ended"] for operation in self.operations.values()):
            raise Refused(409, "AnotherOperationInProgress", "Another operation on this or dependent resource is in progress.")
        if method == "PUT" and not rule:
            group = self._group(name, self.sent("group", body))
            return self._start(path, 201 if name not in self.groups else 200, group, lambda: self.groups.__setitem__(name, group))
        if name in self.groups and rule:
            rules = self.groups[name]["properties"]["securityRules"]
            others = [item for item in rules if item["name"] != rule]
            if method == "PUT":
                new = self._rule(name, self.sent("rule", {**body, "name": rule}), others)
                return self._start(path, 200 if len(others) < len(rules) else 201, new, lambda: rules.__setitem__(slice(None), [*others, new]))
            if method == "DELETE":
                return self._start(path, 202, None, lambda: rules.__setitem__(slice(None), others))
        raise Refused(404, "ResourceNotFound", f"The Resource '{path}' was not found.")

    def group(self, name: str, **properties: Any) -> dict[str, Any]:
        """A group that somebody else made."""
        self.groups[name] = self._group(name, {"location": "westeurope", "properties": properties})
        return self.groups[name]

    def foreign(self, group: str, name: str, **properties: Any) -> dict[str, Any]:
        """A rule that somebody else made in a group of ours."""
        rules = self.groups[group]["properties"]["securityRules"]
        rule = self._rule(group, {"name": name, "properties": properties}, rules)
        rules.append(rule)
        return rule

    def _list(self, query: dict[str, str]) -> Any:
        begin, names = int(query.get("$skiptoken", "0")), sorted(self.groups)
        answer: dict[str, Any] = {"value": [self.groups[name] for name in names[begin : begin + self.page]]}
        if begin + self.page < len(names):
            answer["nextLink"] = f"{self.url}{GROUPS}?api-version={API_VERSION}&$skiptoken={begin + self.page}"
        return self.schema.answer("groupList", answer)

    def _group(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if not body.get("location"):
            raise Refused(400, "LocationRequired", "The location property is required for this definition.")
        rules: list[dict[str, Any]] = []
        for rule in body.get("properties", {}).get("securityRules", []):
            rules.append(self._rule(name, rule, rules))
        return {
            "id": f"{GROUPS}/{name}", "name": name, "type": "Microsoft.Network/networkSecurityGroups", "etag": f'W/"{uuid.uuid4()}"',
            "location": body["location"], "tags": body.get("tags", {}),
            "properties": {"provisioningState": "Succeeded", "resourceGuid": str(uuid.uuid4()), "securityRules": rules, "defaultSecurityRules": []},
        }  # fmt: skip

    def _rule(self, group: str, body: dict[str, Any], others: list[dict[str, Any]]) -> dict[str, Any]:
        wish = body["properties"]
        if not 100 <= wish["priority"] <= 4096:
            raise Refused(400, "SecurityRuleInvalidPriority", f"Security rule has invalid priority {wish['priority']}. Allowed: 100 to 4096.")
        for other in others:
            if (other["properties"]["priority"], other["properties"]["direction"]) == (wish["priority"], wish["direction"]):
                raise Refused(400, "SecurityRuleConflict", f"Security rule {body['name']} conflicts with rule {other['name']}. Rules cannot have the same Priority and Direction.")
        for side in ("source", "destination"):
            one, many = wish.get(f"{side}AddressPrefix"), wish.get(f"{side}AddressPrefixes", [])
            if bool(one) == bool(many):
                raise Refused(400, "SecurityRuleInvalidAddressPrefix", f"{body['name']}: either {side}AddressPrefix or {side}AddressPrefixes")
            for text in many or ([] if one in SERVICE_TAGS else [one]):
                try:
                    ipaddress.ip_network(text)
                except ValueError as error:
                    raise Refused(400, "SecurityRuleInvalidAddressPrefix", f"{body['name']}: invalid address prefix {text}") from error
            port, ports = wish.get(f"{side}PortRange"), wish.get(f"{side}PortRanges", [])
            if bool(port) == bool(ports) or any(not re.fullmatch(r"\*|\d{1,5}(-\d{1,5})?", text) for text in ports or [port]):
                raise Refused(400, "SecurityRuleInvalidPortRange", f"{body['name']}: invalid {side} ports")
        lists: dict[str, list[str]] = {f"{side}{kind}": [] for side in ("source", "destination") for kind in ("AddressPrefixes", "PortRanges")}
        return {
            "id": f"{GROUPS}/{group}/securityRules/{body['name']}", "name": body["name"], "type": "Microsoft.Network/networkSecurityGroups/securityRules",
            "etag": f'W/"{uuid.uuid4()}"', "properties": {"provisioningState": "Succeeded", **lists, **wish},
        }  # fmt: skip

    # --- operations -----------------------------------------------------------------------------------------------------

    def _start(self, path: str, status: int, resource: Any, effect: Callable[[], Any]) -> Answer:
        name = str(uuid.uuid4())
        self.operations[name] = {"path": path, "asked": 0, "ended": "", "effect": effect}
        where = f"{self.url}{OPERATIONS}/{name}?api-version={API_VERSION}"
        headers = {"Retry-After": "0", **({"Azure-AsyncOperation": where} if self.tells == "monitor" else {})}
        if resource is None:
            return status, None, {**headers, "Location": where}
        if self.tells == "resource":
            # Seen at once, and not yet in force.
            effect()
        kind = "group" if "location" in resource else "rule"
        pending = {**resource, "properties": {**resource["properties"], "provisioningState": "Updating"}}
        return status, self.schema.answer(kind, pending), headers

    def _get(self, path: str, name: str, rule: str) -> Any:
        found = self.groups[name]
        if rule:
            (found,) = [item for item in found["properties"]["securityRules"] if item["name"] == rule]
        states = [self._state(operation) for operation in self.operations.values() if operation["path"] == path and not operation["ended"]]
        state = {"InProgress": "Updating"}.get(states[0], states[0]) if states else "Succeeded"
        return self.schema.answer("rule" if rule else "group", {**found, "properties": {**found["properties"], "provisioningState": state}})

    def _state(self, operation: dict[str, Any]) -> str:
        """Moves on when it is asked for."""
        operation["asked"] += 1
        if operation["asked"] == 1:
            return "InProgress"
        if not operation["ended"]:
            operation["ended"] = "Failed" if self.fail_operation else "Succeeded"
            if not self.fail_operation:
                operation["effect"]()
        return str(operation["ended"])

    def _operation(self, name: str) -> Answer:
        if name not in self.operations:
            raise Refused(404, "ResourceNotFound", "The operation was not found.")
        state = self._state(self.operations[name])
        if self.tells == "resource":
            # The form of Location: nothing until it is over, then as the request itself would have answered.
            if state == "Failed":
                raise Refused(400, self.fail_operation, "The maximum number of rules is reached.")
            return (202 if state == "InProgress" else 204), None, {"Retry-After": "0"}
        failed = {"error": {"code": self.fail_operation, "message": "The maximum number of rules is reached."}} if state == "Failed" else {}
        return 200, self.schema.answer("asyncOperation", {"status": state, **failed}), {"Retry-After": "0"}
