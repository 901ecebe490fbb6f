#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: chart_proof
short_description: Prove before an install that nothing in the rendered chart points outside
version_added: 0.1.0
description:
  - Renders the chart with the final values. Every image must begin with the private registry and be there by tag or digest.
  - Every Secret (with its key), ConfigMap, volume claim, StorageClass, service account, priority class, namespace and kind that the
    rendered objects refer to must exist.
  - Failing items come all at once, each with the values key or the deed that mends it.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.chart_registry
requirements:
  - helm 3.16 or later
  - kubernetes (Python library)
  - PyYAML
options:
  kubeconfig:
    description: Path of the kubeconfig file on this host.
    type: path
    required: true
  context:
    description: Context of the kubeconfig file. The current one when empty.
    type: str
    default: ''
  helm:
    description: The helm program, as a name or a path.
    type: str
    default: helm
  name:
    description: Name of the release.
    type: str
    required: true
  namespace:
    description: Namespace of the release.
    type: str
    required: true
  chart:
    description: The chart as a folder, an archive, or C(oci://host/path) in the private registry.
    type: str
    required: true
  version:
    description: Version of the chart.
    type: str
    required: true
  values:
    description: Values of the release, as JSON.
    type: str
    required: true
  registry:
    description: The private registry as host[:port], with a path when images lie below one.
    type: str
    required: true
  allowed_registries:
    description: Further registries that images may come from. They are not looked into.
    type: list
    elements: str
    default: []
  extra_images:
    description: Images that no pod shows and that must be there too.
    type: list
    elements: str
    default: []
  check_images:
    description: Whether to look into the registry.
    type: bool
    default: true
  compared_digest:
    description:
      - Digest of the files of the chart that the catalog was compared with, from the filter P(onprem.circleci_server.catalog_comparison#filter). Another
        chart is refused, since the values were composed for that one.
      - Empty compares nothing.
    type: str
    default: ""
  postgresql_step:
    description: >-
      Major version that this run brings the PostgreSQL of the chart to before the chart is installed. Without it, a chart is refused whose PostgreSQL is of
      another major version than the one that runs.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: It only reads. In check mode a chart or namespace that is not there yet ends in a note instead of an error.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""

EXAMPLES = r"""
- name: Prove that the chart stays inside
  onprem.circleci_server.chart_proof:
    kubeconfig: /etc/kubernetes/admin.conf
    name: circleci-server
    namespace: circleci-server
    chart: oci://registry.example.com:5000/charts/circleci-server
    version: 4.10.0
    values: "{{ composition['values'] | to_json }}"
    registry: registry.example.com:5000
    registry_username: mirror
    registry_password: "{{ circleci_registry_password }}"
"""

RETURN = r"""
chart_digest:
  description: Digest of the files of the chart, the same for a folder and an archive. Empty when the chart cannot be had yet.
  returned: success
  type: str
proved:
  description: Whether everything is in order.
  returned: always
  type: bool
images:
  description: All images that were found.
  returned: success
  type: list
  elements: str
secrets:
  description: Names of the Secrets that are referred to.
  returned: success
  type: list
  elements: str
items:
  description: Failing items.
  returned: on failure
  type: list
  elements: dict
  contains:
    kind:
      description: What it is, such as C(image) or C(Secret).
      type: str
      returned: always
    what:
      description: Its name.
      type: str
      returned: always
    problem:
      description: What is wrong.
      type: str
      returned: always
    where:
      description: Objects that use it.
      type: list
      elements: str
      returned: always
    fix:
      description: What mends it.
      type: str
      returned: always
notes:
  description: What could not be proved.
  returned: always
  type: list
  elements: str
"""

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.chart_facts.unpack import ChartFileError, content_digest
from ..module_utils.helm.cli import Chart, Helm, HelmError
from ..module_utils.helm.kube import KubeError, KubernetesClient
from ..module_utils.helm.objects import HAS_YAML, Masker, parse_documents
from ..module_utils.helm.proof import Item, Proof
from ..module_utils.mirror.registry import RegistryClient
from ..module_utils.operations_module import REGISTRY_SPEC, chart_source


def merged(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def client_images(helm: Helm, chart: Chart, values: dict[str, Any]) -> dict[str, str]:
    """Images that Nomad clients pull: the build agent, whose tag stands in the chart, and the reaper's pause."""
    found: dict[str, str] = {}
    build_agent = (values.get("nomad") or {}).get("buildAgentImage")
    text = images_file(helm, chart)
    tag = next((line.partition(": ")[2].strip().strip("\"'") for line in text.splitlines() if line.startswith("circleci/picard:")), "")
    if build_agent and tag:
        found[f"{build_agent}:{tag}"] = "Nomad clients (build agent)"
    reaper = (values.get("docker_provisioner") or {}).get("reaperContainerRepository")
    if reaper:
        found[f"{reaper}/pause:3.6"] = "Nomad clients (reaper)"
    return found


def images_file(helm: Helm, chart: Chart) -> str:
    """images.yaml in the root of the chart."""
    if chart.path.is_dir():
        path = chart.path / "images.yaml"
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    import tarfile

    with tarfile.open(chart.path) as archive:
        for member in archive:
            parts = Path(member.name).parts
            if member.isfile() and len(parts) == 2 and parts[1] == "images.yaml":
                stream = archive.extractfile(member)
                return stream.read().decode() if stream else ""
    return ""


def compare_chart(chart: Chart, compared: str) -> tuple[str, list[Item]]:
    """The digest of the chart's files, and what is wrong when the catalog was compared with another chart."""
    digest = content_digest(chart.path)
    if compared in ("", digest):
        return digest, []
    return digest, [
        Item(
            "chart",
            f"{chart.name}-{chart.version}",
            f"its files have the digest {digest}, the one that the catalog was compared with has {compared}",
            ("circleci_catalog_overlay",),
            "Run the verb chart_check with this chart and use its overlay, or bring the chart that was compared into the bundle.",
        )
    ]


def why_refused(other: list[Item], compared: bool) -> str:
    """What to do when the chart does not take the values: they are the catalog's and those of the site."""
    own = "A key that stands in circleci_values is mended there"
    if other:
        return f"{own}. {other[0].sentence()}"
    if compared:
        return f"{own}; all others fit the chart that the catalog was compared with."
    return f"{own}; any other means that the chart is not as documented: run the verb chart_check with it and give its overlay as circleci_catalog_overlay."


def prove(module: AnsibleModule, helm: Helm) -> dict[str, Any]:
    params = module.params
    try:
        values = json.loads(params["values"])
    except ValueError as error:
        module.fail_json(msg=f"values is no JSON ({error}): pipe the values through to_json.")
    source = chart_source(params["chart"], params["version"], params)
    try:
        chart = helm.obtain(source)
    except HelmError as error:
        if module.check_mode and error.kind == "chart":
            note = f"The chart cannot be had yet ({error}); it was not proved."
            module.warn(note)
            return {"proved": False, "chart_digest": "", "images": [], "secrets": [], "items": [], "notes": [note]}
        raise
    digest, other = compare_chart(chart, params["compared_digest"])
    try:
        documents = parse_documents(helm.template(chart, params["name"], helm.values_file(values)))
    except HelmError as error:
        raise HelmError(f"{error}. {why_refused(other, bool(params['compared_digest']))}", error.kind) from error
    defaults = parse_values(helm.run(["show", "values", str(chart.path)]))
    proof = Proof(
        documents,
        namespace=params["namespace"],
        registry=params["registry"],
        values=merged(defaults, values),
        allowed_registries=params["allowed_registries"],
    )
    for image, place in client_images(helm, chart, merged(defaults, values)).items():
        proof.add_image(image, place)
    for image in params["extra_images"]:
        proof.add_image(image, "the site")
    inside = proof.check_prefixes()
    if params["check_images"]:
        host, _slash, _path = params["registry"].partition("/")
        client = RegistryClient(
            host,
            params["registry_username"] or None,
            params["registry_password"] or None,
            ca_data=params["registry_ca"] or None,
            plain_http=params["registry_plain_http"],
        )
        try:
            proof.check_images(inside, lambda path, reference: client.head_manifest(path, reference) is not None)
        finally:
            client.close()
    api = KubernetesClient(params["kubeconfig"], params["context"])
    proof.check_cluster(api)
    proof.check_postgresql(api, params["postgresql_step"])
    findings = proof.findings
    findings.items = other + findings.items
    return {
        "chart_digest": digest,
        "proved": not findings.items,
        "images": findings.images,
        "secrets": findings.secrets,
        "items": [item.plain() for item in findings.items],
        "notes": findings.notes,
        "sentences": [item.sentence() for item in findings.items],
    }


def parse_values(text: str) -> dict[str, Any]:
    import yaml

    document = yaml.safe_load(text)
    return document if isinstance(document, dict) else {}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "context": {"type": "str", "default": ""},
            "helm": {"type": "str", "default": "helm"},
            "name": {"type": "str", "required": True},
            "namespace": {"type": "str", "required": True},
            "chart": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "values": {"type": "str", "required": True, "no_log": True},
            "registry": {"type": "str", "required": True},
            **REGISTRY_SPEC,
            "allowed_registries": {"type": "list", "elements": "str", "default": []},
            "extra_images": {"type": "list", "elements": "str", "default": []},
            "check_images": {"type": "bool", "default": True},
            "compared_digest": {"type": "str", "default": ""},
            "postgresql_step": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if not HAS_YAML:
        module.fail_json(msg="The Python library PyYAML is missing on this host: install it.")
    params = module.params
    masker = Masker([params["registry_password"]])
    try:
        with Helm(
            params["helm"], params["kubeconfig"], params["namespace"], context=params["context"], masker=masker, timeout=120
        ) as helm:
            result = prove(module, helm)
    except KubeError as error:
        module.fail_json(msg=f"Proof of the chart: {error.sentence}")
    except (HelmError, ChartFileError) as error:
        module.fail_json(msg=f"Proof of the chart: {error}")
    sentences = result.pop("sentences", [])
    if sentences:
        count = len(sentences)
        head = f"The chart would not run as it is, {count} item{'s' if count > 1 else ''}:"
        text = "\n- ".join([head, *sentences])
        if not module.check_mode:
            module.fail_json(msg=text, **result)
        module.warn(text)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
