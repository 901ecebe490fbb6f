#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: object_storage_probe
short_description: Find out what an object store can and cannot do
version_added: 0.1.0
description:
  - Writes, reads, lists, copies and deletes a few small objects below C(onprem-circleci/probe/), through signed requests, presigned URLs and
    without credentials, and answers each question with yes or no and the evidence.
  - Fails when a required answer is no. Nothing is left behind, so it reports no change.
  - It says what the store does as seen from this host. That pods, Nomad clients and browsers reach it by the same name is another question.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.object_storage
options:
  bucket:
    description: Bucket for artifacts, caches and audit logs.
    type: str
    required: true
  agent_bucket:
    description: Bucket of the agents. Empty leaves the questions about anonymous reads out.
    type: str
    default: ""
  agents_listed:
    description: Whether the listing of O(agent_bucket) is open on purpose, because the kind of store cannot open objects only.
    type: bool
    default: false
  agents_url:
    description: URL below which hosts serve the agents themselves, instead of O(agent_bucket). The questions about anonymous reads are asked there.
    type: str
    default: ""
  required:
    description:
      - Names of the questions whose answer must be yes.
      - Empty takes those that the product needs with presigned URLs, its default.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Does not run in check mode and returns no results.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: Try the object store
  onprem.circleci_server.object_storage_probe:
    endpoint: https://store.example.com
    access_key: circleci
    secret_key: "{{ circleci_object_storage_secret_key }}"
    bucket: circleci-data
    agent_bucket: circleci-agents
"""

RETURN = r"""
results:
  description: Each question with C(name), C(title), C(works) (none where it does not arise), C(evidence) and C(required).
  returned: always
  type: list
  elements: dict
table:
  description: The same for people.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.s3.client import S3Client, S3Error
from ..module_utils.s3.conformance import REQUIRED, conformance_of, table
from ..module_utils.s3.options import STORE_SPEC, client_from, credentials_from


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **STORE_SPEC,
            "bucket": {"type": "str", "required": True},
            "agent_bucket": {"type": "str", "default": ""},
            "agents_listed": {"type": "bool", "default": False},
            "agents_url": {"type": "str", "default": ""},
            "required": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    options = module.params
    if module.check_mode:
        module.exit_json(changed=False, results=[], table=[])
    anonymous = ("anonymous_agents", *(() if options["agents_listed"] else ("anonymous_agents_scope",)))
    required = tuple(options["required"]) or (*REQUIRED, *(anonymous if options["agent_bucket"] or options["agents_url"] else ()))
    try:
        client = client_from(options)
        served = S3Client(options["agents_url"], None, ca_data=options["store_ca_certificate"]) if options["agents_url"] else None
        results = conformance_of(client, credentials_from(options), options["bucket"], options["agent_bucket"], served).run(required)
        client.close()
    except S3Error as error:
        module.fail_json(msg=str(error))
    outcome = {"results": [result.as_dict() for result in results], "table": table(results)}
    failed = [f"{result.title}: {result.evidence}" for result in results if result.required and result.works is False]
    if failed:
        module.fail_json(msg=f"the object store {options['endpoint']} cannot do what the product needs: {'; '.join(failed)}", **outcome)
    module.exit_json(changed=False, **outcome)


if __name__ == "__main__":
    main()
