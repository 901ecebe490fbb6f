#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: site_secret_values
short_description: Read values of the site's Kubernetes Secrets for other hosts of the play
version_added: 0.1.0
description:
  - Reads named Secrets of one namespace, decodes them and returns the texts. Always use it with C(no_log=true).
  - Certificates of Nomad clients, for instance, lie in C(onprem-circleci-nomad-client-<host>) with the keys C(ca.pem),
    C(cert.pem) and C(key.pem).
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
requirements:
  - kubernetes (Python library)
options:
  kubeconfig:
    description: Path of the kubeconfig file on this host.
    type: path
    required: true
  context:
    description: Context of the kubeconfig file. The current one when empty.
    type: str
    default: ''
  namespace:
    description: Namespace of CircleCI Server.
    type: str
    required: true
  secrets:
    description: What to read.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the Secret.
        type: str
        required: true
      keys:
        description: Keys to read. All of them when empty.
        type: list
        elements: str
        default: []
      encoding:
        description: V(base64) when the values are encoded once more inside the Secret, as licence and nomad-mtls are.
        type: str
        choices: [plain, base64]
        default: plain
      optional:
        description: Whether the Secret may be missing.
        type: bool
        default: false
  cluster_may_be_missing:
    description: A cluster that cannot be asked is no error and has no values, for verbs that only look.
    type: bool
    default: false
  missing_in_check_mode:
    description: In check mode a missing Secret is no error, since an earlier verb of this run would have made it.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: It only reads. Secrets that are missing in check mode are left out of the result.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: Read the certificate of the domain
  onprem.circleci_server.site_secret_values:
    kubeconfig: /etc/kubernetes/admin.conf
    namespace: circleci-server
    secrets:
      - name: onprem-circleci-domain-tls
        keys: [tls.crt, tls.key]
  register: domain_tls
  no_log: true
"""

RETURN = r"""
values:
  description: The decoded texts, by Secret and key.
  returned: success
  type: dict
  sample: {onprem-circleci-domain-tls: {tls.crt: "-----BEGIN CERTIFICATE-----"}}
problems:
  description: Secrets and keys that are missing.
  returned: on failure
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.helm.kube import KubeError, KubernetesClient
from ..module_utils.secrets.store import read_values


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "context": {"type": "str", "default": ""},
            "namespace": {"type": "str", "required": True},
            "secrets": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "no_log": False,
                "options": {
                    "name": {"type": "str", "required": True},
                    "keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
                    "encoding": {"type": "str", "choices": ["plain", "base64"], "default": "plain"},
                    "optional": {"type": "bool", "default": False},
                },
            },
            "cluster_may_be_missing": {"type": "bool", "default": False},
            "missing_in_check_mode": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        api = KubernetesClient(params["kubeconfig"], params["context"])
        values, problems = read_values(api, params["namespace"], params["secrets"])
    except KubeError as error:
        if params["cluster_may_be_missing"]:
            module.exit_json(changed=False, values={})
        module.fail_json(msg=f"Secrets of namespace {params['namespace']}: {error.sentence}", problems=[error.sentence])
    if problems and not (module.check_mode and params["missing_in_check_mode"]):
        module.fail_json(msg="\n- ".join(["Secrets cannot be read:", *problems]), problems=problems)
    module.exit_json(changed=False, values=values)


if __name__ == "__main__":
    main()
