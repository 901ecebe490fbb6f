# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""A role of a repository of Artifact Registry bound to the service accounts of nodes, by its REST API v1."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..cloud import CloudError, endpoints
from ..cloud.google import google_api, google_token
from .model import REGISTRY, Grant, Rights, wrong_nodes

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
REPOSITORY = re.compile(r"projects/(?P<project>[a-z0-9.:-]+)/locations/(?P<place>[a-z0-9-]+)/repositories/(?P<name>[a-z0-9-]+)")
REGISTRY_FORM = "projects/<project>/locations/<place>/repositories/<name>"
NODE = re.compile(r"[a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com")
NODE_FORM = "service accounts of node pools, such as nodes@example-project.iam.gserviceaccount.com"
EVERYBODY = frozenset(("allUsers", "allAuthenticatedUsers"))


def wrong_registry(registry: str, host: str) -> list[str]:
    """What is wrong with the name of a repository whose address is to be *host*."""
    match = REPOSITORY.fullmatch(registry)
    if match is None:
        return [f"{REGISTRY}: found {registry!r}; allowed is {REGISTRY_FORM}"]
    if f"{match['place']}-docker.pkg.dev" != host:
        return [f"{REGISTRY}: found {registry!r}, whose address is {match['place']}-docker.pkg.dev, and circleci_registry_host is {host}; name the repository "
                "of that place"]  # fmt: skip
    return []


def wrong_path(registry: str, path: str) -> list[str]:
    """Whether images lie in another repository than the one whose policy is changed."""
    match = REPOSITORY.fullmatch(registry)
    # The project example.com:name is written example.com/name in the names of images.
    below = f"{match['project'].replace(':', '/')}/{match['name']}" if match else ""
    if f"{path}/".startswith(f"{below}/"):
        return []
    return [f"circleci_registry_path: found {path!r}, and {REGISTRY} is {registry}, whose images lie below {below}; name one repository in both"]


class NodeAccounts(Rights):
    """The policy is read with its etag and given back whole, so that nothing of others is lost, and nothing that came in between."""

    def __init__(self, registry: str, host: str, nodes: Sequence[str], grant: Grant, token: str, endpoint: str) -> None:
        super().__init__(host, nodes)
        problems = [*wrong_registry(registry, host), *wrong_nodes(nodes, NODE, NODE_FORM)]
        if problems:
            raise CloudError(*problems)
        self.rest = google_api(endpoint, google_token(token, SCOPE, endpoints("gcp", "", endpoint)))
        self.path, self.grant = f"/v1/{registry}", grant
        self.policy: dict[str, Any] = {}

    def read(self) -> tuple[list[str], list[str]]:
        # Version 3 is the one that has conditions; a policy without them comes as it is.
        answer = self.rest.call("GET", f"{self.path}:getIamPolicy?options.requestedPolicyVersion=3", absent=True)
        if answer.status == 404:
            raise CloudError(f"{REGISTRY}: {self.path.removeprefix('/v1/')} is not there; make the repository, or name another one")
        self.policy = answer.data
        for name in self.nodes:
            member = f"serviceAccount:{name}"
            for binding in self.policy.get("bindings") or []:
                held = binding.get("role") in self.grant.enough and not binding.get("condition")
                if held and (EVERYBODY | {member}) & set(binding.get("members") or []):
                    self.found[name] = str(binding["role"])
                    break
            self.wanted[name] = self.grant.id
        return self.lines([])

    def apply(self) -> Iterator[str]:
        members = [f"serviceAccount:{name}" for name in self.missing]
        bindings = [dict(binding) for binding in self.policy.get("bindings") or []]
        ours = next((binding for binding in bindings if binding.get("role") == self.grant.id and not binding.get("condition")), None)
        if ours is None:
            bindings.append({"role": self.grant.id, "members": members})
        else:
            ours["members"] = [*(ours.get("members") or []), *members]
        self.rest.call("POST", f"{self.path}:setIamPolicy", {"policy": {**self.policy, "bindings": bindings}})
        yield from self.missing
