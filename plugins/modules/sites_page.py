#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Ansible module sites_page: the reports of several sites on one page."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sites_page
short_description: Put the reports of several sites on one page
version_added: 0.1.0
description:
  - Writes C(sites.html) below O(path), with the sites that have problems first. Like C(report.html) it loads nothing from a network.
  - The page holds hosts, addresses and ports of every site that it is given; whoever may read it on this host reads them all.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  path:
    description: Folder on this host, usually C(reports) below the state folder. It is made when it is missing.
    type: path
    required: true
  reports:
    description: Reports of the sites, each RV(onprem.circleci_server.site_report#module:report), or as a mapping.
    type: list
    elements: json
    required: true
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Returns the state of each site before and after.
    support: partial
    details: Before is empty, since the page is for people.
  platform:
    description: Target OS or families that can be operated against.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Put all sites of this run on one page
  onprem.circleci_server.sites_page:
    path: /var/lib/onprem-circleci/reports
    reports: "{{ '__circleci_report_result' | onprem.circleci_server.site_reports(groups, hostvars) }}"
"""

RETURN = r"""
html:
  description: Where the page lies.
  returned: success
  type: str
sites:
  description: State of each site, as V(ok), V(warning) or V(failed).
  returned: success
  type: dict
  sample: {osaka: ok}
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.json_option import mapping_of
from ..module_utils.report import FORMAT, render_page, write_page


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "reports": {"type": "list", "elements": "json", "required": True},
        },
        supports_check_mode=True,
    )
    problems: list[str] = []
    folder, reports = module.params["path"], [mapping_of("reports", text, problems) for text in module.params["reports"]]
    if problems:
        module.fail_json(msg="; ".join(problems), problems=problems)
    if not reports or any(item.get("format") != FORMAT for item in reports):
        module.fail_json(msg=f"reports must hold at least one report, and nothing else; a mapping with format {FORMAT} is needed")
    names = [str(item.get("site")) for item in reports]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        module.fail_json(msg=f"reports holds {', '.join(twice)} twice; each site of an inventory needs a circleci_site of its own")
    path, page = os.path.join(folder, "sites.html"), render_page(reports)
    try:
        with open(path, encoding="utf-8") as handle:
            changed = handle.read() != page
    except (OSError, ValueError):
        changed = True
    if changed and not module.check_mode:
        try:
            os.makedirs(folder, mode=0o750, exist_ok=True)
            write_page(path, page)
        except OSError as error:
            module.fail_json(msg=f"the page cannot be written to {folder}: {error}")
    states = {str(item["site"]): str(item["summary"]["state"]) for item in reports}
    after = "".join(f"{name}: {state}\n" for name, state in sorted(states.items()))
    module.exit_json(changed=changed, html=path, sites=states, diff={"before": "" if changed else after, "after": after})


if __name__ == "__main__":
    main()
