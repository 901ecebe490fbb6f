# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""A repository creation template of ECR, by boto3: without one, ECR takes images only into repositories that somebody made before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .cloud import CloudError, aws_api
from .cloud.aws import AwsSession

VARIABLE = "circleci_cloud_registry_create_on_push"
HOST = re.compile(r"(?P<account>\d{12})\.dkr\.ecr\.(?P<place>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
HOST_FORM = "<account>.dkr.ecr.<region>.amazonaws.com"
ON_PUSH = "CREATE_ON_PUSH"
WHOLE_REGISTRY = "ROOT"
"""The prefix that stands for all repositories without a template of their own."""


def _parts(host: str) -> re.Match[str]:
    match = HOST.fullmatch(host)
    if match is None:
        raise CloudError(f"circleci_registry_host: found {host!r}; allowed with {VARIABLE} is {HOST_FORM}")
    return match


def ecr_api(host: str, own: str = "") -> str:
    """Where templates of a registry are set: *own*, if the site has another address for it, else that of its region."""
    return own.rstrip("/") or aws_api("api.ecr", _parts(host)["place"])


class CreationTemplate:
    """One for all images below a path. A template that is there is never changed: it has an owner, and other settings."""

    def __init__(self, site: str, host: str, path: str, endpoint: str = "") -> None:
        parts = _parts(host)
        self.site, self.host, self.account, self.prefix = site, host, parts["account"], path or WHOLE_REGISTRY
        self.session = AwsSession(parts["place"])
        self.client: Any = self.session.client("ecr", ecr_api(host, endpoint))
        self.notes: list[str] = []

    def read(self) -> tuple[list[str], list[str]]:
        templates: list[dict[str, Any]] = []
        account = ""
        with self.session.told():
            for page in self.client.get_paginator("describe_repository_creation_templates").paginate():
                account = str(page.get("registryId") or account)
                templates += page["repositoryCreationTemplates"]
        if account and account != self.account:
            raise CloudError(f"circleci_registry_host: {self.host} is of the account {self.account}, the credentials are of {account}; use those of the former")
        found = next((item for item in templates if str(item["prefix"]).rstrip("/") == self.prefix), None)
        line = f"{self.host} makes repositories {'of any name' if self.prefix == WHOLE_REGISTRY else f'below {self.prefix}'} on push"
        if found is None:
            return [], [line]
        if ON_PUSH not in found.get("appliedFor", ()):
            uses = [*found.get("appliedFor", ()), ON_PUSH]
            raise CloudError(
                f"{VARIABLE}: the template for {self.prefix} is there and is not for pushes ({', '.join(uses[:-1])}). Its owner can let it be, too: "
                f"aws ecr update-repository-creation-template --prefix {self.prefix} --applied-for {' '.join(uses)}; or set another circleci_registry_path"
            )
        if str(found.get("imageTagMutability") or "").startswith("IMMUTABLE"):
            self.notes.append(f"the template for {self.prefix} makes repositories whose tags cannot be moved: a tag that the vendor pushed anew is refused")
        return [line], [line]

    def apply(self) -> Iterator[str]:
        with self.session.told():
            self.client.create_repository_creation_template(
                prefix=self.prefix, description=f"Images of CircleCI Server, site {self.site}", appliedFor=[ON_PUSH], imageTagMutability="MUTABLE"
            )
        yield f"template for {self.prefix}"
