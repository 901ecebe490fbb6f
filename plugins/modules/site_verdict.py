#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Ansible module site_verdict: joins what all hosts of a site found and fails once with every reason."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_verdict
short_description: Join what all hosts of a site found and judge it
version_added: 0.1.0
description:
  - Joins connections, listeners, health, registry and evidence into the findings for M(onprem.circleci_server.site_report).
  - Fails once with every reason unless O(fail) is false. Levels of proof are never mixed, and one that did not run says what is missing.
  - A waiver called C(service_<name>) or C(port_<rule>) keeps that service or rule from failing the run; the report shows it all the same.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  site:
    description:
      - C(site), C(release), C(platform) and C(domain), and what else the report is to say of the site, such as C(secrets_in_values).
    type: dict
    required: true
  hosts:
    description:
      - RV(onprem.circleci_server.connectivity#module:connections) and RV(onprem.circleci_server.connectivity#module:listeners) by host,
        from the filter P(onprem.circleci_server.site_connections#filter), as a mapping, its JSON text, or that text packed.
    type: json
    default: "{}"
  model:
    description: The site's rules and hosts, from the filter P(onprem.circleci_server.port_model#filter).
    type: dict
    default: {}
  health:
    description: RV(onprem.circleci_server.service_health#module:health).
    type: dict
    default: {}
  evidence:
    description:
      - Levels of proof that ran, each as C(level) (V(infrastructure probe), V(CircleCI job), V(reality check)), C(state) (V(passed), V(failed),
        V(not run)), C(detail), C(missing) and C(when).
    type: list
    elements: dict
    default: []
  missing_images:
    description: Images that the private registry lacks, as names or as RV(onprem.circleci_server.registry_coverage#module:missing).
    type: list
    elements: raw
    default: []
  images_checked:
    description: Whether the private registry was asked.
    type: bool
    default: false
  waivers:
    description: Requirements that the site knowingly does not meet, each as C(name) and C(reason).
    type: list
    elements: dict
    default: []
  chart:
    description: C(compared) and C(detail), whether the vendor's chart was compared with the catalog.
    type: dict
    default: {}
  findings:
    description: Further findings, each as C(urgency) (1 to 4), C(subject), C(found), C(expected), C(remedy) and C(source).
    type: list
    elements: dict
    default: []
  last_report:
    description:
      - The C(report.json) of the last run. A level of proof that did not run now is taken from there with its time, as long as site, release,
        platform, domain and Nomad clients are the same.
      - Empty takes nothing over.
    type: path
    default: ""
  fail:
    description: Whether to fail when there is a reason.
    type: bool
    default: true
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Will return details on what has changed when in diff mode; nothing ever changes.
    support: none
  platform:
    description: Target OS or families that can be operated against.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Judge the site
  onprem.circleci_server.site_verdict:
    site:
      site: osaka
      release: 4.10.0
    hosts: "{{ '__circleci_verify_host' | onprem.circleci_server.site_connections(groups, hostvars, inventory_hostname) }}"
    health: "{{ services.health }}"
"""

RETURN = r"""
findings:
  description:
    - What M(onprem.circleci_server.site_report) takes as O(onprem.circleci_server.site_report#module:findings), as packed JSON text, C(zlib:) and
      then base64. People read C(report.json), which that module writes.
    - A text for the reason that RV(onprem.circleci_server.connectivity#module:connections) is one; packed, since it is megabytes for a large site.
  returned: always
  type: str
reasons:
  description: Why the site is not as it should be, a sentence each.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.health import VerdictError, judge_site
from ..module_utils.json_option import mapping_of, packed
from ..module_utils.report import read_report


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "site": {"type": "dict", "required": True},
            "hosts": {"type": "json", "default": "{}"},
            "model": {"type": "dict", "default": {}},
            "health": {"type": "dict", "default": {}},
            "evidence": {"type": "list", "elements": "dict", "default": []},
            "missing_images": {"type": "list", "elements": "raw", "default": []},
            "images_checked": {"type": "bool", "default": False},
            "waivers": {"type": "list", "elements": "dict", "default": []},
            "chart": {"type": "dict", "default": {}},
            "findings": {"type": "list", "elements": "dict", "default": []},
            "last_report": {"type": "path", "default": ""},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    problems: list[str] = []
    hosts = mapping_of("hosts", options["hosts"], problems)
    if problems:
        module.fail_json(msg="; ".join(problems), problems=problems)
    try:
        findings, reasons = judge_site(
            options["site"], hosts, options["model"], options["health"], options["evidence"], options["missing_images"],
            options["images_checked"], options["waivers"], options["chart"], options["findings"],
            read_report(options["last_report"]),
        )  # fmt: skip
    except VerdictError as error:
        module.fail_json(msg="; ".join(error.problems), problems=list(error.problems))
    text = packed(findings)
    if reasons and options["fail"]:
        shown = reasons[:20] + ([f"and {len(reasons) - 20} more, see the report"] if len(reasons) > 20 else [])
        listing = "\n".join(f"  - {reason}" for reason in shown)
        module.fail_json(msg=f"{options['site'].get('site', 'the site')} is not as it should be:\n{listing}", reasons=reasons, findings=text)
    module.exit_json(changed=False, findings=text, reasons=reasons)


if __name__ == "__main__":
    main()
