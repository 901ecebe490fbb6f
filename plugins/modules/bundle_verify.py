#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bundle_verify
short_description: Check that a bundle is whole, unchanged and signed by whom you trust
version_added: 0.1.0
description:
  - Checks the signature, that all parts are there, and with O(deep=true) every byte.
  - Fails with all problems at once. It writes nothing.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.bundle_source
options:
  deep:
    description: Read every byte of all parts and compare its digest. Without it, signature, names, sizes and trailers are looked at.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: Check the bundle before anything is loaded
  onprem.circleci_server.bundle_verify:
    directories: [/srv/bundle]
    public_key: RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3
"""

RETURN = r"""
bundle_id:
  description: Identity of the bundle.
  returned: success
  type: str
bytes_total:
  description: Size of everything in the bundle.
  returned: success
  type: int
contents:
  description: What the bundle brings, as C(images), C(charts), C(files) and C(packages), each name to tag.
  returned: success
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.mirror.bundle import Bundle
from ..module_utils.mirror.errors import MirrorError
from ..module_utils.mirror.verify import verify_bundle
from ..module_utils.mirror_module import BUNDLE_SPEC, contents, trust_explained, trust_of


def run(module: AnsibleModule) -> dict[str, Any]:
    given = module.params
    with Bundle.open([Path(directory) for directory in given["directories"]]) as bundle:
        report = verify_bundle(bundle, deep=given["deep"], trust=trust_of(given))
        if not report.ok:
            listing = "\n".join(f"  - {problem}" for problem in report.problems)
            where = ", ".join(given["directories"])
            module.fail_json(msg=f"circleci_bundle_dir: the bundle in {where} is not to be used:\n{listing}", problems=list(report.problems))
        return {
            "bundle_id": bundle.id,
            "parts": bundle.parts,
            "bytes_total": sum(bundle.sizes.values()),
            "checked_bytes": report.checked_bytes,
            "contents": contents(bundle),
        }


def main() -> None:
    module = AnsibleModule(argument_spec={**BUNDLE_SPEC, "deep": {"type": "bool", "default": False}}, supports_check_mode=True)
    try:
        result = run(module)
    except MirrorError as error:
        module.fail_json(msg=trust_explained(error), exit_code=error.exit_code)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
