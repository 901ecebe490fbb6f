#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cloud_dns
short_description: Set the names of a site in a zone of its cloud
version_added: 0.1.0
description:
  - Sets records in a zone of Route 53, Cloud DNS, Azure DNS, Azure Private DNS or DigitalOcean, and takes away those of ours that nothing wants any more.
  - Ours are those with a mark. Azure has metadata for it; in the other clouds it is a TXT record beside each, C(_onprem-circleci-<type>.<name>) with the text
    C(onprem.circleci_server site=<site>).
  - A record of others that says the same is left as it is; one that says something else is refused.
  - Route 53 and Cloud DNS make all changes at once, or none, and they are awaited.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.cloud
requirements:
  - boto3 (AWS)
  - google-auth and requests (Google Cloud, without O(token))
  - azure-identity (Azure, without O(token))
options:
  zone:
    description:
      - Id of the hosted zone of Route 53, C(projects/<project>/managedZones/<name>) of Google Cloud, the id of the zone of Azure, the domain of DigitalOcean.
    type: str
    required: true
  records:
    description:
      - Names with where they lead, as the filter P(onprem.circleci_server.cloud_dns_records#filter) gives them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name, without a dot at its end.
        type: str
        required: true
      values:
        description: Addresses, or one name for a CNAME. Empty leaves the name as it is.
        type: list
        elements: str
        default: []
      needed:
        description: Whether a name outside of the zone is refused instead of left out with a warning.
        type: bool
        default: false
      unknown:
        description: Why there are no values, for the warning.
        type: str
        default: ""
attributes:
  check_mode:
    support: full
    description: Reads the zone, compares, and changes nothing.
  diff_mode:
    support: full
    description: Shows the records of the site before and after.
"""

EXAMPLES = r"""
- name: Set the names of a site
  onprem.circleci_server.cloud_dns:
    provider: aws
    site: osaka
    region: us-west-2
    zone: Z0123456789ABCDEFGHIJ
    records:
      - name: ci.example.com
        values: [192.0.2.100]
        needed: true
      - name: app.ci.example.com
        values: [192.0.2.100]
        needed: true
"""

RETURN = r"""
changes:
  description: One line for each record that was or would be set or taken away.
  returned: success
  type: list
  elements: str
notes:
  description: What was left alone, and why.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.cloud import part_api
from ..module_utils.cloud_dns import (
    AzureDns,
    CloudDns,
    DigitalOceanDns,
    Names,
    Route53,
    Zone,
)
from ..module_utils.cloud_module import CLOUD_SPEC, Part, run


def _zone(given: dict[str, Any]) -> Zone:
    zone, site, region, token, endpoint = (str(given[name]) for name in ("zone", "site", "region", "token", "endpoint"))
    if given["provider"] == "aws":
        return Route53(zone, site, region, endpoint)
    if given["provider"] == "gcp":
        return CloudDns(zone, site, token, part_api("dns", "gcp", region, "", endpoint))
    if given["provider"] == "azure":
        return AzureDns(zone, site, region, token, endpoint)
    return DigitalOceanDns(zone, site, token, endpoint)


def _part(given: dict[str, Any]) -> Part:
    return Names(_zone(given), given["site"], given["records"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CLOUD_SPEC,
            "zone": {"type": "str", "required": True},
            "records": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "values": {"type": "list", "elements": "str", "default": []},
                    "needed": {"type": "bool", "default": False},
                    "unknown": {"type": "str", "default": ""},
                },
            },
        },
        supports_check_mode=True,
    )
    run(module, _part)


if __name__ == "__main__":
    main()
