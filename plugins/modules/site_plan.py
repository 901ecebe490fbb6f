#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# Copyright: Contributors to onprem.circleci_server
"""Ansible module site_plan: writes the change-request document of a site."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_plan
short_description: Write the change-request document of a site as Markdown, HTML and JSON
version_added: 0.1.0
description:
  - Writes what a run would do to the site, before it does anything, as C(change-request.md), C(change-request.html) and
    C(change-request.json) below O(path), and the port rules as C(ports.csv).
  - These files are all that it touches.
  - The document says when it was made. A plan that says the same as the one that lies there keeps that time, so that nothing changes.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  path:
    description: Folder on this host; it is made when it is missing.
    type: path
    required: true
  plan:
    description:
      - What is planned. C(site) is needed. C(release), C(platform), C(domain), C(generated), C(summary) and C(duration) are texts.
      - Lists of mappings are C(hosts) (C(name), C(addresses), C(roles), C(reboot), C(reboot_reason)), C(files) (C(host), C(path), C(action),
        C(owner), C(why)), C(packages) (C(host), C(name), C(version), C(source), C(why)), C(services) (C(host), C(name), C(action), C(why)),
        C(ports) (rows of P(onprem.circleci_server.port_table#filter)), C(dns) (C(name), C(type), C(value), C(why)), C(kubernetes) (C(kind),
        C(name), C(namespace), C(action), C(why)), C(gates) (C(name), C(text), C(who)), C(irreversible) (C(step), C(why), C(way_back)),
        C(downloads) (C(what), C(from), C(size) in bytes, C(why)), C(sizes) (C(what), C(host), C(size)), C(findings) (C(subject), C(severity),
        C(found), C(expected), C(source), C(remedy)), C(buckets) (C(name), C(action), C(why)),
        C(values) (C(key), C(value), C(rule), C(source)), C(secrets_in_values) (C(key), C(rule), C(source), C(why)) and C(waivers) (C(name),
        C(reason)).
    type: dict
    required: true
  ports_csv:
    description: Text of C(ports.csv), as the filter P(onprem.circleci_server.site_plan#filter) gives it. Empty writes none.
    type: str
    default: ""
  cloud_csv:
    description: Text of C(cloud-rules.csv), the rules as the cloud of the site holds them. Empty writes none.
    type: str
    default: ""
  cloud_markdown:
    description: Text of C(cloud-rules.md), the same as O(cloud_csv). Empty writes none.
    type: str
    default: ""
  cloud_requests_csv:
    description: Text of C(cloud-requests.csv), what is asked of the cloud beside its firewall. Empty writes none.
    type: str
    default: ""
  cloud_requests_markdown:
    description: Text of C(cloud-requests.md), the same as O(cloud_requests_csv). Empty writes none.
    type: str
    default: ""
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Returns the Markdown before and after.
    support: full
  platform:
    description: Target OS or families that can be operated against.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Write the change-request document
  onprem.circleci_server.site_plan:
    path: /var/lib/onprem-circleci/reports
    plan:
      site: osaka
      release: 4.10.0
      ports: "{{ groups | onprem.circleci_server.port_table(hostvars, inventory_hostname, '4.10.0', 'generic', port_options) }}"
"""

RETURN = r"""
markdown:
  description: Where the Markdown lies.
  returned: success
  type: str
html:
  description: Where the page lies.
  returned: success
  type: str
json:
  description: Where the data lie.
  returned: success
  type: str
"""

import datetime
import json
import os
import tempfile
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.report import PlanError, render_plan

NAMES = {"markdown": "change-request.md", "html": "change-request.html", "json": "change-request.json", "csv": "ports.csv",
         "cloud_csv": "cloud-rules.csv", "cloud_markdown": "cloud-rules.md",
         "cloud_requests_csv": "cloud-requests.csv", "cloud_requests_markdown": "cloud-requests.md"}  # fmt: skip


def write(path: str, content: str) -> None:
    """Replace a file as a whole."""
    handle, temporary = tempfile.mkstemp(prefix=".plan-", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(content)
        os.chmod(temporary, 0o640)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def read(path: str) -> str:
    """What lies there, nothing if there is no file."""
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except (OSError, ValueError):
        return ""


def now() -> str:
    """The time for people."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def made(plan: Mapping[str, Any], before: str) -> str:
    """When the content of the plan came up: the time of the one that lies there when both say the same."""
    try:
        old = json.loads(before)
    except ValueError:
        old = None
    # Through JSON and back, as the old one went.
    if isinstance(old, dict) and old.get("generated") and {**old, "generated": ""} == {**json.loads(json.dumps(plan)), "generated": ""}:
        return str(old["generated"])
    return now()


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "plan": {"type": "dict", "required": True},
            "ports_csv": {"type": "str", "default": ""},
            "cloud_csv": {"type": "str", "default": ""},
            "cloud_markdown": {"type": "str", "default": ""},
            "cloud_requests_csv": {"type": "str", "default": ""},
            "cloud_requests_markdown": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    folder = module.params["path"]
    names = {kind: os.path.join(folder, name) for kind, name in NAMES.items()}
    before = {kind: read(name) for kind, name in names.items()}
    plan = dict(module.params["plan"])
    plan.setdefault("generated", made(plan, before["json"]))
    try:
        markdown, page = render_plan(plan)
    except PlanError as error:
        module.fail_json(msg="; ".join(error.problems), problems=list(error.problems))
    contents = {"markdown": markdown, "html": page, "json": json.dumps(plan, indent=1, sort_keys=True) + "\n", "csv": module.params["ports_csv"],
                **{kind: module.params[kind] for kind in names if kind.startswith("cloud_")}}  # fmt: skip
    stale = [kind for kind in contents if contents[kind] != before[kind]]
    if stale and not module.check_mode:
        try:
            os.makedirs(folder, mode=0o750, exist_ok=True)
            for kind in stale:
                write(names[kind], contents[kind])
        except OSError as error:
            module.fail_json(
                msg=f"circleci_plan_dir: the plan cannot be written to {folder}: {error.strerror}. Name a folder that the user of this host may write to."
            )
    module.exit_json(
        changed=bool(stale), markdown=names["markdown"], html=names["html"], json=names["json"],
        diff={"before": before["markdown"], "after": markdown, "before_header": names["markdown"], "after_header": names["markdown"]},
    )  # fmt: skip


if __name__ == "__main__":
    main()
