#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cluster_addon
short_description: Bring an add-on of the bundle into the cluster
version_added: 0.1.0
description:
  - Takes an upstream manifest out of the private registry, or O(objects) of a role, lets the images come from there with a pull Secret in each
    namespace, compares all objects with the cluster, applies the difference and waits until the workloads are ready.
  - All objects carry C(app.kubernetes.io/managed-by=onprem.circleci_server). An add-on that is there without it is refused, never taken over.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
options:
  registry:
    description: Private registry, C(host) or C(host:port), without a scheme. Needed with O(state=present).
    type: str
  username:
    description: User of the registry. Empty asks without a login.
    type: str
    default: ""
  password:
    description: Password of O(username).
    type: str
    default: ""
  ca_certificate:
    description: PEM of the authority that signed the registry's certificate. Empty trusts what the host trusts.
    type: str
    default: ""
  plain_http:
    description: Talk to the registry without TLS. Passwords and contents are then open to everybody on the way.
    type: bool
    default: false
  kubeconfig:
    description: Kubeconfig file on this host.
    type: path
    required: true
  name:
    description: Name of the add-on, for labels and messages.
    type: str
    required: true
  artifact:
    description: Name of the file artifact that holds the manifest, such as C(onprem/files/metallb-manifest). Without it all comes from O(objects).
    type: str
  version:
    description: Version of the file artifact. Needed with O(artifact).
    type: str
  images:
    description: Images of the add-on as the bundle names them. An image of the manifest that is not among them is refused.
    type: list
    elements: str
    default: []
  digests:
    description: Digests that the private registry has, by the names in O(images). Pods then pull by digest.
    type: dict
    default: {}
  objects:
    description: Objects beside those of the manifest, or instead of one, with images as O(images) names them.
    type: list
    elements: dict
    default: []
  secrets:
    description: Secrets beside them. Their values are compared with those of the cluster and never shown.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the Secret.
        type: str
        required: true
      namespace:
        description: Namespace of the Secret.
        type: str
        required: true
      type:
        description: Type of the Secret.
        type: str
        default: Opaque
      plain:
        description: Texts by key that everybody may see in the messages of a run, such as an access key.
        type: dict
        default: {}
      data:
        description: Texts by key that are secret.
        type: dict
        default: {}
  serving:
    description:
      - Name of a Service among O(objects). As long as no pod is ready it leads to pods that run, so that what makes them ready can go through it;
        call the module again afterwards. The module then waits for containers that run, and else for pods that are ready.
    type: str
    default: ""
  hint:
    description: What to look at when pods do not become ready in time, as a sentence.
    type: str
    default: ""
  settings:
    description: Objects of the site that follow when the add-on runs, such as a pool of addresses.
    type: list
    elements: dict
    default: []
  default_storage_class:
    description: Name of the StorageClass of the manifest that becomes the default one.
    type: str
    default: ""
  state:
    description:
      - V(absent) takes away what carries the labels of this collection and of the add-on, with the data that depends on it.
      - Neither the manifest nor the private registry is needed for that.
    type: str
    choices: [present, absent]
    default: present
  wait_timeout:
    description: Seconds to wait for the workloads.
    type: int
    default: 300
  registry_may_be_missing:
    description: In check mode only, registry and manifest may be missing because the run itself would bring them.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Compares and applies nothing.
  diff_mode:
    support: full
    description: Object by object, Secrets masked.
"""

EXAMPLES = r"""
- name: Bring MetalLB
  onprem.circleci_server.cluster_addon:
    kubeconfig: /etc/kubernetes/admin.conf
    registry: registry.example.com:5000
    username: site
    password: "{{ circleci_registry_password }}"
    name: metallb
    artifact: onprem/files/metallb-manifest
    version: 0.15.2
    images:
      - quay.io/metallb/controller:v0.15.2
      - quay.io/metallb/speaker:v0.15.2
    settings:
      - apiVersion: metallb.io/v1beta1
        kind: IPAddressPool
        metadata: {name: circleci, namespace: metallb-system}
        spec: {addresses: [192.0.2.10/32]}

- name: Bring the gateway of the object store
  onprem.circleci_server.cluster_addon:
    kubeconfig: /etc/kubernetes/admin.conf
    registry: registry.example.com:5000
    username: site
    password: "{{ circleci_registry_password }}"
    name: object-storage
    images: [ghcr.io/versity/versitygw:v1.8.0]
    objects: "{{ workload.objects }}"
    secrets: "{{ workload.secrets }}"
    serving: onprem-circleci-object-storage
"""

RETURN = r"""
objects:
  description: Objects that were or would be created, changed or removed.
  returned: success
  type: dict
  contains:
    created: {description: New objects., type: list, elements: str, returned: success}
    changed: {description: Objects that differed., type: list, elements: str, returned: success}
    removed: {description: Objects taken away., type: list, elements: str, returned: success}
addresses:
  description: Addresses that the cluster has given to Services of type LoadBalancer among O(objects), by name.
  returned: when there are such Services, outside check mode
  type: dict
note:
  description: What could not be compared in check mode.
  returned: when something could not be compared
  type: str
"""

import base64
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.helm.kube import KubeError, KubernetesClient
from ..module_utils.helm.objects import HAS_YAML, Masker
from ..module_utils.kubernetes_api.addon import AddonError, Installer, Login, Wish
from ..module_utils.mirror.artifact import describe_file, pull_file
from ..module_utils.mirror.errors import MirrorError, NetworkError, RegistryError
from ..module_utils.mirror_module import REGISTRY_SPEC, explained, registry_access


def manifest_of(module: AnsibleModule) -> str | None:
    """The text of the manifest; None when the run would bring it first."""
    options = module.params
    quick = module.check_mode and options["registry_may_be_missing"]
    client = registry_access(options, quick=quick).client(options["registry"])
    try:
        remote = describe_file(client, options["artifact"], options["version"].replace("+", "_"))
        with tempfile.TemporaryDirectory(dir=module.tmpdir) as folder:
            path = Path(folder) / "manifest.yaml"
            pull_file(client, remote, str(path))
            return path.read_text(encoding="utf-8")
    except (NetworkError, RegistryError) as error:
        if quick and (isinstance(error, NetworkError) or error.status == 404):
            return None
        raise


def secret_of(given: dict[str, Any]) -> dict[str, Any]:
    """A Secret as the API takes it."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": given["type"],
        "metadata": {"name": given["name"], "namespace": given["namespace"]},
        "data": {key: base64.b64encode(str(text).encode()).decode() for part in ("plain", "data") for key, text in given[part].items()},
    }


def run(module: AnsibleModule) -> None:
    options = module.params
    installer = Installer(KubernetesClient(options["kubeconfig"]), timeout=float(options["wait_timeout"]))
    if options["state"] == "absent":
        gone = installer.remove(options["name"], check=module.check_mode)
        diff = {"before": "".join(f"{item}\n" for item in gone), "after": ""}
        module.exit_json(changed=bool(gone), objects={"created": [], "changed": [], "removed": gone}, diff=diff)
    manifest = manifest_of(module) if options["artifact"] else ""
    if manifest is None:
        artifact = f"{options['artifact']}:{options['version']}"
        note = f"{artifact} is not in {options['registry']} yet; the run would bring it there first"
        module.exit_json(
            changed=True,
            objects={"created": [f"all of {options['name']}"], "changed": [], "removed": []},
            note=note,
            diff={"before": "", "after": f"all objects of {artifact}\n"},
        )
    wish = Wish(
        name=options["name"],
        manifest=str(manifest),
        images=options["images"],
        login=Login(options["registry"], options["username"], options["password"]),
        settings=options["settings"],
        default_storage_class=options["default_storage_class"],
        objects=options["objects"],
        secrets=[secret_of(item) for item in options["secrets"]],
        digests=options["digests"],
        serving=options["serving"],
        hint=options["hint"],
    )
    result = installer.ensure(wish, check=module.check_mode)
    values = [str(text) for item in options["secrets"] for text in item["data"].values()]
    before, after = result.diff.texts(Masker([options["password"], *values]))
    more = {} if module.check_mode else {"addresses": installer.addresses(wish)}
    module.exit_json(changed=result.changed, objects=result.diff.names(), diff={"before": before, "after": after}, **{k: v for k, v in more.items() if v})


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **REGISTRY_SPEC,
            "registry": {"type": "str"},
            "kubeconfig": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "artifact": {"type": "str"},
            "version": {"type": "str"},
            "images": {"type": "list", "elements": "str", "default": []},
            "digests": {"type": "dict", "default": {}},
            "objects": {"type": "list", "elements": "dict", "default": []},
            "secrets": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "no_log": False,
                "options": {
                    "name": {"type": "str", "required": True},
                    "namespace": {"type": "str", "required": True},
                    "type": {"type": "str", "default": "Opaque"},
                    "plain": {"type": "dict", "default": {}},
                    "data": {"type": "dict", "default": {}, "no_log": True},
                },
            },
            "serving": {"type": "str", "default": ""},
            "hint": {"type": "str", "default": ""},
            "settings": {"type": "list", "elements": "dict", "default": []},
            "default_storage_class": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "wait_timeout": {"type": "int", "default": 300},
            "registry_may_be_missing": {"type": "bool", "default": False},
        },
        required_if=[("state", "present", ("registry", "images"))],
        required_by={"artifact": ("version",)},
        supports_check_mode=True,
    )
    if not HAS_YAML:
        module.fail_json(msg="the Python library PyYAML is missing on this host: install what requirements/site.txt lists")
    try:
        run(module)
    except AddonError as error:
        module.fail_json(msg="\n- ".join([f"{module.params['name']} cannot be brought into the cluster:", *error.problems]), problems=error.problems)
    except KubeError as error:
        module.fail_json(msg=f"{module.params['name']}: {error.sentence}")
    except MirrorError as error:
        module.fail_json(msg=explained(error, module.params["registry"]))


if __name__ == "__main__":
    main()
