#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: object_storage_buckets
short_description: Make or check the buckets of a site
version_added: 0.1.0
description:
  - Makes the data bucket and the agent bucket, claims both for the site, and opens the agent bucket for anonymous reads of objects.
  - A bucket that another site has claimed is refused, and so is a data bucket that everybody can read.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.object_storage
options:
  site:
    description: Domain of the site, which claims the buckets.
    type: str
    required: true
  bucket:
    description: Bucket for artifacts, caches and audit logs.
    type: str
    required: true
  agent_bucket:
    description: Bucket of the agents; nothing else may lie in it, since everybody can read it. Empty makes none.
    type: str
    default: ""
  agents_listed:
    description: Open the listing of O(agent_bucket) as well, for kinds of stores that cannot open objects only.
    type: bool
    default: false
  versioning:
    description:
      - Whether the data bucket keeps versions, which Docker layer caching wants. Not every kind of store can.
      - Without it versioning is left as it is.
    type: bool
  expiry_days:
    description:
      - Days after which objects of the data bucket expire, by rules of its lifecycle. V(0) takes our rules away; rules of others stay.
      - Audit logs, and what marks the bucket as the site's, never expire. Left out, expiry is left as it is.
    type: int
  expiry_prefixes:
    description: Prefixes below which objects expire. Empty takes each folder at the top of the data bucket but those that must stay.
    type: list
    elements: str
    default: []
  origins:
    description:
      - Web origins whose pages may use presigned URLs of the data bucket (CORS). An empty list takes our rule away.
      - Left out, rules for browsers are left as they are.
    type: list
    elements: str
  state:
    description: V(absent) deletes both buckets with all that is in them, if this site has claimed them.
    type: str
    choices: [present, absent]
    default: present
  store_may_be_missing:
    description:
      - In check mode only, the store may be missing because the run itself would bring it.
      - With O(state=absent) it may be missing because it was taken away before.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Says what would be made.
  diff_mode:
    support: full
    description: Shows what is true of the buckets before and after.
"""

EXAMPLES = r"""
- name: Make the buckets
  onprem.circleci_server.object_storage_buckets:
    endpoint: https://store.example.com
    access_key: circleci
    secret_key: "{{ circleci_object_storage_secret_key }}"
    site: ci.example.com
    bucket: circleci-data
    agent_bucket: circleci-agents
"""

RETURN = r"""
changes:
  description: One line for each thing that was or would be changed.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.s3 import buckets
from ..module_utils.s3.buckets import BucketState, BucketWish, wishes, with_expiry
from ..module_utils.s3.client import S3Client, S3Error
from ..module_utils.s3.options import STORE_SPEC, client_from


def present(module: AnsibleModule, client: S3Client) -> tuple[list[str], list[str]]:
    options = module.params
    states: list[tuple[BucketWish, BucketState]] = []
    for wish in wishes(options):
        try:
            wish = with_expiry(client, wish, options)
            states.append((wish, buckets.read_state(client, wish)))
        except S3Error as error:
            if not (module.check_mode and options["store_may_be_missing"] and error.status == 0):
                raise
            states.append((wish, BucketState()))
    problems = [problem for wish, state in states for problem in buckets.problems(wish, state)]
    if problems:
        raise S3Error(" ".join(problems))
    before, after = [], []
    for wish, state in states:
        old, new = state.lines(wish), buckets.wanted_state(wish, state).lines(wish)
        before += old
        after += new
        if old != new and not module.check_mode:
            buckets.apply(client, wish, state)
    return before, after


def absent(module: AnsibleModule, client: S3Client) -> tuple[list[str], list[str]]:
    options = module.params
    before, keep = [], []
    for wish in wishes(options):
        try:
            state = buckets.read_state(client, wish)
        except S3Error as error:
            if not (options["store_may_be_missing"] and error.status == 0):
                raise
            module.warn(f"bucket {wish.name} was not looked for: {error}")
            continue
        if not state.exists:
            continue
        before += state.lines(wish)
        if state.owner != options["site"]:
            keep += state.lines(wish)
            module.warn(f"bucket {wish.name}: is claimed by {state.owner or 'nobody'} and not by {options['site']}; it is left alone")
        elif not module.check_mode:
            buckets.empty_and_delete(client, wish.name)
    return before, keep


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **STORE_SPEC,
            "site": {"type": "str", "required": True},
            "bucket": {"type": "str", "required": True},
            "agent_bucket": {"type": "str", "default": ""},
            "agents_listed": {"type": "bool", "default": False},
            "versioning": {"type": "bool"},
            "expiry_days": {"type": "int"},
            "expiry_prefixes": {"type": "list", "elements": "str", "default": []},
            "origins": {"type": "list", "elements": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "store_may_be_missing": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options = module.params
    if options["bucket"] == options["agent_bucket"]:
        module.fail_json(
            msg=f"circleci_object_storage_agent_bucket: {options['agent_bucket']} is the data "
            "bucket as well, which would let everybody read artifacts and audit logs. "
            "Choose another name."
        )
    try:
        client = client_from(options)
        before, after = (absent if options["state"] == "absent" else present)(module, client)
        client.close()
    except S3Error as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=before != after,
        changes=[line for line in after if line not in before] + [f"not any more: {line}" for line in before if line not in after],
        diff={
            "before_header": options["endpoint"],
            "after_header": options["endpoint"],
            "before": "".join(f"{line}\n" for line in before),
            "after": "".join(f"{line}\n" for line in after),
        },
    )


if __name__ == "__main__":
    main()
