#!/usr/bin/python
# Copyright: Contributors to onprem.circleci_server
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: helm_release
short_description: Install, upgrade, wait for and take away the Helm release of CircleCI Server
version_added: 0.1.0
description:
  - Idempotent without the helm-diff plugin. The values, the chart (version and digest) and every object of the stored manifest are
    compared with the cluster; the data of Secrets is left out, since the chart makes some of it at random.
  - Helm does not wait; this module does, with progress in a file, and it gives up early only on what will not heal (images that
    cannot be pulled, pods that cannot be scheduled, volumes that are not bound, containers that crash again and again after what they
    need was ready). The error carries the reason and the last lines of the log.
  - Nomad servers without a leader after their first start are restarted together.
  - A release of another chart, or of another site, is refused. A revision that a killed helm left pending is settled first.
  - Values and logins reach helm in files of mode 0600 that are removed afterwards, never as arguments. Pod specs and errors are
    masked before they are shown.
author:
  - Contributors to onprem.circleci_server (@onprem-circleci)
extends_documentation_fragment:
  - onprem.circleci_server.installed
  - onprem.circleci_server.chart_registry
  - onprem.circleci_server.waiting
requirements:
  - helm 3.16 or later
  - kubernetes (Python library)
  - PyYAML
options:
  state:
    description: V(present) installs or upgrades, V(absent) takes the release away.
    type: str
    choices: [present, absent]
    default: present
  helm:
    description: The helm program, as a name or a path.
    type: str
    default: helm
  chart:
    description: The chart as a folder, an archive, or C(oci://host/path) in the private registry. Required with O(state=present).
    type: str
    default: ''
  chart_name:
    description: Name that the chart must have. A release of another chart is refused.
    type: str
    default: circleci-server
  version:
    description: Version of the chart. Required with O(state=present).
    type: str
    default: ''
  values:
    description: Values of the release, as JSON. Pipe them through C(to_json), so that they stay one secret text for Ansible.
    type: str
    default: '{}'
  secret_values:
    description: Texts that must not be shown, besides those that are recognised by the names of their variables.
    type: list
    elements: str
    default: []
  takeover:
    description: Whether a release that serves another domain may be changed.
    type: bool
    default: false
  post_renderer:
    description: Program that helm pipes the rendered objects through, for sites that patch the chart.
    type: str
    default: ''
  wait:
    description: Whether to wait until all workloads are ready.
    type: bool
    default: true
  helm_timeout:
    description: Seconds that helm may take for hooks and for applying objects.
    type: int
    default: 900
  poll_interval:
    description: Seconds between two looks at the workloads.
    type: float
    default: 3
  image_grace:
    description: Seconds an image may be impossible to pull before the wait is given up.
    type: int
    default: 120
  schedule_grace:
    description: Seconds a pod may be impossible to schedule, or a volume may be unbound, before the wait is given up.
    type: int
    default: 240
  max_restarts:
    description: Restarts of a container that are tolerated after what it needs was ready.
    type: int
    default: 10
  quorum_grace:
    description: Seconds that running Nomad servers may be without a leader before they are restarted together.
    type: int
    default: 60
  pending_age:
    description: Seconds after which a pending revision counts as left by a killed helm.
    type: int
    default: 300
  history:
    description: Revisions that Helm keeps.
    type: int
    default: 10
  delete_volumes:
    description: Whether O(state=absent) deletes the volume claims, and with them the data, of the namespace.
    type: bool
    default: false
  delete_secrets:
    description:
      - Whether O(state=absent) deletes the Secrets that outlive a release.
      - Together with O(delete_volumes) it deletes the namespace too, when the collection made it.
    type: bool
    default: false
  state_file:
    description: File on this host that remembers what the cluster itself changes on objects right after a rollout.
    type: path
attributes:
  check_mode:
    support: full
    description: The objects of the next revision are rendered with look-ups in the cluster and compared; nothing is written.
  diff_mode:
    support: full
    description: Object by object, with secrets masked.
"""

EXAMPLES = r"""
- name: Install or upgrade CircleCI Server
  onprem.circleci_server.helm_release:
    kubeconfig: /etc/kubernetes/admin.conf
    name: circleci-server
    namespace: circleci-server
    chart: oci://registry.example.com:5000/charts/circleci-server
    version: 4.10.0
    values: "{{ composition['values'] | to_json }}"
    domain: ci.example.com
    registry_username: mirror
    registry_password: "{{ circleci_registry_password }}"
    progress_file: /var/lib/onprem-circleci/progress/release.json

- name: Take the release away and keep the data
  onprem.circleci_server.helm_release:
    state: absent
    kubeconfig: /etc/kubernetes/admin.conf
    name: circleci-server
    namespace: circleci-server
"""

RETURN = r"""
action:
  description: What was done, or would be in check mode. One of C(none), C(install), C(upgrade) and C(uninstall).
  returned: always
  type: str
reasons:
  description: Why something was done.
  returned: success
  type: list
  elements: str
  sample: ["chart version 4.9.5 → 4.10.0", "values differ: nginx.replicas"]
objects:
  description: Objects that are created, changed and removed. Only known in check mode and when the cluster had drifted.
  returned: success
  type: dict
  contains:
    created:
      description: Objects that are not there.
      type: list
      elements: str
      returned: success
    changed:
      description: Objects that differ.
      type: list
      elements: str
      returned: success
    removed:
      description: Objects that the next revision no longer has.
      type: list
      elements: str
      returned: success
revision:
  description: Revision of the release, 0 when there is none.
  returned: success
  type: int
chart_digest:
  description: SHA-256 of the chart.
  returned: success
  type: str
workloads:
  description: The workloads and how ready they are.
  returned: when the module waited
  type: list
  elements: dict
nomad_restarts:
  description: How often the Nomad servers had to be restarted together.
  returned: when the module waited
  type: int
expected_failures:
  description: Workloads of O(expected_to_fail) that are not ready.
  returned: when the module waited
  type: list
  elements: str
code:
  description: The case of an error, such as C(foreign_release) or C(not_ready).
  returned: on failure
  type: str
problems:
  description: What will not heal.
  returned: on failure
  type: list
  elements: str
logs:
  description: The last lines of containers that are not well, masked.
  returned: on failure
  type: dict
removal:
  description: What O(state=absent) takes away and what it leaves.
  returned: with O(state=absent)
  type: dict
notes:
  description: What could not be compared.
  returned: success
  type: list
  elements: str
"""

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.helm.cli import Helm, HelmError
from ..module_utils.helm.kube import KubeError, KubernetesClient
from ..module_utils.helm.lifecycle import Lifecycle, Plan, ProgressFile, ReleaseError, Wanted
from ..module_utils.helm.objects import HAS_YAML, Masker
from ..module_utils.helm.waiter import Outcome, Patience
from ..module_utils.mirror_module import forget_payload
from ..module_utils.operations_module import REGISTRY_SPEC, RELEASE_SPEC, WAIT_SPEC, chart_source


def argument_spec() -> dict[str, dict[str, Any]]:
    return {
        **RELEASE_SPEC,
        **WAIT_SPEC,
        **REGISTRY_SPEC,
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "helm": {"type": "str", "default": "helm"},
        "chart": {"type": "str", "default": ""},
        "chart_name": {"type": "str", "default": "circleci-server"},
        "version": {"type": "str", "default": ""},
        "values": {"type": "str", "default": "{}", "no_log": True},
        "secret_values": {"type": "list", "elements": "str", "default": [], "no_log": True},
        "takeover": {"type": "bool", "default": False},
        "post_renderer": {"type": "str", "default": ""},
        "wait": {"type": "bool", "default": True},
        "helm_timeout": {"type": "int", "default": 900},
        "poll_interval": {"type": "float", "default": 3},
        "image_grace": {"type": "int", "default": 120},
        "schedule_grace": {"type": "int", "default": 240},
        "max_restarts": {"type": "int", "default": 10},
        "quorum_grace": {"type": "int", "default": 60},
        "pending_age": {"type": "int", "default": 300},
        "history": {"type": "int", "default": 10},
        "delete_volumes": {"type": "bool", "default": False},
        "delete_secrets": {"type": "bool", "default": False, "no_log": False},
        "state_file": {"type": "path"},
    }


def patience(params: dict[str, Any]) -> Patience:
    return Patience(
        total=params["wait_timeout"],
        image=params["image_grace"],
        config=params["image_grace"],
        unschedulable=params["schedule_grace"],
        volume=params["schedule_grace"],
        restarts=params["max_restarts"],
        quorum=params["quorum_grace"],
        poll=params["poll_interval"],
    )


def wanted(module: AnsibleModule) -> Wanted:
    params = module.params
    try:
        values = json.loads(params["values"])
    except ValueError as error:
        module.fail_json(msg=f"values is no JSON ({error}): pipe the values through to_json.", code="values")
    if not isinstance(values, dict):
        module.fail_json(msg="values is no JSON object: pipe the values through to_json.", code="values")
    source = chart_source(params["chart"], params["version"], params)
    return Wanted(
        name=params["name"],
        namespace=params["namespace"],
        source=source,
        values=values,
        chart_name=params["chart_name"],
        domain=params["domain"],
        takeover=params["takeover"],
        post_renderer=params["post_renderer"],
        state_file=params["state_file"] or "",
        pending_age=params["pending_age"],
        history=params["history"],
    )


def diff_of(plan: Plan, masker: Masker) -> dict[str, str]:
    if plan.diff:
        before, after = plan.diff.texts(masker)
        return {"before": before, "after": after}
    if not plan.changed:
        return {"before": "", "after": ""}
    return {"before": "", "after": "".join(f"{reason}\n" for reason in plan.reasons)}


def not_ready(outcome: Outcome) -> str:
    lines = ["CircleCI Server did not become ready:"]
    lines += [f"- {problem}" for problem in outcome.problems]
    for where, texts in outcome.logs.items():
        lines += [f"Last lines of {where}:", *(f"    {text}" for text in texts)]
    return "\n".join(lines)


def present(module: AnsibleModule, lifecycle: Lifecycle, masker: Masker) -> dict[str, Any]:
    plan = lifecycle.plan(check=module.check_mode)
    empty: dict[str, list[str]] = {"created": [], "changed": [], "removed": []}
    result: dict[str, Any] = {
        "changed": plan.changed,
        "action": plan.action,
        "reasons": plan.reasons,
        "notes": plan.notes,
        "objects": plan.diff.names() if plan.diff else empty,
        "revision": plan.current.revision if plan.current else 0,
        "chart_digest": plan.chart.digest if plan.chart else "",
        "diff": diff_of(plan, masker),
    }
    for note in plan.notes:
        module.warn(note)
    if module.check_mode:
        return result
    release = lifecycle.apply(plan) if plan.changed else plan.current
    if release is None:
        return result
    result["revision"] = release.revision
    if module.params["wait"]:
        outcome = lifecycle.wait(release, patience(module.params), module.params["expected_to_fail"])
        result.update(
            workloads=outcome.workloads, nomad_restarts=outcome.nomad_restarts, expected_failures=outcome.expected_failures
        )
        if outcome.nomad_restarts:
            result["changed"] = True
        if not outcome.ready:
            module.fail_json(msg=not_ready(outcome), code="not_ready", problems=outcome.problems, logs=outcome.logs, **result)
    if plan.changed:
        lifecycle.remember()
    return result


def absent(module: AnsibleModule, lifecycle: Lifecycle) -> dict[str, Any]:
    removal = lifecycle.removal(
        delete_volumes=module.params["delete_volumes"], delete_secrets=module.params["delete_secrets"]
    )
    changed = bool(removal["release"] or removal["volumes"] or removal["secrets"] or removal["namespace"])
    before = [f"release {module.params['name']}"] if removal["release"] else []
    before += [f"volume claim {name}" for name in removal["volumes"]] + [f"Secret {name}" for name in removal["secrets"]]
    before += [f"namespace {module.params['namespace']}"] if removal["namespace"] else []
    if changed and not module.check_mode:
        lifecycle.remove(removal)
    return {
        "changed": changed,
        "action": "uninstall" if changed else "none",
        "removal": removal,
        "diff": {"before": "".join(f"{line}\n" for line in before), "after": ""},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        required_if=[("state", "present", ["chart", "version"])],
        supports_check_mode=True,
    )
    forget_payload(module)
    if not HAS_YAML:
        module.fail_json(msg="The Python library PyYAML is missing on this host: install it.", code="library")
    params = module.params
    masker = Masker([*params["secret_values"], params["registry_password"]])
    progress = ProgressFile("" if module.check_mode else params["progress_file"] or "")
    try:
        api = KubernetesClient(params["kubeconfig"], params["context"])
        with Helm(
            params["helm"],
            params["kubeconfig"],
            params["namespace"],
            context=params["context"],
            masker=masker,
            timeout=params["helm_timeout"],
        ) as helm:
            lifecycle = Lifecycle(api, helm, wanted(module), masker=masker, progress=progress)
            result = present(module, lifecycle, masker) if params["state"] == "present" else absent(module, lifecycle)
    except KubeError as error:
        module.fail_json(msg=f"Release {params['name']}: {masker.text(error.sentence)}", code="kubernetes")
    except HelmError as error:
        module.fail_json(msg=f"Release {params['name']}: {error}", code=error.kind)
    except ReleaseError as error:
        module.fail_json(msg=f"Release {params['name']}: {masker.text(str(error))}", code=error.code)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
