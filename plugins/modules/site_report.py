#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Ansible module site_report: writes what verify found, for machines and for people."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_report
short_description: Write the report of a site as JSON and as one HTML page
version_added: 0.1.0
description:
  - Writes the findings of one site below O(path) as C(report.json), as C(report.html) that loads nothing from a network, and with O(prometheus)
    as C(report.prom).
  - Compares them with the report that lies there and tells what changed since.
  - A run that finds the same changes nothing, so the time in the report is the time when it last became different.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  path:
    description: Folder on this host, usually C(reports) below the state folder. It is made when it is missing.
    type: path
    required: true
  findings:
    description:
      - What is known of the site. C(site) is needed; C(hosts), C(rules), C(flows), C(listeners), C(services), C(evidence), C(certificates),
        C(images), C(chart), C(versions), C(storage), C(secrets_in_values), C(waivers), C(findings), C(release), C(platform) and C(domain) may be there.
      - A level of proof that C(evidence) does not name counts as not run.
      - It may be the JSON text of that, or the packed text that RV(onprem.circleci_server.site_verdict#module:findings) is.
    type: json
    required: true
  prometheus:
    description: Whether to write metrics for the text file collector of a node exporter.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Returns the summary on one screen before and after.
    support: full
  platform:
    description: Target OS or families that can be operated against.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Write the report
  onprem.circleci_server.site_report:
    path: /var/lib/onprem-circleci/reports
    findings:
      site: osaka
      release: 4.10.0
      services: "{{ health.services }}"
"""

RETURN = r"""
report:
  description:
    - The report as written to C(report.json), as packed JSON text, for M(onprem.circleci_server.sites_page).
    - A text for the reason that RV(onprem.circleci_server.connectivity#module:connections) is one; packed, since it is megabytes for a large site.
  returned: success
  type: str
state:
  description: V(ok), V(warning) or V(failed).
  returned: success
  type: str
summary:
  description: The report on one screen, a line each.
  returned: success
  type: list
  elements: str
html:
  description: Where the page lies.
  returned: success
  type: str
json:
  description: Where the data lies.
  returned: success
  type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.json_option import mapping_of, packed
from ..module_utils.report import (
    ReportError,
    build_report,
    read_report,
    render_json,
    render_page,
    render_prometheus,
    render_summary,
    same_content,
    write_page,
)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "findings": {"type": "json", "required": True},
            "prometheus": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    folder = module.params["path"]
    names = {kind: os.path.join(folder, f"report.{kind}") for kind in ("json", "html", "prom")}
    before = read_report(names["json"])
    problems: list[str] = []
    findings = mapping_of("findings", module.params["findings"], problems)
    if problems:
        module.fail_json(msg="; ".join(problems), problems=problems)
    try:
        report = build_report(findings, before)
    except ReportError as error:
        module.fail_json(msg="; ".join(error.problems), problems=list(error.problems))
    missing = [kind for kind in ("json", "html", *(["prom"] if module.params["prometheus"] else [])) if not os.path.exists(names[kind])]
    changed = before is None or bool(missing) or not same_content(before, report)
    if not changed and before is not None:
        report = before
    summary = render_summary(report, names["html"])
    if changed and not module.check_mode:
        try:
            os.makedirs(folder, mode=0o750, exist_ok=True)
            write_page(names["json"], render_json(report))
            write_page(names["html"], render_page([report]))
            if module.params["prometheus"]:
                write_page(names["prom"], render_prometheus(report))
        except OSError as error:
            module.fail_json(msg=f"the report cannot be written to {folder}: {error}")
    module.exit_json(
        changed=changed,
        report=packed(report),
        state=report["summary"]["state"],
        summary=summary.splitlines(),
        html=names["html"],
        json=names["json"],
        diff={"before": render_summary(before) if before else "", "after": summary if not before else render_summary(report)},
    )


if __name__ == "__main__":
    main()
