#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: object_storage_health
short_description: Wait until an object store answers from its disk or from the store behind it
version_added: 0.1.0
description:
  - Asks for a bucket with a signed request. Whether the bucket is there or not, the answer comes from what lies behind the service, so
    that a gateway whose back end is down or refuses its key is not taken for healthy.
  - Waits only for what time can heal. A key pair that is refused fails at once.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.object_storage
options:
  bucket:
    description: Bucket to ask for. It may be missing.
    type: str
    required: true
  address:
    description:
      - Address to connect to instead of where the name in O(endpoint) leads, to look at one of several hosts behind one name.
      - The name in the request and in the certificate stays that of O(endpoint). Empty follows the name.
    type: str
    default: ""
  port:
    description: Port to connect to at O(address). V(0) is the port of O(endpoint).
    type: int
    default: 0
  wait:
    description: Seconds to wait for an answer.
    type: int
    default: 60
  service:
    description: Systemd unit whose log is named when there is no answer.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Does not look in check mode, since the service may not be there yet.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: See that the store behind the gateway answers
  onprem.circleci_server.object_storage_health:
    endpoint: https://store.example.com
    access_key: circleci
    secret_key: "{{ circleci_object_storage_secret_key }}"
    bucket: circleci-data
    address: 127.0.0.1
"""

RETURN = r"""
bucket_exists:
  description: Whether the bucket is there.
  returned: when not in check mode
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.s3.client import S3Client, S3Error
from ..module_utils.s3.health import wait_until_healthy
from ..module_utils.s3.options import STORE_SPEC, credentials_from


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **STORE_SPEC,
            "bucket": {"type": "str", "required": True},
            "address": {"type": "str", "default": ""},
            "port": {"type": "int", "default": 0},
            "wait": {"type": "int", "default": 60},
            "service": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    options = module.params
    if module.check_mode:
        module.exit_json(changed=False)
    try:
        client = S3Client(
            options["endpoint"],
            credentials_from(options),
            ca_data=options["store_ca_certificate"],
            timeout=min(30.0, max(1.0, options["wait"])),
            address=options["address"],
            port=options["port"],
            backend=options["backend"],
        )
        found = wait_until_healthy(client, options["bucket"], options["wait"])
        client.close()
    except S3Error as error:
        log = f" Its log: journalctl -u {options['service']}" if options["service"] else ""
        module.fail_json(msg=f"the object store is not healthy: {error}.{log}")
    module.exit_json(changed=False, bucket_exists=found)


if __name__ == "__main__":
    main()
