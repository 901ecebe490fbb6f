#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: agent_files
short_description: Bring the vendor's agents from the private registry into a folder of this host
version_added: 0.1.0
description:
  - For hosts that serve the agents themselves, where a store cannot open them without opening more.
  - Files are compared by their digests, so a run that changes nothing moves no content. A file appears under its name only when it is whole.
  - Everything a version needs is there before C(release.txt) switches to it; a kill in between leaves the old version working. Older versions stay.
  - Programs that contradict the vendor's C(checksums.txt) or are still gzip-encoded are refused.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.private_registry
  - onprem.circleci_server.agents
options:
  folder:
    description: Folder of the agents. It is made when it is not there, and everybody on the host can read it.
    type: path
    required: true
  registry_may_be_missing:
    description: In check mode only, the registry or its artifacts may be missing because the run itself would bring them.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Compares and writes nothing.
  diff_mode:
    support: full
    description: Shows digests, not contents.
"""

EXAMPLES = r"""
- name: Bring the agents
  onprem.circleci_server.agent_files:
    registry: registry.example.com:5000
    username: site
    password: "{{ circleci_registry_password }}"
    folder: /var/lib/onprem-circleci/agents
    objects:
      - {key: 1.0.1/linux/amd64/circleci-agent, name: build-agent, version: 1.0.1}
      - {key: 1.0.1/checksums.txt, name: build-agent-checksums, version: 1.0.1}
    texts:
      release.txt: 1.0.1
"""

RETURN = r"""
uploaded:
  description: Files that were or would be brought, in that order.
  returned: always
  type: list
  elements: str
bytes:
  description: Bytes that were brought.
  returned: always
  type: int
"""

import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.mirror.errors import MirrorError
from ..module_utils.mirror_module import REGISTRY_SPEC, explained, registry_access
from ..module_utils.s3.agents import AGENTS_SPEC, FolderStore, bring, outcome
from ..module_utils.s3.client import S3Error


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REGISTRY_SPEC,
            **AGENTS_SPEC,
            "folder": {"type": "path", "required": True},
            "registry_may_be_missing": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options = module.params
    store = FolderStore(Path(options["folder"]))
    lenient = module.check_mode and options["registry_may_be_missing"]
    try:
        registry = registry_access(options, quick=lenient).client(options["registry"])
        with tempfile.TemporaryDirectory(prefix="onprem-agents-", dir=module.tmpdir) as work:
            changes, moved = bring(options, registry, lambda: store, "", Path(work), check=module.check_mode, lenient=lenient)
    except S3Error as error:
        module.fail_json(msg=str(error))
    except MirrorError as error:
        module.fail_json(msg=explained(error, options["registry"]))
    except OSError as error:
        module.fail_json(msg=f"folder: {options['folder']} cannot be written: {error.strerror or error}")
    module.exit_json(**outcome(options["folder"], changes, moved))


if __name__ == "__main__":
    main()
