# SPDX-License-Identifier: GPL-3.0-or-later
"""A STAND-IN for VPC firewall rules of Google's API compute v1, after its discovery document, and for the services that give tokens."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import time
import uuid
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from . import google_dns, google_registry, google_storage
from .google_dns import Dns
from .google_registry import Repositories
from .google_storage import Storage
from .standin import TOKEN, Answer, Refused, StandIn

PROJECT, NETWORK = "example-project", "projects/example-project/global/networks/example-network"
EMAIL = "firewall@example-project.iam.gserviceaccount.com"
# Wherever the key file sends the claim.
AUDIENCE = "https://oauth2.googleapis.com/token"
SCOPE = "https://www.googleapis.com/auth/compute"
SCOPES = (SCOPE, google_storage.SCOPE, google_dns.SCOPE, google_registry.SCOPE)
STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ALREADY_EXISTS", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}


class Google(StandIn):
    """Firewall rules of one project.

    Beside the schema, from the vendor's pages: one address family in a rule, either allowed or denied, ports for tcp, udp and sctp only, no tags
    beside service accounts, network and direction for good. A change takes effect when its operation is done, which the second question tells.
    """

    def __init__(self) -> None:
        super().__init__("google")
        self.rules: dict[str, dict[str, Any]] = {}
        self.operations: dict[str, tuple[dict[str, Any], Any]] = {}
        self.requests: dict[str, str] = {}
        self.page = 3
        self.storage = Storage(self.schema, PROJECT)
        self.dns = Dns(self.schema, PROJECT)
        self.repositories = Repositories(self.schema, PROJECT)
        self.subnets = {"nodes": False, "clients": True}
        """Subnetworks of us-central1, and whether they have private Google access."""
        self.scopes = {TOKEN: google_registry.SCOPE}
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    # --- tokens ---------------------------------------------------------------------------------------------------------

    @property
    def key_file(self) -> dict[str, str]:
        pem = self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
        return {
            "type": "service_account", "project_id": PROJECT, "private_key_id": "1", "client_id": "1",
            "client_email": EMAIL, "private_key": pem, "token_uri": f"{self.url}/token",
        }  # fmt: skip

    def public(self, method: str, path: str, text: bytes, headers: Message[str, str]) -> Answer | None:
        if (method, path) == ("POST", "/token"):
            return self._trade(dict(parse_qsl(text.decode())))
        if urlsplit(path).path.startswith("/computeMetadata/v1/") or path == "/":
            if headers.get("Metadata-Flavor") != "Google":
                return 403, {"error": "the header Metadata-Flavor is missing"}, {}
            kind = {"Metadata-Flavor": "Google"}
            if "/token" in path:
                return 200, {"access_token": self._new(dict(parse_qsl(urlsplit(path).query)).get("scopes", SCOPE)), "expires_in": 3600, "token_type": "Bearer"}, kind
            return 200, {"email": EMAIL, "scopes": [SCOPE], "aliases": ["default"]} if "recursive" in path else PROJECT, kind
        return None

    def _trade(self, form: dict[str, str]) -> Answer:
        head, _dot, signature = form.get("assertion", "").rpartition(".")
        try:
            self.key.public_key().verify(_unb64(signature), head.encode(), padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(_unb64(head.split(".")[1]))
        except Exception:
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, {}
        fits = claims["iss"] == EMAIL and claims["aud"] == AUDIENCE and claims["scope"] in SCOPES and abs(claims["iat"] - time.time()) < 300
        if not fits or form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return 400, {"error": "invalid_grant", "error_description": "Invalid grant: account not found"}, {}
        return 200, {"access_token": self._new(claims["scope"]), "expires_in": 3600, "token_type": "Bearer"}, {}

    def _new(self, scope: str) -> str:
        token = f"ya29.{uuid.uuid4()}"
        self.tokens.add(token)
        self.scopes[token] = scope
        return token

    def allowed(self, path: str, token: str) -> bool:
        prefixes: dict[str | tuple[str, ...], str] = {google_storage.PREFIXES: google_storage.SCOPE, google_dns.PREFIX: google_dns.SCOPE, google_registry.PREFIX: google_registry.SCOPE}
        wanted = next((scope for prefix, scope in prefixes.items() if path.startswith(prefix)), SCOPE)
        return self.scopes.get(token, "") in (wanted, google_registry.SCOPE)

    def parsed(self, path: str, text: bytes, headers: Message[str, str]) -> Any:
        return self.storage.parsed(text, headers.get("Content-Type", "")) if path.startswith("/upload/") else super().parsed(path, text, headers)

    # --- firewall rules -------------------------------------------------------------------------------------------------

    def refusal(self, refused: Refused) -> Any:
        reasons = {401: "authError", 403: "forbidden", 404: "notFound", 409: "alreadyExists", 429: "rateLimitExceeded", 503: "backendError"}
        reason = refused.code if refused.code[:1].islower() and refused.code.isalpha() else reasons.get(refused.status, "invalid")
        errors = [{"message": refused.message, "domain": "global", "reason": reason}]
        return {"error": {"code": refused.status, "message": refused.message, "errors": errors, "status": STATUS.get(refused.status, "UNKNOWN")}}

    def serve(self, method: str, path: str, query: dict[str, str], body: Any, headers: Message[str, str]) -> Answer:
        if path.startswith(google_storage.PREFIXES):
            return self.storage.serve(method, path, query, body)
        if path.startswith(google_dns.PREFIX):
            return self.dns.serve(method, path, query, body)
        if path.startswith(google_registry.PREFIX):
            return self.repositories.serve(method, path, query, body)
        subnet = re.fullmatch(rf"/compute/v1/projects/{PROJECT}/regions/us-central1/(subnetworks|operations)/([a-z0-9-]+)(/\w+)?", path)
        if subnet:
            return self._subnet(method, subnet[1], subnet[2], subnet[3], query, body)
        match = re.fullmatch(rf"/compute/v1/projects/{PROJECT}/global/(firewalls|operations)(?:/([a-z0-9-]+))?(/wait)?", path)
        if not match:
            raise Refused(404, "notFound", f"{path} is not there")
        kind, name, wait = match.groups()
        if kind == "operations" and name in self.operations and method == ("POST" if wait else "GET"):
            return 200, self._operation(name), {}
        if (kind, method, name) == ("firewalls", "GET", None):
            return 200, self._list(query), {}
        request = query.pop("requestId", "")
        if not re.fullmatch(r"[0-9a-f-]{36}", request) or query:
            raise Refused(400, "invalid", f"unknown parameters, or no request id: {query}")
        if request in self.requests:
            return 200, self.operations[self.requests[request]][0], {}
        if (kind, method, name) == ("firewalls", "POST", None):
            rule = self._rule(body)
            if rule["name"] in self.rules:
                raise Refused(409, "alreadyExists", f"The resource 'projects/{PROJECT}/global/firewalls/{rule['name']}' already exists")
            return 200, self._start(request, "insert", rule["name"], rule), {}
        if kind == "firewalls" and name not in self.rules:
            raise Refused(404, "notFound", f"The resource 'projects/{PROJECT}/global/firewalls/{name}' was not found")
        if (kind, method) == ("firewalls", "PUT"):
            rule, old = self._rule(body), self.rules[name]
            if any(rule[field] != old[field] for field in ("name", "network", "direction")):
                raise Refused(400, "invalid", "name, network and direction cannot be changed")
            return 200, self._start(request, "update", name, {**rule, "id": old["id"], "creationTimestamp": old["creationTimestamp"]}), {}
        if (kind, method) == ("firewalls", "DELETE"):
            return 200, self._start(request, "delete", name, None), {}
        raise Refused(404, "notFound", f"{method} {path} is not there")

    def _subnet(self, method: str, kind: str, name: str, action: str | None, query: dict[str, str], body: Any) -> Answer:
        if (kind, action, method) == ("operations", "/wait", "POST") and name in self.operations:
            operation, (subnet, wish) = self.operations[name]
            if operation["status"] == "RUNNING":
                operation.update(status="DONE", progress=100)
                if self.fail_operation:
                    operation.update(httpErrorStatusCode=403, httpErrorMessage="FORBIDDEN", error={"errors": [{"code": self.fail_operation, "message": "no"}]})
                else:
                    self.subnets[subnet] = wish
            operation.update(status="RUNNING") if operation["status"] == "PENDING" else None
            return 200, self.schema.answer("operation", operation), {}
        if kind != "subnetworks" or name not in self.subnets:
            raise Refused(404, "notFound", f"The resource 'projects/{PROJECT}/regions/us-central1/subnetworks/{name}' was not found")
        if (action, method) == (None, "GET"):
            answer = {"kind": "compute#subnetwork", "id": "1", "name": name, "ipCidrRange": "10.20.0.0/16", "privateIpGoogleAccess": self.subnets[name]}
            return 200, self.schema.answer("subnetwork", answer), {}
        if (action, method) != ("/setPrivateIpGoogleAccess", "POST") or list(query) != ["requestId"]:
            raise Refused(404, "notFound", f"{method} {action} is not there")
        self.sent("privateAccess", body)
        return 200, self._start(query["requestId"], "setPrivateIpGoogleAccess", name, body["privateIpGoogleAccess"]), {}

    def _list(self, query: dict[str, str]) -> Any:
        if set(query) - {"maxResults", "pageToken"} or not 0 <= int(query.get("maxResults", "500")) <= 500:
            raise Refused(400, "invalid", f"unknown parameters {query}")
        begin = int(query.get("pageToken", "0"))
        names = sorted(self.rules)
        answer: dict[str, Any] = {"kind": "compute#firewallList", "id": f"projects/{PROJECT}/global/firewalls", "selfLink": f"{self.url}/compute/v1"}
        if names:
            answer["items"] = [self.rules[name] for name in names[begin : begin + self.page]]
        if begin + self.page < len(names):
            answer["nextPageToken"] = str(begin + self.page)
        return self.schema.answer("firewallList", answer)

    def rule(self, body: dict[str, Any]) -> None:
        """A rule that somebody else made."""
        self.rules[body["name"]] = self._rule(body)

    def _rule(self, body: Any) -> dict[str, Any]:
        self.sent("firewall", body)
        network = re.sub(r"^https://www\.googleapis\.com/compute/v1/", "", body.get("network", f"projects/{PROJECT}/global/networks/default"))
        if not re.fullmatch(rf"projects/{PROJECT}/global/networks/[a-z-]+", network):
            raise Refused(400, "invalid", f"Invalid value for field 'resource.network': '{network}'")
        families = set()
        for text in (*body.get("sourceRanges", []), *body.get("destinationRanges", [])):
            try:
                families.add(ipaddress.ip_network(text).version)
            except ValueError as error:
                raise Refused(400, "invalid", f"Invalid value for field 'resource.sourceRanges': '{text}'") from error
        parts = (*body.get("allowed", []), *body.get("denied", []))
        if len(families) > 1 or bool(body.get("allowed")) == bool(body.get("denied")):
            raise Refused(400, "invalid", "one address family, and either allowed or denied")
        if any(part.get("ports") and part["IPProtocol"] not in ("tcp", "udp", "sctp") for part in parts):
            raise Refused(400, "invalid", "ports are for tcp, udp and sctp")
        if any(body.get(name) for name in ("sourceServiceAccounts", "targetServiceAccounts")) and any(body.get(name) for name in ("sourceTags", "targetTags")):
            raise Refused(400, "invalid", "tags and service accounts cannot be used together")
        ends = any(body.get(name) for name in ("sourceRanges", "sourceTags", "sourceServiceAccounts"))
        return {
            "kind": "compute#firewall", "id": str(uuid.uuid4().int % 10**18), "creationTimestamp": "2026-05-23T21:24:00.000-07:00", "priority": 1000,
            "direction": "INGRESS", "disabled": False, "logConfig": {"enable": False}, "description": "", **({} if ends else {"sourceRanges": ["0.0.0.0/0"]}),
            **body, "network": f"https://www.googleapis.com/compute/v1/{network}",
            "selfLink": f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/global/firewalls/{body['name']}",
        }  # fmt: skip

    def _start(self, request: str, kind: str, name: str, rule: Any) -> Any:
        operation = {
            "kind": "compute#operation", "id": str(uuid.uuid4().int % 10**18), "name": f"operation-{uuid.uuid4().hex}", "operationType": kind,
            "targetLink": f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/global/firewalls/{name}", "status": "PENDING", "progress": 0,
        }  # fmt: skip
        self.operations[str(operation["name"])] = (operation, (name, rule))
        self.requests[request] = str(operation["name"])
        return self.schema.answer("operation", operation)

    def _operation(self, name: str) -> Any:
        operation, (rule_name, rule) = self.operations[name]
        if operation["status"] == "RUNNING":
            operation.update(status="DONE", progress=100)
            if self.fail_operation:
                error = {"code": self.fail_operation, "message": "Quota 'FIREWALLS' exceeded.  Limit: 100.0 globally."}
                operation.update(httpErrorStatusCode=403, httpErrorMessage="FORBIDDEN", error={"errors": [error]})
            elif rule is None:
                self.rules.pop(rule_name)
            else:
                self.rules[rule_name] = rule
        elif operation["status"] == "PENDING":
            operation.update(status="RUNNING")
        return self.schema.answer("operation", operation)


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
