# SPDX-License-Identifier: GPL-3.0-or-later
"""A STAND-IN for the IAM policies of repositories of Artifact Registry, after the discovery document of artifactregistry v1."""

from __future__ import annotations

import copy
import re
import uuid
from typing import Any

from .standin import Answer, Refused, Schema

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
PREFIX = "/v1/projects/"
ROLES = tuple(f"roles/artifactregistry.{name}" for name in ("reader", "writer", "repoAdmin", "admin"))


class Repositories:
    """One repository.

    Beside the schema, from the vendor's pages on IAM: a policy whose etag is not the one that holds is refused; so are roles that a repository does not have, and
    service accounts that are not there. Who does not ask for version 3 gets conditions as a suffix of the role, and who does not give it cannot set them.
    """

    def __init__(self, schema: Schema, project: str, name: str = "circleci", place: str = "us-central1") -> None:
        self.schema = schema
        self.name = f"projects/{project}/locations/{place}/repositories/{name}"
        self.path = f"{project}/{name}"
        self.accounts = {f"{account}@{project}.iam.gserviceaccount.com" for account in ("nodes", "other-nodes")}
        self.policy: dict[str, Any] = {"etag": "ACAB"}
        """A repository that nobody gave a right to has no bindings."""
        self.meanwhile: list[dict[str, Any]] = []
        """Bindings that somebody else adds between the next reading and writing."""

    def bind(self, *bindings: dict[str, Any]) -> None:
        """What somebody else did."""
        conditions = any("condition" in binding for binding in bindings) or self.policy.get("version") == 3
        self.policy.update(version=3 if conditions else 1, etag=uuid.uuid4().hex, bindings=[*self.policy.get("bindings", []), *copy.deepcopy(bindings)])

    def serve(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        match = re.fullmatch(r"/v1/([\w./-]+):(getIamPolicy|setIamPolicy)", path)
        if not match or match[1] != self.name:
            raise Refused(404, "notFound", f"Requested entity was not found: {path}")
        if (method, match[2]) == ("GET", "getIamPolicy"):
            wanted = int(query.pop("options.requestedPolicyVersion", "1"))
            if query or wanted not in (1, 3):
                raise Refused(400, "invalid", f"unknown parameters {query}")
            answer = self.schema.answer("repositoryPolicy", self.policy if wanted == 3 else self._without_conditions())
            if self.meanwhile:
                self.bind(*self.meanwhile)
                self.meanwhile = []
            return 200, answer, {}
        if (method, match[2]) != ("POST", "setIamPolicy") or query:
            raise Refused(404, "notFound", f"{method} {path} is not there")
        if wrong := self.schema.wrong("setPolicy", body, sent=True):
            raise Refused(400, "invalid", "; ".join(wrong))
        self._set(body["policy"])
        return 200, self.schema.answer("repositoryPolicy", self.policy), {}

    def _set(self, wish: dict[str, Any]) -> None:
        if "etag" in wish and wish["etag"] != self.policy["etag"]:
            raise Refused(409, "aborted", "There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff.")
        bindings = wish.get("bindings", [])
        if any("condition" in binding for binding in bindings) and wish.get("version") != 3:
            raise Refused(400, "invalid", "Specifying a condition requires the version of the policy to be set to 3.")
        for binding in bindings:
            if binding["role"] not in ROLES:
                raise Refused(400, "invalid", f"Role {binding['role']} is not supported for this resource.")
            for member in binding["members"]:
                kind, _colon, account = member.partition(":")
                if kind not in ("serviceAccount", "user", "group", "allUsers", "allAuthenticatedUsers"):
                    raise Refused(400, "invalid", f"Invalid member: {member}")
                if kind == "serviceAccount" and account not in self.accounts:
                    raise Refused(400, "invalid", f"Service account {account} does not exist.")
        self.policy = {"version": wish.get("version", 1), "etag": uuid.uuid4().hex, "bindings": bindings}

    def _without_conditions(self) -> dict[str, Any]:
        bindings = [{"role": item["role"] + ("_withcond_1" if "condition" in item else ""), "members": item["members"]} for item in self.policy.get("bindings", [])]
        return {**self.policy, "version": 1, "bindings": bindings}
