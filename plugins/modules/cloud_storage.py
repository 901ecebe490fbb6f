#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cloud_storage
short_description: Make the object storage of a site in its cloud
version_added: 0.1.0
description:
  - Makes or checks the buckets of a site in AWS, Google Cloud or DigitalOcean Spaces, or its containers in a storage account of Azure. Claims them for the
    site, blocks public access where the cloud can, and sets encryption, versions, expiry and rules for browsers as the site asks for them.
  - It is the engine of M(onprem.circleci_server.object_storage_buckets), here with the credentials of the cloud, and with what only the cloud can do.
  - A bucket in an account or a project of somebody else is refused, and so are one that another site has claimed and data that everybody can read.
  - Nothing is ever deleted.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.cloud
requirements:
  - boto3 (AWS)
  - google-auth and requests (Google Cloud, without O(token))
  - azure-identity (Azure, without O(token))
options:
  owner:
    description: Domain of the site, which claims the buckets.
    type: str
    required: true
  store_endpoint:
    description: URL of the object store. Azure needs none.
    type: str
    default: ""
  store_region:
    description: Region of the buckets of AWS, location of those of Google.
    type: str
    default: us-east-1
  access_key:
    description: Access key of DigitalOcean Spaces, which takes no other credentials.
    type: str
    default: ""
  secret_key:
    description: Secret key that belongs to O(access_key).
    type: str
    default: ""
  bucket:
    description: Bucket or container for artifacts, caches and audit logs.
    type: str
    required: true
  agent_bucket:
    description: Bucket or container of the agents. Empty makes none.
    type: str
    default: ""
  versioning:
    description: Whether the data bucket keeps versions. Left out, versioning is left as it is.
    type: bool
  expiry_days:
    description: Days after which objects of the data bucket expire; V(0) takes our rules away. Left out, expiry is left as it is.
    type: int
  expiry_prefixes:
    description: Prefixes below which objects expire. Empty takes each folder at the top of the data bucket but those that must stay.
    type: list
    elements: str
    default: []
  origins:
    description: Web origins whose pages may use presigned URLs (CORS); an empty list takes our rule away. Left out, rules are left as they are.
    type: list
    elements: str
  key:
    description:
      - Key of the cloud's key service that encrypts the data bucket, the ARN of AWS or
        C(projects/<project>/locations/<place>/keyRings/<ring>/cryptoKeys/<name>) of Google.
      - Empty takes the keys that the cloud keeps, and leaves another one that is there.
    type: str
    default: ""
  account:
    description: Storage account of Azure.
    type: str
    default: ""
  sku:
    description: Redundancy of the storage account of Azure, which is then made when it is missing. Empty takes the account that is there as it is.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Reads the cloud, compares, and changes nothing.
  diff_mode:
    support: full
    description: Shows what is true of the buckets before and after.
"""

EXAMPLES = r"""
- name: Make the buckets of a site in AWS
  onprem.circleci_server.cloud_storage:
    provider: aws
    site: osaka
    region: us-west-2
    owner: ci.example.com
    store_endpoint: https://s3.us-west-2.amazonaws.com
    store_region: us-west-2
    bucket: example-circleci-data
    agent_bucket: example-circleci-agents
    versioning: true
"""

RETURN = r"""
changes:
  description: One line for each thing that was or would be changed.
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

from ..module_utils.cloud_module import CLOUD_SPEC, Part, run
from ..module_utils.cloud_storage import Containers, of_aws, of_digitalocean, of_google


def _part(given: dict[str, Any]) -> Part:
    # To the engine of buckets the site is who claims them; to the cloud it is the name in tags.
    options = {**given, "site": given["owner"]}
    if given["provider"] == "aws":
        return of_aws(options, given["site"])
    if given["provider"] == "gcp":
        return of_google(options, given["site"], given["network"], given["token"])
    if given["provider"] == "azure":
        return Containers(options, given["site"], given["region"], given["network"], given["token"], given["endpoint"])
    return of_digitalocean(options)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CLOUD_SPEC,
            "owner": {"type": "str", "required": True},
            "store_endpoint": {"type": "str", "default": ""},
            "store_region": {"type": "str", "default": "us-east-1"},
            "access_key": {"type": "str", "default": "", "no_log": False},
            "secret_key": {"type": "str", "default": "", "no_log": True},
            "bucket": {"type": "str", "required": True},
            "agent_bucket": {"type": "str", "default": ""},
            "versioning": {"type": "bool"},
            "expiry_days": {"type": "int"},
            "expiry_prefixes": {"type": "list", "elements": "str", "default": []},
            "origins": {"type": "list", "elements": "str"},
            "key": {"type": "str", "default": "", "no_log": False},
            "account": {"type": "str", "default": ""},
            "sku": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    run(module, _part)


if __name__ == "__main__":
    main()
