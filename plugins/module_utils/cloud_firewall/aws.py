# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Security groups of AWS, by boto3.

Not amazon.aws.ec2_security_group: it either removes the rules of others or none, and cannot tell ours by their description.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..cloud import MARK, TAG, CloudError
from ..cloud.aws import AwsSession
from .model import Change, Found, RuleKey


def _aws_protocol(key: RuleKey, description: str = "") -> dict[str, Any]:
    six = ":" in key.network
    source = {"CidrIpv6" if six else "CidrIp": key.network}
    if description:
        source["Description"] = description
    permission: dict[str, Any] = {"IpProtocol": "-1" if key.protocol == "any" else key.protocol, "Ipv6Ranges" if six else "IpRanges": [source]}
    if key.protocol != "any":
        permission.update(FromPort=key.low, ToPort=key.high)
    return permission


class Aws:
    """Security groups of one VPC. Groups are marked by a tag, rules by their description."""

    def __init__(self, site: str, region: str, network: str, endpoint: str = "") -> None:
        missing = [text for text, value in (("circleci_cloud_region", region), ("circleci_cloud_network (the id of the VPC)", network)) if not value]
        if missing:
            raise CloudError(*(f"{text} is empty; AWS needs it" for text in missing))
        self.session = AwsSession(region)
        self.site, self.network = site, network
        self.prefix = f"{MARK} {site}: "
        self.client: Any = self.session.client("ec2", endpoint)

    def read(self, names: Iterable[str]) -> dict[str, Found]:
        wanted = set(names)
        with self.session.told():
            pages = self.client.get_paginator("describe_security_groups").paginate(Filters=[{"Name": "vpc-id", "Values": [self.network]}])
            groups = [group for page in pages for group in page["SecurityGroups"]]
        result = {}
        for group in groups:
            owned = {"Key": TAG, "Value": self.site} in group.get("Tags", [])
            if owned or group["GroupName"] in wanted:
                result[group["GroupName"]] = self._found(group, owned)
        return result

    def _found(self, group: dict[str, Any], owned: bool) -> Found:
        ours, foreign = {}, set()
        for permission in group["IpPermissions"]:
            any_protocol = permission["IpProtocol"] == "-1"
            for source in (*permission.get("IpRanges", []), *permission.get("Ipv6Ranges", [])):
                low, high = (0, 65535) if any_protocol else (permission["FromPort"], permission["ToPort"])
                key = RuleKey("any" if any_protocol else permission["IpProtocol"], low, high, source.get("CidrIp") or source["CidrIpv6"])
                description = source.get("Description", "")
                if description.startswith(self.prefix):
                    ours[key] = description[len(self.prefix) :]
                else:
                    foreign.add(key)
        return Found(id=group["GroupId"], owned=owned, rules=ours, foreign=frozenset(foreign))

    def apply(self, change: Change) -> None:
        group = change.id
        with self.session.told():
            if not group:
                tags = [{"ResourceType": "security-group", "Tags": [{"Key": TAG, "Value": self.site}, {"Key": "Name", "Value": change.name}]}]
                group = self.client.create_security_group(
                    GroupName=change.name, Description=f"{MARK} {self.site}", VpcId=self.network, TagSpecifications=tags
                )["GroupId"]
            # Opened before closed: nobody is cut off while a rule is replaced.
            if change.add:
                # AWS takes 255 characters of few kinds.
                permissions = [_aws_protocol(key, (self.prefix + change.wanted[key])[:255]) for key in change.add]
                self.client.authorize_security_group_ingress(GroupId=group, IpPermissions=permissions)
            if change.remove:
                self.client.revoke_security_group_ingress(GroupId=group, IpPermissions=[_aws_protocol(key) for key in change.remove])
