#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cloud_private_access
short_description: Lead the site's network to the object storage of its cloud without the internet
version_added: 0.1.0
description:
  - Makes a gateway endpoint for S3 in a VPC of AWS, switches private Google access of subnetworks on, or makes a private endpoint for the storage account of
    Azure with its private zone. DigitalOcean has nothing of the kind.
  - What others made stays as it is. Nothing is taken away but route tables from the endpoint of AWS that bears our tag.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.cloud
requirements:
  - boto3 (AWS)
  - google-auth and requests (Google Cloud, without O(token))
  - azure-identity (Azure, without O(token))
options:
  from_network:
    description:
      - Ids of route tables of AWS; C(projects/<project>/regions/<region>/subnetworks/<name>) of Google Cloud; the id of one subnet of Azure.
    type: list
    elements: str
    required: true
  account:
    description: Storage account of Azure, in the resource group of O(network).
    type: str
    default: ""
  zone:
    description:
      - Id of the private zone C(privatelink.blob.core.windows.net) of Azure. It is made where it is missing, and linked to the network of the subnet. Empty
        makes the endpoint alone.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Reads the cloud, compares, and changes nothing.
  diff_mode:
    support: full
    description: Shows which ways there are before and after.
"""

EXAMPLES = r"""
- name: Lead to S3 without the internet
  onprem.circleci_server.cloud_private_access:
    provider: aws
    site: osaka
    region: us-west-2
    network: vpc-0123456789abcdef0
    from_network: [rtb-0123456789abcdef0]
"""

RETURN = r"""
changes:
  description: One line for each way that was or would be made or taken away.
  returned: success
  type: list
  elements: str
notes:
  description: What somebody else has to do, and why.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.cloud import CloudError
from ..module_utils.cloud_module import CLOUD_SPEC, Part, run
from ..module_utils.cloud_private_access import (
    GatewayEndpoint,
    PrivateEndpoint,
    PrivateGoogleAccess,
)


def _part(given: dict[str, Any]) -> Part:
    site, region, network, token, endpoint = (str(given[name]) for name in ("site", "region", "network", "token", "endpoint"))
    if given["provider"] == "aws":
        return GatewayEndpoint(site, region, network, given["from_network"], endpoint)
    if given["provider"] == "gcp":
        return PrivateGoogleAccess(given["from_network"], token, endpoint)
    if given["provider"] == "azure":
        return PrivateEndpoint(site, region, network, given["account"], given["from_network"], given["zone"], token, endpoint)
    raise CloudError("circleci_cloud_storage_private_access: DigitalOcean has no private way to Spaces; leave it empty")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CLOUD_SPEC,
            "from_network": {"type": "list", "elements": "str", "required": True},
            "account": {"type": "str", "default": ""},
            "zone": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    run(module, _part)


if __name__ == "__main__":
    main()
