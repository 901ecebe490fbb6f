#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: chart_facts
short_description: Read out of a chart what it really holds
version_added: 0.1.0
description:
  - Reads the values, the schema and the templates of a chart, and renders it with everything on, as it comes, and with the values of a site.
  - Gives values keys, images with the values key that moves each (seen by setting marks and looking where they land), workloads with labels,
    Services with ports, Secrets that the chart makes or wants.
  - It needs no cluster, changes nothing and knows nothing of the catalog, with which the verb C(chart_check) compares the result.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
requirements:
  - helm 3.16 or later
  - PyYAML
options:
  chart:
    description: The chart as a folder, an archive, or C(oci://host/path).
    type: str
    required: true
  version:
    description: Version of the chart, for C(oci://).
    type: str
    default: ''
  values:
    description: Values of a site to render the chart with, as JSON.
    type: str
    default: '{}'
  registry:
    description: Private registry of these values. Images that do not begin with it are told as C(outside).
    type: str
    default: ''
  image_keys:
    description: Dotted values keys that are said to move images, and are tried too.
    type: list
    elements: str
    default: []
  proof_only:
    description: Only look which images O(values) leave outside O(registry).
    type: bool
    default: false
  helm:
    description: The helm program, as a name or a path.
    type: str
    default: helm
  username:
    description: User of the registry, for C(oci://).
    type: str
    default: ''
  password:
    description: Password of O(username).
    type: str
    default: ''
  ca_certificate:
    description: PEM of a further authority to trust, for C(oci://).
    type: str
    default: ''
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: Read the chart
  onprem.circleci_server.chart_facts:
    chart: /srv/circleci-server-4.10.0.tgz
  register: chart
"""

RETURN = r"""
chart:
  description:
    - C(name), C(version), C(app_version), C(digest) of all files, C(stand_in), C(values), C(schema), C(reads) (keys that templates name), C(images),
      C(build_images), C(workloads), C(services), C(secrets), C(outside) and C(problems). With O(proof_only) the last two only.
  returned: success
  type: dict
"""

import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.chart_facts import ChartFileError, prove_chart, read_chart
from ..module_utils.discovery.errors import DiscoveryError
from ..module_utils.helm.cli import Helm, HelmError, Source
from ..module_utils.helm.objects import HAS_YAML, Masker


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "chart": {"type": "str", "required": True},
            "version": {"type": "str", "default": ""},
            # Values of a site may hold secrets. As one text they are hidden as a whole: single ones would be blanked in what the chart says.
            "values": {"type": "str", "default": "{}", "no_log": True},
            "registry": {"type": "str", "default": ""},
            "image_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "proof_only": {"type": "bool", "default": False},
            "helm": {"type": "str", "default": "helm"},
            "username": {"type": "str", "default": ""},
            "password": {"type": "str", "default": "", "no_log": True},
            "ca_certificate": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    if not HAS_YAML:
        module.fail_json(msg="The Python library PyYAML is missing on this host: install it.")
    try:
        values = json.loads(given["values"])
    except ValueError as error:
        module.fail_json(msg=f"values is no JSON ({error}): pipe the values through to_json.")
    source = Source(given["chart"], given["version"], given["username"], given["password"], given["ca_certificate"])
    try:
        with Helm(given["helm"], "", "", masker=Masker([given["password"]]), timeout=300) as helm:
            path = helm.obtain(source).path if source.remote else Path(given["chart"])
            if not path.exists():
                module.fail_json(msg=f"circleci_chart: there is no {path} on this host: give the folder of a chart, the .tgz of helm pull, or oci://host/path.")
            if given["proof_only"]:
                chart = prove_chart(path, helm=helm.binary, values=values, registry=given["registry"])
            else:
                chart = read_chart(path, helm=helm.binary, values=values, registry=given["registry"], image_keys=given["image_keys"])
    except (ChartFileError, DiscoveryError, HelmError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, chart=chart)


if __name__ == "__main__":
    main()
