# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""The gateway endpoint for S3 of a VPC, by boto3: routes to S3 in tables that the site names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..cloud import TAG, CloudError
from ..cloud.aws import AwsSession

TABLE = re.compile(r"rtb-[0-9a-f]{8,17}")
FORM = "ids of route tables, such as rtb-0123456789abcdef0"
GONE = ("Deleting", "deleting", "Deleted", "deleted")


class GatewayEndpoint:
    """Ours is known by its tag. A table that an endpoint of others serves needs none of ours, and can have none."""

    def __init__(self, site: str, region: str, network: str, tables: Sequence[str], endpoint: str = "") -> None:
        missing = [text for text, value in (("circleci_cloud_region", region), ("circleci_cloud_network (the id of the VPC)", network)) if not value]
        if missing:
            raise CloudError(*(f"{text} is empty; AWS needs it" for text in missing))
        wrong = [table for table in tables if not TABLE.fullmatch(table)]
        if wrong:
            raise CloudError(f"circleci_cloud_storage_private_access: found {', '.join(map(repr, wrong))}; AWS needs {FORM}")
        self.session = AwsSession(region)
        self.client: Any = self.session.client("ec2", endpoint)
        self.site, self.network, self.tables = site, network, sorted(set(tables))
        self.service = f"com.amazonaws.{region}.s3"
        self.id, self.ours, self.missing = "", set[str](), list[str]()

    def read(self) -> tuple[list[str], list[str]]:
        filters = [{"Name": "vpc-id", "Values": [self.network]}, {"Name": "service-name", "Values": [self.service]}]
        with self.session.told():
            pages = self.client.get_paginator("describe_vpc_endpoints").paginate(Filters=filters)
            found = [item for page in pages for item in page["VpcEndpoints"] if item["VpcEndpointType"] == "Gateway" and item["State"] not in GONE]
        served: set[str] = set()
        for item in found:
            served |= set(item.get("RouteTableIds") or [])
            if {"Key": TAG, "Value": self.site} in item.get("Tags", []):
                self.id, self.ours = item["VpcEndpointId"], set(item.get("RouteTableIds") or [])
        self.missing = [table for table in self.tables if table not in served]
        before = sorted((set(self.tables) & served) | self.ours)
        return [self._line(table) for table in before], [self._line(table) for table in self.tables]

    def apply(self) -> Iterator[str]:
        with self.session.told():
            surplus = sorted(self.ours - set(self.tables))
            if not self.id:
                tags = [{"ResourceType": "vpc-endpoint", "Tags": [{"Key": TAG, "Value": self.site}, {"Key": "Name", "Value": f"circleci-{self.site}-s3"}]}]
                self.client.create_vpc_endpoint(
                    VpcEndpointType="Gateway", VpcId=self.network, ServiceName=self.service, RouteTableIds=self.missing, TagSpecifications=tags
                )
            else:
                change = {"AddRouteTableIds": self.missing, "RemoveRouteTableIds": surplus}
                self.client.modify_vpc_endpoint(VpcEndpointId=self.id, **{name: ids for name, ids in change.items() if ids})
        yield f"gateway endpoint for S3 in {self.network}"

    def _line(self, table: str) -> str:
        return f"route table {table} of {self.network} leads to {self.service} by a gateway endpoint"
