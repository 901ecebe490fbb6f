#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cloud_registry_template
short_description: Let ECR make repositories when images are pushed
version_added: 0.1.0
description:
  - Makes a repository creation template of Amazon ECR that is applied on push. Without one, ECR refuses an image whose repository was not made before, and
    each image of the product has one of its own.
  - Registries of other clouds take any name below their path.
  - A template that is there is never changed, and none is taken away.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
requirements:
  - boto3
options:
  provider:
    description: The cloud.
    type: str
    choices: [aws]
    default: aws
  site:
    description: Name of the site, which the template says it is of.
    type: str
    required: true
  registry_host:
    description: Address of the registry, C(<account>.dkr.ecr.<region>.amazonaws.com). The template is made in that region, with credentials of that account.
    type: str
    required: true
  path:
    description:
      - Path below which the registry keeps all images of the site. Empty stands for all repositories of the registry that no other template is for.
    type: str
    default: ""
  endpoint:
    description: URL of the API of ECR, where it is not the public one of the region.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Reads the cloud, compares, and changes nothing.
  diff_mode:
    support: full
    description: Shows what the registry makes on push before and after.
"""

EXAMPLES = r"""
- name: Let ECR make the repositories of the site
  onprem.circleci_server.cloud_registry_template:
    site: osaka
    registry_host: 123456789012.dkr.ecr.us-west-2.amazonaws.com
    path: circleci-server
"""

RETURN = r"""
changes:
  description: One line for what was or would be made.
  returned: success
  type: list
  elements: str
notes:
  description: What somebody else has to do, and why.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.cloud_module import Part, run
from ..module_utils.cloud_registry_template import CreationTemplate


def _part(given: dict[str, Any]) -> Part:
    return CreationTemplate(given["site"], given["registry_host"], given["path"], given["endpoint"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "provider": {"type": "str", "choices": ["aws"], "default": "aws"},
            "site": {"type": "str", "required": True},
            "registry_host": {"type": "str", "required": True},
            "path": {"type": "str", "default": ""},
            "endpoint": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    run(module, _part)


if __name__ == "__main__":
    main()
