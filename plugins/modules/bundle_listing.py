#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bundle_listing
short_description: List what a bundle holds, with sizes
version_added: 0.1.0
description:
  - Reads C(bundle.json) and the manifests of a bundle. It neither checks signatures nor reads every byte; M(onprem.circleci_server.bundle_verify) does.
  - A folder without a bundle is no failure, since a plan is made before there is one.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  directory:
    description: Folder with the parts of the bundle.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: List what crosses the gap
  onprem.circleci_server.bundle_listing:
    directory: /srv/bundle
  register: bundle
"""

RETURN = r"""
found:
  description: Whether there is a bundle that can be read.
  returned: always
  type: bool
problem:
  description: Why there is none, one sentence.
  returned: always
  type: str
bundle_id:
  description: Identity of the bundle.
  returned: when O(directory) holds a bundle
  type: str
bytes_total:
  description: Size of everything in the bundle.
  returned: when O(directory) holds a bundle
  type: int
items:
  description:
    - One entry for each name with C(kind), C(target) (the name in the private registry), C(source) (the registry of an image or chart), C(bytes) and C(why).
    - C(bytes) is what the name adds to those before it, so that the sizes make up the whole; null when a part is missing.
  returned: always
  type: list
  elements: dict
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.mirror.bundle import Bundle
from ..module_utils.mirror.errors import MirrorError
from ..module_utils.mirror.listing import listing


def look(directory: Path) -> dict[str, Any]:
    """What lies there."""
    try:
        with Bundle.open([directory]) as bundle:
            return {"found": True, "problem": "", "bundle_id": bundle.id, "bytes_total": sum(bundle.sizes.values()), "items": listing(bundle)}
    except MirrorError as error:
        return {"found": False, "problem": str(error), "items": []}
    except OSError as error:
        return {"found": False, "problem": f"{directory} cannot be read: {error.strerror or error}.", "items": []}


def main() -> None:
    module = AnsibleModule(argument_spec={"directory": {"type": "path", "required": True}}, supports_check_mode=True)
    module.exit_json(changed=False, **look(Path(module.params["directory"])))


if __name__ == "__main__":
    main()
