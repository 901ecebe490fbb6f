#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: registry_coverage
short_description: Find images that a site uses and its registry does not have
version_added: 0.1.0
description:
  - Reads the images of pods, deployments, stateful sets, daemon sets and cron jobs from the cluster, and those of Nomad's jobs through the
    API server, and asks the private registry for each one question.
  - What is not there would fail to pull at the next restart. It changes nothing.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.private_registry
options:
  kubeconfig:
    description: Kubeconfig file on the control host.
    type: path
    required: true
  namespaces:
    description: Namespaces to look into. Empty looks into all.
    type: list
    elements: str
    default: []
  nomad_namespace:
    description: Namespace of Nomad's service. Empty does not ask Nomad.
    type: str
    default: ""
  nomad_service:
    description: Nomad's service as the API server's proxy names it.
    type: str
    default: nomad-server:4646
  images:
    description: Further images to look for, for instance what Nomad clients pull by themselves, or images of your own jobs.
    type: list
    elements: str
    default: []
  mapping:
    description: The mapping that the bundle was loaded with.
    type: dict
    default: {}
  registry_may_be_missing:
    description: In check mode only, the registry may be missing because the run itself would bring it.
    type: bool
    default: false
  fail:
    description:
      - Fail when an image is missing, or when cluster, Nomad or registry cannot be asked.
      - With V(false) both are only returned, so that a report can be written first.
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
- name: Find images that would fail to pull
  onprem.circleci_server.registry_coverage:
    kubeconfig: /etc/onprem-circleci/kubeconfig
    namespaces: [circleci-server]
    nomad_namespace: circleci-server
    registry: registry.example.com:5000
    username: site
    password: "{{ circleci_registry_password }}"
"""

RETURN = r"""
checked:
  description: Whether the registry was asked.
  returned: always
  type: bool
images:
  description: Number of images in use.
  returned: always
  type: int
problem:
  description: Why it could not be asked, empty when it was.
  returned: always
  type: str
findings:
  description: The same for M(onprem.circleci_server.site_verdict), empty when the registry was asked.
  returned: always
  type: list
  elements: dict
missing:
  description: Images that would fail to pull, each with C(image), C(used_by) and C(reason).
  returned: always
  type: list
  elements: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.helm.kube import KubeError, KubernetesClient
from ..module_utils.mirror.errors import MirrorError
from ..module_utils.mirror_module import REGISTRY_SPEC, explained, registry_access
from ..module_utils.nomad.transport import NomadError
from ..module_utils.registry_coverage import Used, from_cluster, from_nomad, joined, missing

FURTHER = "named beside what runs, such as what Nomad clients pull by themselves"


def run(module: AnsibleModule) -> dict[str, Any]:
    given = module.params
    api = KubernetesClient(given["kubeconfig"])
    nomad = from_nomad(api, given["nomad_namespace"], given["nomad_service"]) if given["nomad_namespace"] else {}
    used = joined(from_cluster(api, given["namespaces"]), nomad, {image: Used(image, [FURTHER]) for image in given["images"]})
    client = registry_access(given).client(given["registry"])
    mapping = {str(key): str(value) for key, value in given["mapping"].items()}
    return {"checked": True, "images": len(used), "missing": missing(used, given["registry"], mapping, client.head_manifest), "problem": "", "findings": []}


def unanswered(module: AnsibleModule, problem: str) -> dict[str, Any]:
    """What is known when somebody could not be asked."""
    result: dict[str, Any] = {"checked": False, "images": 0, "missing": [], "problem": problem, "findings": []}
    if module.check_mode and module.params["registry_may_be_missing"]:
        return result
    if module.params["fail"]:
        module.fail_json(msg=problem, **result)
    found = {"urgency": 1, "subject": "images in use", "found": problem, "expected": "an answer of the registry about each", "remedy": "", "source": ""}
    return {**result, "findings": [found]}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REGISTRY_SPEC,
            "kubeconfig": {"type": "path", "required": True},
            "namespaces": {"type": "list", "elements": "str", "default": []},
            "nomad_namespace": {"type": "str", "default": ""},
            "nomad_service": {"type": "str", "default": "nomad-server:4646"},
            "images": {"type": "list", "elements": "str", "default": []},
            "mapping": {"type": "dict", "default": {}},
            "registry_may_be_missing": {"type": "bool", "default": False},
            "fail": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except KubeError as error:
        result = unanswered(module, error.sentence)
    except NomadError as error:
        result = unanswered(module, str(error))
    except MirrorError as error:
        result = unanswered(module, explained(error, module.params["registry"]))
    if result["missing"] and module.params["fail"]:
        listing = "\n".join(f"  - {entry['image']} ({entry['used_by'][0]}): {entry['reason']}" for entry in result["missing"])
        module.fail_json(msg=f"{len(result['missing'])} image(s) would fail to pull; make a bundle that holds them and load it:\n{listing}", **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
