#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: object_storage_agents
short_description: Bring the vendor's agents from the private registry into their bucket
version_added: 0.1.0
description:
  - Jobs load their agent from the object store with a plain GET. This module puts agents, checksums and the files that name the current version there.
  - The digest of each object is kept in its metadata, so a run that changes nothing moves no content.
  - Everything a version needs is uploaded before C(release.txt) switches to it; a kill in between leaves the old version working.
    Older versions stay.
  - Programs that contradict the vendor's C(checksums.txt) or are still gzip-encoded are refused.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.object_storage
  - onprem.circleci_server.private_registry
  - onprem.circleci_server.agents
options:
  bucket:
    description: Bucket of the agents.
    type: str
    required: true
  peer_may_be_missing:
    description: In check mode only, the registry, its artifacts or the store may be missing because the run itself would bring them.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Compares and uploads nothing.
  diff_mode:
    support: full
    description: Shows digests, not contents.
"""

EXAMPLES = r"""
- name: Bring the agents
  onprem.circleci_server.object_storage_agents:
    endpoint: https://store.example.com
    access_key: circleci
    secret_key: "{{ circleci_object_storage_secret_key }}"
    registry: registry.example.com:5000
    username: site
    password: "{{ circleci_registry_password }}"
    bucket: circleci-agents
    objects:
      - {key: 1.0.1/linux/amd64/circleci-agent, name: build-agent, version: 1.0.1}
      - {key: 1.0.1/checksums.txt, name: build-agent-checksums, version: 1.0.1}
    texts:
      release.txt: 1.0.1
"""

RETURN = r"""
uploaded:
  description: Objects that were or would be uploaded, in that order.
  returned: always
  type: list
  elements: str
bytes:
  description: Bytes that were uploaded.
  returned: always
  type: int
"""

import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.mirror.errors import MirrorError
from ..module_utils.mirror_module import REGISTRY_SPEC, explained, registry_access
from ..module_utils.s3.agents import AGENTS_SPEC, bring, outcome
from ..module_utils.s3.client import S3Error
from ..module_utils.s3.options import STORE_SPEC, client_from


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **STORE_SPEC,
            **REGISTRY_SPEC,
            **AGENTS_SPEC,
            "bucket": {"type": "str", "required": True},
            "peer_may_be_missing": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options = module.params
    lenient = module.check_mode and options["peer_may_be_missing"]
    try:
        registry = registry_access(options, quick=lenient).client(options["registry"])
        with tempfile.TemporaryDirectory(prefix="onprem-agents-", dir=module.tmpdir) as work:
            changes, moved = bring(options, registry, lambda: client_from(options), options["bucket"], Path(work), check=module.check_mode, lenient=lenient)
    except S3Error as error:
        module.fail_json(msg=str(error))
    except MirrorError as error:
        module.fail_json(msg=explained(error, options["registry"]))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or module.tmpdir}: {error.strerror or error}. Agents lie there while they are brought.")
    module.exit_json(**outcome(f"{options['endpoint']}/{options['bucket']}", changes, moved))


if __name__ == "__main__":
    main()
