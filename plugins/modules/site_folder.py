#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: site_folder
short_description: Keep the folder of records of one site apart from those of others
version_added: 0.1.0
description:
  - Several sites may share a control host, each with a folder of its own for receipts, records, restore points and reports.
  - A mark in the folder, C(site.json), names the site that it belongs to. A folder of another site is refused, in check mode too.
  - A folder without a mark is refused when its report or a restore point in it is about another domain, and may be claimed otherwise.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  path:
    description: The folder.
    type: path
    required: true
  site:
    description: Short name of the site, for messages.
    type: str
    required: true
  domain:
    description: Domain of the site. It is what tells sites apart.
    type: str
    required: true
  former_domains:
    description: Domains that the site had before. A folder of one of them is its own.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(looked_at) changes nothing.
      - V(claimed) sets the mark, and makes the folder where it is missing.
      - V(released) takes the mark away and leaves all else.
    type: str
    choices: [looked_at, claimed, released]
    default: looked_at
  fail:
    description: Whether a folder of another site fails the task. V(false) returns it in RV(findings), and is for O(state=looked_at) only.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: A folder of another site is refused in it, too, and no mark is set.
  diff_mode:
    support: full
    description: Shows which site the mark names.
"""

EXAMPLES = r"""
- name: Keep the folder for this site
  onprem.circleci_server.site_folder:
    path: /var/lib/onprem-circleci
    site: tokyo
    domain: ci.tokyo.example.com
    state: claimed
"""

RETURN = r"""
marked:
  description: Whether the mark names this site, in check mode as it would be after the run.
  returned: success
  type: bool
findings:
  description: What is wrong with the folder, one mapping with C(check), C(level), C(subject), C(found), C(expected), C(source), C(remedy) and C(reason).
  returned: success
  type: list
  elements: dict
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.preflight.findings import WARNING, Finding
from ..module_utils.records import RecordError
from ..module_utils.site_folder import VARIABLE, ForeignFolderError, Site, SiteFolder


def apply(params: dict[str, Any], *, check: bool) -> dict[str, Any]:
    """Look at the folder, claim it or let it go."""
    site = Site(params["site"], params["domain"])
    folder = SiteFolder(Path(params["path"]), site, params["former_domains"])
    before = after = folder.before()
    changed = False
    if params["state"] == "claimed":
        changed, after = folder.claim(check=check), f"{site}\n"
    elif params["state"] == "released":
        changed, after = folder.release(check=check), ""
    header = str(folder.mark)
    return {
        "changed": changed,
        "marked": after == f"{site}\n",
        "findings": [],
        "diff": {"before": before, "after": after, "before_header": header, "after_header": header},
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "site": {"type": "str", "required": True},
            "domain": {"type": "str", "required": True},
            "former_domains": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["looked_at", "claimed", "released"], "default": "looked_at"},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    if not module.params["fail"] and module.params["state"] != "looked_at":
        module.fail_json(msg=f"fail: found false with state {module.params['state']}; allowed is false with looked_at only.")
    try:
        module.exit_json(**apply(module.params, check=module.check_mode))
    except ForeignFolderError as error:
        if module.params["fail"]:
            module.fail_json(msg=str(error))
        module.exit_json(changed=False, marked=False, findings=[error.finding.as_dict()])
    except RecordError as error:
        module.fail_json(msg=f"{VARIABLE}: {error}")
    except OSError as error:
        reason = f"{error.filename or module.params['path']}: {error.strerror or error}"
        if module.params["fail"]:
            module.fail_json(msg=f"{VARIABLE}: {reason}. Verbs run as root on the control host.")
        unread = Finding("state_folder", WARNING, VARIABLE, reason, "a folder that can be read", "the folder on the control host", "Run the verb as root.")
        module.exit_json(changed=False, marked=False, findings=[unread.as_dict()])


if __name__ == "__main__":
    main()
