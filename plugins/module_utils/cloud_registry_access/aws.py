# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""A policy of AWS attached to the IAM roles of the nodes, by boto3."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..cloud import CloudError, part_region
from ..cloud.aws import AwsSession
from .model import NODES, Grant, Rights, wrong_nodes

NODE = re.compile(r"[\w+=,.@-]{1,64}", re.ASCII)
NODE_FORM = "names of the IAM roles of node groups, such as example-nodes"
REGISTRY_FORM = "nothing: the policy holds for all registries of the account"


class NodeRoles(Rights):
    """A policy of AWS is known by its name; what an inline policy or one of the customer lets do is not looked into."""

    def __init__(self, region: str, host: str, nodes: Sequence[str], grant: Grant, endpoint: str = "") -> None:
        super().__init__(host, nodes)
        problems = [*wrong_nodes(nodes, NODE, NODE_FORM)]
        if problems:
            raise CloudError(*problems)
        self.session = AwsSession(part_region("registry", region))
        self.client: Any = self.session.client("iam", endpoint)
        self.grant = grant
        self.partitions: dict[str, str] = {}
        self.notes: list[str] = []

    def read(self) -> tuple[list[str], list[str]]:
        problems = []
        for name in self.nodes:
            with self.session.told():
                try:
                    arn = str(self.client.get_role(RoleName=name)["Role"]["Arn"])
                except self.client.exceptions.NoSuchEntityException:
                    problems.append(f"{NODES}: there is no role {name!r} in the account; give the name of the role that the instances of the node group have")
                    continue
                pages = self.client.get_paginator("list_attached_role_policies").paginate(RoleName=name)
                attached = {str(item["PolicyArn"]) for page in pages for item in page["AttachedPolicies"]}
            _arn, self.partitions[name], _iam, _region, account, _role = arn.split(":", 5)
            by = sorted(policy for policy in self.grant.enough if self._arn(name, policy) in attached)
            if by:
                self.found[name] = by[0]
            self.wanted[name] = self.grant.id
            owner = self.host.partition(".")[0]
            if owner != account:
                self.notes.append(f"{self.host} is of the account {owner} and the role {name} of {account}: the policy of each repository there has to let "
                                  "that account pull, too")  # fmt: skip
        return self.lines(problems)

    def apply(self) -> Iterator[str]:
        for name in self.missing:
            with self.session.told():
                self.client.attach_role_policy(RoleName=name, PolicyArn=self._arn(name, self.grant.id))
            yield f"policy of {name}"

    def _arn(self, node: str, policy: str) -> str:
        return f"arn:{self.partitions[node]}:iam::aws:policy/{policy}"
